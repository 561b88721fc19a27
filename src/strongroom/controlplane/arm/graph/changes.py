"""Changes the directory: makes service principals, gives them secrets, and removes them.

An application and its service principal are one record here, with one id. Only who may give roles at the root may
change the directory: a secret for another principal is that principal's power.
"""

from datetime import datetime, timedelta
from typing import Final

from strongroom.controlplane.arm.authorization.last_owner import require_other_owner
from strongroom.controlplane.arm.call import Call, Reply
from strongroom.controlplane.arm.errors import ArmError, Json
from strongroom.controlplane.arm.graph.bodies import (
    AddPasswordBody,
    ApplicationBody,
    RemovePasswordBody,
    ServicePrincipalBody,
)
from strongroom.controlplane.arm.graph.directory import V1, missing
from strongroom.controlplane.arm.odata import instant
from strongroom.controlplane.arm.resources.subscriptions import ASSIGN
from strongroom.controlplane.arm.routing import Operation
from strongroom.controlplane.arm.shapes import Shape, shape
from strongroom.controlplane.identity.assignments import forget_principals
from strongroom.controlplane.identity.graph import Directory, answer
from strongroom.controlplane.identity.principals import (
    PrincipalKind,
    PrincipalRecord,
    add_secret,
    new_service_principal,
    remove_secret,
)
from strongroom.controlplane.identity.stored import TxPrincipals
from strongroom.controlplane.state.database import Tx
from strongroom.controlplane.state.times import now

SECRET_LIFETIME: Final = timedelta(days=730)  # Graph's own default: two years
ACTION: Final = "Microsoft.Graph/applications/write"


def create_application(call: Call) -> Reply:
    """Make an application, which is its service principal at the same time."""
    _demand(call)
    with call.db.write() as tx:
        record = new_service_principal(call.body["displayName"], now=now())
        TxPrincipals(tx).put(record)
        _audit(call, tx, "principal created", record)
        return Reply(201, _shown(call, tx, record, "applications"))


def create_service_principal(call: Call) -> Reply:
    """Answer the service principal of an application: it is there as soon as the application is."""
    _demand(call)
    with call.db.read() as tx:
        record = TxPrincipals(tx).get_by_app_id(call.body["appId"])
        if record is None:
            raise ArmError(400, "NoBackingApplicationObject", f"There is no application {call.body['appId'][:60]!a}.")
        return Reply(201, _shown(call, tx, record, "servicePrincipals"))


def add_password(call: Call) -> Reply:
    """Give an application a new secret. Its text is in this answer and nowhere else."""
    _demand(call)
    wish = call.body.get("passwordCredential", {})
    at = now()
    with call.db.write() as tx:
        record = _application(call, tx)
        changed, text = add_secret(record, now=at, lifetime=_lifetime(wish, at))
        TxPrincipals(tx).put(changed)
        _audit(call, tx, "secret added", record)
    secret = changed.secrets[-1]
    return Reply(
        200,
        {
            "@odata.context": f"{call.plane.endpoint}{V1}/$metadata#microsoft.graph.passwordCredential",
            "customKeyIdentifier": None,
            "displayName": wish.get("displayName"),
            "keyId": secret.key_id,
            "hint": secret.hint,
            "secretText": text,
            "startDateTime": f"{secret.created:%Y-%m-%dT%H:%M:%SZ}",
            "endDateTime": f"{secret.expires:%Y-%m-%dT%H:%M:%SZ}" if secret.expires else None,
        },
        {"Cache-Control": "no-store"},
    )


def remove_password(call: Call) -> Reply:
    """Take a secret from an application: nobody signs in with it any more. Tokens got with it last their hour.

    The last secret of the last Owner at the root stays: first add another (`az ad app credential reset --append`).
    """
    _demand(call)
    key = call.body["keyId"].lower()
    with call.db.write() as tx:
        record = _application(call, tx)
        changed = remove_secret(record, key)
        if changed == record:
            raise ArmError(400, "Request_BadRequest", f"No secret of {record.name} has the keyId {key[:60]!a}.")
        TxPrincipals(tx).put(changed)
        require_other_owner(tx, lambda _: True)
        _audit(call, tx, "secret removed", record)
    return Reply(204)


def delete_principal(call: Call) -> Reply:
    """Remove an application, its service principal and its role assignments: tokens that it still has allow nothing."""
    _demand(call)
    with call.db.write() as tx:
        record = _application(call, tx)
        require_other_owner(tx, lambda assignment: assignment.principal_id.lower() != record.object_id)
        forget_principals(tx, {record.object_id})
        _audit(call, tx, "principal removed", record)
    call.plane.authorizer.forget()
    return Reply(204)


def _demand(call: Call) -> None:
    call.plane.authorizer.demand(call.principal, ASSIGN, "/")


def _application(call: Call, tx: Tx) -> PrincipalRecord:
    record = TxPrincipals(tx).get_by_object_id(call.path["id"])
    if record is None:
        raise missing(call.path["id"])
    if record.kind is not PrincipalKind.SERVICE_PRINCIPAL:
        raise ArmError(
            403,
            "Authorization_RequestDenied",
            f"{record.name} is the managed identity of {record.resource_id}: it comes and goes with that resource.",
        )
    return record


def _lifetime(wish: Json, at: datetime) -> timedelta:
    if "endDateTime" not in wish:
        return SECRET_LIFETIME
    lifetime = instant(wish["endDateTime"]) - at
    if lifetime <= timedelta(0):
        raise ArmError(400, "Request_BadRequest", "passwordCredential.endDateTime has passed.")
    return lifetime


def _shown(call: Call, tx: Tx, record: PrincipalRecord, collection: str) -> Json:
    directory = Directory(TxPrincipals(tx), call.plane.tenant, call.plane.endpoint)
    _, page = answer(directory, "GET", f"{V1}/{collection}", {"$filter": f"id eq '{record.object_id}'"})
    found: Json = page["value"][0]
    return found


def _audit(call: Call, tx: Tx, event: str, record: PrincipalRecord) -> None:
    tx.audit.add(
        event,
        principal=call.principal.object_id,
        action=call.operation.action,
        scope="/",
        outcome="succeeded",
        detail=f"{record.object_id} {record.name}",
    )


def _post(name: str, path: str, handler: object, body: Shape, *statuses: int, optional: bool = False) -> Operation:
    assert callable(handler)
    return Operation(
        f"Graph_{name}",
        "POST",
        f"{V1}{path}",
        ACTION,
        handler,
        body,
        statuses,
        optional_body=optional,
        needs_api_version=False,
    )


def _delete(name: str, path: str) -> Operation:
    return Operation(
        f"Graph_{name}", "DELETE", f"{V1}{path}", ACTION, delete_principal, statuses=(204,), needs_api_version=False
    )


OPERATIONS: Final = (
    _post("CreateApplication", "/applications", create_application, shape(ApplicationBody), 201),
    _post("CreateServicePrincipal", "/servicePrincipals", create_service_principal, shape(ServicePrincipalBody), 201),
    _post(
        "AddApplicationPassword",
        "/applications/{id}/addPassword",
        add_password,
        shape(AddPasswordBody),
        200,
        optional=True,
    ),
    _post(
        "AddServicePrincipalPassword",
        "/servicePrincipals/{id}/addPassword",
        add_password,
        shape(AddPasswordBody),
        200,
        optional=True,
    ),
    _post(
        "RemoveApplicationPassword",
        "/applications/{id}/removePassword",
        remove_password,
        shape(RemovePasswordBody),
        204,
    ),
    _post(
        "RemoveServicePrincipalPassword",
        "/servicePrincipals/{id}/removePassword",
        remove_password,
        shape(RemovePasswordBody),
        204,
    ),
    _delete("DeleteApplication", "/applications/{id}"),
    _delete("DeleteServicePrincipal", "/servicePrincipals/{id}"),
)
