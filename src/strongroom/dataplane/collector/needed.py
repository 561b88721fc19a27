"""Finds what kept objects need (claims, volumes, classes) and refer to (ConfigMaps, Secrets, ServiceAccounts).

Pure: it is shown objects as they are read and remembers names.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import msgspec

from strongroom.dataplane.kube.kinds import Kind
from strongroom.dataplane.repository.model import Reference
from strongroom.dataplane.repository.objects import Parts

# Controllers make these in every namespace: that they are left out says nothing.
_EVERYWHERE: Final = frozenset((("ServiceAccount", "default"), ("ConfigMap", "kube-root-ca.crt")))
REFERRED_KINDS: Final = frozenset((("", "ConfigMap"), ("", "Secret"), ("", "ServiceAccount")))


class _Named(msgspec.Struct):
    name: str | None = None


class _ValueFrom(msgspec.Struct, rename="camel"):
    config_map_key_ref: _Named | None = None
    secret_key_ref: _Named | None = None


class _Env(msgspec.Struct, rename="camel"):
    value_from: _ValueFrom | None = None


class _EnvFrom(msgspec.Struct, rename="camel"):
    config_map_ref: _Named | None = None
    secret_ref: _Named | None = None


class _Container(msgspec.Struct, rename="camel"):
    env: list[_Env] | None = None
    env_from: list[_EnvFrom] | None = None


class _ClaimSource(msgspec.Struct, rename="camel"):
    claim_name: str = ""


class _SecretSource(msgspec.Struct, rename="camel"):
    secret_name: str | None = None


class _Projection(msgspec.Struct, rename="camel"):
    config_map: _Named | None = None
    secret: _Named | None = None


class _Projected(msgspec.Struct):
    sources: list[_Projection] | None = None


class _Csi(msgspec.Struct, rename="camel"):
    node_publish_secret_ref: _Named | None = None


class _Volume(msgspec.Struct, rename="camel"):
    name: str = ""
    persistent_volume_claim: _ClaimSource | None = None
    ephemeral: dict[str, msgspec.Raw] | None = None
    config_map: _Named | None = None
    secret: _SecretSource | None = None
    projected: _Projected | None = None
    csi: _Csi | None = None


class _PodSpec(msgspec.Struct, rename="camel"):
    volumes: list[_Volume] | None = None
    containers: list[_Container] | None = None
    init_containers: list[_Container] | None = None
    ephemeral_containers: list[_Container] | None = None
    service_account_name: str | None = None
    image_pull_secrets: list[_Named] | None = None


class _Template(msgspec.Struct):
    spec: _PodSpec | None = None


class _ClaimTemplateMeta(msgspec.Struct):
    metadata: _Named = msgspec.field(default_factory=_Named)


class _WorkloadSpec(msgspec.Struct, rename="camel"):
    template: _Template | None = None
    volume_claim_templates: list[_ClaimTemplateMeta] | None = None


class _JobTemplate(msgspec.Struct):
    spec: _WorkloadSpec | None = None


class _CronSpec(msgspec.Struct, rename="camel"):
    job_template: _JobTemplate | None = None


class _Pod(msgspec.Struct):
    spec: _PodSpec | None = None


class _Workload(msgspec.Struct):
    spec: _WorkloadSpec | None = None


class _CronJob(msgspec.Struct):
    spec: _CronSpec | None = None


class _ClaimSpec(msgspec.Struct, rename="camel"):
    volume_name: str | None = None
    storage_class_name: str | None = None


class _Claim(msgspec.Struct):
    spec: _ClaimSpec | None = None


class _Tls(msgspec.Struct, rename="camel"):
    secret_name: str | None = None


class _IngressSpec(msgspec.Struct):
    tls: list[_Tls] | None = None


class _Ingress(msgspec.Struct):
    spec: _IngressSpec | None = None


class _ServiceAccount(msgspec.Struct, rename="camel"):
    secrets: list[_Named] | None = None
    image_pull_secrets: list[_Named] | None = None


class _Subject(msgspec.Struct):
    kind: str = ""
    name: str = ""
    namespace: str | None = None


class _Binding(msgspec.Struct):
    subjects: list[_Subject] | None = None


_decode_pod = msgspec.json.Decoder(_Pod).decode
_decode_workload = msgspec.json.Decoder(_Workload).decode
_decode_cron = msgspec.json.Decoder(_CronJob).decode
_decode_claim = msgspec.json.Decoder(_Claim).decode
_decode_ingress = msgspec.json.Decoder(_Ingress).decode
_decode_account = msgspec.json.Decoder(_ServiceAccount).decode
_decode_binding = msgspec.json.Decoder(_Binding).decode

WORKLOADS: Final = frozenset(
    (
        ("", "ReplicationController"),
        ("apps", "DaemonSet"),
        ("apps", "Deployment"),
        ("apps", "ReplicaSet"),
        ("apps", "StatefulSet"),
        ("batch", "Job"),
    )
)
_BINDINGS: Final = frozenset(
    (("rbac.authorization.k8s.io", "RoleBinding"), ("rbac.authorization.k8s.io", "ClusterRoleBinding"))
)
REFERRING_KINDS: Final = (
    WORKLOADS
    | _BINDINGS
    | {("", "Pod"), ("batch", "CronJob"), ("networking.k8s.io", "Ingress"), ("", "ServiceAccount")}
)
"""Kinds that `Needs.observe` looks into; with the kind of claims, all that must be read whole when needs matter."""


@dataclass
class Needs:
    """What the objects shown so far need. Names are `namespace/name`, or `name` where cluster-scoped."""

    claims: set[str] = field(default_factory=set)
    claim_prefixes: set[str] = field(default_factory=set)
    volumes: set[str] = field(default_factory=set)
    storage_classes: set[str] = field(default_factory=set)
    namespaces: set[str] = field(default_factory=set)
    definitions: set[str] = field(default_factory=set)
    kept: set[tuple[str, str]] = field(default_factory=set)
    """(kind, `namespace/name`) of every kept object of a kind that others refer to."""
    _references: dict[tuple[str, str, str], str] = field(default_factory=dict)

    def needs_claim(self, namespace: str, name: str) -> bool:
        """Say whether a kept pod uses the claim, or a kept StatefulSet makes it from its templates."""
        key = f"{namespace}/{name}"
        if key in self.claims:
            return True
        prefix, _, ordinal = key.rpartition("-")
        return ordinal.isdecimal() and prefix in self.claim_prefixes

    def observe(self, kind: Kind, parts: Parts) -> None:
        """Note what one kept object needs and refers to. An object that is not as its kind demands notes nothing."""
        key = (kind.group, kind.kind)
        try:
            if key == ("", "Pod"):
                self._pod_spec(_decode_pod(parts.body).spec, kind, parts)
            elif key in WORKLOADS:
                self._workload(_decode_workload(parts.body).spec, kind, parts)
            elif key == ("batch", "CronJob"):
                spec = _decode_cron(parts.body).spec
                self._workload(spec.job_template.spec if spec and spec.job_template else None, kind, parts)
            elif key == ("", "PersistentVolumeClaim"):
                self._claim(_decode_claim(parts.body).spec)
            elif key in _BINDINGS:
                for subject in _decode_binding(parts.body).subjects or ():
                    if subject.kind == "ServiceAccount":
                        self._refer("ServiceAccount", subject.namespace or parts.namespace, subject.name, kind, parts)
            elif key == ("networking.k8s.io", "Ingress"):
                spec_ = _decode_ingress(parts.body).spec
                for tls in (spec_.tls if spec_ else None) or ():
                    self._refer("Secret", parts.namespace, tls.secret_name, kind, parts)
            elif key == ("", "ServiceAccount"):
                account = _decode_account(parts.body)
                for secret in (*(account.secrets or ()), *(account.image_pull_secrets or ())):
                    self._refer("Secret", parts.namespace, secret.name, kind, parts)
        except msgspec.DecodeError:
            # A served object always fits; a store of another API server's kind of that name need not.
            return

    def references(self) -> tuple[Reference, ...]:
        """Return the references to objects that are not kept, sorted; each with the first object that refers to it."""
        return tuple(
            Reference(kind=kind, namespace=namespace, name=name, referred_by=by)
            for (kind, namespace, name), by in sorted(self._references.items())
            if (kind, f"{namespace}/{name}") not in self.kept
        )

    def _claim(self, spec: _ClaimSpec | None) -> None:
        if spec is None:
            return
        if spec.volume_name:
            self.volumes.add(spec.volume_name)
        if spec.storage_class_name:
            self.storage_classes.add(spec.storage_class_name)

    def _workload(self, spec: _WorkloadSpec | None, kind: Kind, parts: Parts) -> None:
        if spec is None:
            return
        for template in spec.volume_claim_templates or ():
            self.claim_prefixes.add(f"{parts.namespace}/{template.metadata.name}-{parts.name}")
        self._pod_spec(spec.template.spec if spec.template else None, kind, parts)

    def _pod_spec(self, spec: _PodSpec | None, kind: Kind, parts: Parts) -> None:
        if spec is None:
            return
        namespace = parts.namespace
        for volume in spec.volumes or ():
            if volume.persistent_volume_claim is not None:
                self.claims.add(f"{namespace}/{volume.persistent_volume_claim.claim_name}")
            if volume.ephemeral is not None and kind.kind == "Pod":
                self.claims.add(f"{namespace}/{parts.name}-{volume.name}")
            for target, name in _of_volume(volume):
                self._refer(target, namespace, name, kind, parts)
        for container in (
            *(spec.containers or ()),
            *(spec.init_containers or ()),
            *(spec.ephemeral_containers or ()),
        ):
            for target, name in _of_container(container):
                self._refer(target, namespace, name, kind, parts)
        self._refer("ServiceAccount", namespace, spec.service_account_name, kind, parts)
        for secret in spec.image_pull_secrets or ():
            self._refer("Secret", namespace, secret.name, kind, parts)

    def _refer(self, target: str, namespace: str, name: str | None, kind: Kind, parts: Parts) -> None:
        if name and (target, name) not in _EVERYWHERE:
            by = f"{kind.name} {parts.namespace}/{parts.name}" if parts.namespace else f"{kind.name} {parts.name}"
            self._references.setdefault((target, namespace, name), by)


def _of_volume(volume: _Volume) -> Iterator[tuple[str, str | None]]:
    if volume.config_map is not None:
        yield "ConfigMap", volume.config_map.name
    if volume.secret is not None:
        yield "Secret", volume.secret.secret_name
    if volume.csi is not None and volume.csi.node_publish_secret_ref is not None:
        yield "Secret", volume.csi.node_publish_secret_ref.name
    for source in (volume.projected.sources if volume.projected else None) or ():
        if source.config_map is not None:
            yield "ConfigMap", source.config_map.name
        if source.secret is not None:
            yield "Secret", source.secret.name


def _of_container(container: _Container) -> Iterator[tuple[str, str | None]]:
    for env in container.env or ():
        if env.value_from is not None:
            if env.value_from.config_map_key_ref is not None:
                yield "ConfigMap", env.value_from.config_map_key_ref.name
            if env.value_from.secret_key_ref is not None:
                yield "Secret", env.value_from.secret_key_ref.name
    for source in container.env_from or ():
        if source.config_map_ref is not None:
            yield "ConfigMap", source.config_map_ref.name
        if source.secret_ref is not None:
            yield "Secret", source.secret_ref.name
