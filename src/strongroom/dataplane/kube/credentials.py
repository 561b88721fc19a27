"""The `Authorization` header of requests: fixed, read from a file that is renewed, or made by an exec plugin."""

import asyncio
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final, Protocol

import msgspec

from strongroom.dataplane.kube.errors import KubeconfigInvalid

TOKEN_FILE_SECONDS: Final = 60.0  # the kubelet renews a token at 80 % of its life, of 10 minutes at least
EXEC_SECONDS: Final = 60.0  # a plugin that asks nobody anything is done by then; without a limit a hung one hangs us
EXPIRY_MARGIN_SECONDS: Final = 30.0  # a request under way must not outlive its token, and clocks differ
EXEC_VERSIONS: Final = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")
STDERR_LIMIT: Final = 500  # characters of a failed plugin's last words


class Credentials(Protocol):
    """Gives each request its `Authorization`, and may have a new one after the server refused it."""

    async def authorization(self) -> str | None:
        """Return the header's value, or None where the connection itself (client certificate) says who we are.

        Raises `KubeconfigInvalid` where it cannot be had.
        """

    def renew(self) -> bool:
        """Forget what the server refused; tell whether the next `authorization` may differ."""


class NoCredentials:
    """No header: a client certificate, or nothing at all."""

    async def authorization(self) -> str | None:
        return None

    def renew(self) -> bool:
        return False


@dataclass(frozen=True, slots=True)
class StaticCredentials:
    """A header that stays as it is."""

    value: str = field(repr=False)

    async def authorization(self) -> str | None:
        return self.value

    def renew(self) -> bool:
        return False


class TokenFileCredentials:
    """A bearer token in a file that somebody else renews: read again every minute, and after a refusal."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._value = ""
        self._read_at = float("-inf")

    async def authorization(self) -> str | None:
        now = time.monotonic()
        if now - self._read_at > TOKEN_FILE_SECONDS:
            try:
                token = self._path.read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise KubeconfigInvalid(f"cannot read the token file: {error}", field="tokenFile") from error
            if not token:
                raise KubeconfigInvalid(f"the token file {self._path} is empty", field="tokenFile")
            self._value, self._read_at = f"Bearer {token}", now
        return self._value

    def renew(self) -> bool:
        self._read_at = float("-inf")
        return True


@dataclass(frozen=True, slots=True)
class ExecPlugin:
    """An exec plugin as the kubeconfig names it; *field* is where it stands there."""

    api_version: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(repr=False)
    install_hint: str
    field: str
    server: str


class _ExecStatus(msgspec.Struct, frozen=True, rename="camel"):
    token: str | None = None
    expiration_timestamp: datetime | None = None
    client_certificate_data: str | None = None


class _ExecCredential(msgspec.Struct, frozen=True, rename="camel"):
    api_version: str
    status: _ExecStatus


class ExecCredentials:
    """A bearer token printed by an exec plugin (v1 or v1beta1), kept until it expires or is refused.

    Plugins that answer with a client certificate instead of a token are not supported, and say so.
    """

    def __init__(self, plugin: ExecPlugin) -> None:
        if plugin.api_version not in EXEC_VERSIONS:
            message = (
                f"{plugin.field}.apiVersion is {plugin.api_version!r}; supported are {' and '.join(EXEC_VERSIONS)}"
            )
            raise KubeconfigInvalid(message, field=f"{plugin.field}.apiVersion")
        self._plugin = plugin
        self._value: str | None = None
        self._expires_at = float("inf")
        self._lock = asyncio.Lock()

    async def authorization(self) -> str | None:
        async with self._lock:  # many requests wait for one run of the plugin
            if self._value is None or time.time() > self._expires_at - EXPIRY_MARGIN_SECONDS:
                status = await self._run()
                self._value = f"Bearer {status.token}"
                expires = status.expiration_timestamp
                self._expires_at = expires.timestamp() if expires is not None else float("inf")
            return self._value

    def renew(self) -> bool:
        self._value = None
        return True

    async def _run(self) -> _ExecStatus:
        plugin = self._plugin
        info = {
            "apiVersion": plugin.api_version,
            "kind": "ExecCredential",
            "spec": {"interactive": False},
        }
        environment = {**os.environ, **plugin.environment, "KUBERNETES_EXEC_INFO": json.dumps(info)}
        name = plugin.command[0]
        try:
            process = await asyncio.create_subprocess_exec(
                *plugin.command,
                env=environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
        except OSError as error:
            hint = plugin.install_hint or f"Install {name}, or correct {plugin.field}.command"
            raise KubeconfigInvalid(f"cannot run the plugin {name}: {error}", field=plugin.field, hint=hint) from error
        try:
            output, errors = await asyncio.wait_for(process.communicate(), EXEC_SECONDS)
        except TimeoutError as error:
            process.kill()
            await process.wait()
            message = f"the plugin {name} did not end within {EXEC_SECONDS:.0f} s"
            raise KubeconfigInvalid(message, field=plugin.field) from error
        except asyncio.CancelledError:
            process.kill()
            raise
        if process.returncode != 0:
            said = errors.decode("utf-8", "replace").strip()[-STDERR_LIMIT:]
            raise KubeconfigInvalid(f"the plugin {name} ended with {process.returncode}: {said}", field=plugin.field)
        try:
            answer = msgspec.json.decode(output, type=_ExecCredential)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            # The output holds a token, so it is not quoted.
            raise KubeconfigInvalid(
                f"the plugin {name} printed no ExecCredential: {error}", field=plugin.field
            ) from None
        if answer.api_version != plugin.api_version:
            message = f"the plugin {name} answered in {answer.api_version}, {plugin.field} says {plugin.api_version}"
            raise KubeconfigInvalid(message, field=f"{plugin.field}.apiVersion")
        if not answer.status.token:
            hint = (
                "Plugins that give a client certificate are not supported"
                if answer.status.client_certificate_data
                else ""
            )
            raise KubeconfigInvalid(f"the plugin {name} gave no token", field=plugin.field, hint=hint)
        return answer.status
