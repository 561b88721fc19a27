"""Says what instances and policies a container had, from what stands in its recovery points. Pure but for the reading.

A lost home is rebuilt from this: the ARM layer turns it into resources. What a point says of its instance was written
by the control plane through an extension, so a cluster that was broken into may have written something else; which
cluster each point was taken from is therefore part of the answer.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from strongroom.controlplane.catalog.points import PointFacts, list_points
from strongroom.dataplane.repository.repository import Repository

_VAULT_SEGMENTS = 9  # /subscriptions/S/resourceGroups/G/providers/Microsoft.DataProtection/backupVaults/V, split by "/"


@dataclass(frozen=True)
class RebuiltInstance:
    """A backup instance as its newest point describes it.

    *id*, *vault*, *policy* and *data_source* are ARM ids ("" where no point says). *config* is the JSON text of the
    instance's document, "" if no point has it. *clusters* are the uids of all clusters that its points were taken from:
    more than one means that the instance moved, or that somebody lied. *points* are oldest first.
    """

    id: str
    vault: str
    policy: str
    data_source: str
    friendly_name: str
    config: str
    clusters: tuple[str, ...]
    points: tuple[PointFacts, ...]


@dataclass(frozen=True)
class Rebuilt:
    """What a container holds. *strangers* are points that name no instance: made by the plain command line.

    *vaults* and *policies* are the ARM ids that instances name. *unreadable* maps point ids to why.
    """

    instances: tuple[RebuiltInstance, ...]
    vaults: tuple[str, ...]
    policies: tuple[str, ...]
    strangers: tuple[PointFacts, ...]
    unreadable: Mapping[str, str]


async def read_instances(repository: Repository) -> Rebuilt:
    """Read every recovery point of a repository and return what they say. Raises as `list_points` does."""
    listing = await list_points(repository)
    return rebuild(listing.points, listing.unreadable)


def rebuild(points: Iterable[PointFacts], unreadable: Mapping[str, str] | None = None) -> Rebuilt:
    """Return what *points* say of instances. Case makes no difference in ids; the newest point's casing is kept."""
    of_instance: dict[str, list[PointFacts]] = defaultdict(list)
    strangers = []
    for point in sorted(points, key=lambda p: (p.time, p.id)):
        instance = point.caller.get("instance", "")
        if instance:
            of_instance[instance.lower()].append(point)
        else:
            strangers.append(point)
    instances = tuple(_instance(of_instance[key]) for key in sorted(of_instance))
    return Rebuilt(
        instances=instances,
        vaults=_distinct(i.vault for i in instances),
        policies=_distinct(i.policy for i in instances),
        strangers=tuple(strangers),
        unreadable=dict(unreadable or {}),
    )


def _instance(points: list[PointFacts]) -> RebuiltInstance:
    def newest(name: str) -> str:
        return next((said for p in reversed(points) if (said := p.caller.get(name, ""))), "")

    id = newest("instance")
    return RebuiltInstance(
        id=id,
        vault="/".join(id.split("/")[:_VAULT_SEGMENTS]),
        policy=newest("policy"),
        data_source=newest("dataSource"),
        friendly_name=newest("friendlyName"),
        config=newest("config"),
        clusters=tuple(dict.fromkeys(p.cluster for p in points)),
        points=tuple(points),
    )


def _distinct(ids: Iterable[str]) -> tuple[str, ...]:
    found: dict[str, str] = {}
    for each in ids:
        if each:
            found.setdefault(each.lower(), each)
    return tuple(found[key] for key in sorted(found))
