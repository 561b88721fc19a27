"""The process that hosts an extension, and the child: secrets on the pipe alone, and an end for both in every case."""

import asyncio
import base64
import json
import logging
import os
import secrets
import signal
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from strongroom.controlplane.clusters.hosted import ExtensionGone, ExtensionRefused, HostedExtension
from strongroom.dataplane.objectstore.opening import open_store
from strongroom.dataplane.repository.keyentries import add_recipient, add_writer
from strongroom.dataplane.repository.keyfile import KeyFile
from strongroom.dataplane.repository.repository import Repository
from strongroom.extension.api.status import Phase, Status
from strongroom.testbed.cluster import Testbed
from strongroom.testbed.stores import azurite

from .extension_stage import (
    OWN_NAMESPACE,
    Stage,
    backup,
    config_map,
    eventually,
    get,
    make_account,
    new_name,
    put,
)


@pytest.fixture
async def stage(testbed: Testbed, tmp_path: Path) -> AsyncIterator[Stage]:
    built = await Stage.build(testbed, tmp_path)
    yield built
    await built.extension.stop()


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


async def until_gone(pid: int) -> None:
    async def is_gone() -> bool:
        return gone(pid)

    await eventually(is_gone)


async def ignore(_: Status) -> None:
    pass


async def test_credentials_of_a_store_are_seen_on_the_pipe_alone(
    testbed: Testbed, stage: Stage, namespace: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    put(testbed, namespace, config_map("settings"))
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", base64.b64encode(b"of the server itself" * 3).decode())
    await stage.extension.stop()
    with azurite() as server:
        key = server.environment["AZURE_STORAGE_ACCOUNT_KEY"]
        credentials = {"accountKey": key}
        stage.url = server.make_container(f"c{secrets.token_hex(8)}")
        store = await open_store(stage.url, credentials=credentials)
        _, key_path = await Repository.init(store, key_file=stage.folder / "azure.json")
        stage.keys = KeyFile.load(key_path)
        made = await stage.extension.start()
        await add_recipient(store, stage.keys, made.recipient)
        await add_writer(store, stage.keys.root, made.writer, backup_only=True)
        wrong = base64.b64encode(b"WRONGKEY" * 8).decode()
        await stage.extension.location(stage.location(), {"accountKey": wrong})
        denied = await stage.back_up(namespace)
        assert denied.error is not None
        assert denied.error.code == "UserErrorExtensionMSIMissingPermissionsOnBackupStorageLocation"
        await stage.extension.location(stage.location(), credentials)
        status = await stage.back_up(namespace)
        assert (status.phase, status.error) == (Phase.COMPLETED, None)
        pid = stage.extension.pid
        seen = b"".join(Path(f"/proc/{pid}/{each}").read_bytes() for each in ("environ", "cmdline"))
        for secret in (key, wrong, os.environ["AZURE_STORAGE_ACCOUNT_KEY"]):
            assert secret.encode() not in seen
            assert secret not in caplog.text


async def test_the_secret_keys_lie_in_the_cluster_and_two_first_starts_agree(testbed: Testbed, tmp_path: Path) -> None:
    testbed.kubectl("delete", "secret", "strongroom-extension", "-n", OWN_NAMESPACE, "--ignore-not-found")
    token = tmp_path / "token"
    token.write_text(make_account(testbed, "stage"))
    both = [
        HostedExtension(
            server=testbed.server,
            ca=testbed.ca_file.read_text(),
            token_file=token,
            namespace=OWN_NAMESPACE,
            allow_loopback=True,
        )
        for _ in range(2)
    ]
    try:
        one, two = await asyncio.gather(*(each.start() for each in both))
    finally:
        await asyncio.gather(*(each.stop() for each in both))
    assert one == two
    assert len(one.writer) == 32
    secret = get(testbed, "secret", "strongroom-extension", "-n", OWN_NAMESPACE)
    assert base64.b64decode(secret["data"]["recipient"]).startswith(b"AGE-SECRET-KEY-1")
    assert secret["immutable"] is True


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_a_child_that_ends_frees_whoever_waits(
    testbed: Testbed, stage: Stage, namespace: str, number: signal.Signals
) -> None:
    put(testbed, namespace, config_map("settings"))
    name = new_name()
    stage.doom(r"store points/", "hold")
    await stage.extension.apply(backup(name, namespace))
    seen: list[Status] = []

    async def keep(status: Status) -> None:
        seen.append(status)

    waiting = asyncio.create_task(stage.extension.wait("Backup", name, keep))
    await stage.doomed()
    pid = stage.extension.pid
    assert pid is not None
    os.kill(pid, number)
    with pytest.raises(ExtensionGone):
        await waiting
    await until_gone(pid)
    assert not stage.extension.alive
    assert Phase.CANCELLED not in {status.phase for status in seen}
    with pytest.raises(ExtensionGone):
        await stage.extension.apply(backup(name, namespace))
    await stage.start()
    assert (await stage.back_up(namespace, name)).phase is Phase.COMPLETED


PARENT = """
import asyncio, json, sys
from pathlib import Path
from strongroom.controlplane.clusters.hosted import HostedExtension

async def main():
    settings = json.loads(sys.argv[1])
    extension = HostedExtension(**settings | {"token_file": Path(settings["token_file"])})
    await extension.start()
    print(extension.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_the_child_dies_with_its_parent(testbed: Testbed, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(make_account(testbed, "stage"))
    settings = {
        "server": testbed.server,
        "ca": testbed.ca_file.read_text(),
        "token_file": str(token),
        "namespace": OWN_NAMESPACE,
        "allow_loopback": True,
    }
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PARENT, json.dumps(settings), stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    child = int(await asyncio.wait_for(parent.stdout.readline(), 60))
    assert not gone(child)
    parent.kill()
    await parent.wait()
    await until_gone(child)


def misbehaving(tmp_path: Path, script: str) -> HostedExtension:
    """Return the host of a child that is no extension at all."""
    path = tmp_path / "child.py"
    path.write_text("import sys, json\n" + textwrap.dedent(script))
    return HostedExtension(
        server="https://127.0.0.1:1",
        ca="",
        token_file=tmp_path / "token",
        namespace="n",
        command=(sys.executable, path),
    )


READY = 'print(json.dumps({"event": "ready", "seq": 1, "version": "0", "recipient": "age1", "writer": ""}), flush=True)'


async def test_lines_that_are_no_events_are_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    extension = misbehaving(
        tmp_path,
        f"""
        print("not json", flush=True)
        print('{{"event": "unheard of"}}', flush=True)
        print('{{"event": "status", "kind": "Backup", "name": "b", "status": {{"phase": "Sideways"}}}}', flush=True)
        {READY}
        sys.stdin.read()
        """,
    )
    assert (await extension.start()).recipient == "age1"
    await extension.stop()
    assert caplog.text.count("is no event") == 2
    assert "a status that cannot be read" in caplog.text


async def test_a_child_that_floods_a_line_is_ended(tmp_path: Path) -> None:
    extension = misbehaving(
        tmp_path,
        f"""
        {READY}
        sys.stdin.readline(), sys.stdin.readline()
        while True:
            sys.stdout.write("x" * 65536)
        """,
    )
    await extension.start()
    pid = extension.pid
    assert pid is not None
    with pytest.raises(ExtensionGone):
        await extension.ping()
    await until_gone(pid)
    assert not extension.alive
    await extension.stop()


async def test_a_child_that_cannot_start_says_why(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t")
    settings: dict[str, Any] = {"token_file": tmp_path / "token", "namespace": OWN_NAMESPACE}
    ends = misbehaving(tmp_path, "sys.exit(3)")
    with pytest.raises(ExtensionGone):
        await ends.start()
    await ends.stop()
    plain = HostedExtension(server="http://127.0.0.1:1", ca="", **settings)
    with pytest.raises(ExtensionRefused) as refused:
        await plain.start()
    assert refused.value.field == "server"
    await plain.stop()
    no_ca = HostedExtension(server="https://127.0.0.1:1", ca="no certificate", **settings)
    with pytest.raises(ExtensionRefused) as refused:
        await no_ca.start()
    assert refused.value.field == "ca"
    await no_ca.stop()


async def test_a_server_at_an_address_that_users_may_not_name_is_not_connected_to(
    testbed: Testbed, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("secret-token")
    ca = testbed.ca_file.read_text()
    for server in (testbed.server, "https://169.254.169.254"):
        extension = HostedExtension(server=server, ca=ca, token_file=token, namespace=OWN_NAMESPACE)
        with pytest.raises(ExtensionRefused, match=r"loopback|link-local"):
            await extension.start()
        await extension.stop()


async def test_a_token_that_the_server_refuses_is_told_without_the_token(testbed: Testbed, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("not-a-token-of-this-cluster")
    extension = HostedExtension(
        server=testbed.server,
        ca=testbed.ca_file.read_text(),
        token_file=tmp_path / "token",
        namespace=OWN_NAMESPACE,
        allow_loopback=True,
    )
    with pytest.raises(ExtensionRefused) as refused:
        await extension.start()
    assert refused.value.code == "UserErrorKubernetesBackupExtensionHasErrors"
    assert "not-a-token" not in str(refused.value)
    await extension.stop()
