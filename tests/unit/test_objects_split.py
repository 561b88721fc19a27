"""What a cluster serves is split as it promises to be, and else refused by name."""

import pytest

from strongroom.dataplane.repository.errors import MalformedObject
from strongroom.dataplane.repository.objects import split


@pytest.mark.parametrize(
    "served",
    [
        b"[]",
        b"{}",
        b'{"metadata": []}',
        b'{"metadata": {}}',
        b'{"metadata": {"name": null}}',
        b'{"metadata": {"name": "a", "uid": 1}}',
        b'{"metadata": {"name": "a", "generation": "1"}}',
        b'{"metadata": {"name": "a", "\xff": 1}}',
        b'{"metadata": {"name": "a", "labels": {"\xff": ""}}}',
    ],
)
def test_what_is_no_object_is_malformed(served: bytes) -> None:
    with pytest.raises(MalformedObject, match="Widget"):
        split(served, "example.com", "v1", "Widget")


def test_values_and_their_order_stay_the_servers_own() -> None:
    served = (
        b'{"spec":{"b":1.0,"a":"\\u00e9"},"kind":"Other","metadata":{"managedFields":[1],"annotations":null,"name":"a",'
        b'"uid":"u","labels":null,"resourceVersion":"7","generation":2},"status":{"x":1e2},"apiVersion":"v0"}'
    )
    parts = split(served, "example.com", "v1", "Widget")
    assert parts.body == (
        b'{"apiVersion":"example.com/v1","kind":"Widget","spec":{"b":1.0,"a":"\\u00e9"},'
        b'"metadata":{"annotations":null,"name":"a","labels":null}}'
    )
    assert (parts.status, parts.managed_fields, parts.labels) == (b'{"x":1e2}', b"[1]", "{}")
    assert (parts.namespace, parts.name, parts.uid, parts.resource_version, parts.generation) == ("", "a", "u", "7", 2)
