"""How Azure writes things: ids of resources, names that each type allows, regions.

Instants are `state.times`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from strongroom.controlplane.arm.shapes.nodes import storable
from strongroom.protection.errors import Refused, UserError

MAX_ID_CHARACTERS: Final = 2048  # ARM's own limit; it also bounds a key of the database
MAX_NAME_CHARACTERS: Final = 260  # ARM's own limit on a segment of an id
_REGION: Final = re.compile(r"[a-z0-9-]{1,90}")  # as long as a resource group's name may be
_NOT_IN_A_SEGMENT: Final = re.compile(r"[\x00-\x1f\x7f?#%\\]")  # would end or change the path of a URL

# Clients split ids at these words with regard to case (queries of Resource Graph do): answers always have this casing.
_KNOWN_TYPES: Final = (
    "Microsoft.Authorization/roleAssignments",
    "Microsoft.Authorization/roleDefinitions",
    "Microsoft.Compute/snapshots",
    "Microsoft.ContainerService/managedClusters/trustedAccessRoleBindings",
    "Microsoft.DataProtection/backupVaults/backupInstances/recoveryPoints",
    "Microsoft.DataProtection/backupVaults/backupJobs",
    "Microsoft.DataProtection/backupVaults/backupPolicies",
    "Microsoft.DataProtection/backupVaults/deletedBackupInstances",
    "Microsoft.DataProtection/resourceGuards",
    "Microsoft.KubernetesConfiguration/extensions",
    "Microsoft.ManagedIdentity/userAssignedIdentities",
    "Microsoft.Storage/storageAccounts/blobServices/containers",
)
_CANONICAL: Final = {word.lower(): word for known in _KNOWN_TYPES for word in known.split("/")}


@dataclass(frozen=True)
class ArmId:
    """The id of a resource, of a resource group, of a subscription, or a name at the tenant's root.

    Two ids are equal if they differ in case only. *text* has Azure's casing of Azure's words and the caller's of names.
    *type* is `Microsoft.ContainerService/managedClusters`, empty for groups and subscriptions. *scope* is what an
    extension resource extends (the cluster of an extension, the resource of a role assignment), "" for all others.
    """

    text: str = field(compare=False)
    key: str = field(init=False)
    subscription: str = field(compare=False)
    resource_group: str = field(compare=False)
    namespace: str = field(compare=False)
    types: tuple[str, ...] = field(compare=False)
    names: tuple[str, ...] = field(compare=False)
    scope: str = field(compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", self.text.lower())

    def __str__(self) -> str:
        return self.text

    @property
    def type(self) -> str:
        """The full type of the resource, "" for a subscription or a resource group."""
        return "/".join((self.namespace, *self.types)) if self.namespace else ""

    @property
    def name(self) -> str:
        """The last name of the id."""
        return self.names[-1] if self.names else self.resource_group or self.subscription

    @property
    def parent(self) -> str:
        """The id of what contains this: a resource, the scope it extends, a group, a subscription, or ""."""
        if len(self.names) > 1:
            return self.text.rsplit("/", 2)[0]
        if self.names:
            return self.scope or self.text[: self.text.rindex("/providers/")]
        return f"/subscriptions/{self.subscription}" if self.resource_group else ""

    def is_a(self, kind: str) -> bool:
        """Tell whether this is an id of the type *kind*, whatever its casing."""
        return self.type.lower() == kind.lower()

    @classmethod
    def parse(cls, text: str, *, target: str = "", kind: str = "") -> "ArmId":
        """Return the id that *text* spells, blanks around its segments dropped (the how-to's ids have them).

        *target* is the JSON path that the text comes from, *kind* the type that it has to be of (`resourceGroups` for a
        resource group). Raises `Refused` with ARM's code LinkedInvalidPropertyId.
        """
        if len(text) > MAX_ID_CHARACTERS:
            raise _not_an_id(text, target, f"it has more than {MAX_ID_CHARACTERS} characters")
        segments = [segment.strip() for segment in text.strip().removesuffix("/").split("/")]
        if segments[0] or len(segments) < 2:
            raise _not_an_id(text, target, "it does not begin with '/'")
        for segment in segments[1:]:
            if not segment or segment in (".", "..") or len(segment) > MAX_NAME_CHARACTERS:
                raise _not_an_id(text, target, "a segment of it is empty, a dot, or too long")
            if _NOT_IN_A_SEGMENT.search(segment) or not storable(segment):
                raise _not_an_id(text, target, "a segment of it holds a character that no id has")
        found = _take(segments[1:])
        if found is None:
            raise _not_an_id(text, target, "its segments are no subscription, resource group or resource")
        if kind and not (found.is_a(kind) or (kind.lower() == "resourcegroups" and _is_group(found))):
            raise _not_an_id(text, target, f"it is not of the type {kind}")
        return found


def check_name(kind: str, name: str) -> None:
    """Return if *name* is one that a resource of type *kind* (its last word: `backupVaults`) may have.

    Raises `Refused` (InvalidResourceName, or the code that the type's provider has for it) saying what is accepted.
    """
    rule = _RULES.get(kind.lower(), _ANY_NAME)
    if not rule.pattern.fullmatch(name) or not storable(name):
        shown = ascii(name if len(name) <= MAX_NAME_CHARACTERS else name[:60] + "...")
        message = f"{shown} is not a valid name of a resource of type {kind}; accepted: {rule.accepted}."
        raise Refused(UserError(rule.code, message, target="name"))


def region_of(text: str) -> str:
    """Return a region as ARM keeps it (`West US` is `westus`), "" for a text that cannot be one.

    Any name will do, since a region is a label here; but it becomes a segment of paths.
    """
    region = text.replace(" ", "").lower()
    return region if _REGION.fullmatch(region) else ""


def check_region(text: str, *, code: str = "LocationNotAvailableForResourceType") -> str:
    """Return the region that the property `location` names. Raises `Refused` with *code*."""
    region = region_of(text)
    if not region:
        message = (
            f"{text[:60]!a} is no location; accepted are letters, digits and hyphens, such as westeurope or local."
        )
        raise Refused(UserError(code, message, target="location"))
    return region


@dataclass(frozen=True)
class _NameRule:
    pattern: re.Pattern[str]
    accepted: str
    code: str = "InvalidResourceName"


# Lengths and characters are those of Azure's published naming rules where it publishes any for the type. Backup
# instances get names that clients make of cluster names and GUIDs, so nearly everything that an id can hold is taken.
_RULES: Final[Mapping[str, _NameRule]] = {
    "backupvaults": _NameRule(
        re.compile(r"[A-Za-z][A-Za-z0-9-]{1,49}"),
        "2 to 50 characters, letters, digits and hyphens, beginning with a letter",
    ),
    "backuppolicies": _NameRule(
        re.compile(r"[A-Za-z][A-Za-z0-9-]{2,149}"),
        "3 to 150 characters, letters, digits and hyphens, beginning with a letter",
    ),
    "backupinstances": _NameRule(
        re.compile(r"[A-Za-z0-9_.()-]{0,259}[A-Za-z0-9_()-]"),
        "1 to 260 characters, letters, digits, '_', '-', '.', '(' and ')', not ending with a dot",
    ),
    "resourcegroups": _NameRule(
        re.compile(r"[\w.()-]{0,89}[\w()-]"),
        "1 to 90 characters, letters, digits, '_', '-', '.', '(' and ')', not ending with a dot",
        "InvalidResourceGroup",
    ),
    "managedclusters": _NameRule(
        re.compile(r"[A-Za-z0-9]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?"),
        "1 to 63 characters, letters, digits, '_' and '-', beginning and ending with a letter or digit",
    ),
    "trustedaccessrolebindings": _NameRule(
        re.compile(r"[A-Za-z0-9-]{1,36}"), "1 to 36 characters, letters, digits and hyphens"
    ),
    "extensions": _NameRule(
        re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?"),
        "1 to 253 characters, letters, digits, '.' and '-', beginning and ending with a letter or digit",
    ),
    "storageaccounts": _NameRule(
        re.compile(r"[a-z0-9]{3,24}"), "3 to 24 characters, lower-case letters and digits", "AccountNameInvalid"
    ),
    "containers": _NameRule(
        re.compile(r"(?!.*--)[a-z0-9][a-z0-9-]{1,61}[a-z0-9]"),
        "3 to 63 characters, lower-case letters, digits and single hyphens, no hyphen first or last",
    ),
    "roleassignments": _NameRule(
        re.compile(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"), "a GUID", "InvalidRoleAssignmentId"
    ),
    "roledefinitions": _NameRule(
        re.compile(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"), "a GUID", "InvalidRoleDefinitionId"
    ),
}
_ANY_NAME: Final = _NameRule(
    re.compile(r"[^\x00-\x20\x7f<>%&:?#/\\]([^\x00-\x1f\x7f<>%&:?#/\\]{0,258}[^\x00-\x20\x7f<>%&:?#/\\.])?"),
    "1 to 260 characters, none of <>%&:?#/\\, not ending with a blank or a dot",
)


def _take(segments: list[str]) -> ArmId | None:
    """Return the id of *segments*, None if they are none."""
    subscription = resource_group = ""
    text = ""
    if segments[0].lower() == "subscriptions":
        if len(segments) < 2:
            return None
        subscription, segments = segments[1], segments[2:]
        text = f"/subscriptions/{subscription}"
        if segments and segments[0].lower() == "resourcegroups":
            if len(segments) < 2:
                return None
            resource_group, segments = segments[1], segments[2:]
            text += f"/resourceGroups/{resource_group}"
    elif segments[0].lower() != "providers":
        return None
    namespace, scope = "", ""
    types: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    while segments:
        if segments[0].lower() != "providers" or len(segments) < 4 or "." not in segments[1]:
            return None
        # Only behind a resource does another provider extend something; its scope is all before it.
        scope = text if names else ""
        namespace = _canonical(segments[1])
        segments = segments[2:]
        end = next((at for at in range(0, len(segments), 2) if segments[at].lower() == "providers"), len(segments))
        pairs, segments = segments[:end], segments[end:]
        if not pairs or len(pairs) % 2:
            return None
        types, names = tuple(_canonical(word) for word in pairs[::2]), tuple(pairs[1::2])
        text += f"/providers/{namespace}"
        text += "".join(f"/{kind}/{name}" for kind, name in zip(types, names, strict=True))
    return ArmId(text, subscription, resource_group, namespace, types, names, scope)


def _canonical(word: str) -> str:
    return _CANONICAL.get(word.lower(), word)


def _is_group(found: ArmId) -> bool:
    return bool(found.resource_group) and not found.namespace


def _not_an_id(text: str, target: str, reason: str) -> Refused:
    shown = ascii(text if len(text) <= MAX_NAME_CHARACTERS else text[:MAX_NAME_CHARACTERS] + "...")
    message = (
        f"Property id {shown} at path '{target}' is invalid: {reason}. Expect a fully qualified resource id that "
        "starts with '/subscriptions/{subscriptionId}' or '/providers/{resourceProviderNamespace}/'."
    )
    return Refused(UserError("LinkedInvalidPropertyId", message, target=target))
