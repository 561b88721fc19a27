"""Protection states: every action in every state leads on, does nothing, or is refused with a remedy."""

from itertools import product

import pytest

from strongroom.protection.errors import Refused
from strongroom.protection.instance import (
    Action,
    NothingToDo,
    ProtectionState,
    Transition,
    check_backup,
    check_restore,
    decide,
)
from strongroom.protection.retention import RetentionMode

S = ProtectionState
A = Action


@pytest.mark.parametrize(
    ("state", "action", "during", "after"),
    [
        (None, A.CREATE, S.CONFIGURING, S.CONFIGURED),
        (S.CONFIGURED, A.UPDATE, S.UPDATING, S.CONFIGURED),
        (S.CONFIGURED, A.CREATE, S.UPDATING, S.CONFIGURED),  # a PUT over an existing name is an update
        (S.ERROR, A.UPDATE, S.CONFIGURING, S.CONFIGURED),
        (S.CONFIGURED, A.STOP_PROTECTION, S.STOPPED, S.STOPPED),
        (S.SUSPENDED, A.STOP_PROTECTION, S.STOPPED, S.STOPPED),
        (S.CONFIGURED, A.SUSPEND_BACKUPS, S.SUSPENDED, S.SUSPENDED),
        (S.STOPPED, A.RESUME_PROTECTION, S.CONFIGURING, S.CONFIGURED),
        (S.SUSPENDED, A.RESUME_PROTECTION, S.CONFIGURING, S.CONFIGURED),
        (S.SUSPENDED, A.RESUME_BACKUPS, S.CONFIGURING, S.CONFIGURED),
        (S.CONFIGURED, A.DELETE, S.SOFT_DELETING, S.SOFT_DELETED),
        (S.STOPPED, A.DELETE, S.SOFT_DELETING, S.SOFT_DELETED),
        (S.SOFT_DELETED, A.UNDELETE, S.SOFT_DELETED, S.STOPPED),
    ],
)
def test_a_legal_action_leads_where_azure_leads(
    state: ProtectionState | None, action: Action, during: ProtectionState, after: ProtectionState
) -> None:
    decision = decide("shop", state, action)
    assert isinstance(decision, Transition)
    assert (decision.during, decision.after) == (during, after)


@pytest.mark.parametrize("state", [S.STOPPED, S.SUSPENDED])
def test_new_settings_do_not_start_backups_that_were_stopped(state: ProtectionState) -> None:
    decision = decide("shop", state, A.UPDATE)
    assert isinstance(decision, Transition)
    assert decision.after is state


def test_a_failed_configuration_ends_in_an_error_and_a_failed_delete_where_it_began() -> None:
    created = decide("shop", None, A.CREATE)
    deleted = decide("shop", S.STOPPED, A.DELETE)
    assert isinstance(created, Transition)
    assert isinstance(deleted, Transition)
    assert created.failed is S.ERROR
    assert deleted.failed is S.STOPPED


def test_a_delete_without_soft_delete_leaves_nothing() -> None:
    decision = decide("shop", S.CONFIGURED, A.DELETE, soft_delete=False)
    assert isinstance(decision, Transition)
    assert decision.after is None


@pytest.mark.parametrize(
    ("state", "action"),
    [
        (S.STOPPED, A.STOP_PROTECTION),
        (S.SUSPENDED, A.SUSPEND_BACKUPS),
        (S.CONFIGURED, A.RESUME_PROTECTION),
        (S.CONFIGURED, A.RESUME_BACKUPS),
        (S.SOFT_DELETING, A.DELETE),
        (None, A.DELETE),
    ],
)
def test_what_is_so_already_is_nothing_to_do(state: ProtectionState | None, action: Action) -> None:
    assert isinstance(decide("shop", state, action), NothingToDo)


def test_an_update_that_changes_nothing_is_nothing_to_do_but_mends_an_instance_in_error() -> None:
    assert isinstance(decide("shop", S.CONFIGURED, A.UPDATE, changed=False), NothingToDo)
    assert isinstance(decide("shop", S.CONFIGURING, A.CREATE, changed=False), NothingToDo)
    assert isinstance(decide("shop", S.ERROR, A.UPDATE, changed=False), Transition)


@pytest.mark.parametrize(
    ("state", "action", "remedy"),
    [
        (S.STOPPED, A.SUSPEND_BACKUPS, "resumeProtection"),
        (S.STOPPED, A.RESUME_BACKUPS, "resumeProtection"),
        (S.STOPPED, A.BACKUP, "resumeProtection"),
        (S.SUSPENDED, A.BACKUP, "resumeBackups"),
        (S.ERROR, A.BACKUP, "protectionErrorDetails"),
        (S.SOFT_DELETED, A.RESTORE, "Undelete"),
        (S.SOFT_DELETED, A.CREATE, "Undelete"),
        (S.SOFT_DELETED, A.RESUME_PROTECTION, "Undelete"),
        (S.SOFT_DELETED, A.DELETE, "Undelete"),
    ],
)
def test_an_illegal_action_is_refused_with_its_remedy(state: ProtectionState, action: Action, remedy: str) -> None:
    with pytest.raises(Refused) as caught:
        decide("shop", state, action)
    assert caught.value.status == 400
    assert not caught.value.error.retryable
    assert state in caught.value.error.message
    assert remedy in caught.value.error.recommended_action[0]


@pytest.mark.parametrize("state", [S.CONFIGURING, S.UPDATING, S.SOFT_DELETING])
def test_while_a_job_is_at_work_an_action_is_a_conflict_to_repeat_later(state: ProtectionState) -> None:
    with pytest.raises(Refused) as caught:
        decide("shop", state, A.STOP_PROTECTION)
    assert caught.value.status == 409
    assert caught.value.error.retryable


@pytest.mark.parametrize("action", [A.STOP_PROTECTION, A.RESTORE, A.BACKUP, A.UPDATE])
def test_what_is_not_there_is_not_found(action: Action) -> None:
    with pytest.raises(Refused) as caught:
        decide("shop", None, action)
    assert (caught.value.status, caught.value.error.code) == (404, "ResourceNotFound")


@pytest.mark.parametrize("state", [None, S.CONFIGURED, S.STOPPED])
def test_only_what_is_deleted_can_be_undeleted(state: ProtectionState | None) -> None:
    with pytest.raises(Refused) as caught:
        decide("shop", state, A.UNDELETE)
    assert (caught.value.status, caught.value.error.code) == (404, "UserErrorGenericResourceNotFound")


@pytest.mark.parametrize(("state", "action"), list(product([None, *S], A)))
def test_every_action_in_every_state_has_an_answer(state: ProtectionState | None, action: Action) -> None:
    answer: Transition | NothingToDo | Refused
    try:
        answer = decide("shop", state, action)
    except Refused as refused:
        answer = refused
    if isinstance(answer, Refused):
        assert answer.error.recommended_action
    elif isinstance(answer, Transition):
        assert answer.during.in_motion or answer.after is not None


def test_from_every_settled_state_protection_can_be_brought_back() -> None:
    for start in S:
        reached, todo = {start}, [start]
        while todo:
            state = todo.pop()
            for action in A:
                try:
                    decision = decide("shop", state, action)
                except Refused:
                    continue
                if isinstance(decision, Transition) and decision.after and decision.after not in reached:
                    reached.add(decision.after)
                    todo.append(decision.after)
        assert start.in_motion or S.CONFIGURED in reached


def test_only_a_protected_instance_takes_backups() -> None:
    assert [state for state in S if state.takes_scheduled_backups] == [S.CONFIGURED]
    check_backup("shop", S.CONFIGURED)
    with pytest.raises(Refused):
        check_backup("shop", S.STOPPED)


def test_whatever_has_points_can_be_restored_but_what_is_deleted() -> None:
    for state in (S.CONFIGURED, S.STOPPED, S.SUSPENDED, S.ERROR, S.UPDATING):
        check_restore("shop", state)
    with pytest.raises(Refused):
        check_restore("shop", S.SOFT_DELETED)


def test_points_are_retained_forever_when_stopped_and_as_per_policy_when_suspended() -> None:
    assert S.STOPPED.retention is RetentionMode.FOREVER
    assert S.SOFT_DELETED.retention is RetentionMode.FOREVER
    assert S.SUSPENDED.retention is RetentionMode.AS_PER_POLICY
    assert S.ERROR.retention is RetentionMode.AS_PER_POLICY
