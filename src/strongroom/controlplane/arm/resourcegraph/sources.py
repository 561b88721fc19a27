"""Where the rows of a query come from: the database, page by page, and only what may reach the answer.

A query that names types, subscriptions, resource groups or ids is not fed anything else. Jobs, which may be a million,
come by vault, newest first; no more than a page of anything is in memory at a time.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from strongroom.controlplane.arm.compute.snapshots import SNAPSHOTS, snapshots
from strongroom.controlplane.arm.dataprotection.common import DELETED_INSTANCES, INSTANCES, JOBS, POLICIES, VAULTS
from strongroom.controlplane.arm.resourcegraph.rows import Row, extended_properties, row
from strongroom.controlplane.arm.resources.inventory import TOP_LEVEL
from strongroom.controlplane.identity.rbac import Access
from strongroom.controlplane.state.database import Tx
from strongroom.controlplane.state.jobs import Job
from strongroom.controlplane.state.resources import Resource
from strongroom.controlplane.state.spans import point_spans
from strongroom.controlplane.state.times import stamp

PAGE: Final = 500  # rows read at once: some megabytes at most

Conditions = Mapping[str, frozenset[str]]


@dataclass(frozen=True)
class Reader:
    """Reads rows for one caller: *subscriptions* are the ones to search, *conditions* what the query needs of a row.

    Jobs that began before *since* are not wanted, nor read.
    """

    tx: Tx
    access: Access
    principal: str
    tenant: str
    subscriptions: tuple[str, ...]
    conditions: Conditions
    since: datetime | None = None
    _vaults: dict[str, Resource | None] = field(default_factory=dict)
    _policies: dict[str, Resource | None] = field(default_factory=dict)

    def rows(self, table: str) -> Iterator[Row]:
        """Yield the rows of *table* that the caller may read."""
        for type, source in self._sources(table):
            if self._meets("type", type):
                yield from source(type)

    def _sources(self, table: str) -> list[tuple[str, Callable[[str], Iterator[Row]]]]:
        if table == "Resources":
            return [*((type, self._resources) for type in TOP_LEVEL), (SNAPSHOTS, self._snapshots)]
        return [
            (INSTANCES, self._instances),
            (DELETED_INSTANCES, self._instances),
            (POLICIES, self._resources),
            (JOBS, self._jobs),
        ]

    def _resources(self, type: str) -> Iterator[Row]:
        for page in self._pages(type):
            for resource in page:
                yield self._row(resource, type)

    def _instances(self, type: str) -> Iterator[Row]:
        for page in self._pages(type):
            spans = point_spans(self.tx, [instance_id(resource.id) for resource in page])
            for resource in page:
                properties = resource.properties
                policy = self._policy(str(properties["policyInfo"]["policyId"]))
                more = extended_properties(
                    resource.parent,
                    str(properties.get("currentProtectionState", "")),
                    policy.properties if policy else None,
                    spans.get(instance_id(resource.id).lower()),
                )
                yield self._row(resource, type, backupInstanceExtendedProperties=more)

    def _jobs(self, type: str) -> Iterator[Row]:
        names = self.conditions.get("name")
        if names is not None:
            for name in sorted(names):
                job = self.tx.jobs.get(name)
                vault = self._vault(job.vault) if job else None
                if job is not None and vault is not None and self._of_vault(vault, type):
                    yield self._job_row(job, vault)
            return
        for page in self._pages(VAULTS, readable=False):
            for vault in page:
                if self._of_vault(vault, type):
                    yield from self._jobs_of(vault)

    def _jobs_of(self, vault: Resource) -> Iterator[Row]:
        before: tuple[str, str] | None = None
        earliest = stamp(self.since) if self.since else ""
        while True:
            jobs = self.tx.jobs.page(vault=vault.id, before=before, limit=PAGE)
            for job in jobs:
                if job.started < earliest:
                    return
                yield self._job_row(job, vault)
            if len(jobs) < PAGE:
                return
            before = (jobs[-1].started, jobs[-1].id)

    def _job_row(self, job: Job, vault: Resource) -> Row:
        return row(job.doc, type=JOBS, tenant=self.tenant, location=vault.doc["location"])

    def _of_vault(self, vault: Resource, type: str) -> bool:
        """Say whether rows of *type* below *vault* are wanted, and readable. Roles cannot be given below a vault."""
        segments = vault.id.lower().split("/")
        return (
            segments[2] in self.subscriptions
            and self._meets("resourceGroup", segments[4])
            and (type != JOBS or self._meets("properties.vaultName", vault.name))
            and self.access.allowed(self.principal, f"{type}/read", vault.id)
        )

    def _snapshots(self, type: str) -> Iterator[Row]:
        for subscription in self._subscriptions():
            for document in snapshots(self.tx, subscription):
                id = str(document["id"])
                if self._meets("resourceGroup", id.split("/")[4]) and self._readable(id, type):
                    yield row(document, type=type, tenant=self.tenant)

    def _pages(self, type: str, *, readable: bool = True) -> Iterator[list[Resource]]:
        """Yield what is stored of *type* in the searched subscriptions and groups; if *readable*, what may be read."""
        ids = self.conditions.get("id") if readable else None
        if ids is not None:
            found = [self.tx.resources.get(id) for id in sorted(ids)]
            kept = [r for r in found if r is not None and r.type.lower() == type.lower() and self._inside(r.id)]
            yield [r for r in kept if self._readable(r.id, type)]
            return
        for subscription in self._subscriptions():
            for group in sorted(self.conditions.get("resourceGroup", ("",))):
                after = ""
                while True:
                    page = self.tx.resources.of_type(
                        type, subscription=subscription, resource_group=group, after=after, limit=PAGE
                    )
                    yield [r for r in page if not readable or self._readable(r.id, type)]
                    if len(page) < PAGE:
                        break
                    after = page[-1].id

    def _inside(self, id: str) -> bool:
        segments = id.lower().split("/")
        return segments[2] in self._subscriptions() and self._meets("resourceGroup", segments[4])

    def _subscriptions(self) -> list[str]:
        return [one for one in self.subscriptions if self._meets("subscriptionId", one)]

    def _meets(self, column: str, value: str) -> bool:
        wanted = self.conditions.get(column)
        return wanted is None or value.lower() in wanted

    def _readable(self, id: str, type: str) -> bool:
        return self.access.allowed(self.principal, f"{type}/read", id)

    def _row(self, resource: Resource, type: str, **properties: object) -> Row:
        vault = self._vault(resource.parent) if "location" not in resource.doc else None
        location = str(vault.doc.get("location", "")) if vault else ""
        return row(resource.doc, type=type, tenant=self.tenant, location=location, **properties)

    def _vault(self, id: str) -> Resource | None:
        if id.lower() not in self._vaults:
            self._vaults[id.lower()] = self.tx.resources.get(id)
        return self._vaults[id.lower()]

    def _policy(self, id: str) -> Resource | None:
        if id.lower() not in self._policies:
            self._policies[id.lower()] = self.tx.resources.get(id)
        return self._policies[id.lower()]


def instance_id(id: str) -> str:
    """Return the id under which an instance's points are kept, also once it is soft-deleted."""
    return id.replace("/deletedBackupInstances/", "/backupInstances/")
