"""What a point says of itself: an entry for every served kind, Partial where something selected is missing."""

from typing import Any

import msgspec
import pytest

from strongroom.dataplane.collector.cluster_read import KindOutcome
from strongroom.dataplane.collector.coverage import group_failures, kind_entries, state_of, warnings_of
from strongroom.dataplane.collector.incremental import Definition
from strongroom.dataplane.collector.instant import between
from strongroom.dataplane.collector.kindread import KindRead
from strongroom.dataplane.collector.selection import resolve
from strongroom.dataplane.kube.discovery import Discovery
from strongroom.dataplane.kube.kinds import Kind
from strongroom.dataplane.repository.model import (
    GroupFailure,
    KindEntry,
    ReadAs,
    Selection,
    VolumeEntry,
    VolumeState,
)

LIST = frozenset({"list"})
PODS = Kind("", "v1", "Pod", "pods", namespaced=True, verbs=LIST)
EVENTS = Kind("", "v1", "Event", "events", namespaced=True, verbs=LIST)
WIDGETS = Kind("shop.example.com", "v2", "Widget", "widgets", namespaced=True, verbs=LIST)
KINDS = (PODS, EVENTS, WIDGETS)
DISCOVERY = Discovery(KINDS, {"dead.example.com/v1": "no answer"}, "v1.37.2")
RESOLVED = resolve(Selection(), KINDS, DISCOVERY.find, DISCOVERY.failed)


def entries(**outcomes: KindOutcome) -> dict[str, KindEntry]:
    keys = {"pods": ("", "Pod"), "widgets": ("shop.example.com", "Widget")}
    found = kind_entries(
        RESOLVED,
        {keys[name]: outcome for name, outcome in outcomes.items()},
        {("shop.example.com", "widgets"): Definition("uid/9", True)},
        lambda kind: kind is not EVENTS,
    )
    assert [(each.group, each.kind) for each in found] == [("", "Event"), ("", "Pod"), ("shop.example.com", "Widget")]
    return {each.plural: each for each in found}


def outcome(kind: Kind, **given: Any) -> KindOutcome:
    choice = RESOLVED.choice((kind.group, kind.kind))
    assert choice is not None
    return KindOutcome(choice, **given)


READ = KindRead(PODS, (), "42", True, objects=3, complete=True)


def test_every_served_kind_is_saved_excluded_or_failed() -> None:
    found = entries(
        pods=outcome(PODS, read=READ, skipped={"system namespace": 2}), widgets=outcome(WIDGETS, failed="denied")
    )
    assert (found["pods"].read_as, found["pods"].revision, found["pods"].objects) == (ReadAs.EXACT, "42", 3)
    assert found["pods"].skipped == {"system namespace": 2}
    assert found["pods"].etcd_shared
    assert (found["events"].read_as, found["events"].rule) == (ReadAs.EXCLUDED, "short-lived record")
    assert (found["widgets"].read_as, found["widgets"].reason) == (ReadAs.FAILED, "denied")
    assert (found["widgets"].crd, found["widgets"].conversion_webhook) == ("uid/9", True)


def test_a_kind_that_nobody_came_to_read_is_failed_not_forgotten() -> None:
    assert entries(pods=outcome(PODS, read=READ))["widgets"].read_as is ReadAs.FAILED


def test_a_kind_read_off_x_says_why() -> None:
    read = KindRead(WIDGETS, (), "50", False, objects=1, complete=True)
    found = entries(pods=outcome(PODS, read=READ), widgets=outcome(WIDGETS, read=read, note="another server"))
    assert (found["widgets"].read_as, found["widgets"].reason) == (ReadAs.AT_REVISION, "another server")
    assert state_of(tuple(found.values()), (), ()) == "Completed"
    assert warnings_of(tuple(found.values()), ()) == (
        "Widget.shop.example.com was read at its own revision 50: another server",
    )


GOOD = tuple(entries(pods=outcome(PODS, read=READ), widgets=outcome(WIDGETS, read=READ)).values())
FAILED = tuple(entries(pods=outcome(PODS, read=READ), widgets=outcome(WIDGETS, failed="denied")).values())
DENIED = tuple(
    entries(pods=outcome(PODS, read=READ, denied={"shop": "denied"}), widgets=outcome(WIDGETS, read=READ)).values()
)
DEAD = (GroupFailure(group="dead.example.com/v1", reason="no answer"),)


def volume(state: VolumeState) -> VolumeEntry:
    return VolumeEntry(namespace="shop", claim="data", claim_uid="u", state=state)


@pytest.mark.parametrize(
    ("kinds", "groups", "state", "expected"),
    [
        (GOOD, (), VolumeState.SNAPSHOT_READY, "Completed"),
        (GOOD, (), VolumeState.NOT_SNAPSHOTTABLE, "Completed"),
        (GOOD, (), VolumeState.EXCLUDED, "Completed"),
        (GOOD, (), VolumeState.NOT_REQUESTED, "Completed"),
        (GOOD, (), VolumeState.SNAPSHOT_FAILED, "Partial"),
        (FAILED, (), VolumeState.SNAPSHOT_READY, "Partial"),
        (DENIED, (), VolumeState.SNAPSHOT_READY, "Partial"),
        (GOOD, DEAD, VolumeState.SNAPSHOT_READY, "Partial"),
    ],
)
def test_a_point_is_partial_where_something_selected_is_missing(
    kinds: tuple[KindEntry, ...], groups: tuple[GroupFailure, ...], state: VolumeState, expected: str
) -> None:
    assert state_of(kinds, groups, (volume(state),)) == expected


def test_what_is_missing_is_named_with_its_reason() -> None:
    assert warnings_of(FAILED, DEAD) == (
        "API group dead.example.com/v1 could not be discovered: no answer",
        "Widget.shop.example.com is not in the recovery point: denied",
    )
    assert warnings_of(DENIED, ()) == ("Pod of namespace shop is not in the recovery point: denied",)


def test_a_dead_group_counts_unless_kinds_of_other_groups_were_asked_for() -> None:
    assert group_failures(DISCOVERY.failed, RESOLVED) == DEAD
    only_pods = resolve(Selection(include_kinds=("pods",)), KINDS, DISCOVERY.find, DISCOVERY.failed)
    assert group_failures(DISCOVERY.failed, only_pods) == ()


@pytest.mark.parametrize(
    ("first", "revision", "last", "inside"),
    [
        ("5", "5", "5", True),
        ("5", "7", "9", True),
        ("9", "10", "11", True),
        ("5", "4", "9", False),
        ("5", "10", "9", False),
        ("5", "", "9", False),
        ("5", "x", "9", False),
    ],
)
def test_a_kind_shares_the_core_etcd_when_its_revision_lies_between_two_core_readings(
    first: str, revision: str, last: str, inside: bool
) -> None:
    assert between(first, revision, last) is inside


def test_entries_can_be_stored() -> None:
    assert msgspec.json.decode(msgspec.json.encode(GOOD), type=tuple[KindEntry, ...]) == GOOD
