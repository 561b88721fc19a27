"""Reads what a user's configuration settings of the backup extension ask for, apart from its container."""

import re
from dataclasses import replace
from typing import Final
from urllib.parse import urlsplit

from strongroom.controlplane.clusters.installer import Mode
from strongroom.controlplane.clusters.workload import Workload
from strongroom.controlplane.state.resources import Resource
from strongroom.protection.errors import Refused, invalid

MODE: Final = "configuration.mode"
IMAGE: Final = "configuration.image"
CLUSTER_ENDPOINT: Final = "configuration.clusterEndpoint"
HOOK_NAMESPACES: Final = "configuration.hookNamespaces"
NAMESPACES_AT_MOST: Final = 100  # each costs a RoleBinding and a look at each installation
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,254}", re.ASCII)  # the kubelet knows the exact grammar
_QUANTITY = re.compile(r"[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi)?", re.ASCII)  # those of Kubernetes that a pod can have
_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", re.ASCII)  # RFC 1123 label, as Kubernetes takes them


def mode_of(extension: Resource) -> Mode:
    """Return where the extension runs: `hosted` by this server without the setting, or `inCluster`.

    Raises `Refused` (`BMSUserErrorInvalidInput`) for anything else.
    """
    text = _setting(extension, MODE).strip() or Mode.HOSTED.value
    for mode in Mode:
        if text.lower() == mode.value.lower():
            return mode
    raise _refused(
        MODE, f"is '{text[:100]}'; it may be {' or '.join(Mode)}", f"Leave it away, or write {MODE}={Mode.HOSTED}."
    )


def workload_of(extension: Resource) -> Workload | None:
    """Return the pod that is asked for in the mode `inCluster`, None in another.

    Its image has to be named. `resources.requests.cpu` and the like are Azure's names. Raises `Refused`
    (`BMSUserErrorInvalidInput`).
    """
    if mode_of(extension) is not Mode.IN_CLUSTER:
        return None
    image = _setting(extension, IMAGE).strip()
    if not _IMAGE.fullmatch(image):
        what = f"is '{image[:100]}', which names no image" if image else "is missing: no registry has one for all"
        raise _refused(IMAGE, what, "Build deploy/Containerfile, push it where the cluster finds it, and name it.")
    workload = Workload(image=image)
    resources = {kind: dict(amounts) for kind, amounts in workload.resources.items()}
    for kind, amounts in resources.items():
        for name in amounts:
            setting = f"resources.{kind}.{name}"
            if given := _setting(extension, setting).strip():
                if not _QUANTITY.fullmatch(given):
                    raise _refused(setting, f"is '{given[:100]}', which is no quantity", "Write it as 500m or 1280Mi.")
                amounts[name] = given
    return replace(workload, resources=resources)


def cluster_endpoint_of(extension: Resource) -> str:
    """Return where a pod sees the stores, "" where that is the same address as this server's.

    Raises `Refused` (`BMSUserErrorInvalidInput`) for what is no address, and in the mode `hosted`.
    """
    text = _setting(extension, CLUSTER_ENDPOINT).strip()
    if not text:
        return ""
    if mode_of(extension) is not Mode.IN_CLUSTER:
        raise _refused(
            CLUSTER_ENDPOINT, "means something for a pod alone", f"Leave it out, or add {MODE}={Mode.IN_CLUSTER}."
        )
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and parts.hostname and not (parts.username or parts.query)
    except ValueError:
        usable = False
    if not usable:
        raise _refused(CLUSTER_ENDPOINT, f"is '{text[:100]}', which is no address", "Write it as https://HOST:PORT.")
    return text


def _refused(setting: str, what: str, action: str) -> Refused:
    message = f"The configuration setting {setting} {what}."
    return Refused(invalid(f"properties.configurationSettings.{setting}", message, action))


def _setting(extension: Resource, wanted: str) -> str:
    """Return a configuration setting's text, "" without it; names do not tell case apart."""
    settings = extension.properties.get("configurationSettings") or {}
    return next((str(value) for name, value in settings.items() if name.lower() == wanted.lower()), "")


def hook_namespaces_of(extension: Resource) -> tuple[str, ...]:
    """Return the namespaces in whose pods the extension may run the commands of hooks; none without the setting.

    It is a list with commas between names. Raises `Refused` (`BMSUserErrorInvalidInput`) for anything else, `*` too:
    running commands in every pod is as much as being administrator of the cluster.
    """
    text = _setting(extension, HOOK_NAMESPACES)
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    wrong = [name for name in names if not _NAMESPACE.fullmatch(name)]
    if wrong or len(names) > NAMESPACES_AT_MOST:
        why = (
            f"'{wrong[0][:100]}' is no name of a namespace" if wrong else f"it has more than {NAMESPACES_AT_MOST} names"
        )
        raise _refused(
            HOOK_NAMESPACES,
            f"cannot be used: {why}",
            "Name the namespaces in whose pods hooks run, with commas between them: shop,crm.",
        )
    return names
