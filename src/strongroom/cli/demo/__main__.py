"""`python -m strongroom.cli.demo`: protects, breaks and restores a sample application, and proves what came back.

Everything is real: the control plane, the CSI snapshots, the admission webhook, the `strongroom` commands. Exits with 1
when anything differs from before. See `--help` for what can be kept.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

from strongroom.cli.demo.application import (
    CLAIMS,
    CLUSTER_KINDS,
    MARK,
    NAMESPACES,
    ORDERS,
    PODS,
    create,
    deploy,
    fill_volumes,
    order,
    volume_folder,
)
from strongroom.cli.demo.terminal import DemoFailed, Terminal, wait_until
from strongroom.cli.demo.verify import State, differences, read_state
from strongroom.cli.demo.webhook import REFUSAL, OrderWebhook
from strongroom.errors import StrongroomError
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
        first, original = self._protect()
        second, expected = self._change()
        self._look_into(first, second)
        self._destroy()
        self._restore(second, expected)
        self._bring_back(first, original)
        self._check()

    def _deploy(self) -> None:
        self._terminal.step("Deploy a sample application: two namespaces, volumes, custom resources, a webhook")
        deploy(self._testbed, self._webhook)
        self._wait_for_pods()
        fill_volumes(self._testbed)
        state = read_state(self._testbed)
        files = sum(len(found) for found in state.volumes.values())
        self._terminal.say(f"{len(state.objects)} objects, {len(state.volumes)} volumes with {files} files and folders")
        if {f"order-{number:02}" for number in range(ORDERS)} - set(self._webhook.calls):
            raise DemoFailed("the webhook was not asked about every order")

    def _protect(self) -> tuple[str, State]:
        self._terminal.step("Protect it")
        self._terminal.strongroom("repository", "init")
        self._terminal.strongroom("point", "create")
        return self._latest(), read_state(self._testbed)

    def _change(self) -> tuple[str, State]:
        self._terminal.step("Change one object, delete another, and take an incremental recovery point")
        change = json.dumps({"data": {"banner": "Closed for stocktaking."}})
        self._testbed.kubectl("patch", "configmap", CHANGED, "-n", "shop", "--type=merge", "-p", change)
        self._testbed.kubectl("delete", "order", DELETED, "-n", NAMESPACES[1])
        self._terminal.say(f"changed ConfigMap shop/{CHANGED}, deleted Order {NAMESPACES[1]}/{DELETED}")
        self._terminal.strongroom("point", "create")
        self._terminal.strongroom("point", "list")
        first, second = self._terminal.ask("point", "list")
        share = second["bytesWritten"] / first["bytesWritten"]
        if second["base"] != first["recoveryPointId"]:
            raise DemoFailed("the second recovery point is not incremental")
        self.proved.append(
            f"incremental: the second recovery point wrote {second['bytesWritten']} bytes, {share:.1%} of the first's"
        )
        return second["recoveryPointId"], read_state(self._testbed)

    def _look_into(self, first: str, second: str) -> None:
        self._terminal.step("Look into the recovery points: a diff, a query, one object")
        self._terminal.strongroom("point", "diff", first, second, "--include-namespace", "shop", lines=20)
        found = self._terminal.ask("point", "diff", first, second, "--include-kind", "cm", "--include-kind", "orders")
        changes = {entry["name"]: entry["change"] for entry in found["objects"]}
        if changes != {CHANGED: "changed", DELETED: "removed"}:
            raise DemoFailed(f"the diff of ConfigMaps and Orders shows {changes}")
        sql = ORDERS_BY_NAMESPACE.format(point=second)
        self._terminal.strongroom("query", sql)
        rows = self._terminal.ask("query", sql)
        if [row["orders"] for row in rows] != [12, 11]:
            raise DemoFailed(f"the query counts {rows}, not 12 and 11 orders")
        self._terminal.strongroom("point", "cat", second, "configmap", f"shop/{CHANGED}", lines=6)
        self.proved.append("diff and SQL find the change in the stored recovery points, with no cluster needed")

    def _destroy(self) -> None:
        self._terminal.step("The disaster: both namespaces are deleted, with all that is cluster-wide and ours")
        folders = [volume_folder(self._testbed, claim) for claim in CLAIMS]
        for kind in reversed(CLUSTER_KINDS):  # webhooks first: their server would be asked about every deletion
            self._testbed.kubectl("delete", kind, "-l", MARK, "--wait=false")
        self._testbed.kubectl("delete", "namespace", *NAMESPACES, "--wait=false")
        wait_until(lambda: not self._left(), "the namespaces and the custom resources are gone")
        wait_until(lambda: not any(folder.exists() for folder in folders), "the volumes are gone from the disk")
        self._terminal.say("kubectl get namespaces: " + " ".join(self._names("namespaces")))
        self._terminal.say(f"all {len(folders)} volumes are gone from the disk")

    def _restore(self, point: str, expected: State) -> None:
        self._terminal.step("Plan the restore, read the plan, carry it out as read")
        plan = str(self._folder / "plan.json")
        chosen = ("--point", point, "--restore-status", RESTORED_STATUS)
        self._terminal.strongroom("restore", "plan", *chosen, "--plan", plan)
        self._terminal.strongroom("restore", "apply", "--plan", plan)
        self._wait_for_pods()
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

    def _wait_for_pods(self) -> None:
        wait_until(self._pods_ready, "all pods are ready")
        wait_until(self._claims_bound, "all claims are bound")

    def _pods_ready(self) -> bool:
        path = "jsonpath={range .items[*]}{.status.conditions[?(@.type=='Ready')].status}{' '}{end}"
        return all(
            self._testbed.kubectl("get", "pods", "-n", namespace, "-o", path).split() == ["True"] * count
            for namespace, count in PODS.items()
        )

    def _claims_bound(self) -> bool:
        phases = self._testbed.kubectl("get", "pvc", "-n", "warehouse", "-o", "jsonpath={.items[*].status.phase}")
        return phases.split() == ["Bound"] * len(CLAIMS)

    def _left(self) -> list[str]:
        ours = [name for kind in CLUSTER_KINDS for name in self._names(kind, "-l", MARK)]
        return ours + [name for name in self._names("namespaces") if name in NAMESPACES] + self._names("pv")

    def _names(self, *arguments: str) -> list[str]:
        return self._testbed.kubectl("get", *arguments, "-o", "jsonpath={.items[*].metadata.name}").split()

    def _latest(self) -> str:
        return str(self._terminal.ask("point", "show", "latest")["recoveryPointId"])


def main() -> int:
    """Run the demonstration in a folder of its own, which is removed afterwards."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="strongroom-demo-") as name:
        folder = Path(name)
        terminal = Terminal(
            {
                "KUBECONFIG": str(folder / "cluster" / "kubeconfig"),
                "STRONGROOM_REPOSITORY": f"file://{folder}/repository",
                "XDG_CONFIG_HOME": str(folder / "config"),
                "XDG_STATE_HOME": str(folder / "state"),
            }
        )
        terminal.step("Start a Kubernetes control plane with CSI volumes on loopback")
        cluster = str(folder / "cluster")
        try:
            terminal.strongroom("testbed", "up", "--dir", cluster)
            with OrderWebhook(folder) as webhook:
                demo = Demo(Testbed.open(Path(cluster)), webhook, terminal, folder)
                demo.run()
        except (DemoFailed, StrongroomError) as failure:
            terminal.say(f"\nFAILED: {failure}")
            return 1
        finally:
            terminal.strongroom("testbed", "down", "--dir", cluster)
    terminal.step("What was proved")
    for line in demo.proved:
        terminal.say(f"- {line}")
    terminal.say(f"in {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
