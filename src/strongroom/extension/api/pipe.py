"""The messages between a server and the hosted extension that it started: JSON objects, one a line, each way.

Every message of the parent has a number, `seq`; the child answers each with `ready`, `done` or `error` of that number.
What is to be done goes by custom resources.
"""

from typing import Any, Final

import msgspec

LINE_BYTES: Final = 4 * 1024 * 1024  # of one message; a folder's location takes 300 bytes


class _Message(msgspec.Struct, frozen=True, rename="camel", kw_only=True, omit_defaults=True):
    pass


class Configure(_Message, frozen=True, kw_only=True, tag="configure", tag_field="op"):
    """The first message: the API server, its CA (PEM), the file that holds a token, and the extension's namespace.

    *allow_loopback*: the server may lie on this machine. `protection.addresses` says which addresses it may have.
    *locations* are known before the first custom resource is looked at: folders of the server, which none may name.
    """

    seq: int
    server: str
    ca: str
    token_file: str
    namespace: str
    allow_loopback: bool = False
    locations: tuple[dict[str, Any], ...] = ()


class Location(_Message, frozen=True, kw_only=True, tag="location", tag_field="op"):
    """A BackupStorageLocation that is a folder of this machine; it counts at once."""

    seq: int
    document: dict[str, Any]


Order = Configure | Location


class Ready(_Message, frozen=True, kw_only=True, tag="ready", tag_field="event"):
    """The answer to `configure`: the public halves of the extension's keys. *writer* is base64."""

    seq: int
    recipient: str
    writer: str


class Done(_Message, frozen=True, kw_only=True, tag="done", tag_field="event"):
    """An order was taken."""

    seq: int


class Error(_Message, frozen=True, kw_only=True, tag="error", tag_field="event"):
    """An order was refused; *seq* is 0 where it could not be read. *field* is the path of what is wrong in it."""

    seq: int = 0
    code: str
    message: str
    field: str = ""
    hint: str = ""


Event = Ready | Done | Error
