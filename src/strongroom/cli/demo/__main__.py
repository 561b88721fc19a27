"""`python -m strongroom.cli.demo`: protects, breaks and restores a sample application, and proves what came back.

Everything is real: the control plane, the CSI snapshots, the admission webhook, the `strongroom` commands. Exits with 1
when anything differs from before. See `--help` for what can be kept.
"""

import json
import tempfile
import time
from pathlib import Path

from strongroom.cli.demo.application import (
    NAMESPACES,
    ORDERS,
    await_ready,
    create,
    deploy,
    destroy,
    fill_volumes,
    order,
    volume_folders,
)
from strongroom.cli.demo.service import ServiceDemo
from strongroom.cli.demo.terminal import DemoFailed, Terminal, wait_until
from strongroom.cli.demo.verify import State, differences, read_state
from strongroom.cli.demo.webhook import REFUSAL, OrderWebhook
from strongroom.errors import StrongroomError
from strongroom.process import leave
from strongroom.testbed.cluster import Testbed
from strongroom.testbed.errors import TestbedError

CHANGED = "settings"
DELETED = "order-05"
RESTORED_STATUS = "Order.shop.example.com"
ORDERS_BY_NAMESPACE = (
    "SELECT namespace, count(*) AS orders, sum((body->>'$.spec.quantity')::INT) AS pieces FROM objects "
    "WHERE recovery_point_id = '{point}' AND kind = 'Order' GROUP BY namespace ORDER BY namespace"
)


class Demo:
    """The demonstration; `run` reads as its steps, `proved` collects what they showed."""

    def __init__(self, testbed: Testbed, webhook: OrderWebhook, terminal: Terminal, folder: Path) -> None:
        self._testbed = testbed
        self._webhook = webhook
        self._terminal = terminal
        self._folder = folder
        self.proved: list[str] = []

    def run(self) -> None:
        """Carry out every step. Raises `DemoFailed` at the first that does not do what it should."""
        self._deploy()
        original = self._protect()
        first, second, expected = self._change()
        self._look_into(first, second)
        self._destroy()
        self._restore(second, expected)
        self._bring_back(first, original)
        self._check()

    def _deploy(self) -> None:
        self._terminal.step("Deploy a sample application: two namespaces, volumes, custom resources, a webhook")
        deploy(self._testbed, self._webhook)
        await_ready(self._testbed)
        fill_volumes(self._testbed)
        state = read_state(self._testbed)
        files = sum(len(found) for found in state.volumes.values())
        self._terminal.say(f"{len(state.objects)} objects, {len(state.volumes)} volumes with {files} files and folders")
        if {f"order-{number:02}" for number in range(ORDERS)} - set(self._webhook.calls):
            raise DemoFailed("the webhook was not asked about every order")

    def _protect(self) -> State:
        self._terminal.step("Protect it")
        self._terminal.strongroom("repository", "init")
        self._terminal.strongroom("point", "create")
        return read_state(self._testbed)

    def _change(self) -> tuple[str, str, State]:
        self._terminal.step("Change one object, delete another, and take an incremental recovery point")
        change = json.dumps({"data": {"banner": "Closed for stocktaking."}})
        self._testbed.kubectl("patch", "configmap", CHANGED, "-n", "shop", "--type=merge", "-p", change)
        self._testbed.kubectl("delete", "order", DELETED, "-n", NAMESPACES[1])
        self._terminal.say(f"changed ConfigMap shop/{CHANGED}, deleted Order {NAMESPACES[1]}/{DELETED}")
        before = self._stored()
        self._terminal.strongroom("point", "create")
        first, second = self._terminal.ask("point", "list")
        if second["base"] != first["recoveryPointId"]:
            raise DemoFailed("the second recovery point is not incremental")
        added = self._stored() - before
        self._terminal.say(f"the repository grew by {added:,} bytes; the first recovery point took {before:,}")
        self.proved.append(
            f"incremental: the second recovery point took {second['takenOver']} of {second['objects']} objects over "
            f"and added {added / before:.0%} of the first's bytes, its manifest included"
        )
        return first["recoveryPointId"], second["recoveryPointId"], read_state(self._testbed)

    def _look_into(self, first: str, second: str) -> None:
        self._terminal.step("Look into the recovery points: a diff, a query, one object")
        kinds = ("--include-kind", "configmaps", "--include-kind", "orders")
        shown = self._terminal.strongroom("point", "diff", first, second, *kinds)
        if not all(said in shown for said in ("1 changed, 1 removed", f"shop/{CHANGED}", f"{NAMESPACES[1]}/{DELETED}")):
            raise DemoFailed("the diff does not show the change and the deletion")
        sql = ORDERS_BY_NAMESPACE.format(point=second)
        rows = json.loads(self._terminal.strongroom("query", sql, "--output", "json"))
        if [row["orders"] for row in rows] != [12, 11]:
            raise DemoFailed(f"the query counts {rows}, not 12 and 11 orders")
        self._terminal.strongroom("point", "cat", second, "configmap", f"shop/{CHANGED}", lines=6)
        self.proved.append("diff and SQL find the change in the stored recovery points, with no cluster needed")

    def _destroy(self) -> None:
        self._terminal.step("The disaster: both namespaces are deleted, with all that is cluster-wide and ours")
        folders = volume_folders(self._testbed).values()
        destroy(self._testbed)
        wait_until(lambda: not any(folder.exists() for folder in folders), "the volumes are gone from the disk")
        self._terminal.say("left: " + self._testbed.kubectl("get", "namespaces", "-o", "name").replace("\n", " "))
        self._terminal.say(f"all {len(folders)} volumes are gone from the disk")

    def _restore(self, point: str, expected: State) -> None:
        self._terminal.step("Plan the restore, read the plan, carry it out as read")
        plan = str(self._folder / "plan.json")
        chosen = ("--point", point, "--restore-status", RESTORED_STATUS)
        self._terminal.strongroom("restore", "plan", *chosen, "--plan", plan)
        self._terminal.strongroom("restore", "apply", "--plan", plan)
        await_ready(self._testbed)
        self._terminal.say("Claims that waited for their pods are bound now: what filled them can go")
        self._terminal.strongroom("repository", "prune", "--kubeconfig", str(self._testbed.kubeconfig))
        self._verify(expected, "the restored application")
        bad = order(99, quantity=-1)
        try:
            create(self._testbed, [bad])
        except TestbedError as refused:
            if REFUSAL not in str(refused):
                raise
        else:
            raise DemoFailed("the restored webhook lets a wrong order pass")
        self.proved.append("the restored webhook is asked again: it refused an order of -1 pieces")

    def _bring_back(self, first: str, original: State) -> None:
        self._terminal.step("Bring back what was deleted and changed before, from the older recovery point")
        self._terminal.strongroom(
            *("restore", "apply", "--point", first, "--include-namespace", "shop", "--include-namespace", "warehouse"),
            *("--include-kind", "orders", "--include-kind", "configmaps", "--conflict", "patch"),
        )
        self._verify(original, "after the partial restore, the application of the first recovery point")

    def _check(self) -> None:
        self._terminal.step("Check every stored byte")
        self._terminal.strongroom("repository", "check", "--read-data")
        self.proved.append("every stored byte is what its signed manifest says")

    def _stored(self) -> int:
        """Return how many bytes the repository takes on the disk."""
        return sum(path.stat().st_size for path in (self._folder / "repository").rglob("*") if path.is_file())

    def _verify(self, expected: State, what: str) -> None:
        found = read_state(self._testbed)
        wrong = differences(expected, found)
        for line in wrong:
            self._terminal.say(f"DIFFERS: {line}")
        if wrong:
            raise DemoFailed(f"{what}: {len(wrong)} differences")
        files = sum(len(each) for each in expected.volumes.values())
        text = (
            f"{what}: {len(expected.objects)} objects equal field by field, "
            f"{files} files and folders in {len(expected.volumes)} volumes equal byte by byte"
        )
        self._terminal.say(text)
        self.proved.append(text)


def main() -> int:
    """Run the demonstration in a folder of its own, which is removed afterwards."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="strongroom-demo-") as name:
        folder = Path(name)
        terminal = Terminal(
            {
                "KUBECONFIG": str(folder / "cluster" / "kubeconfig"),
                "STRONGROOM_REPOSITORY": f"file://{folder}/repository",
                "STRONGROOM_READY_FILE": str(folder / "ready.json"),
                "XDG_CONFIG_HOME": str(folder / "config"),
                "XDG_STATE_HOME": str(folder / "state"),
            }
        )
        terminal.step("Start a Kubernetes control plane with CSI volumes on loopback")
        cluster = str(folder / "cluster")
        try:
            terminal.strongroom("testbed", "up", "--dir", cluster)
            with OrderWebhook(folder) as webhook:
                testbed = Testbed.open(Path(cluster))
                demo = Demo(testbed, webhook, terminal, folder)
                demo.run()
                service = ServiceDemo(testbed, terminal, folder, folder / "ready.json")
                service.run()
        except (DemoFailed, StrongroomError) as failure:
            terminal.say(f"\nFAILED: {failure}")
            return 1
        finally:
            terminal.strongroom("testbed", "down", "--dir", cluster)
    terminal.step("What was proved")
    for line in [*demo.proved, *service.proved]:
        terminal.say(f"- {line}")
    terminal.say(f"in {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    leave(main())
