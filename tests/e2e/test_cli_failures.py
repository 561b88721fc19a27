"""Bad input and bad days: each ends with a clear error, its documented exit code, and nothing half-written."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(sys.executable).parent / "strongroom"


class Shell:
    """Runs commands in an environment of their own."""

    def __init__(self, folder: Path) -> None:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("STRONGROOM_", "KUBE"))}
        self.environment = kept | {
            "HOME": str(folder),
            "XDG_CONFIG_HOME": str(folder / "config"),
            "XDG_STATE_HOME": str(folder / "state"),
        }
        self.url = f"file://{folder}/repository"

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([PROGRAM, *arguments], env=self.environment, capture_output=True, text=True, check=False)

    def error(self, *arguments: str) -> dict[str, Any]:
        done = self.run(*arguments, "--output", "json")
        assert done.stdout == ""
        assert "Traceback" not in done.stderr
        error: dict[str, Any] = json.loads(done.stderr.splitlines()[-1])["error"]
        assert done.returncode == error["exitCode"]
        assert error["message"]
        return error


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


@pytest.fixture
def repository(shell: Shell, tmp_path: Path) -> Path:
    assert shell.run("repository", "init", "--repository", shell.url).returncode == 0
    return tmp_path / "repository"


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("file:///nonexistent/repository", 2),
        ("ftp://example.com/x", 2),
        ("no-url", 2),
        ("s3://user:hunter2@bucket/x", 2),
        ("s3://bucket/x?endpoint=http://127.0.0.1:1", 5),
    ],
)
def test_a_wrong_repository_url_says_what_to_write(shell: Shell, url: str, code: int) -> None:
    shell.environment |= {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "us-east-1"}
    error = shell.error("point", "list", "--repository", url)
    assert error["exitCode"] == code
    assert "hunter2" not in json.dumps(error)


def test_a_second_init_leaves_the_first_repository_as_it_is(shell: Shell, repository: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in repository.rglob("*") if path.is_file()}
    keys = list((tmp_path / "config").rglob("*.json"))
    assert shell.error("repository", "init", "--repository", shell.url)["exitCode"] == 2
    assert {path: path.read_bytes() for path in repository.rglob("*") if path.is_file()} == before
    assert list((tmp_path / "config").rglob("*.json")) == keys


def test_a_missing_key_and_a_wrong_key_are_told_apart(shell: Shell, repository: Path, tmp_path: Path) -> None:
    (key,) = (tmp_path / "config").rglob("*.json")
    shutil.move(key, tmp_path / "moved.json")
    missing = shell.error("point", "list", "--repository", shell.url)
    assert missing["exitCode"] == 2
    assert "--key-file" in missing["hint"]
    other = f"file://{tmp_path}/other"
    assert (
        shell.run("repository", "init", "--repository", other, "--key-file", str(tmp_path / "o.json")).returncode == 0
    )
    wrong = shell.error("point", "list", "--repository", shell.url, "--key-file", str(tmp_path / "o.json"))
    assert wrong["exitCode"] == 4
    found = shell.run("point", "list", "--repository", shell.url, "--key-file", str(tmp_path / "moved.json"))
    assert found.returncode == 0


@pytest.mark.parametrize("content", [b"{}", b"not json", b'{"format":"strongroom-repository","version":99}'])
def test_an_unknown_or_broken_repository_json_is_refused(shell: Shell, repository: Path, content: bytes) -> None:
    (repository / "repository.json").chmod(0o600)
    (repository / "repository.json").write_bytes(content)
    error = shell.error("point", "list", "--repository", shell.url)
    assert error["exitCode"] in (1, 4)


def test_a_wrong_kubeconfig_names_the_field(shell: Shell, repository: Path, tmp_path: Path) -> None:
    create = ("point", "create", "--repository", shell.url, "--kubeconfig")
    assert shell.error(*create, str(tmp_path / "none"))["exitCode"] == 2
    (tmp_path / "kubeconfig").write_text("apiVersion: v1\nkind: Config\ncurrent-context: nowhere\n")
    error = shell.error(*create, str(tmp_path / "kubeconfig"))
    assert error["exitCode"] == 2
    assert "nowhere" in error["message"]


def kubeconfig_for(server: str, path: Path) -> str:
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": {"token": "not-a-token"}}],
    }
    path.write_text(json.dumps(document))
    return str(path)


@pytest.mark.parametrize(("how", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_command_without_a_traceback(
    shell: Shell, repository: Path, tmp_path: Path, how: signal.Signals, expected: int
) -> None:
    """The server accepts the connection and never answers: the command is in the middle of a request."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        connected = threading.Event()
        held: list[socket.socket] = []

        def accept() -> None:
            held.append(server.accept()[0])
            connected.set()

        threading.Thread(target=accept, daemon=True).start()
        kubeconfig = kubeconfig_for(f"http://127.0.0.1:{server.getsockname()[1]}", tmp_path / "kubeconfig")
        command = [PROGRAM, "point", "create", "--repository", shell.url, "--kubeconfig", kubeconfig]
        process = subprocess.Popen(command, env=shell.environment, stderr=subprocess.PIPE, text=True)
        try:
            assert connected.wait(60)
            process.send_signal(how)
            _, stderr = process.communicate(timeout=60)
        finally:
            process.kill()
            for each in held:
                each.close()
    assert process.returncode == expected
    assert "Traceback" not in stderr


def test_a_reader_that_goes_away_is_no_error_message(shell: Shell, repository: Path) -> None:
    sql = "SELECT repeat('x', 1000) AS x FROM range(5000)"
    command = [PROGRAM, "query", sql, "--repository", shell.url, "--output", "json"]
    process = subprocess.Popen(command, env=shell.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.read(10)
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(60) == 128 + signal.SIGPIPE


def test_debug_shows_the_traceback_beside_the_error(shell: Shell, repository: Path) -> None:
    shell.environment["STRONGROOM_DEBUG"] = "1"
    done = shell.run("point", "show", "nothing", "--repository", shell.url)
    assert done.returncode == 2
    assert "Traceback" in done.stderr
    assert "error: no recovery point" in done.stderr


def test_every_command_prints_help() -> None:
    groups: dict[str, tuple[str, ...]] = {
        "repository": ("init", "info", "check", "prune"),
        "point": ("create", "list", "show", "delete", "coverage", "objects", "cat", "diff", "history", "search"),
        "restore": ("plan", "apply"),
        "testbed": ("up", "down", "status"),
    }
    from strongroom.cli.main import run

    for group, commands in groups.items():
        for command in commands:
            assert run([group, command, "--help"]) == 0
    assert run(["query", "--help"]) == 0
