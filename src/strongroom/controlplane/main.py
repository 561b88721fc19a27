"""Assembles the control plane in one process: API, workers, scheduler, and a hosted extension for each cluster.

The order of the start is that of who needs whom; the stop is its reverse. Whatever is stopped in mid-work, by SIGTERM
or by SIGKILL, goes on at the next start.
"""

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, TypeVar

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from strongroom.controlplane.arm.answers import ANSWERS
from strongroom.controlplane.arm.app import application
from strongroom.controlplane.arm.authorizer import ASSIGNMENTS, Authorizer, read_access
from strongroom.controlplane.arm.metadata.endpoints import metadata_routes
from strongroom.controlplane.arm.openapi import document
from strongroom.controlplane.arm.plane import Plane
from strongroom.controlplane.arm.resources.subscriptions import subscription
from strongroom.controlplane.arm.routing import Router
from strongroom.controlplane.arm.table import OPERATIONS
from strongroom.controlplane.catalog.recovery_kit import kit_is_taken, recovery_recipient
from strongroom.controlplane.catalog.sealed import StateSecrets
from strongroom.controlplane.clusters.pool import ClusterPool
from strongroom.controlplane.edge import HEAD_BYTES, KEEP_ALIVE_SECONDS, Edge, EdgeLimits, EdgeListener
from strongroom.controlplane.home import Home
from strongroom.controlplane.identity.authority import AuthorityRoutes
from strongroom.controlplane.identity.keys import SigningKeys
from strongroom.controlplane.identity.principals import add_secret, new_service_principal
from strongroom.controlplane.identity.rbac import RoleAssignment
from strongroom.controlplane.identity.roles import OWNER
from strongroom.controlplane.identity.stored import DatabaseAudit, DatabasePrincipals, DatabaseSecrets, TxPrincipals
from strongroom.controlplane.identity.tokens import Audiences, TokenAuthority
from strongroom.controlplane.scheduler.housekeeping import Housekeeper
from strongroom.controlplane.scheduler.ticker import Ticker
from strongroom.controlplane.state.database import Database, Tx
from strongroom.controlplane.state.private_file import write_private
from strongroom.controlplane.state.resources import Resource
from strongroom.controlplane.state.times import now
from strongroom.controlplane.tls import (
    DEFAULT_NAMES,
    TlsFiles,
    TlsMaterialUnusable,
    ensure_tls,
    load_into,
    server_context,
)
from strongroom.controlplane.workflows.backing_up import BackingUp
from strongroom.controlplane.workflows.cancelling import Cancelling
from strongroom.controlplane.workflows.cluster_work import ClusterWork
from strongroom.controlplane.workflows.containers import Containers
from strongroom.controlplane.workflows.dbos_engine import DbosEngine
from strongroom.controlplane.workflows.dispatcher import Dispatcher
from strongroom.controlplane.workflows.engine import Body, Engine
from strongroom.controlplane.workflows.expiring import Expiring
from strongroom.controlplane.workflows.locating import host_extensions
from strongroom.controlplane.workflows.patience import patient
from strongroom.controlplane.workflows.protecting import Protecting
from strongroom.controlplane.workflows.restore_work import Restoring
from strongroom.controlplane.workflows.services import Services
from strongroom.controlplane.workflows.syncing import Syncing
from strongroom.errors import UsageError
from strongroom.protection.addresses import refused_address
from strongroom.protection.job import Limits

log = logging.getLogger(__name__)

LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")
ADMINISTRATOR_SECRET: Final = "administrator"  # noqa: S105 - the name under which it is kept sealed
ADMINISTRATOR_ROLE: Final = "00000000-0000-0000-0000-000000000001"  # the name of its role assignment at the root
STORAGE_AUDIENCE: Final = "https://storage.azure.com"  # for stores that take our tokens: azure-clients.md, section D
STOP_SECONDS: Final = 2  # for answers that are under way; clients repeat what is cut
CERTIFICATE_CHECK: Final = timedelta(days=1)  # a renewal is due 30 days before the end: 30 chances to make it

T = TypeVar("T")


@dataclass(frozen=True)
class ServeOptions:
    """How to serve. *database* "" is SQLite in the home; *names* are further names of the server's certificate.

    Below *storage_roots*, folders of this machine may be attached as storage accounts.
    """

    home: Path
    host: str = "127.0.0.1"
    port: int = 8443
    database: str = ""
    ready_file: Path | None = None
    names: tuple[str, ...] = ()
    storage_roots: tuple[Path, ...] = ()
    limits: Limits = field(default_factory=Limits)
    edge: EdgeLimits = field(default_factory=EdgeLimits)
    clock: Callable[[], datetime] = now


async def serve(options: ServeOptions) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises `HomeInUse`, `HomeError`, `UsageError` for an address that cannot be listened on or a storage root that is no
    folder, errors of the database.
    """
    for root in options.storage_roots:
        if not (root.is_absolute() and root.is_dir()):
            raise UsageError(
                f"the storage root {root} is not an absolute path of a folder", hint="Make it, or name it with /"
            )
    # SQLite makes its files with the process's mask: nothing of the home is for others.
    os.umask(0o077)
    home = Home.open(options.home)
    with home.locked():
        listener = _listen(options.host, options.port)
        try:
            async with assembled(options, home, listener) as server:
                await server.run()
        finally:
            listener.close()


class Server:
    """An assembled control plane, ready to serve on its socket."""

    def __init__(
        self,
        app: Starlette,
        listener: EdgeListener,
        context: ssl.SSLContext,
        announce: Callable[[], None],
        limits: EdgeLimits,
    ) -> None:
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            timeout_graceful_shutdown=STOP_SECONDS,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            # Of uvicorn's two parsers the one that limits a request's head.
            http="h11",
            h11_max_incomplete_event_size=HEAD_BYTES,
        )
        config.load()
        config.ssl = context
        self._edge = listener.edge = Edge(limits)
        config.loaded_app = self._edge.around(config.loaded_app)
        self._server = _Uvicorn(config)
        self._listener = listener
        self._announce = announce

    async def run(self) -> None:
        """Serve until a signal asks for the end; announce when it has begun."""
        loop = asyncio.get_running_loop()
        # They stay while the parts behind stop: a second Ctrl-C must not tear them down in the middle.
        for asked in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(asked, self._server.handle_exit, asked, None)
        async with self._edge.watched():
            serving = asyncio.create_task(self._server.serve(sockets=[self._listener]))
            while not self._server.started and not serving.done():  # noqa: ASYNC110 - uvicorn tells it no other way
                await asyncio.sleep(0.01)
            if self._server.started:
                await asyncio.to_thread(self._announce)
            await serving


class _Uvicorn(uvicorn.Server):
    """uvicorn raises a signal anew once it has stopped, which would end the process before all else has."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.asynccontextmanager
async def assembled(options: ServeOptions, home: Home, listener: EdgeListener) -> AsyncIterator[Server]:
    """Build everything, run workers and scheduler while the block runs, and stop them in the reverse order."""
    loop = asyncio.get_running_loop()
    loopback = options.host in LOOPBACK
    port = listener.getsockname()[1]
    names = tuple(dict.fromkeys((*DEFAULT_NAMES, *home.config.names, *options.names, *_named(options.host))))
    tls = ensure_tls(home.tls, names, now=options.clock())
    endpoints = _endpoints(options, home, port)
    endpoint = endpoints[0]
    db = await asyncio.to_thread(Database.open, options.database or home.database_url, home.secret_key)
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(db.close)
        secret = await asyncio.to_thread(first_start, db, home, options.clock())
        await asyncio.to_thread(recovery_recipient, home.folder)
        tokens = TokenAuthority(
            SigningKeys(DatabaseSecrets(db)),
            tenant_id=home.config.tenant_id,
            audiences=Audiences.of(endpoints, others=[STORAGE_AUDIENCE]),
            authority=f"{endpoint}/{home.config.tenant_id}",
        )
        authority = AuthorityRoutes(
            tokens=tokens,
            principals=DatabasePrincipals(db),
            audit=DatabaseAudit(db),
            endpoints=endpoints,
            now=options.clock,
        )
        stack.callback(authority.close)

        def refuse(address: str) -> str:
            return refused_address(address, allow_loopback=loopback)

        pool = ClusterPool(db, home.clusters)
        stack.push_async_callback(pool.close)
        containers = Containers(home.folder, StateSecrets(db), refuse, options.storage_roots)
        services = Services(
            db=db,
            pool=pool,
            containers=containers,
            limits=options.limits,
            access=lambda tx: read_access(tx, home.config.tenant_id),
            clock=options.clock,
        )
        engine: Engine = DbosEngine(options.database or f"sqlite:///{home.workflows_file}")
        for kind, body in bodies(services, engine).items():
            engine.register(kind, body)
        # Before any work goes on: a hosted extension is told the server's own folders before it looks at its cluster.
        await host_extensions(services)
        await engine.launch()
        stack.push_async_callback(engine.close)
        dispatcher = Dispatcher(services, engine)
        await dispatcher.start()
        stack.push_async_callback(dispatcher.stop)
        ticker, housekeeper = Ticker(services, dispatcher.poke), Housekeeper(services, dispatcher.poke)
        await ticker.start()
        stack.push_async_callback(ticker.stop)
        await housekeeper.start()
        stack.push_async_callback(housekeeper.stop)

        def run(work: Coroutine[Any, Any, T]) -> T:
            return asyncio.run_coroutine_threadsafe(work, loop).result()

        plane = Plane(
            db=db,
            endpoint=endpoint,
            tenant=home.config.tenant_id,
            tokens=tokens,
            authorizer=Authorizer(db, home.config.tenant_id),
            pool=pool,
            containers=containers,
            poke=dispatcher.poke,
            run=run,
            limits=options.limits,
            loopback_only=loopback,
            kit_taken=lambda: kit_is_taken(home.folder),
        )
        public = [*authority.routes(), *metadata_routes(endpoints, home.config.tenant_id), api_document(endpoint)]
        app = application(plane, Router(OPERATIONS), public)
        if not kit_is_taken(home.folder):
            log.warning("the recovery kit has not been taken: strongroom recovery-kit FILE")

        def announce() -> None:
            if options.ready_file is not None:
                write_ready_file(options.ready_file, endpoint, tls, home, secret)
            log.info("serving endpoint=%s home=%s", endpoint, home.folder)

        context = server_context(tls)
        renewing = asyncio.create_task(renew_certificate(context, home.tls, names, options.clock))
        stack.callback(renewing.cancel)
        yield Server(app, listener, context, announce, options.edge)


def api_document(endpoint: str) -> Route:
    """Return the route of the OpenAPI document, which is open to everybody: it says nothing of what is stored."""
    described = document(OPERATIONS, ANSWERS, version=version("strongroom"), endpoint=endpoint)
    content = json.dumps(described, ensure_ascii=False, separators=(",", ":")).encode()

    async def answer(_: Request) -> Response:
        return Response(content, media_type="application/json")

    return Route("/openapi.json", answer)


async def renew_certificate(
    context: ssl.SSLContext,
    folder: Path,
    names: tuple[str, ...],
    clock: Callable[[], datetime],
    every: timedelta = CERTIFICATE_CHECK,
) -> None:
    """Renew the server's certificate in *folder* when that is due, and let *context* serve with it, until cancelled."""
    while True:
        await asyncio.sleep(every.total_seconds())
        try:
            files = await asyncio.to_thread(lambda: ensure_tls(folder, names, now=clock()))
            load_into(context, files)
        except (TlsMaterialUnusable, OSError) as error:
            # What is served with lies in memory and lasts: the next turn may do better.
            log.error("certificate not renewed: %s", error)


def bodies(services: Services, engine: Engine) -> dict[str, Body]:
    """Return what *engine* runs, by kind of work."""
    protecting, backing_up, restoring = Protecting(services, engine), BackingUp(services), Restoring(services)
    found: dict[str, Body] = {
        "configure": protecting.configure,
        "validate-backup": protecting.validate,
        "delete-instance": protecting.delete,
        "backup": backing_up.body,
        "restore": restoring.body,
        "validate-restore": restoring.validate,
        **ClusterWork(services).bodies(),
        **Expiring(services).bodies(),
        **Syncing(services).bodies(),
        **Cancelling(services, engine).bodies(),
    }
    return {kind: patient(body) for kind, body in found.items()}


def first_start(db: Database, home: Home, at: datetime) -> str:
    """Make the tenant's subscription and its administrator, unless they are there; return the administrator's secret.

    The secret is kept sealed, because every start writes it into the ready file.
    """
    with db.write() as tx:
        kept = tx.secrets.get(ADMINISTRATOR_SECRET)
        if kept is not None:
            return kept.decode()
        record = new_service_principal("strongroom administrator", now=at, app_id=home.config.administrator)
        record, secret = add_secret(record, now=at, lifetime=None)
        TxPrincipals(tx).put(record)
        tx.secrets.put(ADMINISTRATOR_SECRET, secret.encode())
        _subscribe(tx, home, record.object_id)
        return secret


def _subscribe(tx: Tx, home: Home, administrator: str) -> None:
    tx.resources.put(subscription(home.config.subscription_id, home.config.tenant_id, "Strongroom"))
    assignment = RoleAssignment(ADMINISTRATOR_ROLE, "/", OWNER.id, administrator)
    arm = assignment.as_arm()
    tx.resources.put(Resource(arm["id"], ASSIGNMENTS, arm, parent="/"))


def write_ready_file(path: Path, endpoint: str, tls: TlsFiles, home: Home, secret: str) -> None:
    """Write what a client needs: 0600, whole, only once the server serves."""
    content = {
        "endpoint": endpoint,
        "caFile": str(tls.ca_certificate),
        "tenantId": home.config.tenant_id,
        "subscriptionId": home.config.subscription_id,
        "clientId": home.config.administrator,
        "clientSecret": secret,
        "version": version("strongroom"),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_private(path, json.dumps(content, indent=2).encode() + b"\n")


def _listen(host: str, port: int) -> EdgeListener:
    """Bind before anything else starts: the port may be chosen by the system, and is part of what tokens are for."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        # asyncio sends small packets at once only where the protocol is named: else answers wait 40 ms for an ACK.
        listener = EdgeListener(found[0], socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(found[4])
    except OSError as error:
        raise UsageError(
            f"{host}:{port} cannot be listened on: {error.strerror or error}",
            hint="Name another --host or --port; another server may be running there",
        ) from error
    listener.set_inheritable(False)
    return listener


def _named(host: str) -> tuple[str, ...]:
    return () if host in ("", "0.0.0.0", "::") else (host,)  # noqa: S104 - compared, not bound


def _endpoints(options: ServeOptions, home: Home, port: int) -> list[str]:
    """Return the URLs under which the server is reached, the one it calls itself first."""
    names = (*options.names, *_named(options.host), *home.config.names, *DEFAULT_NAMES)
    return [f"https://{f'[{name}]' if ':' in name else name}:{port}" for name in dict.fromkeys(names)]
