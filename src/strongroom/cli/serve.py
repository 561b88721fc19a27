"""The command `strongroom serve`: the control plane, until SIGTERM or Ctrl-C."""

import asyncio
import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from strongroom.cli.home_copy import backup, restore
from strongroom.errors import UsageError

try:
    from strongroom.controlplane.main import ServeOptions
    from strongroom.controlplane.main import serve as serve_until_stopped
    from strongroom.protection.job import Limits
except ModuleNotFoundError as missing:
    if missing.name is None or missing.name.startswith("strongroom"):
        raise
    raise UsageError(
        f"the control plane's libraries are not installed: there is no {missing.name}",
        hint="pip install 'strongroom[controlplane]'",
    ) from missing

app = App(name="serve", help="The control plane: Azure's API for backup, durable jobs, schedules and retention.")
app.command(backup)
app.command(restore)

DATABASE_VARIABLE = "STRONGROOM_DATABASE"
_DEFAULTS = Limits()


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class LimitOptions:
    """How many there may be. The defaults are Azure's."""

    max_policies_per_vault: int = _DEFAULTS.policies_per_vault
    """Backup policies of a vault."""
    max_instances_per_vault: int = _DEFAULTS.instances_per_vault
    """Backup instances of a vault."""
    max_on_demand_backups_per_day: int = _DEFAULTS.on_demand_backups_per_day
    """On-demand backups of an instance in a day (UTC)."""
    max_restores_per_day: int = _DEFAULTS.restores_per_day
    """Restores of an instance in a day (UTC)."""
    max_namespaces_per_instance: int = _DEFAULTS.namespaces_per_instance
    """Namespaces that an instance may name."""

    def limits(self) -> Limits:
        """Return the options as the domain's value. Raises `UsageError` for one below 1."""
        return Limits(
            policies_per_vault=self.max_policies_per_vault,
            instances_per_vault=self.max_instances_per_vault,
            on_demand_backups_per_day=self.max_on_demand_backups_per_day,
            restores_per_day=self.max_restores_per_day,
            namespaces_per_instance=self.max_namespaces_per_instance,
        )


@app.default
def serve(
    *,
    home: Path,
    host: str = "127.0.0.1",
    port: int = 8443,
    database: Annotated[str, Parameter(env_var=DATABASE_VARIABLE, metavar="URL", show_default=False)] = "",
    ready_file: Annotated[Path | None, Parameter(metavar="FILE")] = None,
    name: Annotated[tuple[str, ...], Parameter(negative="", show_default=False)] = (),
    storage_root: Annotated[tuple[Path, ...], Parameter(negative="", show_default=False)] = (),
    limits: LimitOptions = LimitOptions(),
) -> None:
    """Serve the API, and run jobs and schedules, until SIGTERM or Ctrl-C. Jobs under way go on at the next start.

    Events are logged on stderr, a line each.

    Parameters
    ----------
    home
        The folder that keeps everything; made at the first start. One process at a time uses it.
    host
        The address to listen on. Only on loopback are clusters, stores and folders of this machine accepted.
    port
        0 lets the system choose one; the ready file says which.
    database
        postgresql://USER@HOST/DATABASE in the place of SQLite in the home. With a password give it in the environment,
        as STRONGROOM_DATABASE: every user of the machine can read a command line.
    ready_file
        Written (0600) once the server serves: its address, its CA, and the administrator's secret.
    name
        A further DNS name or IP address under which clients reach it, for the server's certificate. Repeatable.
    storage_root
        A folder in which storage accounts may be attached (file://), such as a mounted file server. Repeatable. Without
        one, accounts on this machine are the local ones in the home.
    """
    log_events()
    # Children (hosted extensions) inherit the environment: a password for the database is nothing for them.
    os.environ.pop(DATABASE_VARIABLE, None)
    asyncio.run(
        serve_until_stopped(
            ServeOptions(
                home=home,
                host=host,
                port=port,
                database=database,
                ready_file=ready_file,
                names=name,
                storage_roots=storage_root,
                limits=limits.limits(),
            )
        )
    )


def log_events() -> None:
    """Let our own events through, with their time in UTC; of libraries only errors, as for every command."""
    formatter = logging.Formatter("%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s %(message)s", "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    for handler in logging.getLogger().handlers:
        handler.setFormatter(formatter)
    ours = logging.getLogger("strongroom")
    if ours.getEffectiveLevel() > logging.INFO:
        ours.setLevel(logging.INFO)
