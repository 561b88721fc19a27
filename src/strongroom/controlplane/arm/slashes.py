"""Takes doubled slashes, and one at the end, out of a request's path before anything reads it.

Azure's clients write both: `az cloud register` puts `/metadata/endpoints` after an endpoint that may end in a slash,
and the generic operations of Microsoft.Resources leave an empty segment where a resource has no parent.
"""

import re
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

_SEVERAL: Final = re.compile(r"/{2,}")
_SEVERAL_RAW: Final = re.compile(rb"/{2,}")


class SingleSlashes:
    """An ASGI application that hands on to *app* with plain paths. Percent-encoded slashes stay what they are."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope = {**scope, "path": _SEVERAL.sub("/", scope["path"]).rstrip("/") or "/"}
            if raw := scope.get("raw_path"):
                scope["raw_path"] = _SEVERAL_RAW.sub(b"/", raw).rstrip(b"/") or b"/"
        await self._app(scope, receive, send)
