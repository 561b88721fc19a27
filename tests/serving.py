"""Runs a control plane of a test's own, as a process: real HTTPS on a port that the system chooses."""

import contextlib
import json
import signal
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from azure.identity import ClientSecretCredential
from azure.mgmt.authorization import AuthorizationManagementClient

START_SECONDS = 60  # the first start makes keys and certificates; the machine may be busy with other tests
STOP_SECONDS = 30

_SERVE = """
import asyncio, logging, sys
from dataclasses import replace
from pathlib import Path
from strongroom.controlplane.main import ServeOptions, serve
logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")
home, ready, database, port, *roots = sys.argv[1:]
options = ServeOptions(home=Path(home), port=int(port), ready_file=Path(ready), database=database)
asyncio.run(serve(replace(options, storage_roots=tuple(map(Path, roots)))))
"""


@dataclass
class RunningServer:
    """A control plane that serves: *ready* is what its ready file says."""

    home: Path
    ready: dict[str, str]
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def url(self) -> str:
        return self.ready["endpoint"]

    @property
    def subscription(self) -> str:
        return self.ready["subscriptionId"]

    @cached_property
    def credential(self) -> ClientSecretCredential:
        """The administrator's."""
        return self.sign_in(self.ready["clientId"], self.ready["clientSecret"])

    def sign_in(self, client_id: str, secret: str) -> ClientSecretCredential:
        """Return a credential that signs in at this server."""
        return ClientSecretCredential(
            self.ready["tenantId"],
            client_id,
            secret,
            authority=self.url,
            disable_instance_discovery=True,
            connection_verify=self.ready["caFile"],
        )

    def client(self, kind: Any, *, subscription: str | None = None, credential: Any = None, **options: Any) -> Any:
        """Return an official client of class *kind*; *subscription* "" is for clients that take none."""
        subscription = self.subscription if subscription is None else subscription
        return kind(
            credential or self.credential,
            *([subscription] if subscription else []),
            base_url=self.url,
            credential_scopes=[f"{self.url}/.default"],
            connection_verify=self.ready["caFile"],
            **{"polling_interval": 0.2, **options},
        )

    def token(self, credential: Any = None) -> str:
        """Return a bearer token for requests that no client makes."""
        return str((credential or self.credential).get_token(f"{self.url}/.default").token)

    def request(self, method: str, path: str, body: Any = None, *, credential: Any = None) -> tuple[int, Any]:
        """Send a request that no client makes; return its status and document ("" for an empty one)."""
        headers = {"Authorization": f"Bearer {self.token(credential)}", "Content-Type": "application/json"}
        content = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}{path}", content, headers, method=method)
        trust = ssl.create_default_context(cafile=self.ready["caFile"])
        try:
            with urllib.request.urlopen(request, context=trust) as answer:
                status, text = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            status, text = error.code, error.read()
        return status, json.loads(text) if text else ""

    def caller(self, role: str, *scopes: str) -> tuple[dict[str, str], ClientSecretCredential]:
        """Make a caller who has *role* (a built-in role's GUID) at *scopes*, as `az ad sp create-for-rbac` does.

        Returns its application (`id` is the principal's, too) and what it signs in with.
        """
        application = self._made("/v1.0/applications", {"displayName": f"caller-{uuid.uuid4().hex[:8]}"})
        self._made("/v1.0/servicePrincipals", {"appId": application["appId"]})
        secret = self._made(f"/v1.0/applications/{application['id']}/addPassword", {})
        definition = f"/providers/Microsoft.Authorization/roleDefinitions/{role}"
        assignments = self.client(AuthorizationManagementClient).role_assignments
        for scope in scopes:
            body = {"roleDefinitionId": definition, "principalId": application["id"]}
            assignments.create(scope, str(uuid.uuid4()), {"properties": body})
        return application, self.sign_in(application["appId"], secret["secretText"])

    def _made(self, path: str, body: dict[str, str]) -> dict[str, str]:
        status, answer = self.request("POST", path, body)
        if status not in (200, 201):
            raise RuntimeError(f"{path} answered {status}: {answer}")
        return dict(answer)


@contextlib.contextmanager
def running_server(
    folder: Path, *, database: str = "", port: int = 0, storage_roots: tuple[Path, ...] = ()
) -> Iterator[RunningServer]:
    """Serve from `folder/home` while the block runs; started again on the same folder, it goes on."""
    folder.mkdir(parents=True, exist_ok=True)
    home, ready, log = folder / "home", folder / "ready.json", folder / "server.log"
    ready.unlink(missing_ok=True)
    with log.open("ab") as output:
        command = [sys.executable, "-c", _SERVE, str(home), str(ready), database, str(port)]
        command += map(str, storage_roots)
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not ready.exists():
            if process.poll() is not None:
                raise RuntimeError(f"the server ended with {process.returncode}:\n{log.read_text()[-4000:]}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"the server was not ready in {START_SECONDS} s:\n{log.read_text()[-4000:]}")
            time.sleep(0.05)
        yield RunningServer(home, json.loads(ready.read_text()), process, log)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
