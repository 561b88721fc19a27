"""Points as facts, deletion and prune without a cluster, and what a container says of the instances it had."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from strongroom.controlplane.catalog.points import (
    VolumeFacts,
    list_objects,
    list_points,
    point_report,
    read_object,
)
from strongroom.controlplane.catalog.pruning import NO_CLUSTER, delete_point, left_of, prune, waiting_volumes
from strongroom.controlplane.catalog.rebuild import read_instances
from strongroom.dataplane.repository import paths
from strongroom.dataplane.repository.errors import NoSuchObject, NoSuchPoint
from strongroom.dataplane.repository.journal import write_restore_entry
from strongroom.dataplane.repository.keyfile import KeyFile
from strongroom.dataplane.repository.model import ClusterIdentity, Instant, Manifest, VolumeEntry, VolumeState
from strongroom.dataplane.repository.prune import PointInUse
from strongroom.dataplane.repository.repository import Repository
from strongroom.testbed.builders import back_up, config_map, new_repository
from strongroom.testbed.unreliable import Killed, Lost, UnreliableStore

MAX_RUN = timedelta(seconds=3600)
LONG_AFTER = 3 * MAX_RUN
VAULT = "/subscriptions/s/resourceGroups/rg/providers/Microsoft.DataProtection/backupVaults/vault"


@pytest.fixture
def store(tmp_path: Path) -> UnreliableStore:
    return UnreliableStore(f"points-{tmp_path}".replace("/", "-"), create=True)


@pytest.fixture
async def repository(store: UnreliableStore, tmp_path: Path) -> Repository:
    return await new_repository(store, tmp_path, max_run_seconds=int(MAX_RUN.total_seconds()))


def volume(handle: str, claim: str = "data") -> VolumeEntry:
    state = VolumeState.SNAPSHOT_READY if handle else VolumeState.NOT_SNAPSHOTTABLE
    return VolumeEntry(
        namespace="shop", claim=claim, claim_uid=f"uid-{claim}", driver="csi.test", state=state, handle=handle
    )


def instant(hour: int) -> Instant:
    return Instant(revision="7", taken=f"2026-11-23T{hour:02}:00:00Z")


async def commit(repository: Repository, text: str = "1", **said: Any) -> Manifest:
    return (await back_up(repository, [config_map("a", text), config_map("b", text)], **said))[1]


class Cluster:
    """Deletes snapshots, except those that it is told to hold on to; remembers what it was asked."""

    def __init__(self, *held: str) -> None:
        self.held = set(held)
        self.asked: list[tuple[str, list[str]]] = []

    async def delete(self, point: str, volumes: Sequence[VolumeFacts]) -> Mapping[str, str]:
        self.asked.append((point, [v.handle for v in volumes]))
        return {v.handle: "the driver is busy" for v in volumes if v.handle in self.held}


async def test_a_point_comes_with_what_the_control_plane_needs_of_it(repository: Repository) -> None:
    caller = {"instance": f"{VAULT}/backupInstances/i", "tag": "Daily", "job": "j1"}
    manifest = await commit(
        repository, caller=caller, volumes=[volume("h1"), volume("", "cache")], state="Partial", instant=instant(9)
    )
    (point,) = (await list_points(repository)).points
    assert point.id == manifest.id
    assert point.time == datetime(2026, 11, 23, 9, 0, tzinfo=UTC)
    assert (point.partial, point.base, point.objects, point.caller) == (True, "", 2, caller)
    assert [(v.claim, v.handle, v.state) for v in point.volumes] == [
        ("data", "h1", "ready"),
        ("cache", "", "notSnapshottable"),
    ]
    assert (point.coverage.saved, point.coverage.failed) == (1, 0)
    assert point.sha256 == (await repository.load(manifest.id)).sha256


async def test_only_manifests_that_are_not_known_are_read(store: UnreliableStore, repository: Repository) -> None:
    for hour in range(5):
        await commit(repository, str(hour), instant=instant(hour))
    first = await list_points(repository)
    assert [p.time.hour for p in first.points] == [0, 1, 2, 3, 4]
    known = {p.id: p.sha256 for p in first.points}
    new = await commit(repository, "new", instant=instant(9))
    before = store.bytes_read
    everything = await list_points(repository)
    whole = store.bytes_read - before
    before = store.bytes_read
    listing = await list_points(repository, known=known)
    assert [p.id for p in listing.points] == [new.id]
    assert store.bytes_read - before < whole / 2
    assert len(everything.points) == 6


async def test_what_became_of_known_points_is_told_apart(
    store: UnreliableStore, repository: Repository, tmp_path: Path
) -> None:
    manifests = [await commit(repository, str(n)) for n in range(4)]
    known = {p.id: p.sha256 for p in (await list_points(repository)).points}
    await delete_point(repository, manifests[0].id)
    await store.delete([paths.manifest_path(manifests[1].id)])
    replaced = paths.manifest_path(manifests[3].id)
    await store.delete([replaced])
    other = await Repository.open(store, KeyFile.load(tmp_path / "key.json"))
    again = await commit(other, "in its place")
    assert again.id == manifests[3].id
    listing = await list_points(repository, known=known)
    assert listing.deleted == {manifests[0].id}
    assert listing.lost == {manifests[1].id, manifests[3].id}
    assert not listing.points


async def test_a_damaged_point_is_named_and_hides_no_other(store: UnreliableStore, repository: Repository) -> None:
    bad, good = await commit(repository, "1"), await commit(repository, "2")
    await store.put(paths.manifest_path(bad.id), b"nonsense", if_absent=False)
    listing = await list_points(repository)
    assert [p.id for p in listing.points] == [good.id]
    assert listing.unreadable.keys() == {bad.id}


async def test_a_report_says_everything_but_names_no_files(repository: Repository) -> None:
    manifest = await commit(repository, volumes=[volume("h1")], warnings=["odd"])
    report = await point_report(repository, manifest.id)
    assert report["warnings"] == ["odd"]
    assert report["volumes"][0]["handle"] == "h1"
    (kind,) = report["kinds"]
    assert (kind["kind"], kind["readAs"], "segments" in kind) == ("ConfigMap", "exact", False)
    msgspec.json.encode(report)


async def test_objects_are_browsed_in_pages_and_read_as_they_were_served(repository: Repository) -> None:
    objects = [config_map(f"c{n:04}", f"{n}") for n in range(1500)]
    _, manifest = await back_up(repository, objects)
    seen: list[str] = []
    after = ""
    while page := await list_objects(repository, manifest.id, "", "ConfigMap", after=after, limit=400):
        assert len(page) <= 400
        seen += [each.name for each in page]
        after = f"{page[-1].namespace}/{page[-1].name}"
    assert seen == [f"c{n:04}" for n in range(1500)]
    body = msgspec.json.decode(await read_object(repository, manifest.id, "", "ConfigMap", "shop", "c0042"))
    assert body["data"] == {"value": "42"}
    assert await list_objects(repository, manifest.id, "apps", "Deployment") == []
    with pytest.raises(NoSuchObject):
        await read_object(repository, manifest.id, "", "ConfigMap", "shop", "absent")


async def test_a_point_is_deleted_with_its_snapshots(repository: Repository) -> None:
    manifest = await commit(repository, volumes=[volume("h1"), volume("h2", "logs"), volume("", "cache")])
    cluster = Cluster()
    assert await delete_point(repository, manifest.id, delete_volumes=cluster.delete) == ()
    assert cluster.asked == [(manifest.id, ["h1", "h2"])]
    assert not (await list_points(repository)).points
    assert await waiting_volumes(repository) == ()


async def test_without_a_cluster_a_point_is_deleted_and_its_snapshots_wait(
    store: UnreliableStore, repository: Repository
) -> None:
    manifest = await commit(repository, volumes=[volume("h1")])
    (waiting,) = await delete_point(repository, manifest.id)
    assert (waiting.point, waiting.volume.handle, waiting.reason) == (manifest.id, "h1", NO_CLUSTER)
    assert not (await list_points(repository)).points
    store.age(LONG_AFTER)
    swept = await prune(repository)
    assert swept.swept_points == (manifest.id,)  # the files go, whether or not there is a cluster
    assert [w.volume.handle for w in swept.waiting] == ["h1"]
    assert [w.volume.handle for w in await waiting_volumes(repository)] == ["h1"]
    cluster = Cluster("h1")
    (waiting,) = (await prune(repository, delete_volumes=cluster.delete)).waiting
    assert (waiting.point, waiting.reason) == (manifest.id, "the driver is busy")
    cluster.held.clear()
    assert await delete_point(repository, manifest.id, delete_volumes=cluster.delete) == ()
    assert cluster.asked == [(manifest.id, ["h1"])] * 2
    assert await waiting_volumes(repository) == ()


async def test_what_is_left_of_several_points_is_tried_for_each(repository: Repository) -> None:
    points = [await commit(repository, str(n), volumes=[volume(f"h{n}")]) for n in range(2)]
    for each in points:
        await delete_point(repository, each.id)
    cluster = Cluster("h1")
    report = await prune(repository, delete_volumes=cluster.delete)
    assert sorted(cluster.asked) == sorted((p.id, [f"h{n}"]) for n, p in enumerate(points))
    assert [(w.point, w.volume.handle) for w in report.waiting] == [(points[1].id, "h1")]


@pytest.mark.parametrize("lost", Lost)
async def test_a_deletion_killed_at_any_write_is_ended_by_the_next(tmp_path: Path, lost: Lost) -> None:
    for write in range(2):  # the record; the shorter record once a snapshot is gone
        folder = tmp_path / f"{write}"
        name = f"kill-{folder}".replace("/", "-")
        repository = await new_repository(UnreliableStore(name, create=True), folder)
        manifest = await commit(repository, volumes=[volume("h1"), volume("h2", "logs")])
        keys = KeyFile.load(folder / "key.json")
        dying = UnreliableStore(name)
        opened = await Repository.open(dying, keys)
        dying.lose(write, lost, then_dead=True)
        with pytest.raises(Killed):
            await delete_point(opened, manifest.id, delete_volumes=Cluster("h2").delete)
        repository = await Repository.open(UnreliableStore(name), keys)
        (waiting,) = await delete_point(repository, manifest.id, delete_volumes=Cluster("h2").delete)
        assert waiting.volume.handle == "h2"
        assert await delete_point(repository, manifest.id, delete_volumes=Cluster().delete) == ()
        assert await waiting_volumes(repository) == ()
        assert not (await list_points(repository)).points


async def test_a_point_that_never_was_cannot_be_deleted(repository: Repository) -> None:
    with pytest.raises(NoSuchPoint):
        await delete_point(repository, "0" * 16 + "-0000000000000001", delete_volumes=Cluster().delete)


async def test_a_point_that_a_restore_reads_is_kept(repository: Repository) -> None:
    manifest = await commit(repository, volumes=[volume("h1")])
    await write_restore_entry(repository, "restore-1", 0, {"plan": {"point": manifest.id}})
    cluster = Cluster()
    with pytest.raises(PointInUse):
        await delete_point(repository, manifest.id, delete_volumes=cluster.delete)
    assert cluster.asked == []
    assert len((await list_points(repository)).points) == 1


async def test_a_damaged_point_can_be_deleted(store: UnreliableStore, repository: Repository) -> None:
    manifest = await commit(repository, volumes=[volume("h1")])
    await store.put(paths.manifest_path(manifest.id), b"nonsense", if_absent=False)
    assert await delete_point(repository, manifest.id, delete_volumes=Cluster().delete) == ()
    assert not (await list_points(repository)).unreadable


async def test_a_prune_says_when_the_next_sweep_is_due(store: UnreliableStore, repository: Repository) -> None:
    manifest = await commit(repository)
    assert (await prune(repository)).next_sweep is None
    await delete_point(repository, manifest.id)
    due = (await prune(repository)).next_sweep
    assert due is not None
    assert abs(due - datetime.now(UTC) - 2 * MAX_RUN) < timedelta(minutes=1)


def test_a_list_that_was_cut_short_confirms_nothing_that_it_does_not_name() -> None:
    volumes = [VolumeFacts("shop", f"c{n}", "csi.test", f"h{n}", "ready") for n in range(3)]
    assert left_of(volumes, {"h0": "busy"}, 1) == {"h0": "busy"}
    cut = left_of(volumes, {"h0": "busy"}, 2)
    assert cut.keys() == {"h0", "h1", "h2"}
    assert cut["h0"] == "busy"


async def test_instances_policies_and_points_come_back_from_a_container(repository: Repository) -> None:
    one = f"{VAULT}/backupInstances/one"
    two = f"{VAULT.replace('/vault', '/other')}/backupInstances/two"
    gold, silver = f"{VAULT}/backupPolicies/gold", f"{VAULT}/backupPolicies/silver"
    await commit(repository, "1", instant=instant(1), caller={"instance": one, "policy": silver, "config": "{1}"})
    await commit(
        repository,
        "2",
        instant=instant(2),
        caller={"instance": one.upper(), "policy": gold, "friendlyName": "shop", "dataSource": "/aks", "config": "{2}"},
    )
    moved = ClusterIdentity(id="another", server="https://other.test", version="v1.37.2")
    await commit(repository, "3", instant=instant(3), caller={"instance": two, "policy": gold}, cluster=moved)
    await commit(repository, "4", instant=instant(4), caller={"instance": two, "policy": gold})
    stranger = await commit(repository, "5", instant=instant(5))
    found = await read_instances(repository)
    first, second = sorted(found.instances, key=lambda i: i.id.lower().rpartition("/")[2])
    assert first.id == one.upper()
    assert first.vault == VAULT.upper()
    assert (first.policy, first.data_source, first.friendly_name, first.config) == (gold, "/aks", "shop", "{2}")
    assert [p.time.hour for p in first.points] == [1, 2]
    assert second.clusters == ("another", "c")  # its points were taken from two clusters: somebody should look
    assert found.policies == (gold,)
    assert len(found.vaults) == 2
    assert [p.id for p in found.strangers] == [stranger.id]
