"""The messages between a server and the hosted extension that it started: JSON objects, one a line, each way.

Every message of the parent has a number, `seq`; the child answers each with `ready`, `done`, `pong` or `error` of that
number, and tells statuses in between whenever they change.
"""

from typing import Any, Final

import msgspec

LINE_BYTES: Final = 4 * 1024 * 1024  # of one message: a document with 800 namespaces and all its caller data is 0.1 MiB


class _Message(msgspec.Struct, frozen=True, rename="camel", kw_only=True, omit_defaults=True):
    pass


class Configure(_Message, frozen=True, kw_only=True, tag="configure", tag_field="op"):
    """The first message: the API server, its CA (PEM), the file that holds a token, and the extension's namespace.

    *allow_loopback*: the server may lie on this machine. `protection.addresses` says which addresses it may have.
    With *watch* the child carries out the custom resources of that namespace, and takes no documents over the pipe.
    *locations* are known before the first of them is looked at: folders of the server, which no resource may name.
    """

    seq: int
    server: str
    ca: str
    token_file: str
    namespace: str
    allow_loopback: bool = False
    watch: bool = False
    locations: tuple[dict[str, Any], ...] = ()


class Location(_Message, frozen=True, kw_only=True, tag="location", tag_field="op"):
    """A BackupStorageLocation and the credentials of its store; sent again, it renews them."""

    seq: int
    document: dict[str, Any]
    credentials: dict[str, str] | None = None


class Apply(_Message, frozen=True, kw_only=True, tag="apply", tag_field="op"):
    """A Backup, Restore or DeleteBackup."""

    seq: int
    document: dict[str, Any]


class Delete(_Message, frozen=True, kw_only=True, tag="delete", tag_field="op"):
    """Cancel a document, or forget a location."""

    seq: int
    kind: str
    name: str


class Ping(_Message, frozen=True, kw_only=True, tag="ping", tag_field="op"):
    """Ask whether the child still answers."""

    seq: int


Order = Configure | Location | Apply | Delete | Ping


class Ready(_Message, frozen=True, kw_only=True, tag="ready", tag_field="event"):
    """The answer to `configure`: the public halves of the extension's keys. *writer* is base64."""

    seq: int
    version: str
    recipient: str
    writer: str


class Done(_Message, frozen=True, kw_only=True, tag="done", tag_field="event"):
    """An order was taken."""

    seq: int


class Pong(_Message, frozen=True, kw_only=True, tag="pong", tag_field="event"):
    """The answer to `ping`."""

    seq: int


class Error(_Message, frozen=True, kw_only=True, tag="error", tag_field="event"):
    """An order was refused; *seq* is 0 where it could not be read. *field* is the path of what is wrong in it."""

    seq: int = 0
    code: str
    message: str
    field: str = ""
    hint: str = ""


class StatusChanged(_Message, frozen=True, kw_only=True, tag="status", tag_field="event"):
    """The newest status of a document; one that comes before the last was read may take its place."""

    kind: str
    name: str
    status: dict[str, Any]


Event = Ready | Done | Pong | Error | StatusChanged
