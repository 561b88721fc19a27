"""The first and the last recovery point of many instances at once, for lists of instances."""

from collections.abc import Collection

from sqlalchemy import func, select

from strongroom.controlplane.state.database import Tx
from strongroom.controlplane.state.points import KEPT
from strongroom.controlplane.state.schema import points


def point_spans(tx: Tx, instances: Collection[str]) -> dict[str, tuple[str, str]]:
    """Return, by instance id in lower case, the times (stamps) of its oldest and its newest kept point.

    Instances without points are left out. Ask for at most some hundred at once.
    """
    wanted = [instance.lower() for instance in instances]
    statement = (
        select(points.c.instance, func.min(points.c.time), func.max(points.c.time))
        .where(points.c.instance.in_(wanted), points.c.state == KEPT)
        .group_by(points.c.instance)
    )
    return {instance: (oldest, newest) for instance, oldest, newest in tx.connection.execute(statement)}
