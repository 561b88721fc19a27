"""A restore that is killed goes on where it was: nothing is missing, and nothing is done twice."""

import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from strongroom.dataplane.collector.collect import BackupRequest, collect
from strongroom.dataplane.kube.api import KubeApi
from strongroom.dataplane.kube.transport import RetryPolicy
from strongroom.dataplane.objectstore.opening import open_store
from strongroom.dataplane.repository.keyfile import KeyFile
from strongroom.dataplane.repository.model import Selection
from strongroom.dataplane.repository.points import RecoveryPoint
from strongroom.dataplane.repository.repository import Repository
from strongroom.dataplane.restore.errors import NoSuchRestore, RestoreInterrupted, RestoreTakenOver
from strongroom.dataplane.restore.execute import execute, load_plan, new_restore_id
from strongroom.dataplane.restore.gather import gather_plan
from strongroom.dataplane.restore.model import Done, RestorePlan, RestoreRequest, RestoreState
from strongroom.testbed.cluster import Testbed
from strongroom.testbed.faults import FaultProxy
from strongroom.testbed.faults_rules import DropRequest, Rule

VICTIM = Path(__file__).with_name("restore_victim.py")
CONFIG_MAPS = 6
STEP = 5  # every fifth of some 27 writes, twice with another start: each wave is hit, in half a minute


class Saved:
    """A recovery point of a namespace with owners, children and a volume, in a folder that another process can open."""

    def __init__(self, testbed: Testbed, namespace: str, folder: Path) -> None:
        self.testbed = testbed
        self.namespace = namespace
        self.folder = folder
        self.url = f"file://{folder}/repository"
        self.repo: Repository
        self.point: RecoveryPoint

    async def save(self, api: KubeApi) -> None:
        store = await open_store(self.url, create=True)
        _, key = await Repository.init(store, key_file=self.folder / "key.json")
        self.repo = await Repository.open(store, KeyFile.load(key))
        self.apply(*(config(f"c{number}") for number in range(CONFIG_MAPS)))
        self.apply(
            {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": {"name": "data"},
                "spec": {
                    "accessModes": ["ReadWriteOnce"],
                    "storageClassName": "folder-immediate",
                    "resources": {"requests": {"storage": "1Mi"}},
                },
            }
        )
        self.testbed.kubectl(
            "wait", "--for=jsonpath={.status.phase}=Bound", "pvc/data", "-n", self.namespace, "--timeout=30s"
        )
        uid = self.get("configmap", "c0", self.namespace)["metadata"]["uid"]
        owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "c0", "uid": uid}
        self.apply(config("child", ownerReferences=[owner]))
        self.testbed.kubectl(
            "apply", "--server-side", "--field-manager=gitops", "-n", self.namespace, "-f", "-",
            stdin=json.dumps(config("applied")),
        )  # fmt: skip
        selection = Selection(include_namespaces=(self.namespace,))
        result = await collect(api, self.repo, BackupRequest(selection=selection, marker=False, whole=True))
        self.point = await self.repo.point(result.manifest.id)

    def apply(self, *objects: dict[str, Any]) -> None:
        documents = "\n---\n".join(json.dumps(obj) for obj in objects)
        self.testbed.kubectl("apply", "-n", self.namespace, "-f", "-", stdin=documents)

    def get(self, kind: str, name: str, namespace: str) -> dict[str, Any]:
        found = json.loads(
            self.testbed.kubectl("get", kind, name, "-n", namespace, "-o", "json", "--show-managed-fields")
        )
        assert isinstance(found, dict)
        return found

    async def plan(self, api: KubeApi, target: str) -> RestorePlan:
        plan = await gather_plan(api, self.point, RestoreRequest(map_namespaces={self.namespace: target}))
        (self.folder / "plan.json").write_bytes(plan.to_json())
        return plan

    async def killed_restore(self, restore_id: str, at: int, *, after: bool) -> bool:
        """Carry the saved plan out in a process that is killed at write *at*; say whether it was."""
        task = {
            "repository": self.url,
            "key": str(self.folder / "key.json"),
            "plan": str(self.folder / "plan.json"),
            "kubeconfig": str(self.testbed.kubeconfig),
            "id": restore_id,
            "at": at,
            "after": after,
        }
        process = await asyncio.create_subprocess_exec(sys.executable, VICTIM, json.dumps(task))
        code = await process.wait()
        assert code in (0, -signal.SIGKILL)
        return code != 0


def config(name: str, **metadata: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, **metadata}, "data": {"n": name}}


@pytest.mark.parametrize("after", [False, True], ids=["before the write", "after the write"])
async def test_a_restore_that_is_killed_at_any_write_is_completed_by_resuming_it(
    testbed: Testbed, namespace: str, tmp_path: Path, after: bool
) -> None:
    saved = Saved(testbed, namespace, tmp_path)
    async with KubeApi.from_kubeconfig(testbed.kubeconfig) as api:
        await saved.save(api)
        at = 4 if after else 2  # before the first entry there is no restore yet
        survived = False
        while not survived:
            target = f"{namespace}-{at}"
            plan = await saved.plan(api, target)
            restore_id = new_restore_id()
            try:
                survived = not await saved.killed_restore(restore_id, at, after=after)
                try:
                    loaded = await load_plan(saved.repo, restore_id)
                except NoSuchRestore:  # killed while it wrote its plan: nothing was sent
                    assert not testbed.kubectl("get", "namespace", target, "--ignore-not-found")
                    at += STEP
                    continue
                assert loaded == plan
                result = await execute(api, saved.repo, saved.point, loaded, restore_id=restore_id, resume=True)
                assert result.state is RestoreState.COMPLETED, [o for o in result.objects if o.action is Done.FAILED]
                due = {(p.kind, p.name) for wave in plan.waves for p in wave.objects}
                made = {(o.kind, o.name) for o in result.objects if o.action is Done.CREATED}
                # The cluster itself makes the default ServiceAccount, sooner or later than the restore.
                assert due - made <= {("ServiceAccount", "default")}
                owner = saved.get("configmap", "c0", target)["metadata"]["uid"]
                child = saved.get("configmap", "child", target)["metadata"]
                assert [reference["uid"] for reference in child["ownerReferences"]] == [owner]
                managed = saved.get("configmap", "applied", target)["metadata"]["managedFields"]
                assert [entry["operation"] for entry in managed] == ["Apply"]
                testbed.kubectl(
                    "wait", "--for=jsonpath={.status.phase}=Bound", "pvc/data", "-n", target, "--timeout=30s"
                )
                # Resuming what is over changes nothing and tells the same.
                again = await execute(api, saved.repo, saved.point, loaded, restore_id=restore_id, resume=True)
                assert again == result
            finally:
                testbed.kubectl("delete", "namespace", target, "--wait=false", "--ignore-not-found")
            at += STEP
    assert at > 20  # it was killed at writes of every wave


async def test_a_target_that_stops_answering_leaves_a_restore_to_resume(
    testbed: Testbed, namespace: str, tmp_path: Path
) -> None:
    saved = Saved(testbed, namespace, tmp_path)
    target = f"{namespace}-r"
    try:
        async with KubeApi.from_kubeconfig(testbed.kubeconfig) as api:
            await saved.save(api)
            plan = await saved.plan(api, target)
            restore_id = new_restore_id()
            with FaultProxy.for_cluster(testbed.kubeconfig) as proxy:
                proxy.add(Rule(DropRequest(), method="POST", path="/configmaps", skip=2))
                kubeconfig = proxy.write_kubeconfig(tmp_path / "proxy")
                retry = RetryPolicy(attempts=2, total_s=2)
                async with KubeApi.from_kubeconfig(kubeconfig, retry=retry) as broken:
                    with pytest.raises(RestoreInterrupted, match=restore_id):
                        await execute(broken, saved.repo, saved.point, plan, restore_id=restore_id)
            result = await execute(api, saved.repo, saved.point, plan, restore_id=restore_id, resume=True)
            assert result.state is RestoreState.COMPLETED
    finally:
        testbed.kubectl("delete", "namespace", target, "--wait=false", "--ignore-not-found")


async def test_a_restore_that_never_began_or_runs_elsewhere_is_refused(
    testbed: Testbed, namespace: str, tmp_path: Path
) -> None:
    saved = Saved(testbed, namespace, tmp_path)
    target = f"{namespace}-r"
    try:
        async with KubeApi.from_kubeconfig(testbed.kubeconfig) as api:
            await saved.save(api)
            plan = await saved.plan(api, target)
            with pytest.raises(NoSuchRestore):
                await load_plan(saved.repo, "0123456789abcdef")
            restore_id = new_restore_id()
            both = await asyncio.gather(
                execute(api, saved.repo, saved.point, plan, restore_id=restore_id),
                execute(api, saved.repo, saved.point, plan, restore_id=restore_id),
                return_exceptions=True,
            )
            assert sorted(isinstance(outcome, RestoreTakenOver) for outcome in both) == [False, True]
    finally:
        testbed.kubectl("delete", "namespace", target, "--wait=false", "--ignore-not-found")
