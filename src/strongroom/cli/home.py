"""Opens a server's home for commands that work on it directly, beside a running server or without one."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from strongroom.controlplane.catalog.sealed import StateSecrets
from strongroom.controlplane.catalog.stores import open_container
from strongroom.controlplane.home import CONFIG, Home
from strongroom.controlplane.home_copy import STATE
from strongroom.controlplane.state.database import Database, Tx
from strongroom.controlplane.workflows.containers import Containers, Place, read_account
from strongroom.dataplane.objectstore.port import ObjectStore
from strongroom.errors import UsageError
from strongroom.protection.addresses import refused_address

CONTAINERS = "Microsoft.Storage/storageAccounts/blobServices/containers"

_DATABASE_HELP = (
    "The server's database, if it is not SQLite in the home. With a password give it in the environment, as "
    "STRONGROOM_DATABASE."
)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class HomeOptions:
    """Which home."""

    home: Annotated[Path, Parameter(metavar="DIR")]
    """The folder that `strongroom serve` was given. The server may be running."""
    database: Annotated[
        str, Parameter(env_var="STRONGROOM_DATABASE", metavar="URL", show_default=False, help=_DATABASE_HELP)
    ] = ""


@dataclass(frozen=True)
class OpenedHome:
    """A home with its database. *containers* opens what is attached as the server does; loopback is open."""

    home: Home
    db: Database
    containers: Containers

    @property
    def secrets(self) -> StateSecrets:
        return StateSecrets(self.db)

    def places(self) -> list[Place]:
        """Return all containers that the server knows."""
        with self.db.read() as tx:
            return [place for c in tx.resources.of_type(CONTAINERS) if (place := _place(tx, c.id)) is not None]

    async def open(self, place: Place) -> ObjectStore:
        """Open a container; the caller closes it."""
        return await open_container(place.account, place.container, storage=self.home.storage, refuse_address=_refuse)


@contextmanager
def opened_home(options: HomeOptions, *, create: bool = False) -> Iterator[OpenedHome]:
    """Open a home while the block runs; with *create* one is made where there is none.

    Raises `UsageError` for a folder that is none or is another user's, `HomeError`, errors of the database.
    """
    require_own(options.home, create=create)
    if not options.database and (options.home / CONFIG).is_file() and not (options.home / STATE).is_file():
        # An empty database in its place would give a kit that opens nothing.
        raise UsageError(
            f"the home {options.home} has no {STATE}: its server uses another database",
            hint="Set STRONGROOM_DATABASE as for the server; where serve never started, start it once",
        )
    # SQLite makes its files with the process's mask: nothing of the home is for others.
    os.umask(0o077)
    home = Home.open(options.home)
    db = Database.open(options.database or home.database_url, home.secret_key)
    try:
        # Whoever writes into the home is the machine's administrator: folders are theirs to name.
        yield OpenedHome(home, db, Containers(home.folder, StateSecrets(db), _refuse, None))
    finally:
        db.close()


def require_own(folder: Path, *, create: bool = False) -> None:
    """Raise `UsageError` unless *folder* is a home of this user's: what another made there the server cannot read."""
    if not (folder / CONFIG).is_file():
        if not create:
            raise UsageError(f"{folder} is not a home of strongroom serve", hint="Name the folder that serve was given")
        return
    if folder.stat().st_uid != os.geteuid():
        raise UsageError(f"the home {folder} belongs to another user", hint="Run this as the user that serve runs as")


def _place(tx: Tx, id: str) -> Place | None:
    account = tx.resources.get(id.rpartition("/blobServices/")[0])
    return None if account is None else Place(read_account(tx, account), account.id, id.rpartition("/")[2])


def _refuse(address: str) -> str:
    return refused_address(address, allow_loopback=True)
