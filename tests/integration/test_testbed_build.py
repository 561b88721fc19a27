"""The programs of the test cluster are built once, whole or not at all, and found again."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from strongroom.testbed.binaries import GoModule, Program, locate
from strongroom.testbed.errors import BuildFailed

GREETER = """package main

func main() { println("%s") }
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> GoModule:
    """A Go module of one program, and an empty cache."""
    for variable in ("KUBEBUILDER_ASSETS", "STRONGROOM_TESTBED_BIN"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("STRONGROOM_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "greeter"
    folder.mkdir()
    (folder / "go.mod").write_text("module greeter\n\ngo 1.26\n")
    (folder / "main.go").write_text(GREETER % "hello")
    return GoModule(str(folder), (Program("greeter", "."),))


def greeting(program: str) -> str:
    return subprocess.run([program], capture_output=True, text=True, check=True).stderr.strip()


def test_a_program_is_built_once(module: GoModule) -> None:
    told: list[str] = []
    first = locate(told.append, [module])["greeter"]
    assert greeting(first) == "hello"
    assert told[0] == "1/1 greeter: building"
    assert told[-1].startswith("1/1 greeter: built in")
    told.clear()
    assert locate(told.append, [module])["greeter"] == first
    assert told == []


def test_a_changed_source_makes_another_program(module: GoModule) -> None:
    first = locate(print, [module])["greeter"]
    (Path(module.folder) / "main.go").write_text(GREETER % "good day")
    second = locate(print, [module])["greeter"]
    assert (greeting(first), greeting(second)) == ("hello", "good day")


def test_a_program_in_a_folder_that_the_user_names_is_not_built(
    module: GoModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "greeter-of-the-user").mkdir()
    own = tmp_path / "greeter-of-the-user" / "greeter"
    own.write_text("#!/bin/sh\necho own >&2\n")
    own.chmod(0o755)
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(own.parent))
    told: list[str] = []
    assert greeting(locate(told.append, [module])["greeter"]) == "own"
    assert told == []


def test_what_the_compiler_says_is_shown_and_no_program_is_left(module: GoModule, tmp_path: Path) -> None:
    (Path(module.folder) / "main.go").write_text("package main\n\nfunc main() { unknown() }\n")
    with pytest.raises(BuildFailed, match="undefined: unknown"):
        locate(print, [module])
    assert [path.name for path in (tmp_path / "cache").rglob("greeter")] == []


def builder(module: GoModule) -> subprocess.Popen[str]:
    """Another process that locates the program, and prints what it is told."""
    script = (
        "from strongroom.testbed.binaries import *\n"
        f"locate(lambda line: print(line, flush=True), [GoModule({module.folder!r}, (Program('greeter', '.'),))])\n"
    )
    command = [sys.executable, "-c", script]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)


def test_two_builders_at_once_build_once(module: GoModule) -> None:
    said = ""
    with builder(module) as first, builder(module) as second:
        for process in (first, second):
            said += process.communicate()[0]
            assert process.returncode == 0
    assert said.count(": built in") == 1
    assert greeting(locate(print, [module])["greeter"]) == "hello"


def test_a_killed_build_leaves_no_program_and_the_next_one_completes(module: GoModule, tmp_path: Path) -> None:
    with builder(module) as build:
        assert build.stdout is not None
        assert "building" in build.stdout.readline()
        os.killpg(build.pid, signal.SIGKILL)
    assert [path.name for path in (tmp_path / "cache").rglob("greeter")] == []
    assert greeting(locate(print, [module])["greeter"]) == "hello"
