"""Namespaces, CRDs, webhook configurations and API services (checklist rows 9, 10, 21, 22). Pure."""

from typing import Any

from strongroom.dataplane.restore.rules.draft import Draft, Rule

AUTOMANAGED_LABEL = "kube-aggregator.kubernetes.io/automanaged"


def prepare_namespace(draft: Draft, rule: Rule) -> None:
    """Keep labels and annotations; the rest is the server's."""
    draft.top.pop("spec", None)
    draft.drop_labels("kubernetes.io/metadata.name")


def prepare_crd(draft: Draft, rule: Rule) -> None:
    """Map the conversion webhook's namespace; fold the one old field that v1 refuses."""
    if draft.mentions("spec", b'"preserveUnknownFields"') or rule.request.map_namespaces:
        spec = draft.spec()
        # `preserveUnknownFields: true` is served for CRDs made through v1beta1, and refused in a create through v1.
        if spec.get("preserveUnknownFields"):
            spec["preserveUnknownFields"] = False
            draft.notes.append("preserveUnknownFields set to false: apiextensions.k8s.io/v1 accepts nothing else")
        webhook = (spec.get("conversion") or {}).get("webhook") or {}
        _map_client(webhook.get("clientConfig"), rule)


def conversion_service(draft: Draft) -> tuple[str, str] | None:
    """Return (namespace, name) of the Service behind a CRD's conversion webhook, as the source has it."""
    if not draft.mentions("spec", b'"webhook"'):
        return None
    webhook = (draft.spec().get("conversion") or {}).get("webhook") or {}
    return _service(webhook.get("clientConfig"))


def prepare_webhooks(draft: Draft, rule: Rule) -> None:
    """Map the namespaces of the services behind the webhooks."""
    if rule.request.map_namespaces:
        for webhook in draft.get("webhooks") or ():
            _map_client(webhook.get("clientConfig"), rule)


def webhook_services(draft: Draft) -> list[tuple[str, str]]:
    """Return (namespace, name) of the Services behind the webhooks, as the source has them."""
    found = [_service(webhook.get("clientConfig")) for webhook in draft.get("webhooks") or ()]
    return sorted({service for service in found if service is not None})


def prepare_api_service(draft: Draft, rule: Rule) -> None:
    """Map the namespace of the service behind."""
    if rule.request.map_namespaces:
        service = draft.spec().get("service")
        if service and service.get("namespace"):
            service["namespace"] = rule.namespace(service["namespace"])


def api_service_target(draft: Draft) -> tuple[str, str] | None:
    """Return (namespace, name) of the Service behind an APIService, as the source has it; None for a local one."""
    service = draft.spec().get("service")
    return (service.get("namespace", ""), service.get("name", "")) if service else None


def api_service_skip_reason(draft: Draft) -> str:
    """Say why an APIService is not restored, or ""."""
    if AUTOMANAGED_LABEL in (draft.meta("labels") or {}):
        return "made by the API server for a built-in group or a CRD"
    return ""


def prepare_policy_binding(draft: Draft, rule: Rule) -> None:
    """Map the namespace of an admission policy binding's parameters."""
    if rule.request.map_namespaces:
        reference = draft.spec().get("paramRef")
        if reference and reference.get("namespace"):
            reference["namespace"] = rule.namespace(reference["namespace"])


def _service(client: dict[str, Any] | None) -> tuple[str, str] | None:
    service = (client or {}).get("service")
    return (service.get("namespace", ""), service.get("name", "")) if service else None


def _map_client(client: dict[str, Any] | None, rule: Rule) -> None:
    service = (client or {}).get("service")
    if service and service.get("namespace"):
        service["namespace"] = rule.namespace(service["namespace"])
