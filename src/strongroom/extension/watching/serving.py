"""Shows the monitor of a watching extension over HTTP: `/metrics` to Prometheus, `/healthz` and `/readyz` to a kubelet.

There is nothing secret in it, and nothing can be changed by it: numbers, names of storage locations, a version.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, NamedTuple

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from strongroom.errors import UsageError
from strongroom.extension.watching.monitor import Monitor

_HIGHEST_PORT: Final = 65535


class Listen(NamedTuple):
    """Where to listen; *host* None is all addresses, *port* 0 a free one."""

    host: str | None
    port: int


def parse_listen(text: str) -> Listen:
    """Return what `[HOST]:PORT` says. Raises `UsageError`."""
    host, colon, port = text.rpartition(":")
    if not colon or not (port.isascii() and port.isdigit()) or int(port) > _HIGHEST_PORT:
        raise UsageError(f"{text!r} is no address to listen on", hint="Write HOST:PORT, or :PORT for all addresses")
    return Listen(host.removeprefix("[").removesuffix("]") or None, int(port))


@asynccontextmanager
async def serving(monitor: Monitor, listen: Listen) -> AsyncIterator[int]:
    """Serve until the block ends; yields the port. Raises `UsageError` where the address cannot be had."""
    application = web.Application()
    application.add_routes(_routes(monitor))
    runner = web.AppRunner(application, access_log=None, handle_signals=False)
    await runner.setup()
    try:
        site = web.TCPSite(runner, listen.host, listen.port)
        try:
            await site.start()
        except OSError as error:
            raise UsageError(f"cannot listen on {listen.host or ''}:{listen.port}: {error.strerror}") from error
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


def _routes(monitor: Monitor) -> list[web.RouteDef]:
    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=monitor.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def healthz(_: web.Request) -> web.Response:
        # That it answers is all: a restart helps against a loop that stands still, not against an absent API server.
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        missing = monitor.missing()
        return web.Response(text="\n".join(missing or ["ok"]) + "\n", status=503 if missing else 200)

    return [web.get("/metrics", metrics), web.get("/healthz", healthz), web.get("/readyz", readyz)]
