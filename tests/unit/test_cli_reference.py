"""The reference names every command and every option that the command line has."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from cyclopts import App

from strongroom.cli.main import build

REFERENCE = (Path(__file__).parents[2] / "docs" / "reference" / "cli.md").read_text()


def commands(app: App, path: tuple[str, ...] = ()) -> Iterator[tuple[str, App]]:
    for name in app:
        if name.startswith("-"):
            continue
        child = app[name]
        yield from commands(child, (*path, name))
        if child.default_command is not None:
            yield " ".join((*path, name)), child


COMMANDS = dict(commands(build()))


@pytest.mark.parametrize("command", [name for name in COMMANDS if not name.startswith("testbed")])
def test_the_reference_names_every_command_and_option(command: str) -> None:
    assert f"`{command}" in REFERENCE or f"`strongroom {command}" in REFERENCE
    for argument in COMMANDS[command].assemble_argument_collection():
        for name in argument.names:
            if name.startswith("--") and name != "--no-quiet":
                assert name in REFERENCE, f"{command} {name}"


def test_there_are_all_commands_that_the_issue_decided() -> None:
    decided = {
        "repository": {"init", "info", "check", "prune"},
        "point": {"create", "list", "show", "delete", "coverage", "objects", "cat", "diff", "history", "search"},
        "restore": {"plan", "apply"},
        "testbed": {"up", "down", "status"},
        "cluster": {"connect", "list", "show", "disconnect"},
        "storage": {"attach", "list"},
        "vault": {"create", "list", "show", "rebuild"},
        "instance": {"grant", "list", "show", "backup", "restore"},
        "job": {"list", "show", "wait", "cancel"},
    }
    wanted = {f"{group} {command}" for group, names in decided.items() for command in names} | {
        "query",
        "serve",
        "doctor",
    }
    assert wanted <= COMMANDS.keys()
