"""What a manifest keeps of the resources around its backup, so that they can be made anew from the container alone.

The control plane writes it and an extension carries it: what is read back may have been changed by a cluster that was
broken into. `controlplane.rebuilding` reads it as the API reads a request.
"""

import json
from collections.abc import Iterable
from typing import Final

from strongroom.controlplane.state.resources import Document, Resource

CONTAINER: Final = "container"  # the ARM id of the container that the point was written to
INSTANCE: Final = "config"  # the properties of the backup instance, as JSON text
POLICY: Final = "policyConfig"  # those of its policy
VAULT: Final = "vaultConfig"  # location and settings of its vault
LOCATIONS: Final = "locations"  # those of storage account and resource groups, by ARM id, as a JSON object

# Characters of each text. A usual one has 2,000; manifests are read whole for every listing. What is longer is left
# out, and a rebuilt instance then has the defaults.
MAX_CHARACTERS: Final = 64 * 1024

_STATE: Final = ("currentProtectionState", "protectionStatus", "provisioningState", "protectionErrorDetails")


def remembered(
    instance: Resource, policy: Resource | None, vault: Resource, container: str, around: Iterable[Resource | None] = ()
) -> dict[str, str]:
    """Return the caller's data of a manifest that describes *instance* and what it needs. Pure.

    *container* is an ARM id. Of *around* (storage account, resource groups) the locations are kept: they never change.
    """
    found = {CONTAINER: container}
    properties = {k: v for k, v in instance.properties.items() if k not in _STATE}
    documents: list[tuple[str, Document]] = [(INSTANCE, properties)]
    if policy is not None:
        documents.append((POLICY, policy.properties))
    settings = {k: vault.properties[k] for k in ("storageSettings", "securitySettings") if k in vault.properties}
    documents.append((VAULT, {"location": vault.doc.get("location", ""), "properties": settings}))
    documents.append((LOCATIONS, {each.id: each.doc.get("location", "") for each in around if each is not None}))
    for name, document in documents:
        text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
        if len(text) <= MAX_CHARACTERS:
            found[name] = text
    return found
