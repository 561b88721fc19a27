"""Runs object stores as processes on loopback: Azurite for Azure Blob Storage, moto for S3.

Each takes a free port, keeps its objects in memory and ends with its `with` block. Accounts and keys are made anew
for every run and handed over as the environment variables that the providers' own tools read.
"""

import base64
import hmac
import os
import re
import secrets
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path

from strongroom.testbed.errors import ComponentFailed
from strongroom.testbed.node import azurite_blob_command

READY_SECONDS = 60.0  # moto imports for 5 s on a busy machine, Azurite for 2
POLL_SECONDS = 0.02
_END_SECONDS = 10.0  # both end at once when asked; then they are killed
_AZURE_API_VERSION = "2021-08-06"  # any that Azurite 3.35 knows; only for making containers


@dataclass(frozen=True, slots=True)
class StoreServer:
    """A running object store: *endpoint* is its address, *environment* what a client needs to be let in."""

    endpoint: str
    environment: Mapping[str, str]
    process_id: int


@dataclass(frozen=True, slots=True)
class Azurite(StoreServer):
    """Azurite with one *account*; its *endpoint* is without the account."""

    account: str

    def make_container(self, name: str, *, endpoint: str | None = None) -> str:
        """Make the container and return its URL, reached through *endpoint* (a fault proxy's) if given."""
        headers = {
            "x-ms-date": formatdate(usegmt=True),
            "x-ms-version": _AZURE_API_VERSION,
        }
        path = f"/{self.account}/{name}"
        canonical = "".join(f"{header}:{value}\n" for header, value in sorted(headers.items()))
        # "Authorize with Shared Key": the account stands twice where it is part of the path, as in emulators.
        to_sign = f"PUT{chr(10) * 12}{canonical}/{self.account}{path}\nrestype:container"
        key = base64.b64decode(self.environment["AZURE_STORAGE_ACCOUNT_KEY"])
        signature = base64.b64encode(hmac.digest(key, to_sign.encode(), "sha256")).decode()
        headers["Authorization"] = f"SharedKey {self.account}:{signature}"
        _put(f"{self.endpoint}{path}?restype=container", headers)
        return f"az://{self.account}/{name}?endpoint={endpoint or self.endpoint}"


@dataclass(frozen=True, slots=True)
class Moto(StoreServer):
    """moto's S3. It lets everybody in, whatever the key."""

    def make_bucket(self, name: str, *, endpoint: str | None = None) -> str:
        """Make the bucket and return its URL, reached through *endpoint* (a fault proxy's) if given."""
        _put(f"{self.endpoint}/{name}", {})
        return f"s3://{name}?endpoint={endpoint or self.endpoint}&region=us-east-1"


@contextmanager
def azurite() -> Iterator[Azurite]:
    """Run Azurite; installs it first if need be (`BuildFailed`). Raises `ComponentFailed` if it does not start."""
    account = f"testbed{secrets.token_hex(4)}"
    key = base64.b64encode(secrets.token_bytes(64)).decode()
    command = azurite_blob_command()
    with tempfile.TemporaryDirectory(prefix="strongroom-azurite-") as folder:
        options = ["--blobHost", "127.0.0.1", "--blobPort", "0", "--inMemoryPersistence"]
        # The version check refuses headers newer than Azurite, and obstore moves faster.
        options += ["--silent", "--disableTelemetry", "--skipApiVersionCheck"]
        environment = {"AZURITE_ACCOUNTS": f"{account}:{key}"}
        with _running("Azurite", [*command, *options], environment, r"listens on (http://\S+)", folder) as (url, pid):
            yield Azurite(url, {"AZURE_STORAGE_ACCOUNT_KEY": key}, pid, account)


@contextmanager
def moto() -> Iterator[Moto]:
    """Run moto's S3. Raises `ComponentFailed` if it does not start."""
    credentials = {"AWS_ACCESS_KEY_ID": secrets.token_hex(10), "AWS_SECRET_ACCESS_KEY": secrets.token_hex(20)}
    command = [sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", "0"]
    with (
        tempfile.TemporaryDirectory(prefix="strongroom-moto-") as folder,
        _running("moto", command, {}, r"Running on (http://\S+)", folder) as (url, pid),
    ):
        yield Moto(url, credentials, pid)


@contextmanager
def _running(
    name: str, command: Sequence[str], environment: Mapping[str, str], ready: str, folder: str
) -> Iterator[tuple[str, int]]:
    """Run *command* until the block ends; yields what *ready*'s group matched in its output, and its number."""
    log = Path(folder, "log")
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env={**os.environ, **environment},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield _await_address(name, process, log, re.compile(ready)), process.pid
    finally:
        process.terminate()
        try:
            process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await_address(name: str, process: subprocess.Popen[bytes], log: Path, ready: re.Pattern[str]) -> str:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        ended = process.poll() is not None
        text = log.read_text(errors="replace")
        if found := ready.search(text):
            return found[1].rstrip("/")
        if ended:
            raise ComponentFailed(f"{name} ended with {process.returncode}: {text[-2000:]}")
        time.sleep(POLL_SECONDS)
    raise ComponentFailed(
        f"{name} was not ready after {READY_SECONDS:.0f} s: {log.read_text(errors='replace')[-2000:]}"
    )


def _put(url: str, headers: Mapping[str, str]) -> None:
    # No data rather than empty data: for that urllib would add a Content-Type, which no signature covers.
    request = urllib.request.Request(url, headers={**headers, "Content-Length": "0"}, method="PUT")
    # Without proxies of the environment: the server is on loopback.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=READY_SECONDS):
            pass
    except urllib.error.HTTPError as error:
        raise ComponentFailed(f"PUT {url} was answered with {error.code}: {error.read()[:500]!r}") from error
