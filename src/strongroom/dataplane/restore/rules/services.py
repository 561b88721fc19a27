"""Services, Endpoints and EndpointSlices: what one cluster allocated is not another's (checklist rows 16, 17). Pure."""

from typing import Any

import msgspec

from strongroom.dataplane.restore.rules.draft import Draft, Rule

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
SLICE_MANAGER_LABEL = "endpointslice.kubernetes.io/managed-by"
SLICE_CONTROLLERS = ("endpointslice-controller.k8s.io", "endpointslicemirroring-controller.k8s.io")
ENDPOINTS_MANAGER_LABEL = "endpoints.kubernetes.io/managed-by"


def prepare_service(draft: Draft, rule: Rule) -> None:
    """Drop addresses and ports that the source's cluster allocated; keep what the Service's author chose.

    Chosen is what stands in the last-applied annotation or, without one, what a manager set: the server's allocators
    run after field management, so an allocated value has no owner.
    """
    spec = draft.spec()
    if spec.get("type") == "ExternalName":
        return
    chosen = _Chosen(draft, rule.managed_fields)
    if spec.get("clusterIP") != "None":
        spec.pop("clusterIP", None)
        spec.pop("clusterIPs", None)
    if not chosen.spec_field("ipFamilies"):
        # The families of a single-stack or a dual-stack target are its own; a choice of the author is kept.
        spec.pop("ipFamilies", None)
        if not chosen.spec_field("ipFamilyPolicy"):
            spec.pop("ipFamilyPolicy", None)
    if rule.request.preserve_node_ports:
        return
    if spec.get("healthCheckNodePort") and not chosen.spec_field("healthCheckNodePort"):
        del spec["healthCheckNodePort"]
    for port in spec.get("ports") or ():
        if port.get("nodePort") and not chosen.node_port(port):
            del port["nodePort"]


class _Chosen:
    """What the author of a Service wrote himself."""

    def __init__(self, draft: Draft, managed_fields: bytes | None) -> None:
        self._applied: dict[str, Any] | None = None
        text = (draft.meta("annotations") or {}).get(LAST_APPLIED)
        if text:
            try:
                self._applied = msgspec.json.decode(text).get("spec") or {}
            except (msgspec.DecodeError, AttributeError):
                self._applied = None
        self._sets: list[dict[str, Any]] = []
        if self._applied is None and managed_fields:
            for entry in msgspec.json.decode(managed_fields) or ():
                if not entry.get("subresource"):
                    self._sets.append((entry.get("fieldsV1") or {}).get("f:spec") or {})

    def spec_field(self, name: str) -> bool:
        if self._applied is not None:
            return name in self._applied
        return any(f"f:{name}" in fields for fields in self._sets)

    def node_port(self, port: dict[str, Any]) -> bool:
        if self._applied is not None:
            return any(
                applied.get("nodePort") == port["nodePort"] and applied.get("port") == port.get("port")
                for applied in self._applied.get("ports") or ()
            )
        for fields in self._sets:
            for key, owned in (fields.get("f:ports") or {}).items():
                if key.startswith("k:") and "f:nodePort" in owned:
                    named = msgspec.json.decode(key[2:])
                    if named.get("port") == port.get("port") and named.get("protocol", "TCP") == port.get(
                        "protocol", "TCP"
                    ):
                        return True
        return False


def slice_skip_reason(draft: Draft) -> str:
    """Say why an EndpointSlice is not restored, or ""."""
    manager = (draft.meta("labels") or {}).get(SLICE_MANAGER_LABEL)
    return f"made by {manager} from its Service" if manager in SLICE_CONTROLLERS else ""


def endpoints_skip_reason(
    draft: Draft, services_with_selector: frozenset[tuple[str, str]] | set[tuple[str, str]], source: tuple[str, str]
) -> str:
    """Say why Endpoints at *source* (namespace, name) are not restored, or ""."""
    if ENDPOINTS_MANAGER_LABEL in (draft.meta("labels") or {}) or source in services_with_selector:
        return "made by the endpoints controller from its Service's selector"
    return ""
