"""docs/reference/errors.md lists every error that a user can see, with the exit code that it really has."""

import importlib
import pkgutil
import re

import strongroom
from strongroom.errors import ExitCode, StrongroomError

from .faults_stage import DOCUMENTED, documented

# Roots of the components' trees: raised themselves only as their subclasses.
ROOTS = {"KubeError", "ObjectStoreError", "RepositoryError", "RestoreError", "TestbedError"}
# They run or need something at import: the demo, and the contract suites for pytest.
NOT_IMPORTED = re.compile(r"__main__|\.demo|\.contracts")


def error_types() -> set[type[StrongroomError]]:
    """Return all error types of the installed package."""
    for module in pkgutil.walk_packages(strongroom.__path__, "strongroom."):
        if not NOT_IMPORTED.search(module.name):
            importlib.import_module(module.name)
    found: set[type[StrongroomError]] = set()
    waiting = [StrongroomError]
    while waiting:
        below = [each for each in waiting.pop().__subclasses__() if each.__module__.startswith("strongroom.")]
        found.update(below)
        waiting += below
    return found


def test_every_error_is_documented_with_its_exit_code() -> None:
    there = {each.__name__: int(each.exit_code) for each in error_types() if each.__name__ not in ROOTS}
    assert there == documented()


def test_every_exit_code_is_documented() -> None:
    rows = re.findall(r"^\| (\d) \|", DOCUMENTED.read_text(), re.MULTILINE)
    assert [int(row) for row in rows] == [int(code) for code in ExitCode]


def test_every_row_that_claims_a_test_has_one() -> None:
    claimed = set(re.findall(r"^\| `(\w+)` \| \d \| \*\*", DOCUMENTED.read_text(), re.MULTILINE))
    sources = [path.read_text() for path in DOCUMENTED.parents[2].glob("tests/e2e/test_*_*.py")]
    provoked = {name for text in sources for name in re.findall(r'"([A-Z]\w+)"', text)}
    assert claimed - provoked == set()
