"""One active extension at a time, by a Lease; its renewals are the heartbeat that others see.

A holder that does not answer is given up after `LEASE_SECONDS` without a renewal, as this process saw it: clocks of two
machines are never compared. One that is known to be dead (a process of this machine, a container of this pod) at once.
"""

import asyncio
import contextlib
import logging
import os
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from strongroom import __version__
from strongroom.dataplane.kube.api import KubeApi
from strongroom.dataplane.kube.errors import KubeAlreadyExists, KubeConflict, KubeError, KubeNotFound
from strongroom.extension.api.lease import LEASE_NAME, LEASE_SECONDS, VERSION_ANNOTATION
from strongroom.extension.watching.resources import LEASES

log = logging.getLogger(__name__)

RENEW_SECONDS: Final = 15.0  # a write each; four a minute are nothing to an API server
GIVE_UP_SECONDS: Final = (
    90.0  # without a renewal: a last attempt and stopping the runs end before anybody may take over
)
RETRY_SECONDS: Final = 2.0  # a restart's wait for the lease is somebody's wait for his backup
CALL_SECONDS: Final = 10.0  # an API server that is slower than that is away


class _Meta(msgspec.Struct, frozen=True, rename="camel"):
    resource_version: str = ""


class _Spec(msgspec.Struct, frozen=True, rename="camel"):
    holder_identity: str | None = None
    renew_time: str | None = None
    lease_transitions: int | None = None


class _Lease(msgspec.Struct, frozen=True):
    metadata: _Meta = _Meta()
    spec: _Spec = _Spec()


class Lease:
    """The lease of one namespace, as one process sees it; *seconds* without a renewal end it."""

    def __init__(self, api: KubeApi, namespace: str, *, seconds: float = LEASE_SECONDS) -> None:
        self._api = api
        self._namespace = namespace
        self._seconds = seconds
        self.identity = f"{scope()}/{secrets.token_hex(4)}"
        self._seen: tuple[_Spec, float] | None = None
        self._renewed_at = float("-inf")
        self._doubted = asyncio.Event()

    async def acquire(self) -> None:
        """Return when this process holds the lease."""
        waiting = ""
        while True:
            try:
                async with asyncio.timeout(CALL_SECONDS):
                    holder = await self._try()
            except (KubeError, TimeoutError) as error:
                reason = error.message if isinstance(error, KubeError) else "no answer"
                holder = f"unknown: {reason}"
            if holder == self.identity:
                log.info("lease held", extra={"identity": self.identity})
                return
            if holder != waiting:
                log.info("waiting for the lease", extra={"holder": holder})
                waiting = holder
            await asyncio.sleep(RETRY_SECONDS)

    async def keep(self) -> None:
        """Renew the lease; return when it is lost, or could be."""
        loop = asyncio.get_running_loop()
        while loop.time() - self._renewed_at < GIVE_UP_SECONDS:
            pause = RENEW_SECONDS if loop.time() - self._renewed_at < RENEW_SECONDS else RETRY_SECONDS
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._doubted.wait(), pause)
            self._doubted.clear()
            try:
                async with asyncio.timeout(CALL_SECONDS):
                    holder = await self._try()
            except (KubeError, TimeoutError) as error:
                log.warning("lease not renewed yet", extra={"reason": str(error) or "no answer"})
                continue
            if holder != self.identity:
                log.warning("lease lost", extra={"holder": holder})
                return
        log.warning("lease not renewed in time", extra={"seconds": GIVE_UP_SECONDS})

    async def confirm(self) -> None:
        """Return when the API server says that this process holds the lease; never where it has lost it.

        A process that stood still, or whose lease was deleted, learns of its successor by the next renewal only. The
        work of both must not be committed: one that waits here is stopped when `keep` returns.
        """
        while True:
            with contextlib.suppress(KubeError, TimeoutError):  # it may hold the lease all the same: `keep` decides
                async with asyncio.timeout(CALL_SECONDS):
                    lease = await self._get()
                if lease is not None and lease.spec.holder_identity == self.identity:
                    return
                self._doubted.set()
            await asyncio.sleep(RETRY_SECONDS)

    async def release(self) -> None:
        """Let the next one have it at once, if this process holds it and the API server answers."""
        try:
            async with asyncio.timeout(CALL_SECONDS):
                lease = await self._get()
                if lease is not None and lease.spec.holder_identity == self.identity:
                    await self._write(lease, holder="")
        except (KubeError, TimeoutError) as error:
            log.info("lease not released", extra={"reason": str(error) or "no answer"})

    async def _try(self) -> str:
        """Take or renew the lease if it may be; return who holds it then."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        lease = await self._get()
        holder = (lease.spec.holder_identity or "") if lease is not None else ""
        if lease is not None and holder != self.identity:
            if self._seen is None or self._seen[0] != lease.spec:
                self._seen = (lease.spec, began)
            if holder and not is_dead(holder) and began - self._seen[1] < self._seconds:
                return holder
        try:
            await self._write(lease, holder=self.identity)
        except (KubeConflict, KubeAlreadyExists):
            return "somebody who was faster"
        # From before the request: whoever waits counts from when he sees the renewal, which is later.
        self._renewed_at = began
        return self.identity

    async def _get(self) -> _Lease | None:
        try:
            return msgspec.json.decode(await self._api.get(LEASES, LEASE_NAME, self._namespace), type=_Lease)
        except KubeNotFound:
            return None

    async def _write(self, lease: _Lease | None, *, holder: str) -> None:
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        changed = lease is None or lease.spec.holder_identity != holder
        spec: dict[str, Any] = {
            "holderIdentity": holder,
            "leaseDurationSeconds": int(self._seconds),
            "renewTime": now,
            "leaseTransitions": ((lease.spec.lease_transitions or 0) if lease else 0) + changed,
        }
        metadata: dict[str, Any] = {
            "name": LEASE_NAME,
            "namespace": self._namespace,
            "labels": {"app.kubernetes.io/managed-by": "strongroom"},
            "annotations": {VERSION_ANNOTATION: __version__},
        }
        body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}
        if lease is None:
            await self._api.create(LEASES, body, self._namespace)
        else:
            metadata["resourceVersion"] = lease.metadata.resource_version
            await self._api.replace(LEASES, LEASE_NAME, self._namespace, body)


def scope() -> str:
    """Return what tells this process from all others, in a form that says to a later one whether this one is dead."""
    if pod := os.environ.get("POD_UID"):
        return f"pod:{pod}"
    return f"process:{_machine()}:{os.getpid()}:{_started(os.getpid())}"


def is_dead(identity: str) -> bool:
    """Say whether the holder *identity* is certainly dead; False where that cannot be known from here."""
    kind, _, rest = identity.rpartition("/")[0].partition(":")
    if kind == "pod":
        # We are a container of this pod, so the one before us ended.
        return bool(rest) and rest == os.environ.get("POD_UID")
    machine, _, process = rest.rpartition(":")[0].rpartition(":")
    started = rest.rpartition(":")[2]
    if kind != "process" or not machine or machine != _machine() or not process.isdigit():
        return False
    return _started(int(process)) != started


def _machine() -> str:
    """Return what processes that see each other have in common: this boot of the machine and the process namespace."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}-{Path('/proc/self/ns/pid').readlink().name}".replace(":", "")
    except OSError:
        return ""


def _started(process: int) -> str:
    """Return when a process started, in clock ticks since boot; "" if there is none. A zombie counts as none."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in ("Z", "X") else fields[19]  # proc(5): state is the 3rd field, starttime the 22nd
