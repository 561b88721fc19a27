"""The demo's comparison sees what a restore may lose, and nothing in what it may change."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from strongroom.cli.demo.verify import Json, State, differences, read_files

OWNER = ("Order.shop.example.com", "shop", "order")
OWNED = ("ConfigMap", "shop", "invoice")
CLAIM = ("PersistentVolumeClaim", "shop", "data")


def state() -> State:
    def item(uid: str, **more: Any) -> Json:
        managed = [{"manager": "gitops", "operation": "Apply", "fieldsV1": {"f:spec": {}}}]
        metadata = {"name": uid, "uid": uid, "resourceVersion": "1", "generation": 1, "managedFields": managed}
        return {"kind": more.pop("kind"), "metadata": metadata, **more}

    owned = item("invoice", kind="ConfigMap", data={"a": "1"})
    owned["metadata"]["ownerReferences"] = [{"kind": "Order", "name": "order", "uid": "order"}]
    owner = item("order", kind="Order", spec={"quantity": 1}, status={"phase": "Shipped"})
    claim = item("data", kind="PersistentVolumeClaim", spec={"volumeName": "pv-1", "accessModes": ["x"]}, status={})
    return State({OWNER: owner, OWNED: owned, CLAIM: claim}, {"data": {"file": "sha256 a"}})


def new_identities(after: State) -> None:
    """What every restore changes: uids, revisions, the volume's name, a controller's status."""
    for each in after.objects.values():
        each["metadata"] |= {"uid": "new-" + each["metadata"]["uid"], "resourceVersion": "99", "generation": 7}
    after.objects[OWNED]["metadata"]["ownerReferences"][0]["uid"] = "new-order"
    after.objects[CLAIM]["spec"] |= {"volumeName": "pv-2", "dataSource": {"kind": "VolumeSnapshot"}}
    after.objects[CLAIM]["status"] = {"phase": "Bound"}


def test_what_a_restore_must_change_is_no_difference() -> None:
    after = copy.deepcopy(state())
    new_identities(after)
    assert differences(state(), after) == []


def drop_object(after: State) -> None:
    del after.objects[OWNED]


def add_object(after: State) -> None:
    after.objects["Secret", "shop", "extra"] = {"kind": "Secret", "metadata": {"uid": "x", "name": "extra"}}


def change_field(after: State) -> None:
    after.objects[OWNED]["data"]["a"] = "2"


def lose_status_of_a_custom_resource(after: State) -> None:
    del after.objects[OWNER]["status"]


def keep_the_old_uid_of_an_owner(after: State) -> None:
    after.objects[OWNED]["metadata"]["ownerReferences"][0]["uid"] = "order"


def lose_an_applier(after: State) -> None:
    after.objects[OWNED]["metadata"]["managedFields"] = []


def change_a_file(after: State) -> None:
    after.volumes["data"]["file"] = "sha256 b"


def lose_a_file(after: State) -> None:
    after.volumes["data"].clear()


LOSSES = [
    drop_object,
    add_object,
    change_field,
    lose_status_of_a_custom_resource,
    keep_the_old_uid_of_an_owner,
    lose_an_applier,
    change_a_file,
    lose_a_file,
]


@pytest.mark.parametrize("loss", LOSSES)
def test_each_loss_is_one_difference(loss: Callable[[State], None]) -> None:
    after = copy.deepcopy(state())
    new_identities(after)
    loss(after)
    assert len(differences(state(), after)) == 1


def test_files_are_compared_by_type_mode_and_content(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("one")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("a")
    before = read_files(tmp_path)
    assert set(before) == {"a", "folder", "link"}
    (tmp_path / "a").chmod(0o600 if "644" in before["a"] else 0o644)
    assert read_files(tmp_path)["a"] != before["a"]
    (tmp_path / "link").unlink()
    (tmp_path / "link").symlink_to("folder")
    assert read_files(tmp_path)["link"] != before["link"]
