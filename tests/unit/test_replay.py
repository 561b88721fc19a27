"""The replaying server answers as an API server does, as far as it answers at all."""

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from strongroom.dataplane.collector.collect import BackupRequest, collect
from strongroom.dataplane.kube.api import KubeApi
from strongroom.dataplane.kube.discovery import Discovery, discover
from strongroom.dataplane.kube.errors import KubeBadRequest, KubeExpired, KubeTooLargeResourceVersion
from strongroom.dataplane.kube.transport import RetryPolicy
from strongroom.dataplane.objectstore.memory import MemoryStore
from strongroom.testbed.builders import new_repository
from strongroom.testbed.replay import FIRST_REVISION, ReplayedKind, serve

SECRETS = ReplayedKind("", "v1", "Secret", "secrets", 3, 7, lambda number: b',"data":{"n":"%d"}' % number)
WIDGETS = ReplayedKind("example.com", "v1", "Widget", "widgets", 3, 4, lambda _: b',"spec":{}', custom=True)


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[KubeApi]:
    async with (
        serve([SECRETS, WIDGETS], 3, tmp_path),
        KubeApi.from_kubeconfig(tmp_path / "kubeconfig", retry=RetryPolicy(attempts=1)) as api,
    ):
        yield api


@pytest.fixture
async def served(api: KubeApi) -> Discovery:
    return await discover(api)


@pytest.mark.parametrize("metadata_only", [False, True])
@pytest.mark.parametrize("spelling", ["secrets", "widgets.example.com"])
async def test_pages_hold_every_object_once_in_the_one_order(
    api: KubeApi, served: Discovery, spelling: str, metadata_only: bool
) -> None:
    kind = served.find(spelling)
    names = []
    async for page in api.list_pages(kind, revision=str(FIRST_REVISION), limit=5, metadata_only=metadata_only):
        for item in page.items:
            fields = msgspec.json.decode(item)
            assert ("data" in fields or "spec" in fields) is not metadata_only
            names.append(f"{fields['metadata']['namespace']}/{fields['metadata']['name']}")
    assert len(names) == {"secrets": 21, "widgets": 12}[kind.plural]
    assert names == sorted(set(names))


async def test_one_namespace_holds_its_own_objects_alone(api: KubeApi, served: Discovery) -> None:
    pages = [page async for page in api.list_pages(served.find("secrets"), namespace="team-00001")]
    assert [msgspec.json.decode(item)["data"]["n"] for item in pages[0].items] == [str(n) for n in range(7, 14)]


async def test_one_object_is_found_by_name_and_is_the_one_of_the_list(api: KubeApi, served: Discovery) -> None:
    kind = served.find("secrets")
    listed = [bytes(item) async for page in api.list_pages(kind) for item in page.items]
    found = await api.get_at(kind, "secret-00000013", "team-00001", str(FIRST_REVISION))
    assert found is not None
    assert bytes(found) == listed[13]
    assert await api.get_at(kind, "secret-00000013", "team-00002", str(FIRST_REVISION)) is None


async def test_only_the_newest_revision_is_listed(api: KubeApi, served: Discovery) -> None:
    with pytest.raises(KubeExpired):
        await anext(api.list_pages(served.find("secrets"), revision=str(FIRST_REVISION - 1)))
    with pytest.raises(KubeTooLargeResourceVersion):
        await anext(api.list_pages(served.find("secrets"), revision=str(FIRST_REVISION + 1)))


async def test_what_it_does_not_know_is_refused(api: KubeApi, served: Discovery) -> None:
    with pytest.raises(KubeBadRequest):
        await anext(api.list_pages(served.find("secrets"), labels="app=app-1"))


async def test_a_second_backup_takes_all_objects_over_from_the_first(api: KubeApi, tmp_path: Path) -> None:
    repository = await new_repository(MemoryStore("replayed", create=True), tmp_path)
    first = await collect(api, repository, BackupRequest())
    again = await collect(api, repository, BackupRequest())
    secrets = next(entry for entry in first.manifest.kinds if entry.kind == "Secret")
    assert (first.manifest.state, secrets.objects, first.manifest.incremental.taken_over) == ("Completed", 21, 0)
    assert again.manifest.incremental.taken_over == first.manifest.objects
