"""The checks of `strongroom doctor` on a control plane: all that its API tells, asked as any client asks it.

What a server's home alone knows is not among them: whether the recovery kit was taken stands in the server's log.
"""

import socket
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from strongroom.cli.findings import Finding, Status, age_text, fail, of_error, of_problem, ok, warn
from strongroom.cli.protection import VaultOptions, instances, points, vaults
from strongroom.client.backups import JOB_FAILED, BackupInstance, BackupVault, Job, rule_names
from strongroom.client.errors import AccessDenied, ClientError, RequestRefused, ServerUnreachable
from strongroom.client.readyfile import ReadyFile
from strongroom.client.resources import ACCOUNTS, CLUSTERS, Cluster
from strongroom.client.session import CONNECT_SECONDS, Session

Json = dict[str, Any]

CERTIFICATE_DAYS: Final = 14  # the server renews 30 days before the end: less than half of that means it does not
JOBS_DAYS: Final = 7  # older failures have been seen, or nobody looks
JOBS_READ: Final = 500  # newest first: more of them in a week would be no news, and takes seconds to read
LATE: Final = timedelta(hours=1)  # a backup has this long to begin and to end before it counts as missing
PROVIDERS: Final = (
    "Microsoft.DataProtection",
    "Microsoft.ContainerService",
    "Microsoft.KubernetesConfiguration",
    "Microsoft.Storage",
)
EXTENSIONS: Final = "Microsoft.KubernetesConfiguration/extensions"
BACKUP_EXTENSION: Final = "microsoft.dataprotection.kubernetes"
PROTECTED: Final = "ProtectionConfigured"
PAUSED: Final = ("ProtectionStopped", "BackupsSuspended")
# docs/reference/policies.md: the periods that a schedule may have.
PERIODS: Final = {
    "PT4H": timedelta(hours=4),
    "PT6H": timedelta(hours=6),
    "PT8H": timedelta(hours=8),
    "PT12H": timedelta(hours=12),
    "P1D": timedelta(days=1),
    "P1W": timedelta(weeks=1),
}


def check_service(
    ready: ReadyFile, session: Session, vault: VaultOptions, instance: str, now: datetime
) -> Iterator[Finding]:
    """Yield what is found, from the connection to the last backup. Where nobody answers, or we may not ask, it ends.

    *instance* "" means all backup instances. Raises `UsageError` where the options mean none or several vaults.
    """
    yield from _certificates(ready, now)
    try:
        session.get("/subscriptions")  # what everybody may who signs in
    except (ServerUnreachable, AccessDenied) as error:
        yield of_error("server", session.endpoint, error)
        return
    yield ok("server", session.endpoint, f"answers; subscription {session.subscription}")
    yield from _guarded("providers", session.subscription, _providers(session))
    yield from _guarded("clusters", session.subscription, _clusters(session))
    yield from _guarded("storage", session.subscription, _storage(session))
    yield from _guarded("vaults", session.subscription, _vaults(session, vault, instance, now))


def overdue(newest: datetime | None, intervals: list[str], now: datetime) -> tuple[Status, str]:
    """Say whether a backup is missing: none newer than the schedule's shortest period, with `LATE` to be made in.

    Two periods without one are a failure, since the next backup did not make up for the first.
    """
    periods = [PERIODS[found] for text in intervals if (found := text.rpartition("/")[2]) in PERIODS]
    if newest is None:
        return Status.WARN, "there is no backup yet"
    age = now - newest
    told = f"the newest backup is {age_text(age)} old"
    if not periods:
        return Status.OK, told
    period = min(periods)
    scheduled = f"{told}; the schedule is every {age_text(period)}"
    if age > 2 * period + LATE:
        return Status.FAIL, scheduled
    return (Status.WARN if age > period + LATE else Status.OK), scheduled


def _guarded(check: str, subject: str, findings: Iterator[Finding]) -> Iterator[Finding]:
    """Yield *findings*; what the server refuses to tell is one of them."""
    try:
        yield from findings
    except ClientError as error:
        yield of_error(check, subject, error)


def _certificates(ready: ReadyFile, now: datetime) -> Iterator[Finding]:
    """Look when the server's certificate and its authority end; whether we trust it shows at the first request."""
    where = urlsplit(ready.endpoint)
    host = where.hostname or ""
    try:
        context = ssl.create_default_context(cafile=ready.ca_file)
        with (
            socket.create_connection((host, where.port or 443), timeout=CONNECT_SECONDS) as plain,
            context.wrap_socket(plain, server_hostname=host) as secure,
        ):
            server = secure.getpeercert() or {}
    except ssl.SSLCertVerificationError as error:
        mend = "Use the ready file of this server's last start; if it has run for months, restart `strongroom serve`"
        yield fail("certificate", host, f"the server's certificate is not accepted: {error.verify_message}", mend)
        return
    except OSError as error:
        reason = error.strerror or str(error)
        if isinstance(error, FileNotFoundError):
            yield fail("certificate", host, f"the CA file {ready.ca_file} of the ready file: {reason}")
        return  # that nobody answers is told by the next check
    authority = context.get_ca_certs()
    for name, certificate in (
        ("server", server),
        *((f"authority in {Path(ready.ca_file).name}", a) for a in authority),
    ):
        ends = datetime.fromtimestamp(ssl.cert_time_to_seconds(str(certificate["notAfter"])), UTC)
        told = f"the {name}'s certificate ends on {ends:%Y-%m-%d}"
        if ends - now < timedelta(days=CERTIFICATE_DAYS):
            yield warn("certificate", host, told, "Restart `strongroom serve`, which renews it; then see its log")
        else:
            yield ok("certificate", host, told)


def _providers(session: Session) -> Iterator[Finding]:
    states = {p["namespace"].lower(): p["registrationState"] for p in session.items(f"{session.root}/providers")}
    missing = [each for each in PROVIDERS if states.get(each.lower()) != "Registered"]
    for namespace in missing:
        mend = f"az provider register --namespace {namespace} --subscription {session.subscription}"
        state = states.get(namespace.lower(), "NotRegistered")
        yield fail("provider", namespace, f"{state} in the subscription {session.subscription}", mend)
    if not missing:
        yield ok("providers", session.subscription, "all registered")


def _clusters(session: Session) -> Iterator[Finding]:
    clusters = [Cluster.of(document) for document in session.items(f"{session.root}/providers/{CLUSTERS}")]
    if not clusters:
        mend = "strongroom cluster connect NAME --resource-group GROUP --kubeconfig FILE"
        yield warn("clusters", session.subscription, "no cluster is connected", mend)
    for cluster in clusters:
        yield from _guarded("cluster", cluster.name, _cluster(session, cluster))


def _cluster(session: Session, cluster: Cluster) -> Iterator[Finding]:
    if cluster.state != "Succeeded":
        mend = f"strongroom cluster connect {cluster.name} --resource-group {cluster.group} --kubeconfig FILE"
        yield fail("cluster", cluster.name, f"it is {cluster.state}", mend)
        return
    for text in cluster.document["properties"].get("strongroomWarnings") or ():
        yield warn("cluster", cluster.name, str(text))
    listed = session.items(f"{cluster.id}/providers/{EXTENSIONS}")
    extensions = [e for e in listed if str(e["properties"].get("extensionType")).lower() == BACKUP_EXTENSION]
    if not extensions:
        mend = (
            f"az k8s-extension create --cluster-type managedClusters --cluster-name {cluster.name} --resource-group "
            f"{cluster.group} --name azure-aks-backup --extension-type {BACKUP_EXTENSION} --scope cluster "
            "--release-train stable --configuration-settings blobContainer=CONTAINER storageAccount=ACCOUNT "
            "storageAccountResourceGroup=GROUP storageAccountSubscriptionId=SUBSCRIPTION"
        )
        yield warn("extension", cluster.name, "the backup extension is not installed", mend)
    for extension in extensions:
        yield from _extension(session, cluster, str(extension["id"]))
    bindings = list(session.items(f"{cluster.id}/trustedAccessRoleBindings"))
    for binding in bindings:
        source = str(binding["properties"].get("sourceResourceId", ""))
        yield from _binding(session, cluster, str(binding["name"]), source, binding["properties"])


def _extension(session: Session, cluster: Cluster, id: str) -> Iterator[Finding]:
    # Only the extension alone says what the cluster has of it now.
    properties = session.get(id)["properties"]
    name = f"{cluster.name}/{id.rpartition('/')[2]}"
    state = str(properties.get("provisioningState"))
    statuses = [each for each in properties.get("statuses") or () if each.get("level") == "Error"]
    again = f"az k8s-extension delete, then create it again in the cluster {cluster.name}"
    for status in statuses:
        # What cannot be reached is not mended by installing.
        unreachable = status.get("code") == "ClusterUnreachable"
        mend = f"Look whether the API server of {cluster.name} can be reached from the server" if unreachable else again
        found = Finding("extension", name, Status.FAIL, str(status["message"]), (mend,), str(status.get("code") or ""))
        yield found
    if state != "Succeeded":
        error = (properties.get("errorInfo") or {}).get("message") or ""
        yield fail("extension", name, f"it is {state}" + (f": {error}" if error else ""), again)
    elif not statuses:
        message = next((str(each["message"]) for each in properties.get("statuses") or ()), "installed")
        yield ok("extension", name, f"{message} Version {properties.get('currentVersion') or 'unknown'}.")


def _binding(session: Session, cluster: Cluster, name: str, vault: str, properties: Json) -> Iterator[Finding]:
    subject, short = f"{cluster.name}/{name}", vault.rpartition("/")[2]
    state = str(properties.get("provisioningState"))
    if session.find(vault) is None:
        mend = (
            f"az aks trustedaccess rolebinding delete --cluster-name {cluster.name} --resource-group {cluster.group} "
            f"--name {name}"
        )
        yield warn("trusted access", subject, f"the vault {short} that it lets in does not exist", mend)
    elif state != "Succeeded":
        yield fail("trusted access", subject, f"it is {state}", "Make the binding again")
    else:
        yield ok("trusted access", subject, f"lets the vault {short} in")


def _storage(session: Session) -> Iterator[Finding]:
    """Look whether each account has containers; whether one can be written is asked with each backup instance."""
    accounts = list(session.items(f"{session.root}/providers/{ACCOUNTS}"))
    if not accounts:
        mend = "strongroom storage attach NAME --resource-group GROUP --url URL"
        yield warn("storage", session.subscription, "there is no storage account", mend)
    for account in accounts:
        state = str(account["properties"].get("provisioningState"))
        count = sum(1 for _ in session.items(f"{account['id']}/blobServices/default/containers"))
        if state != "Succeeded":
            yield fail("storage", account["name"], f"it is {state}", "strongroom storage attach, to attach it anew")
        elif not count:
            where = f"--resource-group {account['id'].split('/')[4]} --storage-account {account['name']}"
            mend = f"az storage container-rm create {where} --name CONTAINER"
            yield warn("storage", account["name"], "it has no container", mend)
        else:
            yield ok("storage", account["name"], f"{count} containers")


def _vaults(session: Session, options: VaultOptions, instance: str, now: datetime) -> Iterator[Finding]:
    chosen = [options.find(session)] if options.vault_name else vaults(session, options.resource_group)
    if not chosen:
        yield warn("vaults", session.subscription, "there is no backup vault", "strongroom vault create NAME")
    for each in chosen:
        yield from _guarded("vault", each.name, _vault(session, each, instance, now))


def _vault(session: Session, vault: BackupVault, only: str, now: datetime) -> Iterator[Finding]:
    if vault.state != "Succeeded" or not vault.principal:
        found = f"it is {vault.state}" if vault.state != "Succeeded" else "it has no managed identity"
        yield fail("vault", vault.name, found, f"strongroom vault create {vault.name} --resource-group {vault.group}")
    else:
        yield ok("vault", vault.name, f"{vault.location}; soft delete {vault.soft_delete}")
    wanted = only.rpartition("/")[2].lower()
    chosen = [each for each in instances(session, vault) if not wanted or each.name.lower() == wanted]
    if not chosen:
        what = f"no backup instance {only!r}" if only else "nothing is protected"
        mend = "strongroom instance create NAME --cluster CLUSTER --policy POLICY"
        yield warn("backup instances", vault.name, what, mend)
    for each in chosen:
        yield from _guarded("backup instance", each.name, _instance(session, vault, each, now))
    names = {each.id.lower() for each in chosen}
    yield from _jobs(session, vault, names, now)


def _instance(session: Session, vault: BackupVault, instance: BackupInstance, now: datetime) -> Iterator[Finding]:
    where = f"--vault-name {vault.name} --resource-group {vault.group}"
    if instance.problems:
        for problem in instance.problems:
            yield of_problem("protection", instance.name, problem)
    elif instance.state in PAUSED:
        mend = f"az dataprotection backup-instance resume-protection {where} --name {instance.name}"
        yield warn("protection", instance.name, f"it is {instance.state}: no backups are made", mend)
    elif instance.state != PROTECTED:
        yield fail("protection", instance.name, f"it is {instance.state}")
    else:
        yield ok("protection", instance.name, f"{instance.state} of {instance.cluster.rpartition('/')[2]}")
    yield from _guarded("readiness", instance.name, _readiness(session, vault, instance))
    status, told = overdue(
        next((each.time for each in points(session, instance) if each.time), None),
        list(rule_names(session.get(instance.policy))[2]),
        now,
    )
    if instance.state in PAUSED and status is Status.FAIL:
        status = Status.WARN  # that it is paused was said already
    again = () if status is Status.OK else (f"strongroom instance backup {instance.name} {where}",)
    yield Finding("last backup", instance.name, status, told, again)


def _readiness(session: Session, vault: BackupVault, instance: BackupInstance) -> Iterator[Finding]:
    """Ask the service to validate the instance as it is: roles, trusted access, storage, drivers, snapshot classes."""
    try:
        session.post(f"{instance.id}/validateForModifyBackup", {"backupInstance": instance.request})
    except RequestRefused as refused:
        if not refused.problems:
            raise
        for problem in refused.problems:
            yield of_problem("readiness", instance.name, problem)
        if any("role assignment create" in action for each in refused.problems for action in each.actions):
            where = f"--vault-name {vault.name} --resource-group {vault.group}"
            mend = f"strongroom instance grant {instance.name} {where}"
            yield fail("roles", instance.name, "roles are missing", mend)
    else:
        yield ok("readiness", instance.name, "roles, trusted access, storage and snapshot classes are as they must be")


def _jobs(session: Session, vault: BackupVault, instances: set[str], now: datetime) -> Iterator[Finding]:
    """Look at the jobs of the last days: one that failed is worse where no backup of the instance came after it."""
    since = now - timedelta(days=JOBS_DAYS)
    newest: dict[str, Job] = {}
    failed: dict[str, list[Job]] = {}
    for number, document in enumerate(session.items(f"{vault.id}/backupJobs")):
        job = Job.of(document)
        if number == JOBS_READ or (job.started is not None and job.started < since):
            break
        key = job.instance.lower()
        if key not in instances or not job.ended:
            continue
        if job.category == "Backup":
            newest.setdefault(key, job)
        if job.status == JOB_FAILED:
            failed.setdefault(key, []).append(job)
    for key, jobs in failed.items():
        last = jobs[0]
        why = last.problems[0] if last.problems else None
        found = f"{len(jobs)} of the last {JOBS_DAYS} days failed, last {last.category} {last.name}"
        found += f": {why.message}" if why else ""
        unmended = newest.get(key) is last
        status = Status.FAIL if unmended else Status.WARN
        mend = (why.actions if why else ()) or (f"strongroom job show {last.name} --vault-name {vault.name}",)
        yield Finding("jobs", last.instance.rpartition("/")[2], status, found, mend, why.code if why else "")
    if not failed:
        yield ok("jobs", vault.name, f"none of the last {JOBS_DAYS} days failed")
