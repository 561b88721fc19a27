"""Paths and names of kinds, and the error that each refusal of a server becomes."""

import json
from typing import Any

import pytest

from strongroom.dataplane.kube import errors
from strongroom.dataplane.kube.errors import Cause, KubeError, error_of_answer
from strongroom.dataplane.kube.kinds import Kind
from strongroom.errors import ExitCode

SECRET = Kind("", "v1", "Secret", "secrets", namespaced=True, verbs=frozenset({"list"}))
DEPLOYMENT = Kind("apps", "v1", "Deployment", "deployments", namespaced=True, verbs=frozenset({"list"}))
ROLE = Kind("rbac.authorization.k8s.io", "v1", "ClusterRole", "clusterroles", namespaced=False, verbs=frozenset())


@pytest.mark.parametrize(
    ("kind", "arguments", "path"),
    [
        (SECRET, (), "/api/v1/secrets"),
        (SECRET, ("default",), "/api/v1/namespaces/default/secrets"),
        (SECRET, ("default", "a"), "/api/v1/namespaces/default/secrets/a"),
        (DEPLOYMENT, ("n", "d", "status"), "/apis/apps/v1/namespaces/n/deployments/d/status"),
        (ROLE, (None, "system:node"), "/apis/rbac.authorization.k8s.io/v1/clusterroles/system:node"),
        (ROLE, (None, "ä b%?#"), "/apis/rbac.authorization.k8s.io/v1/clusterroles/%C3%A4%20b%25%3F%23"),
        (ROLE, (None, "../x"), "/apis/rbac.authorization.k8s.io/v1/clusterroles/..%2Fx"),
    ],
)
def test_a_path_addresses_what_its_arguments_say(kind: Kind, arguments: tuple[Any, ...], path: str) -> None:
    assert kind.path(*arguments) == path


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        (ROLE, ("default",)),
        (SECRET, (None, "a")),
        (SECRET, ("n", None, "status")),
        (SECRET, ("",)),
        (SECRET, ("n", "")),
    ],
)
def test_arguments_that_would_address_something_else_are_refused(kind: Kind, arguments: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError, match=kind.name):
        kind.path(*arguments)


def test_names_carry_the_group_and_equality_ignores_what_discovery_adds() -> None:
    assert (SECRET.api_version, SECRET.name, SECRET.resource) == ("v1", "Secret", "secrets")
    assert (DEPLOYMENT.api_version, DEPLOYMENT.name, DEPLOYMENT.resource) == (
        "apps/v1",
        "Deployment.apps",
        "deployments.apps",
    )
    richer = Kind("", "v1", "Secret", "secrets", True, frozenset({"get"}), short_names=("s",))
    assert richer == SECRET
    assert len({richer, SECRET}) == 1
    assert sorted([ROLE, DEPLOYMENT, SECRET]) == [SECRET, DEPLOYMENT, ROLE]


def _answer(status: int, **fields: Any) -> KubeError:
    body = json.dumps({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": status, **fields}).encode()
    return error_of_answer(status, body, verb="list", path="/api/v1/secrets", resource="secrets")


@pytest.mark.parametrize(
    ("status", "reason", "type_", "exit_code"),
    [
        (400, "BadRequest", errors.KubeBadRequest, ExitCode.FAILED),
        (401, "Unauthorized", errors.KubeUnauthorized, ExitCode.UNREACHABLE),
        (403, "Forbidden", errors.KubeForbidden, ExitCode.UNREACHABLE),
        (404, "NotFound", errors.KubeNotFound, ExitCode.FAILED),
        (409, "Conflict", errors.KubeConflict, ExitCode.FAILED),
        (409, "AlreadyExists", errors.KubeAlreadyExists, ExitCode.FAILED),
        (410, "Expired", errors.KubeExpired, ExitCode.FAILED),
        (422, "Invalid", errors.KubeInvalid, ExitCode.FAILED),
        (429, "TooManyRequests", errors.KubeTooManyRequests, ExitCode.UNREACHABLE),
        (500, "InternalError", errors.KubeServerError, ExitCode.FAILED),
        (504, "Timeout", errors.KubeServerError, ExitCode.FAILED),
        (302, "", errors.KubeProtocolError, ExitCode.FAILED),
    ],
)
def test_each_refusal_has_a_type_by_its_remedy(
    status: int, reason: str, type_: type[KubeError], exit_code: ExitCode
) -> None:
    error = _answer(status, reason=reason, message="the server's words")
    assert type(error) is type_
    assert (error.reason, error.detail, error.exit_code) == (reason, "the server's words", exit_code)
    assert "the server's words" in str(error)


def test_a_missing_permission_names_verb_and_resource() -> None:
    error = _answer(403, reason="Forbidden", message='User "u" cannot list resource "secrets"')
    assert (error.verb, error.resource, error.path) == ("list", "secrets", "/api/v1/secrets")
    assert "not allowed to list secrets" in str(error)


def test_the_fields_that_a_server_refuses_are_kept() -> None:
    cause = {"reason": "FieldValueInvalid", "field": "spec.replicas", "message": "must be 0 or more"}
    error = _answer(422, reason="Invalid", message="no", details={"causes": [cause], "retryAfterSeconds": 2})
    assert error.causes == (Cause("FieldValueInvalid", "spec.replicas", "must be 0 or more"),)
    assert error.retry_after_s == 2


def test_a_lagging_replica_is_told_from_other_timeouts_by_its_cause() -> None:
    error = _answer(504, reason="Timeout", details={"causes": [{"reason": "ResourceVersionTooLarge"}]})
    assert type(error) is errors.KubeTooLargeResourceVersion


@pytest.mark.parametrize("body", [b"<html>bad gateway</html>", b"", b"\xff\xfe", b'{"kind": "Pod"}', b"[1]"])
def test_an_answer_that_is_no_status_still_becomes_an_error_by_its_code(body: bytes) -> None:
    error = error_of_answer(502, body, verb="get", path="/version")
    assert type(error) is errors.KubeServerError
    assert "/version" in str(error)
