"""The process that hosts an extension, and the child: no secret is seen, and both end in every case."""

import asyncio
import base64
import json
import os
import signal
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from strongroom.controlplane.clusters.hosted import ExtensionGone, ExtensionRefused, HostedExtension
from strongroom.extension.api.documents import BackupStorageLocation, ObjectMeta, StorageLocationSpec
from strongroom.testbed.cluster import Testbed

from .extension_stage import OWN_NAMESPACE, eventually, get, make_account

FOLDER = BackupStorageLocation(
    metadata=ObjectMeta(name="folder"),
    spec=StorageLocationSpec(url="file:///somewhere", root=base64.b64encode(bytes(32)).decode()),
)


def hosted(testbed: Testbed, folder: Path) -> HostedExtension:
    """Return an extension, not started, whose account may do everything."""
    token = folder / "token"
    token.touch(mode=0o600)
    token.write_text(make_account(testbed, "stage"))
    return HostedExtension(
        server=testbed.server,
        ca=testbed.ca_file.read_text(),
        token_file=token,
        namespace=OWN_NAMESPACE,
        allow_loopback=True,
    )


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


async def until_gone(pid: int) -> None:
    async def is_gone() -> bool:
        return gone(pid)

    await eventually(is_gone)


async def test_the_child_has_no_secret_of_its_parent_in_its_environment_or_arguments(
    testbed: Testbed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = base64.b64encode(b"of the server itself" * 3)
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", key.decode())
    extension = hosted(testbed, tmp_path)
    await extension.start()
    try:
        seen = b"".join(Path(f"/proc/{extension.pid}/{each}").read_bytes() for each in ("environ", "cmdline"))
    finally:
        await extension.stop()
    assert b"strongroom.extension.main" in seen
    for secret in (key, (tmp_path / "token").read_bytes()):
        assert secret not in seen


async def test_the_secret_keys_lie_in_the_cluster_and_two_first_starts_agree(testbed: Testbed, tmp_path: Path) -> None:
    make_account(testbed, "stage")
    testbed.kubectl("delete", "secret", "strongroom-extension", "-n", OWN_NAMESPACE, "--ignore-not-found")
    both = [hosted(testbed, tmp_path) for _ in range(2)]
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
async def test_a_child_that_ends_frees_whoever_waits(testbed: Testbed, tmp_path: Path, number: signal.Signals) -> None:
    extension = hosted(testbed, tmp_path)
    keys = await extension.start()
    waiting = asyncio.create_task(extension.ended())
    pid = extension.pid
    assert pid is not None
    os.kill(pid, number)
    await asyncio.wait_for(waiting, 60)
    await until_gone(pid)
    assert not extension.alive
    with pytest.raises(ExtensionGone):
        await extension.location(FOLDER)
    assert await extension.start() == keys
    await extension.location(FOLDER)
    await extension.stop()


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


READY = 'print(json.dumps({"event": "ready", "seq": 1, "recipient": "age1", "writer": ""}), flush=True)'


async def test_lines_that_are_no_events_are_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    extension = misbehaving(
        tmp_path,
        f"""
        print("not json", flush=True)
        print('{{"event": "unheard of"}}', flush=True)
        {READY}
        sys.stdin.read()
        """,
    )
    assert (await extension.start()).recipient == "age1"
    await extension.stop()
    assert caplog.text.count("is no event") == 2


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
        await extension.location(FOLDER)
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
