"""What a store's URL may say, and what is refused with the remedy."""

import traceback
from pathlib import Path

import pytest

from strongroom.dataplane.objectstore import Key, StoreDenied, StoreMisused, open_store, parse_key, parse_location
from strongroom.dataplane.objectstore.cloud import _azure_endpoint
from strongroom.dataplane.objectstore.credentials import require_credentials
from strongroom.dataplane.objectstore.location import (
    AzureLocation,
    FileLocation,
    GcsLocation,
    Location,
    MemoryLocation,
    S3Location,
)
from strongroom.errors import ExitCode


@pytest.mark.parametrize(
    ("url", "location"),
    [
        ("file:///srv/backups", FileLocation(Path("/srv/backups"))),
        ("file://localhost/srv/backups/", FileLocation(Path("/srv/backups"))),
        ("file:///srv/my%20backups", FileLocation(Path("/srv/my backups"))),
        ("memory://one", MemoryLocation("one")),
        ("az://account1/container/a/b", AzureLocation("account1", "container", "a/b")),
        ("az://account1/container/", AzureLocation("account1", "container", "")),
        (
            "az://account1/container?endpoint=http://127.0.0.1:10000/",
            AzureLocation("account1", "container", "", "http://127.0.0.1:10000"),
        ),
        ("s3://my.bucket", S3Location("my.bucket", "")),
        (
            "s3://bucket/p?region=eu-west-1&endpoint=https%3A%2F%2Fminio.example%3A9000",
            S3Location("bucket", "p", "https://minio.example:9000", "eu-west-1"),
        ),
        ("gs://my_bucket/deep/prefix", GcsLocation("my_bucket", "deep/prefix")),
    ],
)
def test_every_form_is_read_and_written_back_so_that_it_means_the_same(url: str, location: Location) -> None:
    assert parse_location(url) == location
    assert parse_location(location.url) == location


@pytest.mark.parametrize(
    ("url", "names"),
    [
        ("az://account1:SECRETVALUE@container", "AZURE_STORAGE_ACCOUNT_KEY"),
        ("az://account1/container?sig=SECRETVALUE", "AZURE_STORAGE_SAS_TOKEN"),
        ("az://account1/container?sv=2021&se=2030&sp=r&sig=SECRETVALUE", "AZURE_STORAGE_SAS_TOKEN"),
        ("az://account1/container?account_key=SECRETVALUE", "AZURE_STORAGE_ACCOUNT_KEY"),
        ("az://account1/container?endpoint=https://u:SECRETVALUE@host", "AZURE_STORAGE_ACCOUNT_KEY"),
        ("az://account1/container?endpoint=https://host/%3Fsig=SECRETVALUE", "AZURE_STORAGE_SAS_TOKEN"),
        ("s3://KEYID:SECRETVALUE@bucket/prefix", "AWS_SECRET_ACCESS_KEY"),
        ("s3://KEYID:SECRETVALUE/more@bucket/prefix", ""),
        ("s3://bucket?secret_access_key=SECRETVALUE", "AWS_SECRET_ACCESS_KEY"),
        ("s3://bucket?X-Amz-Signature=SECRETVALUE", "AWS_SECRET_ACCESS_KEY"),
        ("gs://bucket?Token=SECRETVALUE", "GOOGLE_APPLICATION_CREDENTIALS"),
    ],
)
def test_a_credential_in_a_url_is_refused_unrepeated_and_its_variable_named(url: str, names: str) -> None:
    with pytest.raises(StoreMisused) as raised:
        parse_location(url)
    assert "SECRETVALUE" not in "".join(traceback.format_exception(raised.value))
    assert names in raised.value.hint


@pytest.mark.parametrize(
    "url",
    [
        "",
        "/srv/backups",
        "./backups",
        "backups",
        "file:backups",
        "file://backups/here",
        "file://",
        "file:///a?endpoint=http://x",
        "memory://",
        "memory://a/b",
        "http://host/bucket",
        "https://account.blob.core.windows.net/c?sp=rw&sig=SECRETVALUE",
        "azure://account/container",
        "az://account1",
        "az://Account1/container",
        "az://account1/Bad_Container",
        "az://account1/c",
        "az://account1/container/bad prefix",
        "az://account1/container/../other",
        "az://account1/container/.hidden",
        "az://account1/container#fragment",
        "az://account1:443/container",
        "az://account1/container?region=x",
        "s3://b",
        "s3://bucket?endpoint=minio:9000",
        "s3://bucket?endpoint=ftp://minio",
        "s3://bucket?region=EU WEST",
        "s3://bucket?region=a&region=b",
        "s3://bucket:99999999",
        "s3://bucket?unknown=1",
        "gs://",
    ],
)
def test_a_malformed_url_is_a_usage_error(url: str) -> None:
    with pytest.raises(StoreMisused) as raised:
        parse_location(url)
    assert raised.value.exit_code is ExitCode.USAGE
    assert "SECRETVALUE" not in str(raised.value)


@pytest.mark.parametrize(
    ("endpoint", "address"),
    [
        (None, "https://acc.blob.core.windows.net"),
        ("http://127.0.0.1:10000", "http://127.0.0.1:10000/acc"),
        ("http://127.0.0.1:10000/acc", "http://127.0.0.1:10000/acc"),
        ("http://[::1]:10000", "http://[::1]:10000/acc"),
        ("http://azurite:10000", "http://azurite:10000/acc"),
        ("https://blob.core.chinacloudapi.cn", "https://acc.blob.core.chinacloudapi.cn"),
        ("https://acc.blob.core.usgovcloudapi.net", "https://acc.blob.core.usgovcloudapi.net"),
        ("https://backups.example.org", "https://backups.example.org"),
    ],
)
def test_an_azure_endpoint_may_be_given_with_the_account_or_without(endpoint: str | None, address: str) -> None:
    assert _azure_endpoint(AzureLocation("acc", "container", "", endpoint)) == address


@pytest.mark.parametrize(
    ("url", "variable"),
    [
        ("az://account1/container", "AZURE_STORAGE_ACCOUNT_KEY"),
        ("s3://bucket", "AWS_ACCESS_KEY_ID"),
        ("gs://bucket", "GOOGLE_APPLICATION_CREDENTIALS"),
    ],
)
async def test_without_credentials_nothing_is_sent_and_the_variable_is_named(
    url: str, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AZURE_STORAGE_ACCOUNT_KEY", "AWS_ACCESS_KEY_ID", "GOOGLE_APPLICATION_CREDENTIALS", "HOME"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(StoreDenied) as raised:
        await open_store(url)
    assert variable in raised.value.hint
    assert raised.value.exit_code is ExitCode.UNREACHABLE


def test_half_of_a_pair_of_credentials_is_a_usage_error_that_names_the_other_half() -> None:
    with pytest.raises(StoreMisused, match="AWS_SECRET_ACCESS_KEY is not"):
        require_credentials(S3Location("bucket", ""), {"AWS_ACCESS_KEY_ID": "x"})


def test_a_variable_that_names_an_absent_file_is_named(tmp_path: Path) -> None:
    environment = {"GOOGLE_APPLICATION_CREDENTIALS": str(tmp_path / "absent.json")}
    with pytest.raises(StoreDenied, match="GOOGLE_APPLICATION_CREDENTIALS"):
        require_credentials(GcsLocation("bucket", ""), environment)


async def test_a_google_key_file_that_is_none_is_denied_without_a_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "key.json"
    file.write_text("{not json")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
    with pytest.raises(StoreDenied, match="cannot be read"):
        await open_store("gs://bucket")


@pytest.mark.parametrize(
    "text", ["", "/a", "a/", "a//b", ".", "..", "a/../b", ".tmp/x", "a b", "a\n", "ä", "a\\b", "a:b"]
)
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(StoreMisused):
        parse_key(text)


def test_keys_end_where_the_smallest_store_ends() -> None:
    assert parse_key("s" * 255) == Key("s" * 255)
    for text in ("s" * 256, "/".join(["s" * 200] * 4)):
        with pytest.raises(StoreMisused, match="exceed"):
            parse_key(text)
