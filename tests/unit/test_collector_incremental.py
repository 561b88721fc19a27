"""When objects may be taken over from an earlier point, and the reason each time they may not."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from strongroom.dataplane.collector.incremental import (
    Definition,
    Stored,
    base_of,
    converts_by_webhook,
    read_because,
    whole_because,
)
from strongroom.dataplane.collector.kindread import KindRead
from strongroom.dataplane.kube.kinds import Kind
from strongroom.dataplane.repository.model import (
    ClusterIdentity,
    FileRef,
    Incremental,
    Instant,
    KindEntry,
    Manifest,
    PointId,
    ReadAs,
    RunId,
    SegmentRef,
    Selection,
)

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
CONFIG_MAPS = Kind("", "v1", "ConfigMap", "configmaps", namespaced=True, verbs=frozenset())
WIDGETS = Kind("shop.example.com", "v1", "Widget", "widgets", namespaced=True, verbs=frozenset())
WIDGET = Definition("uid/7", False)


def segment(first: str, last: str) -> SegmentRef:
    return SegmentRef(file=FileRef(id=first, sha256="0", length=1), content=first, rows=1, first=first, last=last)


def entry(kind: Kind, **changes: object) -> KindEntry:
    made = KindEntry(
        group=kind.group,
        version=kind.version,
        kind=kind.kind,
        plural=kind.plural,
        namespaced=True,
        read_as=ReadAs.EXACT,
        revision="100",
        etcd_shared=True,
        crd="uid/7" if kind is WIDGETS else "",
        segments=(segment("a/a", "a/m"), segment("a/n", "a/z")),
    )
    return msgspec.structs.replace(made, **changes)


def manifest(**changes: object) -> Manifest:
    made = Manifest(
        format=1,
        id=PointId("0123456789abcdef-0000000000000001"),
        run=RunId("run"),
        writer="0123456789abcdef",
        sequence=1,
        previous="",
        repository="",
        started="",
        finished="",
        cluster=ClusterIdentity(id="c", server="s", version="v1.37.2"),
        selection=Selection(),
        instant=Instant(revision="100", taken="2026-11-22T12:00:00.000Z"),
        incremental=Incremental(whole_since="2026-11-20T12:00:00.000Z"),
        state="Completed",
        kinds=(entry(CONFIG_MAPS),),
        rules="1",
    )
    return msgspec.structs.replace(made, **changes)


def why(earlier: Manifest, *, revision: str = "101", version: str = "v1.37.2", rules: str = "1") -> str:
    return whole_because(earlier, revision=revision, server_version=version, rules=rules, now=NOW)


def test_an_earlier_point_of_the_same_history_may_be_built_upon() -> None:
    assert why(manifest()) == ""


@pytest.mark.parametrize(
    ("earlier", "given", "word"),
    [
        (manifest(), {"version": "v1.37.3"}, "API server"),
        (manifest(), {"rules": "2"}, "version of Strongroom"),
        (manifest(), {"revision": "100"}, "not above"),
        (manifest(), {"revision": "99"}, "not above"),
        (manifest(kinds=(entry(CONFIG_MAPS, etcd_shared=False),)), {}, "ConfigMaps"),
        (manifest(kinds=()), {}, "ConfigMaps"),
        (manifest(incremental=Incremental(whole_since="2026-11-16T12:00:00.000Z")), {}, "7 days"),
        (manifest(incremental=Incremental()), {}, "read last"),
    ],
)
def test_everything_is_read_and_the_reason_given(earlier: Manifest, given: dict[str, str], word: str) -> None:
    assert word in why(earlier, **given)


def test_the_weekly_whole_reading_counts_from_the_last_whole_one() -> None:
    almost = NOW - timedelta(days=7) + timedelta(seconds=1)
    assert why(manifest(incremental=Incremental(whole_since=almost.isoformat()))) == ""


def kind_why(
    kind: Kind, found: KindEntry | None, *, shared: bool = True, definitions: dict[tuple[str, str], Definition] | None
) -> str:
    return read_because(found, kind, shared=shared, definitions=definitions, revision="101")


DEFINED = {("shop.example.com", "widgets"): WIDGET}


def test_a_kind_that_is_the_same_may_be_taken_over() -> None:
    assert kind_why(CONFIG_MAPS, entry(CONFIG_MAPS), definitions=DEFINED) == ""
    assert kind_why(WIDGETS, entry(WIDGETS), definitions=DEFINED) == ""
    assert kind_why(CONFIG_MAPS, entry(CONFIG_MAPS), definitions=None) == "", "built-in kinds have no definition"


@pytest.mark.parametrize(
    ("kind", "found", "shared", "definitions", "word"),
    [
        (CONFIG_MAPS, None, True, DEFINED, "whole kind"),
        (CONFIG_MAPS, entry(CONFIG_MAPS, read_as=ReadAs.AT_REVISION), True, DEFINED, "whole kind"),
        (CONFIG_MAPS, entry(CONFIG_MAPS, read_as=ReadAs.FAILED), True, DEFINED, "whole kind"),
        (CONFIG_MAPS, entry(CONFIG_MAPS, failed_namespaces={"a": "denied"}), True, DEFINED, "whole kind"),
        (CONFIG_MAPS, entry(CONFIG_MAPS, version="v1beta1"), True, DEFINED, "v1beta1"),
        (CONFIG_MAPS, entry(CONFIG_MAPS), False, DEFINED, "core etcd"),
        (CONFIG_MAPS, entry(CONFIG_MAPS, etcd_shared=False), True, DEFINED, "core etcd"),
        (WIDGETS, entry(WIDGETS, crd="uid/6"), True, DEFINED, "CustomResourceDefinition"),
        (WIDGETS, entry(WIDGETS), True, {}, "CustomResourceDefinition"),
        (WIDGETS, entry(WIDGETS), True, None, "cannot be read"),
        (
            WIDGETS,
            entry(WIDGETS),
            True,
            {("shop.example.com", "widgets"): Definition("uid/7", True)},
            "webhook",
        ),
        (WIDGETS, entry(WIDGETS, conversion_webhook=True), True, DEFINED, "webhook"),
    ],
)
def test_a_kind_is_read_whole_and_the_reason_given(
    kind: Kind,
    found: KindEntry | None,
    shared: bool,
    definitions: dict[tuple[str, str], Definition] | None,
    word: str,
) -> None:
    assert word in kind_why(kind, found, shared=shared, definitions=definitions)


def base(stored: Stored | None, found: KindEntry | None, *, shared: bool = True, bodies: bool = False):  # type: ignore[no-untyped-def]
    return base_of(CONFIG_MAPS, found, stored, shared=shared, definitions={}, revision="101", bodies_needed=bodies)


def test_rows_that_may_not_be_taken_over_still_save_storing_equal_bytes() -> None:
    assert base(None, None) is None
    assert base(None, entry(CONFIG_MAPS)).take_over
    for given in ({"shared": False}, {"bodies": True}):
        found = base(None, entry(CONFIG_MAPS), **given)
        assert found.segments
        assert not found.take_over


def test_what_this_run_stored_comes_before_the_earlier_point() -> None:
    whole = Stored(KindRead(CONFIG_MAPS, (segment("a/a", "a/k"),), "90", True, complete=True), True, "", False)
    assert base(whole, entry(CONFIG_MAPS)).segments == whole.read.segments
    part = Stored(KindRead(CONFIG_MAPS, (segment("a/a", "a/o"),), "90", True), True, "", False)
    found = base(part, entry(CONFIG_MAPS))
    assert [each.first for each in found.segments] == ["a/a", "a/n"], "behind what was stored the earlier point serves"
    assert found.take_over
    later = Stored(KindRead(CONFIG_MAPS, (segment("a/a", "a/k"),), "101", True, complete=True), True, "", False)
    assert not base(later, None).take_over, "X must be above the revision that it was stored at"


@pytest.mark.parametrize(
    ("conversion", "webhook"),
    [({"strategy": "None"}, False), ({"strategy": "Webhook", "webhook": {}}, True), (None, False)],
)
def test_a_definitions_conversion_is_read_from_its_document(conversion: object, webhook: bool) -> None:
    spec = {"group": "g", "names": {"plural": "p"}, **({"conversion": conversion} if conversion else {})}
    assert converts_by_webhook(msgspec.Raw(msgspec.json.encode({"spec": spec}))) is webhook
