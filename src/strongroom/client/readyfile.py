"""Reads the file in which `strongroom serve --ready-file` says where it is and who may sign in."""

import os
from pathlib import Path
from typing import Final

import msgspec

from strongroom.client.errors import ReadyFileInvalid

VARIABLE: Final = "STRONGROOM_READY_FILE"


class ReadyFile(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """Where a server is, and the service principal that signs in. `repr` does not show its secret."""

    endpoint: str
    ca_file: str
    tenant_id: str
    subscription_id: str
    client_id: str
    client_secret: str
    version: str = ""

    def __repr__(self) -> str:
        return f"ReadyFile(endpoint={self.endpoint!r}, client_id={self.client_id!r}, …)"

    @classmethod
    def read(cls, path: Path | None) -> "ReadyFile":
        """Read *path*, or the file that STRONGROOM_READY_FILE names. Raises `ReadyFileInvalid`."""
        named = path or (Path(value) if (value := os.environ.get(VARIABLE)) else None)
        if named is None:
            raise ReadyFileInvalid(
                "no server is named", hint=f"Give the ready file of `strongroom serve` by --ready-file or {VARIABLE}"
            )
        try:
            content = named.read_bytes()
        except OSError as error:
            raise ReadyFileInvalid(
                f"the ready file {named} cannot be read: {error.strerror}",
                hint="`strongroom serve --ready-file FILE` writes it once it serves",
            ) from error
        try:
            found = msgspec.json.decode(content, type=cls)
        except msgspec.DecodeError as error:
            # The error names a field, never a value.
            raise ReadyFileInvalid(f"{named} is no ready file: {error}", hint="`strongroom serve` writes it") from None
        if not found.endpoint.startswith("https://"):
            raise ReadyFileInvalid(f"the endpoint in {named} is no https URL")
        return found
