"""What may be attached as storage, and what of it reaches an extension."""

import json
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from shutil import rmtree
from urllib.parse import parse_qs

import pytest

from strongroom.controlplane.catalog.errors import AttachmentRefused
from strongroom.controlplane.catalog.sealed import StateSecrets
from strongroom.controlplane.catalog.stores import (
    Folders,
    StorageAccount,
    container_url,
    extension_access,
    make_container,
    open_container,
    refuse_endpoint,
    validate_attachment,
)
from strongroom.controlplane.state.database import Database
from strongroom.controlplane.workflows.containers import Containers, Place
from strongroom.dataplane.objectstore.errors import StoreDenied, StoreMissing, StoreMisused
from strongroom.dataplane.objectstore.port import parse_key
from strongroom.protection.addresses import refused_address

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
KEY = {"accountKey": "c2VjcmV0LWtleQ=="}
PAIR = {"accessKeyId": "AKIA", "secretAccessKey": "zq7"}
GOOGLE = {"type": "service_account", "client_email": "a@b.example", "private_key": "zq7"}
strict = partial(refused_address, allow_loopback=False)
lenient = partial(refused_address, allow_loopback=True)


def attach(
    url: str,
    credentials: dict[str, str],
    home: Path,
    *,
    roots: tuple[Path, ...] | None = None,
    loopback: bool = False,
) -> StorageAccount:
    return validate_attachment(
        url, credentials, folders=Folders(home, roots), refuse_address=lenient if loopback else strict
    )


@pytest.mark.parametrize(
    ("url", "credentials", "container"),
    [
        ("az://account1", KEY, "az://account1/backups"),
        ("az://account1/shared/prefix/", KEY, "az://account1/shared/prefix/backups"),
        ("az://account1", {"sasToken": "sv=1&sig=zq7"}, "az://account1/backups"),
        (
            "az://account1?endpoint=https://blob.core.chinacloudapi.cn",
            KEY,
            "az://account1/backups?endpoint=https://blob.core.chinacloudapi.cn",
        ),
        ("s3://bucket-1/a?region=eu-west-1", PAIR, "s3://bucket-1/a/backups?region=eu-west-1"),
        ("s3://bucket-1?endpoint=http://10.0.0.8:9000", PAIR, "s3://bucket-1/backups?endpoint=http://10.0.0.8:9000"),
        ("gs://bucket-1", {"serviceAccountKey": json.dumps(GOOGLE)}, "gs://bucket-1/backups"),
        ("file:///mnt/backups", {}, "file:///mnt/backups/backups"),
    ],
)
def test_what_can_be_attached_has_its_containers_below_it(
    tmp_path: Path, url: str, credentials: dict[str, str], container: str
) -> None:
    account = attach(url, credentials, tmp_path)
    assert container_url(account, "backups", storage=tmp_path) == container
    assert "zq7" not in repr(account)


@pytest.mark.parametrize(
    ("url", "credentials", "field", "said"),
    [
        ("memory://m", {}, "url", "ends with the server"),
        ("https://account1.blob.core.windows.net", KEY, "url", "which kind of store"),
        ("az://account1?sig=zq7", KEY, "url", "credential in its parameter"),
        ("az://user:zq7@account1", KEY, "url", "user or password"),
        ("az://Account_1", KEY, "url", "storage account name"),
        ("az://account1", {}, "credentials", "no credentials"),
        ("az://account1", {"accountKey": ""}, "credentials", "no credentials"),
        ("az://account1", {"clientSecret": "zq7"}, "credentials", "'clientSecret'"),
        ("az://account1", KEY | {"sasToken": "zq7"}, "credentials", "two kinds"),
        ("s3://bucket-1", {"accessKeyId": "AKIA"}, "credentials", "no credentials"),
        ("az://account1?endpoint=http://169.254.169.254", KEY, "url", "link-local"),
        ("s3://bucket-1?endpoint=http://127.0.0.1:9000", PAIR, "url", "loopback"),
        ("s3://bucket-1?endpoint=http://[::1]:9000", PAIR, "url", "loopback"),
        ("s3://bucket-1?endpoint=http://[::ffff:127.0.0.1]:9000", PAIR, "url", "loopback"),
        ("s3://bucket-1?endpoint=http://localhost:9000", PAIR, "url", "loopback"),
        ("gs://bucket-1", {"serviceAccountKey": "zq7"}, "credentials.serviceAccountKey", "JSON text"),
        (
            "gs://bucket-1",
            {"serviceAccountKey": json.dumps(GOOGLE | {"gcs_base_url": "http://127.0.0.1:1"})},
            "credentials.serviceAccountKey",
            "'gcs_base_url'",
        ),
        (
            "gs://bucket-1",
            {"serviceAccountKey": json.dumps(GOOGLE | {"token_uri": "http://127.0.0.1:1"})},
            "credentials.serviceAccountKey",
            "not the key of a service account",
        ),
        (
            "gs://bucket-1",
            {"serviceAccountKey": json.dumps({"type": "external_account"})},
            "credentials.serviceAccountKey",
            "not the key of a service account",
        ),
        ("file:///mnt/x", KEY, "credentials", "no credentials"),
        ("file://host/mnt", {}, "url", ""),
        ("file:relative", {}, "url", ""),
        ("http://[bad", {}, "url", "cannot be read"),
    ],
)
def test_what_cannot_be_attached_is_refused_by_field_and_without_its_secret(
    tmp_path: Path, url: str, credentials: dict[str, str], field: str, said: str
) -> None:
    with pytest.raises(AttachmentRefused) as refused:
        attach(url, credentials, tmp_path)
    assert refused.value.field == field
    assert said in str(refused.value)
    assert "zq7" not in str(refused.value)


def test_the_home_and_what_holds_it_cannot_be_attached_not_even_by_a_link(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "storage" / "local").mkdir(parents=True)
    (tmp_path / "link").symlink_to(home)
    for folder in (home, home / "storage" / "local", tmp_path, tmp_path / "link" / "storage", Path("/")):
        with pytest.raises(AttachmentRefused, match="home"):
            attach(f"file://{folder}", {}, home)
    attach(f"file://{tmp_path}/elsewhere", {}, home)


def test_folders_are_attached_only_where_the_server_says_so(tmp_path: Path) -> None:
    home, root = tmp_path / "home", tmp_path / "root"
    (root / "inside").mkdir(parents=True)
    (root / "out").symlink_to(tmp_path / "elsewhere")
    (root / "home").symlink_to(home)
    for roots in ((), (tmp_path / "other",)):
        with pytest.raises(AttachmentRefused, match="administrator"):
            attach(f"file://{root}/inside", {}, home, roots=roots)
    for folder in ("inside", "inside/deeper", "not-there-yet", "../root/inside/"):
        if ".." in folder:
            with pytest.raises(AttachmentRefused):
                attach(f"file://{root}/{folder}", {}, home, roots=(root,))
        else:
            attach(f"file://{root}/{folder}", {}, home, roots=(root,))
    for folder in ("out", "out/deeper", "home", "home/storage/local"):
        with pytest.raises(AttachmentRefused, match=r"administrator|home"):
            attach(f"file://{root}/{folder}", {}, home, roots=(root,))
    (tmp_path / "link").symlink_to(root)
    attach(f"file://{root}/inside", {}, home, roots=(tmp_path / "link",))


async def test_a_container_that_became_a_link_out_of_the_root_is_refused_at_use(tmp_path: Path) -> None:
    home, root = tmp_path / "home", tmp_path / "root"
    root.mkdir()
    place = Place(StorageAccount("account1", f"file://{root}/a"), "/account1", "box")
    secrets = StateSecrets(Database.open(f"sqlite:///{tmp_path}/state.sqlite", b"k" * 32))
    containers = Containers(home, secrets, strict, (root,))
    await containers.prove(place)
    async with containers.store(place):
        pass
    (root / "a" / "box").rename(tmp_path / "box")
    (root / "a" / "box").symlink_to(tmp_path / "box")
    with pytest.raises(AttachmentRefused, match="administrator"):
        async with containers.store(place):
            pass
    with pytest.raises(AttachmentRefused, match="administrator"):
        await containers.location(place)
    # Whoever serves without the root any more has withdrawn what was attached there.
    (root / "a" / "box").unlink()
    (tmp_path / "box").rename(root / "a" / "box")
    with pytest.raises(AttachmentRefused, match="administrator"):
        await Containers(home, secrets, strict).prove(place)


def test_loopback_is_open_where_the_server_listens_on_loopback_alone(tmp_path: Path) -> None:
    attach("s3://bucket-1?endpoint=http://127.0.0.1:9000", PAIR, tmp_path, loopback=True)
    with pytest.raises(AttachmentRefused, match="link-local"):
        attach("s3://bucket-1?endpoint=http://169.254.169.254", PAIR, tmp_path, loopback=True)


@pytest.mark.parametrize("host", ["localhost", "127.1", "2130706433"])
async def test_a_name_that_leads_to_a_refused_address_is_refused_at_use(host: str) -> None:
    account = StorageAccount("", f"s3://bucket-1?endpoint=http://{host}:9", PAIR)
    with pytest.raises(AttachmentRefused, match="loopback"):
        await refuse_endpoint(account, strict)
    await refuse_endpoint(account, lenient)


async def test_a_local_container_is_a_folder_of_the_home_that_only_the_owner_reads(tmp_path: Path) -> None:
    account = StorageAccount("account1")
    store = await open_container(account, "backups", storage=tmp_path / "storage", refuse_address=strict)
    await store.put(parse_key("a/b"), b"bytes")
    folder = tmp_path / "storage" / "account1" / "backups"
    assert (folder / "a" / "b").read_bytes() == b"bytes"
    assert folder.stat().st_mode & 0o777 == 0o700
    access = extension_access(account, "backups", storage=tmp_path / "storage", now=NOW)
    assert access.url == store.url
    assert account.is_folder
    assert access.warnings


async def test_a_container_in_an_attached_folder_is_made_once_and_never_at_use(tmp_path: Path) -> None:
    """A file server that is not mounted leaves an empty folder: a backup there would be lost from sight."""
    account = StorageAccount("", f"file://{tmp_path}/mounted")
    for _ in range(2):
        await make_container(account, "backups", storage=tmp_path / "storage", refuse_address=strict)
    await open_container(account, "backups", storage=tmp_path / "storage", refuse_address=strict)
    rmtree(tmp_path / "mounted" / "backups")
    with pytest.raises(StoreMissing):
        await open_container(account, "backups", storage=tmp_path / "storage", refuse_address=strict)


@pytest.mark.parametrize(
    ("account", "container"),
    [("..", "backups"), ("account1", ".."), ("account1", "a/b"), ("Acc", "backups"), ("", "x")],
)
def test_names_that_lead_out_of_the_folder_are_refused(tmp_path: Path, account: str, container: str) -> None:
    with pytest.raises(StoreMisused):
        container_url(StorageAccount(account), container, storage=tmp_path)


def test_an_azure_account_key_never_reaches_the_extension(tmp_path: Path) -> None:
    account = StorageAccount("", "az://account1", KEY)
    access = extension_access(account, "backups", storage=tmp_path, now=NOW)
    assert access.credentials.keys() == {"sasToken"}
    said = parse_qs(access.credentials["sasToken"])
    assert (said["sp"], said["sr"], said["spr"]) == (["rcl"], ["c"], ["https"])
    assert said["se"] == ["2026-11-23T13:00:00Z"]
    assert access.expires == NOW + timedelta(hours=1)
    assert KEY["accountKey"] not in access.credentials["sasToken"]
    assert access.credentials["sasToken"] not in repr(access)
    assert not access.warnings


def test_an_account_key_that_cannot_be_one_is_not_repeated(tmp_path: Path) -> None:
    account = StorageAccount("", "az://account1", {"accountKey": "zq7 is no base64"})
    with pytest.raises(StoreDenied) as denied:
        extension_access(account, "backups", storage=tmp_path, now=NOW)
    assert "zq7" not in str(denied.value)


@pytest.mark.parametrize(
    ("url", "credentials"), [("s3://bucket-1", PAIR), ("az://account1", {"sasToken": "sv=1&sig=zq7"})]
)
def test_credentials_that_cannot_be_narrowed_are_handed_on_with_a_warning(
    tmp_path: Path, url: str, credentials: dict[str, str]
) -> None:
    access = extension_access(StorageAccount("", url, credentials), "backups", storage=tmp_path, now=NOW)
    assert access.credentials == credentials
    assert "not replace or delete" in access.warnings[0]
