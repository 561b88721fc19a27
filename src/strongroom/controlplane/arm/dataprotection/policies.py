"""Backup policies: synchronous create, change, list and delete. Their rules are checked by `protection.policy`."""

from azure.mgmt.dataprotection import types as wire

from strongroom.controlplane.arm.call import Call, Reply
from strongroom.controlplane.arm.dataprotection.common import (
    DELETED_INSTANCES,
    INSTANCES,
    POLICIES,
    VAULT,
    require_vault,
    vault_id,
)
from strongroom.controlplane.arm.errors import ArmError, Json
from strongroom.controlplane.arm.formats import check_name
from strongroom.controlplane.arm.pages import page_of
from strongroom.controlplane.arm.preconditions import check_preconditions
from strongroom.controlplane.arm.routing import Operation
from strongroom.controlplane.arm.shapes import shape
from strongroom.controlplane.identity.assignments import forget_resource
from strongroom.controlplane.state.database import Tx
from strongroom.controlplane.state.resources import Resource
from strongroom.controlplane.state.times import now
from strongroom.controlplane.workflows.planning import plan_all
from strongroom.protection.job import check_count
from strongroom.protection.policy import parse_policy

POLICY = f"{VAULT}/backupPolicies/{{policy}}"


def put_policy(call: Call) -> Reply:
    """Create a policy or replace its rules; what exists keeps the retention it was made with."""
    check_name("backupPolicies", call.path["policy"])
    parse_policy(call.body["properties"])
    with call.db.write() as tx:
        vault = require_vault(call, tx)
        old = tx.resources.get(call.id)
        check_preconditions(call, old)
        if old is None:
            count = tx.resources.count(vault.id, POLICIES)
            check_count(count, call.plane.limits.policies_per_vault, "backup policies in the vault", vault.id)
        identifier = old.id if old else call.id
        properties: Json = {k: v for k, v in call.body["properties"].items() if k != "name"}
        document: Json = {
            "id": identifier,
            "name": identifier.rpartition("/")[2],
            "type": POLICIES,
            "properties": properties,
        }
        # Each change of the rules is a version: a recovery point says by which one it was made.
        version = str(int(now().timestamp() * 1_000_000))
        stored = tx.resources.put(
            Resource(identifier, POLICIES, document, vault.id, {"version": version}, created=old.created if old else "")
        )
        plan_all(tx, users_of(tx, stored), stored, now())
        return Reply(200, stored.doc)


def users_of(tx: Tx, policy: Resource) -> list[Resource]:
    """Return the backup instances of the vault that follow *policy*."""
    return _naming(tx, policy, INSTANCES)


def _naming(tx: Tx, policy: Resource, kind: str) -> list[Resource]:
    vault = policy.id.rpartition("/backupPolicies/")[0]
    wanted = policy.id.lower()
    return [
        i
        for i in tx.resources.children(vault, kind, mentioning=f'/{policy.name}"')
        if str(i.properties["policyInfo"]["policyId"]).lower() == wanted
    ]


def get_policy(call: Call) -> Reply:
    with call.db.read() as tx:
        require_vault(call, tx)
        policy = call.require(tx, call.id)
        return Reply(200, policy.doc, {"ETag": f'"{policy.etag}"'})


def list_policies(call: Call) -> Reply:
    with call.db.read() as tx:
        require_vault(call, tx)
        parent = vault_id(call)
        return page_of(call, lambda after, limit: tx.resources.children(parent, POLICIES, after=after, limit=limit))


def delete_policy(call: Call) -> Reply:
    with call.db.write() as tx:
        require_vault(call, tx)
        policy = tx.resources.get(call.id)
        if policy is None:
            return Reply(204)
        check_preconditions(call, policy)
        # A soft-deleted instance comes back with its policy.
        for kind, word, action in (
            (INSTANCES, "backup instances", "Give these instances another policy, or stop and delete them."),
            (DELETED_INSTANCES, "soft-deleted backup instances", "Repeat it when their time is over."),
        ):
            if used := _naming(tx, policy, kind):
                raise ArmError(
                    400,
                    "UserErrorDppPolicyObjectInUse",
                    f"The policy '{policy.name}' cannot be deleted: {len(used)} {word} use it, for example "
                    f"'{used[0].name}'.",
                    actions=(action,),
                )
        forget_resource(tx, policy.id)
        tx.resources.delete(policy.id)
        return Reply(200)


OPERATIONS = (
    Operation(
        "BackupPolicies_CreateOrUpdate",
        "PUT",
        POLICY,
        f"{POLICIES}/write",
        put_policy,
        shape(wire.BaseBackupPolicyResource),
    ),
    Operation("BackupPolicies_Get", "GET", POLICY, f"{POLICIES}/read", get_policy),
    Operation("BackupPolicies_Delete", "DELETE", POLICY, f"{POLICIES}/delete", delete_policy, statuses=(200, 204)),
    Operation("BackupPolicies_List", "GET", f"{VAULT}/backupPolicies", f"{POLICIES}/read", list_policies),
)
