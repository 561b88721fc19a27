"""Who manages the fields of an object, and how a restore gives that back (checklist row 4). Pure.

The server writes managedFields anew on a create, all under the creating manager's name. So an object is created under
the name of its main manager, which is enough where all managers update. Where one applies (server-side apply), all
managedFields are patched back: an applier must find its own fields, or its next apply would fight over them.
"""

import msgspec

_MAX_MANAGER = 128  # characters; the server refuses a longer fieldManager
STATUS_SUBRESOURCE = "status"


class _Entry(msgspec.Struct, frozen=True, rename="camel"):
    manager: str = ""
    operation: str = ""
    subresource: str = ""
    fields_v1: msgspec.Raw = msgspec.Raw(b"{}")


_ENTRIES = msgspec.json.Decoder(list[_Entry] | None)
_RAWS = msgspec.json.Decoder(list[msgspec.Raw] | None)
_ENTRY = msgspec.json.Decoder(_Entry)
DEFAULT_MANAGER = "strongroom"
"""The manager of objects that have no managedFields (saved from a server that does not track them)."""


def main_manager(managed_fields: bytes | None) -> str:
    """Return the manager that owns most of the object (by the length of its field set), status writers left out."""
    best, size = DEFAULT_MANAGER, -1
    for entry in (managed_fields and _ENTRIES.decode(managed_fields)) or ():
        length = len(bytes(entry.fields_v1))
        if entry.manager and not entry.subresource and length > size:
            best, size = entry.manager, length
    return best[:_MAX_MANAGER]


def has_applier(managed_fields: bytes | None) -> bool:
    """Say whether a manager applies: then managedFields are put back by a second call."""
    if managed_fields is None or b'"Apply"' not in managed_fields:
        return False
    return any(entry.operation == "Apply" and not entry.subresource for entry in _ENTRIES.decode(managed_fields) or ())


def fields_to_put_back(managed_fields: bytes, *, with_status: bool) -> list[msgspec.Raw]:
    """Return the entries of managedFields to be patched back; those of the status only where the status is too."""
    kept = []
    for raw in _RAWS.decode(managed_fields) or ():
        entry = _ENTRY.decode(raw)
        if not entry.subresource or (with_status and entry.subresource == STATUS_SUBRESOURCE):
            kept.append(raw)
    return kept
