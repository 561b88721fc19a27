"""The drivers for stores behind HTTP keep the object store contract, against real servers on loopback."""

import base64
import hmac
import secrets
import socket
import time
import traceback
from collections.abc import AsyncIterator, Iterator
from urllib.parse import urlencode

import pytest

from strongroom.dataplane.objectstore import (
    ObjectInfo,
    ObjectStore,
    StoreDenied,
    StoreMissing,
    StoreUnavailable,
    open_store,
    parse_key,
    parse_location,
)
from strongroom.dataplane.objectstore.cloud import BRISK, CloudStore
from strongroom.dataplane.objectstore.location import AzureLocation
from strongroom.testbed.contracts import ObjectStoreContract
from strongroom.testbed.stores import Azurite, Moto, azurite, moto


@pytest.fixture(scope="module")
def blob_service() -> Iterator[Azurite]:
    with azurite() as server:
        yield server


@pytest.fixture(scope="module")
def s3_service() -> Iterator[Moto]:
    with moto() as server:
        yield server


class TestAzureStore(ObjectStoreContract):
    many = 5_100  # Azure Blob pages by 5,000

    @pytest.fixture
    async def store(self, blob_service: Azurite, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ObjectStore]:
        for name, value in blob_service.environment.items():
            monkeypatch.setenv(name, value)
        store = await open_store(blob_service.make_container(f"c{secrets.token_hex(8)}"))
        yield store
        await store.close()


class TestS3Store(ObjectStoreContract):
    @pytest.fixture
    async def store(self, s3_service: Moto, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ObjectStore]:
        for name, value in s3_service.environment.items():
            monkeypatch.setenv(name, value)
        url = s3_service.make_bucket(f"b{secrets.token_hex(8)}")
        store = await open_store(url.replace("?", "/backups/of-one?"))
        yield store
        await store.close()


class TestAzureErrors:
    @pytest.fixture
    def url(self, blob_service: Azurite, monkeypatch: pytest.MonkeyPatch) -> str:
        for name, value in blob_service.environment.items():
            monkeypatch.setenv(name, value)
        return blob_service.make_container(f"c{secrets.token_hex(8)}")

    async def test_a_wrong_key_is_denied_at_opening(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", base64.b64encode(b"WRONGKEY" * 8).decode())
        with pytest.raises(StoreDenied) as raised:
            await open_store(url)
        assert "403" in raised.value.message
        assert "WRONGKEY" not in everything_said(raised.value)

    async def test_a_key_that_is_refused_later_is_denied_in_every_call(
        self, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", base64.b64encode(b"WRONGKEY" * 8).decode())
        location = parse_location(url)
        assert isinstance(location, AzureLocation)
        store = CloudStore(location, BRISK)
        key = parse_key("a/b")
        for call in (
            store.put(key, b"x"),
            store.get(key),
            store.get_range(key, 0, 1),
            store.get_tail(key, 1),
            store.head(key),
            store.delete([key]),
            collect(store, "a/"),
        ):
            with pytest.raises(StoreDenied):
                await call

    async def test_a_key_that_is_no_key_is_denied_and_not_repeated(
        self, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "WRONGKEY not base64")
        with pytest.raises(StoreDenied) as raised:
            await open_store(url)
        assert "WRONGKEY" not in everything_said(raised.value)

    async def test_the_name_that_the_azure_cli_reads_lets_in_too(
        self, url: str, blob_service: Azurite, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_KEY")
        monkeypatch.setenv("AZURE_STORAGE_KEY", blob_service.environment["AZURE_STORAGE_ACCOUNT_KEY"])
        store = await open_store(url)
        await store.put(parse_key("a"), b"x")

    async def test_a_sas_token_lets_in(self, url: str, blob_service: Azurite, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_KEY")
        monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", account_sas(blob_service))
        store = await open_store(url)
        await store.put(parse_key("a"), b"x")
        assert [info.key for info in await collect(store, "")] == ["a"]

    async def test_a_wrong_sas_token_is_denied_and_its_signature_nowhere_repeated(
        self, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_KEY")
        token = "sv=2021-08-06&ss=b&srt=sco&sp=rwdlac&se=2099-01-01T00:00:00Z&sig=SIGNATURE%3D"
        monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", token)
        with pytest.raises(StoreDenied) as raised:
            await open_store(url)
        assert "SIGNATURE" not in everything_said(raised.value)
        with pytest.raises(StoreUnavailable) as unreachable:
            await open_store(f"az://account1/container?endpoint={unused_address()}")
        assert "SIGNATURE" not in everything_said(unreachable.value)

    async def test_an_absent_container_is_missing_when_opened_and_when_written(self, url: str) -> None:
        absent = url.replace("?", "absent?")
        with pytest.raises(StoreMissing) as raised:
            await open_store(absent)
        assert "ContainerNotFound" in raised.value.message
        location = parse_location(absent)
        assert isinstance(location, AzureLocation)
        with pytest.raises(StoreMissing):
            await CloudStore(location, BRISK).put(parse_key("a"), b"x")

    async def test_a_server_that_is_not_there_is_unavailable_within_seconds(self, url: str) -> None:
        begin = time.monotonic()
        with pytest.raises(StoreUnavailable) as raised:
            await open_store(f"az://account1/container?endpoint={unused_address()}")
        assert time.monotonic() - begin < 10
        assert "refused" in raised.value.message


class TestS3Errors:
    async def test_an_absent_bucket_is_missing(self, s3_service: Moto, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in s3_service.environment.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(StoreMissing) as raised:
            await open_store(f"s3://absent-bucket/p?endpoint={s3_service.endpoint}&region=us-east-1")
        assert "NoSuchBucket" in raised.value.message

    async def test_plain_http_needs_an_endpoint_in_the_url(
        self, s3_service: Moto, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        url = s3_service.make_bucket(f"b{secrets.token_hex(8)}")
        for name, value in (*s3_service.environment.items(), ("AWS_ENDPOINT_URL", s3_service.endpoint)):
            monkeypatch.setenv(name, value)
        await open_store(url)
        with pytest.raises(StoreUnavailable):
            await open_store(url.partition("?")[0])


async def collect(store: ObjectStore, prefix: str) -> list[ObjectInfo]:
    return [info async for info in store.list(prefix)]


def everything_said(error: BaseException) -> str:
    """Return the error as a traceback shows it, its causes included."""
    return "".join(traceback.format_exception(error))


def unused_address() -> str:
    """Return the URL of a port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def account_sas(server: Azurite) -> str:
    """Return a token for everything in *server*'s account ("Create an account SAS", Azure Storage's reference)."""
    version, services, types, permissions, until = "2021-08-06", "b", "sco", "rwdlac", "2099-01-01T00:00:00Z"
    fields = [server.account, permissions, services, types, "", until, "", "", version, "", ""]
    key = base64.b64decode(server.environment["AZURE_STORAGE_ACCOUNT_KEY"])
    signature = base64.b64encode(hmac.digest(key, "\n".join(fields).encode(), "sha256")).decode()
    parts = {"sv": version, "ss": services, "srt": types, "sp": permissions, "se": until, "sig": signature}
    return urlencode(parts)
