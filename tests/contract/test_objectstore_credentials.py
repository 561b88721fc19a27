"""Credentials that a caller hands over open a store, and those of the environment then count for nothing."""

import base64
import hmac
import secrets
import time
from collections.abc import Iterator
from urllib.parse import urlencode

import pytest
from obstore.exceptions import GenericError

from strongroom.dataplane.objectstore import StoreDenied, StoreMisused, open_store, parse_key
from strongroom.dataplane.objectstore.cloud import unbuildable
from strongroom.testbed.stores import Azurite, Moto, azurite, moto

WRONG = base64.b64encode(b"WRONGKEY" * 8).decode()


@pytest.fixture(scope="module")
def blob_service() -> Iterator[Azurite]:
    with azurite() as server:
        yield server


@pytest.fixture(scope="module")
def s3_service() -> Iterator[Moto]:
    with moto() as server:
        yield server


def account_sas(server: Azurite, permissions: str) -> str:
    """Return an account SAS of an hour ("Create an account SAS", version 2018-11-09), as a query without '?'."""
    expiry = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3600))
    version, services, types, protocol = "2018-11-09", "b", "sco", "https,http"
    said = [server.account, permissions, services, types, "", expiry, "", protocol, version, ""]
    key = base64.b64decode(server.environment["AZURE_STORAGE_ACCOUNT_KEY"])
    signature = base64.b64encode(hmac.digest(key, "\n".join(said).encode(), "sha256")).decode()
    fields = {"sv": version, "ss": services, "srt": types, "sp": permissions, "se": expiry, "spr": protocol}
    return urlencode({**fields, "sig": signature})


async def test_a_given_account_key_opens_a_container_though_the_environment_names_another(
    blob_service: Azurite, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = blob_service.make_container(f"c{secrets.token_hex(8)}")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", WRONG)
    key = blob_service.environment["AZURE_STORAGE_ACCOUNT_KEY"]
    store = await open_store(url, credentials={"accountKey": key})
    await store.put(parse_key("a/b"), b"bytes")
    assert await store.get(parse_key("a/b")) == b"bytes"


async def test_a_given_sas_allows_what_it_says_and_no_more(
    blob_service: Azurite, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = blob_service.make_container(f"c{secrets.token_hex(8)}")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", blob_service.environment["AZURE_STORAGE_ACCOUNT_KEY"])
    store = await open_store(url, credentials={"sasToken": "?" + account_sas(blob_service, "crl")})
    await store.put(parse_key("a/b"), b"bytes")
    assert [info.key async for info in store.list("")] == ["a/b"]
    reader = await open_store(url, credentials={"sasToken": account_sas(blob_service, "rl")})
    assert await reader.get(parse_key("a/b")) == b"bytes"
    with pytest.raises(StoreDenied):
        await reader.put(parse_key("a/c"), b"bytes")


async def test_a_wrong_key_is_denied_and_not_repeated(blob_service: Azurite) -> None:
    url = blob_service.make_container(f"c{secrets.token_hex(8)}")
    with pytest.raises(StoreDenied) as raised:
        await open_store(url, credentials={"accountKey": WRONG})
    assert WRONG not in str(raised.value)


async def test_given_access_keys_open_a_bucket(s3_service: Moto) -> None:
    url = s3_service.make_bucket(f"b{secrets.token_hex(8)}")
    store = await open_store(url, credentials={"accessKeyId": "AKIDEXAMPLE", "secretAccessKey": "any"})
    await store.put(parse_key("a"), b"bytes")
    assert await store.get(parse_key("a")) == b"bytes"


@pytest.mark.parametrize(
    ("url", "given", "expected", "said"),
    [
        ("az://account1/container", {}, StoreDenied, "accountKey or sasToken"),
        ("az://account1/container", {"accountKey": "a", "sasToken": "b"}, StoreMisused, "two kinds"),
        ("s3://bucket-1", {"accountKey": "zq7"}, StoreMisused, "'accountKey'"),
        ("s3://bucket-1", {"accessKeyId": "zq7"}, StoreDenied, "secretAccessKey"),
        ("memory://m", {"accountKey": "zq7"}, StoreMisused, "takes no credentials"),
    ],
)
async def test_credentials_that_do_not_fit_the_store_are_refused_by_name(
    url: str, given: dict[str, str], expected: type[Exception], said: str
) -> None:
    with pytest.raises(expected) as raised:
        await open_store(url, credentials=given)
    assert said in str(raised.value)
    assert "zq7" not in str(raised.value)


@pytest.mark.parametrize("given", [False, True])
def test_a_system_without_authorities_is_not_told_that_its_credentials_are_wrong(given: bool) -> None:
    # As obstore 0.12 says it in a container without ca-certificates.
    said = 'Generic HTTP client error: builder error\n\nDebug source:\n"No CA certificates were loaded from the system"'
    error = unbuildable(GenericError(said), "s3://bucket", given=given)
    assert isinstance(error, StoreMisused)
    assert "certificates of authorities" in error.message
