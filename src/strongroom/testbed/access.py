"""Speaks to the test cluster's API server and etcd over one TLS connection: just enough to set a cluster up.

It stands on the standard library alone: the test cluster must not lean on the code that is tested on it.
"""

import http.client
import json
import ssl
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from strongroom.testbed.errors import ServerRefused, ServerUnreachable

TIMEOUT_SECONDS = 30.0  # of one request; every server is on this machine
PROBE_SECONDS = 2.0  # of one that is repeated: who listens there may be another program, which never answers

CONFLICT = 409


class Connection:
    """Requests to one server, one after the other. A context manager."""

    def __init__(
        self, port: int, *, authority: Path, certificate: Path, key: Path, seconds: float = TIMEOUT_SECONDS
    ) -> None:
        context = ssl.create_default_context(cafile=str(authority))
        context.load_cert_chain(certificate, key)
        self._http = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=seconds)

    def request(
        self, method: str, path: str, body: bytes | None = None, content_type: str = "application/json"
    ) -> bytes:
        """Return the answer's body. Raises `ServerRefused` for any status but 2xx, `ServerUnreachable` for none."""
        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = content_type
        try:
            self._http.request(method, path, body=body, headers=headers)
            answer = self._http.getresponse()
            data = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self._http.close()  # the next request connects anew
            raise ServerUnreachable(f"{method} {path}: {error}", hint="Is the test cluster running?") from error
        if not 200 <= answer.status < 300:
            raise ServerRefused(f"{method} {path}", answer.status, data.decode(errors="replace").strip())
        return data

    def get(self, path: str) -> Any:
        """Return the JSON document at *path*."""
        return json.loads(self.request("GET", path))

    def post(self, path: str, document: object) -> Any:
        """Post a JSON document and return the one that is answered."""
        return json.loads(self.request("POST", path, json.dumps(document).encode()))

    def ensure(self, path: str, document: object) -> None:
        """Create an object, unless one of that name is there."""
        self.ensure_raw(path, json.dumps(document).encode(), "application/json")

    def ensure_raw(self, path: str, body: bytes, content_type: str) -> None:
        """As `ensure`, of an object that is text already."""
        try:
            self.request("POST", path, body, content_type)
        except ServerRefused as error:
            if error.status != CONFLICT:
                raise

    def answers(self, path: str) -> bool:
        """Tell whether *path* is answered with success now."""
        try:
            self.request("GET", path)
        except (ServerRefused, ServerUnreachable):
            return False
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()
