"""Reads what a user's configuration settings of the backup extension ask for, apart from its container."""

import re
from typing import Final

from strongroom.controlplane.state.resources import Resource
from strongroom.protection.errors import ErrorCode, Refused, UserError

HOOK_NAMESPACES: Final = "configuration.hookNamespaces"
NAMESPACES_AT_MOST: Final = 100  # each costs a RoleBinding and a look at each installation
_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", re.ASCII)  # RFC 1123 label, as Kubernetes takes them


def hook_namespaces_of(extension: Resource) -> tuple[str, ...]:
    """Return the namespaces in whose pods the extension may run the commands of hooks; none without the setting.

    It is a list with commas between names. Raises `Refused` (`BMSUserErrorInvalidInput`) for anything else, `*` too:
    running commands in every pod is as much as being administrator of the cluster.
    """
    settings = extension.properties.get("configurationSettings") or {}
    text = next((str(value) for name, value in settings.items() if name.lower() == HOOK_NAMESPACES.lower()), "")
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
