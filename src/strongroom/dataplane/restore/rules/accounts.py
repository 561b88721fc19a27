"""Secrets, ServiceAccounts and role bindings (checklist rows 18, 19, 20). Pure."""

import re

from strongroom.dataplane.restore.rules.draft import Draft, Rule

TOKEN_TYPE = "kubernetes.io/service-account-token"  # noqa: S105 a type, not a secret
ACCOUNT_ANNOTATION = "kubernetes.io/service-account.name"
ACCOUNT_UID_ANNOTATION = "kubernetes.io/service-account.uid"
RANDOM_SUFFIX = "[bcdfghjklmnpqrstvwxz2456789]{5}"
"""What the server appends to a generated name (k8s.io/apimachinery, util/rand): no vowels, so no words."""


def is_automatic_token(account: str, secret: str) -> bool:
    """Say whether *secret* is named like the token that clusters before Kubernetes 1.24 made for each *account*."""
    return re.fullmatch(re.escape(account) + "-token-" + RANDOM_SUFFIX, secret) is not None


def secret_skip_reason(draft: Draft) -> str:
    """Say why a Secret is not restored, or ""."""
    if not _is_token(draft):
        return ""
    account = (draft.meta("annotations") or {}).get(ACCOUNT_ANNOTATION, "")
    if is_automatic_token(account, draft.name):
        return f"token that the cluster made for ServiceAccount {account}"
    return ""


def prepare_secret(draft: Draft, rule: Rule) -> None:
    """Empty a service account token: the target's controller fills it with a token of its own."""
    if not _is_token(draft):
        return
    draft.drop_annotations(ACCOUNT_UID_ANNOTATION)
    data = draft.get("data") or {}
    for name in ("token", "ca.crt", "namespace"):
        data.pop(name, None)
    if data:
        draft.top["data"] = data
    else:
        draft.top.pop("data", None)


def _is_token(draft: Draft) -> bool:
    return draft.mentions("type", b"service-account-token") and draft.get("type") == TOKEN_TYPE


def prepare_service_account(draft: Draft, rule: Rule) -> None:
    """Drop references to automatic tokens, which are not restored; imagePullSecrets stay."""
    secrets = draft.get("secrets")
    if not secrets:
        return
    kept = [secret for secret in secrets if not is_automatic_token(draft.name, secret.get("name", ""))]
    if kept:
        draft.top["secrets"] = kept
    else:
        del draft.top["secrets"]


def prepare_binding(draft: Draft, rule: Rule) -> None:
    """Map the namespaces of the binding's subjects."""
    if not rule.request.map_namespaces:
        return
    for subject in draft.get("subjects") or ():
        if subject.get("namespace"):
            subject["namespace"] = rule.namespace(subject["namespace"])
