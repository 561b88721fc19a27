"""Reads what a user's configuration settings of the backup extension ask for, apart from its container."""

import re
from typing import Final

from strongroom.controlplane.clusters.installer import Mode
from strongroom.controlplane.state.resources import Resource
from strongroom.protection.errors import ErrorCode, Refused, UserError

MODE: Final = "configuration.mode"
HOOK_NAMESPACES: Final = "configuration.hookNamespaces"
NAMESPACES_AT_MOST: Final = 100  # each costs a RoleBinding and a look at each installation
_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", re.ASCII)  # RFC 1123 label, as Kubernetes takes them


def mode_of(extension: Resource) -> Mode:
    """Return where the extension runs: `hosted` by this server without the setting, or `inCluster`.

    Raises `Refused` (`BMSUserErrorInvalidInput`) for anything else.
    """
    text = _setting(extension, MODE).strip() or Mode.HOSTED.value
    for mode in Mode:
        if text.lower() == mode.value.lower():
            return mode
    raise Refused(
        UserError(
            str(ErrorCode.INVALID_INPUT),
            f"The configuration setting {MODE} is '{text[:100]}'; it may be {' or '.join(Mode)}.",
            (f"Leave it away, or write {MODE}={Mode.HOSTED}.",),
            f"properties.configurationSettings.{MODE}",
        )
    )


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
        raise Refused(
            UserError(
                str(ErrorCode.INVALID_INPUT),
                f"The configuration setting {HOOK_NAMESPACES} cannot be used: {why}.",
                ("Name the namespaces in whose pods hooks run, with commas between them: shop,crm.",),
                f"properties.configurationSettings.{HOOK_NAMESPACES}",
            )
        )
    return names
