"""Volume snapshots while the CSI side of a cluster is down, and after it came back."""

import asyncio
import json
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from strongroom.dataplane.kube.api import KubeApi
from strongroom.dataplane.kube.discovery import discover
from strongroom.dataplane.repository.model import VolumeEntry, VolumeState
from strongroom.dataplane.snapshots.claims import claim_from_object, volume_from_object
from strongroom.dataplane.snapshots.delete import delete_snapshots
from strongroom.dataplane.snapshots.session import SnapshotSession
from strongroom.dataplane.snapshots.sweep import sweep_orphans
from strongroom.testbed.cluster import Testbed

CLAIM = """
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data, namespace: default}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}
"""


async def test_without_the_controllers_snapshots_fail_in_time_and_what_is_left_goes_when_they_are_back(
    own_testbed: Callable[..., Testbed], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("strongroom.dataplane.snapshots.removal.REMOVAL_SECONDS", 0.5)
    testbed = own_testbed()
    repository = uuid.uuid4().hex
    testbed.kubectl("apply", "-f", "-", stdin=CLAIM)
    testbed.kubectl("wait", "--for=jsonpath={.status.phase}=Bound", "pvc/data")
    claim = claim_from_object(testbed.kubectl("get", "pvc", "data", "-o", "json").encode())
    found = json.loads(testbed.kubectl("get", "pv", "-o", "json"))["items"]
    volumes = {one.name: one for one in (volume_from_object(json.dumps(item).encode()) for item in found)}
    on_storage = testbed.snapshot_path("x").parent

    async with KubeApi.from_kubeconfig(testbed.kubeconfig) as api:
        discovery = await discover(api)

        async def run(cut: float) -> tuple[SnapshotSession, VolumeEntry]:
            session = await SnapshotSession.start(
                api, discovery, uuid.uuid4().hex, [claim], volumes, {}, repository_id=repository
            )
            await session.cut(cut)
            await session.ready()
            entries, _ = session.entries({claim.uid: claim}, datetime.now(UTC))
            return session, entries[0]

        def left() -> list[str]:
            kinds = "volumesnapshots,volumesnapshotcontents"
            return testbed.kubectl("get", kinds, "-A", "-o", "name").split()

        session, kept = await run(60.0)
        assert await session.release() == ()
        assert kept.state is VolumeState.SNAPSHOT_READY

        left_behind = []
        for component in ("csi-snapshotter", "snapshot-controller"):
            testbed.stop(component)
            session, entry = await run(1.0)
            assert entry.state is VolumeState.SNAPSHOT_FAILED
            assert entry.reason == "was not cut after 1 s"
            left_behind.append(await session.release())
        assert [text.rpartition(": ")[2] for text in left_behind[0]] == ["still there"]
        [outcome] = await delete_snapshots(api, discovery, [kept], timeout=1.0)
        assert not outcome.deleted
        assert "has not confirmed it in time" in outcome.reason
        assert left() != []
        assert [one.stem for one in on_storage.glob("*.json")] == [kept.handle]

        # Its content is there and being deleted when the snapshotter comes back: gone must mean deleted.
        waiting = asyncio.create_task(delete_snapshots(api, discovery, [kept], timeout=60.0))
        await asyncio.to_thread(testbed.start, "csi-snapshotter")
        [outcome] = await waiting
        assert outcome.deleted, outcome.reason
        assert [*on_storage.glob("*.json")] == []

        await asyncio.to_thread(testbed.start, "snapshot-controller")
        monkeypatch.setattr("strongroom.dataplane.snapshots.removal.REMOVAL_SECONDS", 60.0)
        later = datetime.now(UTC) + timedelta(hours=1)
        await sweep_orphans(api, discovery, set(), later, {kept.handle}, repository_id=repository)
        assert left() == []
        assert [*on_storage.glob("*.json")] == []
