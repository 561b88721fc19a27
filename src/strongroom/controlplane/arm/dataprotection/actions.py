"""What is done with a backup instance: on-demand backup, restore, stop, suspend, resume, sync."""

from azure.mgmt.dataprotection import types as wire

from strongroom.controlplane.arm import lro
from strongroom.controlplane.arm.call import Call, Reply
from strongroom.controlplane.arm.dataprotection.common import (
    INSTANCE,
    INSTANCES,
    accepted_by_vault,
    require_instance,
    require_vault,
)
from strongroom.controlplane.arm.errors import ArmError
from strongroom.controlplane.arm.routing import Operation
from strongroom.controlplane.arm.shapes import shape
from strongroom.controlplane.state.database import Tx
from strongroom.controlplane.state.resources import Resource
from strongroom.controlplane.state.times import now
from strongroom.controlplane.workflows.jobdocs import BACKUP, RESTORE, new_job
from strongroom.controlplane.workflows.planning import plan_next
from strongroom.controlplane.workflows.protecting import with_state
from strongroom.controlplane.workflows.restoring import read_restore
from strongroom.protection.instance import Action, NothingToDo, ProtectionState, decide
from strongroom.protection.job import check_daily
from strongroom.protection.policy import parse_policy
from strongroom.protection.times import Instant, parse_instant


def backup(call: Call) -> Reply:
    """Begin an on-demand backup: the job runs on after the operation has succeeded, as in the service."""
    options = call.body["backupRuleOptions"]
    override = options.get("triggerOption", {}).get("retentionTagOverride", "")
    with call.db.write() as tx:
        vault = require_vault(call, tx)
        instance = require_instance(call, tx)
        decide(instance.name, _state(instance), Action.BACKUP)
        policy = call.require(tx, instance.properties["policyInfo"]["policyId"])
        parsed = parse_policy(policy.properties)
        rule = parsed.rule_for_adhoc(options["ruleName"], override)
        _limit(call, tx, instance, BACKUP, call.plane.limits.on_demand_backups_per_day)
        _refuse_second(tx, instance, BACKUP)
        job = new_job(
            instance,
            BACKUP,
            now(),
            vault=vault,
            on_demand=True,
            policy_name=policy.name,
            task="Trigger Backup",
            private={
                "rule": parsed.backup_rule.name,
                "tag": rule.name,
                "policyVersion": policy.private.get("version", ""),
                "retention": rule.operational.text,
            },
            details={"RetentionTag": rule.name.lower()},
        )
        tx.jobs.add(job)
        tx.outbox.add("backup", job.id, f"{instance.id}/backup")
        operation = lro.done(call, tx, "backup", job=job.arm_id, resource=instance.id)
        return accepted_by_vault(call, tx, vault, operation)


def restore(call: Call) -> Reply:
    """Begin a restore into the source cluster or another one."""
    with call.db.write() as tx:
        vault = require_vault(call, tx)
        instance = require_instance(call, tx)
        decide(instance.name, _state(instance), Action.RESTORE)
        request = read_restore(tx, instance, call.body, path="", limits=call.plane.limits)
        _check_linked(call, instance, request.target)
        _limit(call, tx, instance, RESTORE, call.plane.limits.restores_per_day)
        _refuse_second(tx, instance, RESTORE)
        point = tx.points.get(instance.id, request.point)
        assert point is not None, "read_restore has found it"
        source = {"recoveryPointID": point.id, "recoveryPointTime": point.time}
        policy = instance.properties["policyInfo"]["policyId"]
        job = new_job(
            instance,
            RESTORE,
            now(),
            vault=vault,
            on_demand=True,
            policy_name=policy.rpartition("/")[2],
            task="Trigger Restore",
            private={"request": call.body},
            sourceRecoverPoint=source,
            recoveryDestination=request.target,
        )
        tx.jobs.add(job)
        tx.outbox.add("restore", job.id, f"{instance.id}/restore")
        operation = lro.done(call, tx, "restore", job=job.arm_id, resource=instance.id)
        return accepted_by_vault(call, tx, vault, operation)


def validate_restore(call: Call) -> Reply:
    """Check whether a restore could be carried out; the plan is made by the target's extension and nothing changes."""
    with call.db.write() as tx:
        vault = require_vault(call, tx)
        instance = require_instance(call, tx)
        request = read_restore(
            tx,
            instance,
            call.body["restoreRequestObject"],
            path="restoreRequestObject.",
            limits=call.plane.limits,
        )
        _check_linked(call, instance, request.target)
        document = {"request": call.body["restoreRequestObject"]}
        operation = lro.begin(call, tx, "validate-restore", request=document, resource=instance.id)
        return accepted_by_vault(call, tx, vault, operation)


def stop_protection(call: Call) -> Reply:
    return _change(call, Action.STOP_PROTECTION)


def suspend_backups(call: Call) -> Reply:
    return _change(call, Action.SUSPEND_BACKUPS)


def resume_protection(call: Call) -> Reply:
    return _change(call, Action.RESUME_PROTECTION)


def resume_backups(call: Call) -> Reply:
    return _change(call, Action.RESUME_BACKUPS)


def _change(call: Call, action: Action) -> Reply:
    """Change the protection state: 202, or 200 when there is nothing to do."""
    if call.body.get("resourceGuardOperationRequests"):
        raise ArmError(501, "NotSupported", "Strongroom does not support resource guards (multi-user authorization).")
    with call.db.write() as tx:
        vault = require_vault(call, tx)
        instance = require_instance(call, tx)
        decision = decide(instance.name, _state(instance), action)
        if isinstance(decision, NothingToDo):
            return Reply(200)
        stored = tx.resources.put(with_state(instance, decision.during))
        plan_next(tx, stored, call.require(tx, stored.properties["policyInfo"]["policyId"]), now())
        if decision.during is decision.after:
            operation = lro.done(call, tx, action.value, resource=instance.id)
        else:
            states = {"after": str(decision.after), "failed": str(decision.failed)}
            operation = lro.begin(call, tx, "configure", request=states, resource=instance.id, key=instance.id)
        return accepted_by_vault(call, tx, vault, operation)


def sync(call: Call) -> Reply:
    """Compare what is known of the instance with its container: recovery points, and what became of them."""
    with call.db.write() as tx:
        vault = require_vault(call, tx)
        instance = require_instance(call, tx)
        running = tx.operations.running(instance.id, "sync-instance")
        operation = running or lro.begin(call, tx, "sync-instance", resource=instance.id, key=instance.id)
        return accepted_by_vault(call, tx, vault, operation)


def _state(instance: Resource) -> ProtectionState:
    return ProtectionState(instance.properties["currentProtectionState"])


def _check_linked(call: Call, instance: Resource, target: str) -> None:
    call.demand("Microsoft.ContainerService/managedClusters/read", instance.properties["dataSourceInfo"]["resourceID"])
    call.demand("Microsoft.ContainerService/managedClusters/read", target)


def _limit(call: Call, tx: Tx, instance: Resource, category: str, limit: int) -> None:
    at = Instant.now()
    since = at.subtract(hours=24).to_stdlib()
    starts = [parse_instant(started) for started in tx.jobs.starts_since(instance.id, category, since)]
    word = "on-demand backups" if category == BACKUP else "restores"
    check_daily(starts, at, limit, word, instance.id)


def _refuse_second(tx: Tx, instance: Resource, category: str) -> None:
    """One backup and one restore of an instance at a time; no Retry-After, or clients would repeat it blindly."""
    if running := tx.jobs.running(instance.id, category):
        word = "backup" if category == BACKUP else "restore"
        raise ArmError(
            409,
            "UserErrorJobAlreadyInProgress",
            f"A {word} of this instance is in progress: job {running[0].id}.",
            target=running[0].arm_id,
            actions=("Wait until it has ended (az dataprotection job show), then repeat the request.",),
        )


OPERATIONS = (
    Operation(
        "BackupInstances_AdhocBackup",
        "POST",
        f"{INSTANCE}/backup",
        f"{INSTANCES}/backup/action",
        backup,
        shape(wire.TriggerBackupRequest),
        (202,),
    ),
    Operation(
        "BackupInstances_TriggerRestore",
        "POST",
        f"{INSTANCE}/restore",
        f"{INSTANCES}/restore/action",
        restore,
        shape(wire.AzureBackupRestoreRequest),
        (202,),
    ),
    Operation(
        "BackupInstances_ValidateForRestore",
        "POST",
        f"{INSTANCE}/validateRestore",
        f"{INSTANCES}/validateRestore/action",
        validate_restore,
        shape(wire.ValidateRestoreRequestObject),
        (202,),
    ),
    Operation(
        "BackupInstances_StopProtection",
        "POST",
        f"{INSTANCE}/stopProtection",
        f"{INSTANCES}/stopProtection/action",
        stop_protection,
        shape(wire.StopProtectionRequest),
        (200, 202),
        optional_body=True,
    ),
    Operation(
        "BackupInstances_SuspendBackups",
        "POST",
        f"{INSTANCE}/suspendBackups",
        f"{INSTANCES}/suspendBackups/action",
        suspend_backups,
        shape(wire.SuspendBackupRequest),
        (200, 202),
        optional_body=True,
    ),
    Operation(
        "BackupInstances_ResumeProtection",
        "POST",
        f"{INSTANCE}/resumeProtection",
        f"{INSTANCES}/resumeProtection/action",
        resume_protection,
        statuses=(200, 202),
    ),
    Operation(
        "BackupInstances_ResumeBackups",
        "POST",
        f"{INSTANCE}/resumeBackups",
        f"{INSTANCES}/resumeBackups/action",
        resume_backups,
        statuses=(200, 202),
    ),
    Operation(
        "BackupInstances_SyncBackupInstance",
        "POST",
        f"{INSTANCE}/sync",
        f"{INSTANCES}/sync/action",
        sync,
        shape(wire.SyncBackupInstanceRequest),
        (202,),
        optional_body=True,
    ),
)
