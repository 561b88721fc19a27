"""Metadata in the server's binary encoding: what identifies an object is read right, whatever else stands beside it."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.dataplane.collector.metadata import Meta, MetaPage, decode_metadata
from strongroom.dataplane.kube.errors import KubeProtocolError
from strongroom.dataplane.kube.kinds import Kind

KIND = Kind("", "v1", "ConfigMap", "configmaps", namespaced=True, verbs=frozenset({"list"}))


def number(value: int) -> bytes:
    """A protobuf varint."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def text(field: int, value: str | bytes) -> bytes:
    """A length-delimited protobuf field."""
    data = value.encode() if isinstance(value, str) else value
    return number(field << 3 | 2) + number(len(data)) + data


def whole(field: int, value: int) -> bytes:
    """A number as a protobuf field."""
    return number(field << 3) + number(value)


def object_of(meta: Meta, *, generate_name: str = "", generation: int = 0, more: bytes = b"") -> bytes:
    """A PartialObjectMetadata as the API server marshals it: fields by number, empty texts written."""
    labels = b"".join(text(11, text(1, key) + text(2, value)) for key, value in json.loads(bytes(meta.labels)).items())
    head = text(1, meta.name) + text(2, generate_name) + text(3, meta.namespace) + text(4, "") + text(5, meta.uid)
    head += text(6, meta.resource_version) + whole(7, generation) + text(8, whole(1, 1_700_000_000)) + whole(10, 30)
    return text(1, head + labels + text(12, text(1, "note") + text(2, "n" * 300)) + more)


def answer(objects: list[bytes], *, revision: str = "42", token: str = "", remaining: int | None = None) -> bytes:
    meta = text(1, "") + text(2, revision) + text(3, token) + (whole(4, remaining) if remaining is not None else b"")
    body = text(1, meta) + b"".join(text(2, one) for one in objects)
    return (
        b"k8s\x00"
        + text(1, text(1, "meta.k8s.io/v1") + text(2, "PartialObjectMetadataList"))
        + text(2, body)
        + text(3, "")
        + text(4, "")
    )


def decode(body: bytes, *, labels: bool = True) -> MetaPage:
    return decode_metadata(body, KIND, "/api/v1/configmaps", labels=labels)


names = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=260)
metas = st.builds(
    lambda name, namespace, uid, version, labels: Meta(name, namespace, uid, version, _raw(labels)),
    names,
    st.text(st.characters(codec="ascii"), max_size=63),
    st.text("0123456789abcdef-", max_size=140),
    st.text("0123456789", max_size=20),
    st.dictionaries(st.text("abc/.-", min_size=1, max_size=200), st.text(max_size=63), max_size=3),
)


def _raw(labels: dict[str, str]) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(labels))


def seen(meta: Meta) -> tuple[object, ...]:
    return meta.name, meta.namespace, meta.uid, meta.resource_version, json.loads(bytes(meta.labels))


@given(
    st.lists(metas, max_size=5), st.text("abc", max_size=200), st.integers(0, 2**40), st.none() | st.integers(0, 10**6)
)
def test_what_was_encoded_is_decoded(
    objects: list[Meta], generate_name: str, generation: int, remaining: int | None
) -> None:
    body = answer(
        [object_of(one, generate_name=generate_name, generation=generation) for one in objects],
        token="next",
        remaining=remaining,
    )
    page = decode(body)
    assert [seen(one) for one in page.metas] == [seen(one) for one in objects]
    assert (page.revision, page.continue_token, page.remaining, page.size) == ("42", "next", remaining, len(body))
    assert [seen(one)[:4] for one in decode(body, labels=False).metas] == [seen(one)[:4] for one in objects]


def test_labels_are_decoded_unasked_where_an_object_bears_the_mark_to_exclude_it() -> None:
    marked = Meta("a", "shop", "u", "1", _raw({"velero.io/exclude-from-backup": "true"}))
    (found,) = decode(answer([object_of(marked)]), labels=False).metas
    assert b"exclude-from-backup" in bytes(found.labels)


def test_an_answer_in_json_is_understood_as_well() -> None:
    item = {"metadata": {"name": "a", "namespace": "shop", "uid": "u", "resourceVersion": "7", "labels": {"x": "y"}}}
    document = {
        "kind": "PartialObjectMetadataList",
        "metadata": {"resourceVersion": "42", "continue": "next", "remainingItemCount": 3},
        "items": [item],
    }
    page = decode(json.dumps(document).encode())
    assert [seen(one) for one in page.metas] == [("a", "shop", "u", "7", {"x": "y"})]
    assert (page.revision, page.continue_token, page.remaining) == ("42", "next", 3)


@pytest.mark.parametrize("cut", [5, 20, 60, 80, -1, -8])
def test_an_answer_that_is_cut_off_is_refused(cut: int) -> None:
    body = answer([object_of(Meta("a", "shop", "u" * 36, "7")) for _ in range(3)])
    inner = body[:cut]
    with pytest.raises(KubeProtocolError):
        decode(b"k8s\x00" + text(2, inner[4:]) if cut < 0 else inner)


def test_something_else_is_refused() -> None:
    for body in (b"", b"{}", b"k8s\x00", b"<html>", json.dumps({"kind": "Status"}).encode()):
        with pytest.raises(KubeProtocolError):
            decode(body)
