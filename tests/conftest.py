"""Fixtures for every tier: a real control plane, shared by all workers of a run, or one of a test's own."""

import contextlib
import os
import re
import signal
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from strongroom.testbed.capsule import unsupported
from strongroom.testbed.cluster import Testbed
from strongroom.testbed.options import Level, TestbedOptions
from strongroom.testbed.postgres import NoPostgres, Postgres
from strongroom.testbed.postgres import postgres as running_postgres
from strongroom.testbed.sharing import shared_testbed, sweep

from .serving import RunningServer, running_server

# What starts in the background of a shell without job control ignores SIGINT, and so do its children: tests that send
# it to programs would wait for nothing.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

TIERS = ("unit", "contract", "integration", "e2e", "compat")
OUTCOMES = ("passed", "failed", "error", "skipped")
SECOND_CHANCE = ("integration", "e2e", "compat")
"""The tiers whose tests get a second run, counted and named at the end, before they fail.

Their clusters and servers are a dozen processes on two cores that others use too, and what waits for them can time out.
A test of `unit` or `contract` waits for nobody.
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.nodeid.split("/")[1:2] and item.nodeid.split("/")[1] in SECOND_CHANCE:
            item.add_marker(pytest.mark.flaky(reruns=1))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how many tests of each tier had which outcome."""
    counts = Counter(
        (report.nodeid.split("/")[1], outcome)
        for outcome in OUTCOMES
        for report in terminalreporter.stats.get(outcome, [])
        if report.nodeid.startswith("tests/")
    )
    terminalreporter.section("tests by tier")
    for tier in TIERS:
        said = ", ".join(f"{counts[tier, outcome]} {outcome}" for outcome in OUTCOMES if counts[tier, outcome])
        terminalreporter.line(f"{tier}: {said or 'none'}")
    for report in terminalreporter.stats.get("rerun", []):
        terminalreporter.line(f"needed a second run: {report.nodeid}")
        said = report.longreprtext.splitlines() or [""]
        reason = next((line for line in said if line.startswith("E ")), said[-1])
        terminalreporter.line(f"    {reason[:400]} ({said[-1]})")


@pytest.fixture(scope="session")
def testbeds_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of this run's clusters, the same one in all its workers."""
    base = tmp_path_factory.getbasetemp()
    root = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    # A run that was killed leaves its clusters running: whoever comes next ends them.
    for folder in root.parent.glob("pytest-*/testbeds/*"):
        if folder.parent.parent != root:
            sweep(folder)
    return root / "testbeds"


@pytest.fixture(scope="session")
def testbed(testbeds_folder: Path) -> Iterator[Testbed]:
    """The cluster that all tests share. Use a namespace of your own, and leave cluster-wide things as they were."""
    with shared_testbed(testbeds_folder / "shared") as cluster:
        yield cluster


@pytest.fixture(scope="session")
def node_testbed(testbeds_folder: Path) -> Iterator[Testbed]:
    """A cluster with a real node, in which pods run, shared as `testbed` is. Skips where no node can run."""
    if reason := unsupported():
        pytest.skip(reason)
    options = TestbedOptions(level=Level.NODE)
    with shared_testbed(testbeds_folder / "node", options) as cluster:
        yield cluster


@pytest.fixture
def own_testbed(testbeds_folder: Path) -> Iterator[Callable[..., Testbed]]:
    """Start a cluster that the test may break: `own_testbed(TestbedOptions(...))`. It ends with the test."""
    with contextlib.ExitStack() as clusters:

        def start(options: TestbedOptions | None = None) -> Testbed:
            folder = testbeds_folder / f"own-{uuid.uuid4().hex[:8]}"
            return clusters.enter_context(shared_testbed(folder, options))

        yield start


@pytest.fixture
def namespace(testbed: Testbed, request: pytest.FixtureRequest) -> Iterator[str]:
    """A new, empty namespace of the shared cluster, named after the test. It is deleted afterwards."""
    with _new_namespace(testbed, request.node.name) as name:
        yield name


@pytest.fixture
def node_namespace(node_testbed: Testbed, request: pytest.FixtureRequest) -> Iterator[str]:
    """As `namespace`, of the cluster with a real node."""
    with _new_namespace(node_testbed, request.node.name) as name:
        yield name


@contextlib.contextmanager
def _new_namespace(cluster: Testbed, test: str) -> Iterator[str]:
    stem = re.sub("[^a-z0-9]+", "-", test.lower()).strip("-")[:40].strip("-")
    name = f"{stem}-{uuid.uuid4().hex[:6]}"
    cluster.kubectl("create", "namespace", name)
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false", "--ignore-not-found")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server of this worker's own. Use a `database()` of your own; whoever kills it starts it again."""
    with contextlib.ExitStack() as running:
        try:
            server = running.enter_context(running_postgres())
        except NoPostgres as reason:
            pytest.skip(str(reason))
        yield server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A control plane that the tests of this worker share. Use resource groups and vaults of your own."""
    with running_server(tmp_path_factory.mktemp("server")) as running:
        yield running
