"""Runs `az` against a server of a test's own."""

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from strongroom.testbed.azure_cli import VERSION, installed

from ..serving import RunningServer

COMMAND_SECONDS = 120  # a command takes 1-2 s, most of it imports; the machine may be busy with other tests


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code, and what it wrote."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class AzureCli:
    """azure-cli with a configuration *folder* of its own: it knows no other cloud and no other login."""

    python: Path
    folder: Path
    ca_file: Path

    def run(self, *words: str) -> Ended:
        """Run `az WORDS`. Raises `subprocess.TimeoutExpired` after `COMMAND_SECONDS`."""
        command = [str(self.python), "-m", "azure.cli", *words]
        # No terminal: az asks nothing, and shows no progress.
        done = subprocess.run(
            command,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    def __call__(self, *words: str) -> Any:
        """Run `az WORDS` and return what it prints as JSON, None for nothing. Raises AssertionError if it fails."""
        ended = self.run(*words, "--output", "json")
        assert ended.code == 0, f"az {' '.join(words[:6])} … ended with {ended.code}:\n{ended.err[-3000:]}"
        return json.loads(ended.out) if ended.out.strip() else None

    def refused(self, *words: str) -> str:
        """Run `az WORDS`, which must fail without a traceback, and return what it says."""
        ended = self.run(*words)
        assert ended.code != 0, f"az {' '.join(words[:6])} … succeeded:\n{ended.out[-3000:]}"
        assert "Traceback" not in ended.err, ended.err[-3000:]
        return ended.err

    def _environment(self) -> dict[str, str]:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("AZURE_", "ARM_", "REQUESTS_"))}
        return inherited | {
            "AZURE_CONFIG_DIR": str(self.folder),
            "AZURE_EXTENSION_DIR": str(self.folder / "extensions"),
            "AZURE_EXTENSION_USE_DYNAMIC_INSTALL": "no",
            "AZURE_CORE_COLLECT_TELEMETRY": "false",
            "AZURE_CORE_LOGIN_EXPERIENCE_V2": "off",
            "AZURE_CORE_SURVEY_MESSAGE": "false",
            "AZURE_CORE_NO_COLOR": "true",
            "REQUESTS_CA_BUNDLE": str(self.ca_file),
        }


def new_cli(server: RunningServer, folder: Path) -> AzureCli:
    python = installed()
    if python is None:
        pytest.skip(f"azure-cli {VERSION} is not installed: make compat")
    return AzureCli(python, folder, Path(server.ready["caFile"]))


def sign_in(az: AzureCli, server: RunningServer, tenant: str) -> Any:
    """Sign the administrator in; az reads the secret from a file, as it should stand in no list of processes."""
    secret = az.folder / "secret"
    secret.touch(0o600)
    secret.write_text(server.ready["clientSecret"])
    return az("login", "--service-principal", "-u", server.ready["clientId"], "-p", f"@{secret}", "--tenant", tenant)


def signed_in(server: RunningServer, folder: Path, *, slash: str = "/") -> AzureCli:
    """Return az in a cloud of its own, signed in as the administrator; *slash*: what the cloud's address ends in."""
    az = new_cli(server, folder)
    az("cloud", "register", "-n", "Strongroom", "--endpoint-resource-manager", f"{server.url}{slash}")
    az("cloud", "set", "-n", "Strongroom")
    az("config", "set", "core.instance_discovery=false")
    sign_in(az, server, server.ready["tenantId"])
    return az
