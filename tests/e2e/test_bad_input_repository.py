"""Wrong repositories, keys and disks: a clear refusal with its remedy, and nothing half-written."""

import json
import resource
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from strongroom.testbed.cluster import Testbed

from .faults_stage import Ended, Stage, expect_refused, folder_stage, wait

NO_ACCOUNT = "az://account/container?endpoint="


@pytest.fixture
def bare(testbed: Testbed, tmp_path: Path) -> Stage:
    """A stage without a namespace and without a repository: nothing here gets as far as the cluster."""
    return folder_stage(testbed, "default", tmp_path)


@pytest.fixture
def stage(bare: Stage) -> Stage:
    made = bare.ask("repository", "init")
    assert made.code == 0, made.err
    return bare


def backed_up(stage: Stage) -> Ended:
    return stage.ask("point", "create", *stage.selection)


@pytest.mark.parametrize(
    ("url", "type_", "word"),
    [
        ("/srv/backup", "StoreMisused", "file://"),
        ("https://account.blob.core.windows.net/container", "StoreMisused", "az://"),
        ("ftp://server/backup", "StoreMisused", "ftp://"),
        ("file://server/backup", "StoreMisused", "file:///path"),
        ("az://ACCOUNT/container", "StoreMisused", "account"),
        ("az://account/container?sig=c2VjcmV0", "StoreMisused", "AZURE_STORAGE_SAS_TOKEN"),
        ("file:///nowhere/at/all", "StoreMissing", "does not exist"),
    ],
)
def test_a_wrong_repository_url_is_refused_before_anything_is_asked_of_the_cluster(
    bare: Stage, url: str, type_: str, word: str
) -> None:
    ended = bare.ask("point", "create", *bare.selection, url=url)
    expect_refused(ended, type_, word)
    assert "c2VjcmV0" not in ended.err, "a credential is never repeated"


def test_a_folder_without_a_repository_says_how_to_make_one(bare: Stage, tmp_path: Path) -> None:
    (tmp_path / "repository").mkdir()
    expect_refused(backed_up(bare), "NoRepository", "repository init")
    assert not list((tmp_path / "repository").iterdir())


def test_a_store_that_does_not_answer_is_unreachable(bare: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "c2VjcmV0")
    with socket.socket() as taken:  # bound and not listening: every connection is refused
        taken.bind(("127.0.0.1", 0))
        url = f"{NO_ACCOUNT}http://127.0.0.1:{taken.getsockname()[1]}"
        ended = bare.ask("point", "create", *bare.selection, url=url)
    expect_refused(ended, "StoreUnavailable", "endpoint")
    assert "c2VjcmV0" not in ended.err


def test_a_store_without_credentials_is_denied_and_the_variables_are_named(
    bare: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_KEY", raising=False)
    expect_refused(
        bare.ask("point", "create", *bare.selection, url=f"{NO_ACCOUNT}http://127.0.0.1:1"),
        "StoreDenied",
        "AZURE_STORAGE_ACCOUNT_KEY",
    )


def test_init_refuses_a_place_that_holds_something_and_keeps_it(stage: Stage, tmp_path: Path) -> None:
    before = sorted((tmp_path / "repository").rglob("*"))
    expect_refused(stage.ask("repository", "init"), "RepositoryExists")
    assert sorted((tmp_path / "repository").rglob("*")) == before
    letters = tmp_path / "letters"
    letters.mkdir()
    (letters / "letter").write_text("mine")
    expect_refused(stage.ask("repository", "init", url=f"file://{letters}"), "RepositoryExists", "letter")
    assert [path.name for path in letters.iterdir()] == ["letter"]


def test_init_never_overwrites_a_key_file(bare: Stage, tmp_path: Path) -> None:
    key = tmp_path / "key.json"
    key.write_text("the only key of another repository")
    expect_refused(bare.ask("repository", "init", "--key-file", str(key)), "KeyFileExists", "--key-file")
    assert key.read_text() == "the only key of another repository"
    expect_refused(bare.ask("repository", "info"), "NoRepository")


def test_a_missing_wrong_or_damaged_key_file_is_told_apart(stage: Stage, tmp_path: Path) -> None:
    own = next((tmp_path / "config" / "strongroom" / "keys").iterdir())
    other = tmp_path / "other.json"
    assert stage.ask("repository", "init", "--key-file", str(other), url=f"file://{tmp_path}/other").code == 0
    for command in (("point", "list"), ("point", "create", *stage.selection), ("repository", "check")):
        expect_refused(stage.ask(*command, "--key-file", str(other)), "WrongKey", "key file")
    expect_refused(stage.ask("point", "list", "--key-file", str(tmp_path / "none.json")), "KeyMissing", "--key-file")
    text = own.read_text()
    keys = {name: json.loads(text)[name] for name in ("rootKey", "writerKey", "recipient")}
    contents = [b"", b"\xff\xfe", b"[]", *(text.replace(key, f"!{key}").encode() for key in keys.values())]
    for content in contents:
        harmed = tmp_path / "harmed.json"
        harmed.write_bytes(content)
        refused = stage.ask("point", "list", "--key-file", str(harmed))
        expect_refused(refused, "KeyFileInvalid", str(harmed))
        assert not any(key in refused.err for key in keys.values())
    expect_refused(stage.ask("point", "list", "--key-file", str(tmp_path)), "KeyFileInvalid", str(tmp_path))
    harmed.write_text(text.replace(keys["recipient"], ""))
    expect_refused(stage.ask("point", "list", "--key-file", str(harmed)), "WrongKey", "key file")
    own.rename(tmp_path / "away.json")
    expect_refused(stage.ask("point", "list"), "KeyMissing", "encrypted", "--key-file", str(own))


def test_a_plain_repository_without_its_key_is_read_only(testbed: Testbed, tmp_path: Path) -> None:
    stage = folder_stage(testbed, "default", tmp_path)
    assert stage.ask("repository", "init", "--no-encryption").code == 0
    shutil.rmtree(tmp_path / "config")
    assert stage.ask("point", "list").json == []
    expect_refused(backed_up(stage), "ReadOnly", "--key-file")
    assert not (tmp_path / "repository" / "runs").exists()


@pytest.mark.parametrize(
    ("old", "new", "type_", "word"),
    [
        ('"version": 1', '"version": 2', "UnknownFormat", "version 2"),
        ('"features": []', '"features": ["dedup-2"]', "UnknownFormat", "dedup-2"),
        ('"aes-256-gcm"', '"rot13"', "UnknownFormat", "rot13"),
        ("strongroom-repository", "restic", "UnknownFormat", "not of a Strongroom repository"),
        ('"version": 1', '"version": ', "Damaged", "repository.json"),
        ('"rootKey": "', '"rootKey": "!', "Damaged", "root key"),
    ],
)
def test_a_repository_of_another_format_is_left_alone(
    stage: Stage, tmp_path: Path, old: str, new: str, type_: str, word: str
) -> None:
    config = tmp_path / "repository" / "repository.json"
    text = config.read_text()
    assert old in text
    config.write_text(text.replace(old, new))
    before = sorted((tmp_path / "repository").rglob("*"))
    for command in (("point", "list"), ("point", "create", *stage.selection), ("repository", "prune")):
        expect_refused(stage.ask(*command), type_, word)
    assert sorted((tmp_path / "repository").rglob("*")) == before


def test_a_repository_json_that_is_no_text_is_damage(stage: Stage, tmp_path: Path) -> None:
    (tmp_path / "repository" / "repository.json").write_bytes(b'{"format": "\xe1\xe1"}')
    expect_refused(stage.ask("repository", "info"), "Damaged", "repository.json")


def test_a_harmed_file_below_keys_is_named(stage: Stage, tmp_path: Path) -> None:
    for path in (tmp_path / "repository" / "keys").iterdir():
        sound = path.read_bytes()
        path.write_bytes(sound.replace(b'"payload":{', b'"payload":{"x":1,'))
        expect_refused(stage.ask("point", "list"), "NotTrusted", f"keys/{path.name}")
        path.write_bytes(sound[:-1])
        expect_refused(stage.ask("point", "list"), "Damaged", f"keys/{path.name}")
        path.write_bytes(sound)


def test_unknown_points_and_objects_are_told_with_where_to_look(stage: Stage) -> None:
    expect_refused(stage.ask("point", "show", "latest"), "NoSuchPoint", "point create")
    assert backed_up(stage).code == 0
    expect_refused(stage.ask("point", "show", "0000"), "NoSuchPoint", "point list")
    expect_refused(stage.ask("point", "show", ""), "NoSuchPoint", "empty")
    expect_refused(stage.ask("point", "cat", "latest", "secret", "default/none"), "NoSuchObject", "point objects")
    cluster = ("--kubeconfig", str(stage.testbed.kubeconfig))
    expect_refused(stage.ask("restore", "plan", "--point", "0000", *cluster), "NoSuchPoint", "point list")


def test_a_plan_that_cannot_be_written_or_read_is_a_usage_error(stage: Stage, tmp_path: Path) -> None:
    assert backed_up(stage).code == 0
    cluster = ("--kubeconfig", str(stage.testbed.kubeconfig))
    nowhere = str(tmp_path / "no" / "folder" / "plan.json")
    unwritable = stage.ask("restore", "plan", "--point", "latest", "--plan", nowhere, *cluster)
    expect_refused(unwritable, "UsageError", nowhere, "--plan")
    expect_refused(stage.ask("restore", "apply", "--plan", nowhere, *cluster), "UsageError", nowhere)
    for content in (b"", b"\xff\xfe", b'{"id": "\xe1"}', b"[]", b"{}"):
        (tmp_path / "plan").write_bytes(content)
        expect_refused(stage.ask("restore", "apply", "--plan", str(tmp_path / "plan"), *cluster), "PlanUnreadable")
    expect_refused(stage.ask("restore", "apply", "--resume", "none", *cluster), "NoSuchRestore")
    expect_refused(stage.ask("restore", "plan", "--point", "latest", "--map-namespace", "a", *cluster), "UsageError")


@pytest.mark.parametrize("sql", ["SELEC 1", "SELECT * FROM read_csv('/etc/passwd')", "SELECT nosuch FROM points"])
def test_a_query_that_is_wrong_or_reaches_out_is_refused(stage: Stage, sql: str) -> None:
    expect_refused(stage.ask("query", sql), "QueryRefused")


def test_a_full_disk_ends_a_backup_and_leaves_nothing_half_written(
    testbed: Testbed, namespace: str, tmp_path: Path
) -> None:
    """RLIMIT_FSIZE stands for the full disk: the small record of the run fits, the pack does not."""
    stage = folder_stage(testbed, namespace, tmp_path)
    assert stage.ask("repository", "init").code == 0
    stage.set_up()
    first = stage.back_up()
    stage.change(1)
    before = {path: path.stat().st_size for path in (tmp_path / "repository").rglob("*") if path.is_file()}
    process = stage.begin("point", "create", "--whole", *stage.selection)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (1_000, 1_000))
    expect_refused(wait(process), "StoreFull", "Free space")
    after = {path: path.stat().st_size for path in (tmp_path / "repository").rglob("*") if path.is_file()}
    assert before.items() <= after.items()
    assert {path.parent.name for path in after.keys() - before.keys()} == {"runs"}, "whole files only, none named"
    assert stage.points() == {first: "Completed"}
    stage.expect_sound()
    assert stage.saved(stage.back_up()) == stage.live()


def test_a_really_full_filesystem_is_told_as_such(bare: Stage, tmp_path: Path) -> None:
    """On a tmpfs of 64 KiB in a mount namespace of its own, where the machine lets us have one."""
    place = tmp_path / "small"
    place.mkdir()
    script = 'mount -t tmpfs -o size=64k none "$1" && head -c 100k /dev/zero > "$1"/.filler; shift; exec "$@"'
    probe = ["unshare", "--mount", "sh", "-c", script, "sh", str(place)]
    if subprocess.run([*probe, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no mount namespace here")
    process = bare.begin("repository", "init", url=f"file://{place}", prefix=probe)
    expect_refused(wait(process), "StoreFull", "full")
