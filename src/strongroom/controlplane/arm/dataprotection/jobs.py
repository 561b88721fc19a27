"""Jobs as the API lists and shows them, newest first."""

from strongroom.controlplane.arm import lro
from strongroom.controlplane.arm.call import Call, Reply, listing
from strongroom.controlplane.arm.dataprotection.common import JOBS, VAULT, VAULTS, accepted_by_vault, require_vault
from strongroom.controlplane.arm.errors import ArmError, not_found, not_supported
from strongroom.controlplane.arm.paging import page_size, read_token, skip_token
from strongroom.controlplane.arm.routing import Operation
from strongroom.controlplane.workflows.cancelling import CANCEL


def list_jobs(call: Call) -> Reply:
    """List the jobs of a vault, newest first."""
    if call.query.get("$filter"):
        # A filter that is passed over would look like one that found all of these.
        raise not_supported("$filter of backupJobs", "Search the jobs by Resource Graph.")
    with call.db.read() as tx:
        vault = require_vault(call, tx)
        size = page_size(call.query)
        token = read_token(call.query)
        before = (str(token["started"]), str(token["id"])) if token else None
        jobs = tx.jobs.page(vault=vault.id, before=before, limit=size + 1)
    link = None
    if len(jobs) > size:
        last = jobs[size - 1]
        link = call.next_link(**{"$skipToken": skip_token({"started": last.started, "id": last.id})})
    return listing([job.doc for job in jobs[:size]], link)


def get_job(call: Call) -> Reply:
    with call.db.read() as tx:
        vault = require_vault(call, tx)
        job = tx.jobs.get(call.path["job"])
    if job is None or job.vault.lower() != vault.id.lower():
        raise not_found(call.id)
    return Reply(200, job.doc)


def cancel_job(call: Call) -> Reply:
    """Begin to cancel a job: ours, Azure lets no job of Kubernetes clusters be cancelled."""
    with call.db.write() as tx:
        vault = require_vault(call, tx)
        job = tx.jobs.get(call.path["job"])
        if job is None or job.vault.lower() != vault.id.lower():
            raise not_found(f"{vault.id}/backupJobs/{call.path['job']}")
        if job.ended is not None:
            raise ArmError(
                409, "UserErrorJobNotInProgress", f"The job {job.id} ended as {job.status}.", target=job.arm_id
            )
        running = tx.operations.running(job.arm_id, CANCEL)
        operation = running or lro.begin(call, tx, CANCEL, resource=job.arm_id)
        return accepted_by_vault(call, tx, vault, operation)


def export_jobs(call: Call) -> Reply:
    raise not_supported("exportBackupJobs", "List the jobs (backupJobs) or search them by Resource Graph.")


def no_export(call: Call) -> Reply:
    raise ArmError(404, "ResourceNotFound", f"The operation '{call.path['operation']}' was not found.")


OPERATIONS = (
    Operation("Jobs_List", "GET", f"{VAULT}/backupJobs", f"{JOBS}/read", list_jobs, query=("$top", "$skipToken")),
    Operation("Jobs_Get", "GET", f"{VAULT}/backupJobs/{{job}}", f"{JOBS}/read", get_job),
    Operation(
        "Jobs_Cancel",
        "POST",
        f"{VAULT}/backupJobs/{{job}}/cancel",
        f"{JOBS}/cancel/action",
        cancel_job,
        statuses=(202,),
    ),
    Operation(
        "ExportJobs_Trigger",
        "POST",
        f"{VAULT}/exportBackupJobs",
        f"{VAULTS}/exportBackupJobs/action",
        export_jobs,
        statuses=(202, 204),
    ),
    Operation(
        "ExportJobsOperationResult_Get",
        "GET",
        f"{VAULT}/backupJobs/operations/{{operation}}",
        f"{JOBS}/read",
        no_export,
        statuses=(200, 202),
    ),
)
