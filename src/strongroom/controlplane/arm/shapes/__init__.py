"""Reads request bodies by the shapes that Azure's SDK has for them, and says these shapes as JSON schema."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from strongroom.protection.errors import ErrorCode

from .compile import READ_ONLY, WRITE_ONLY, compile_shape
from .nodes import Field, ListOf, Node, Record, Text
from .problems import Problems
from .schema import Schema, json_schema
from .text import INVALID_CONTENT, MAX_BODY_BYTES, MAX_DEPTH, parse_object, require_depth

__all__ = [
    "INVALID_CONTENT",
    "MAX_BODY_BYTES",
    "MAX_DEPTH",
    "READ_ONLY",
    "WRITE_ONLY",
    "Schema",
    "Shape",
    "parse_object",
    "shape",
]

COMPONENTS = "#/components/schemas/"  # where OpenAPI keeps what `$ref` names


@dataclass(frozen=True)
class Shape:
    """What a body looks like: *name* for people, *code* for the error when it looks otherwise."""

    name: str
    node: Node
    code: str

    def read(self, document: bytes | Mapping[str, Any], *, may_be_empty: bool = False) -> dict[str, Any]:
        """Return *document* in canonical form; the answer is the caller's own to change.

        Property names, enumerations and discriminators get the schema's casing. Explicit nulls, unknown properties and
        what only the service writes (`id`, `provisioningState`) are left out; lists and free keys stay as they are.
        With *may_be_empty* an empty body counts as `{}`.

        Raises `Refused` for bytes that are no JSON object (InvalidRequestContent) and, with every problem and its JSON
        path, for a document that has not this shape (the shape's own code); never anything else.
        """
        if isinstance(document, bytes):
            found = {} if may_be_empty and not document.strip() else parse_object(document)
        else:
            found = dict(document)
            require_depth(found)
        problems = Problems()
        canonical: dict[str, Any] = self.node.read(found, None, problems)
        problems.refuse(f"The body is not a valid {self.name}", self.code)
        return canonical

    def schema(self, prefix: str = COMPONENTS) -> tuple[Schema, dict[str, Schema]]:
        """Return the JSON schema (OpenAPI 3.1's dialect) and the components that it refers to below *prefix*."""
        components: dict[str, Schema] = {}
        return json_schema(self.node, prefix, components), components

    @property
    def page(self) -> "Shape":
        """A page of a list of these: `value` and, unless it is the last one, `nextLink`."""
        record = Record(f"{self.name}Page", f"A page of {self.name}; the list goes on at nextLink.")
        record.complete([Field("value", ListOf(self.node), required=True), Field("nextLink", Text())])
        return Shape(record.name, record, self.code)


@cache
def shape(kind: object, *, code: str = "") -> Shape:
    """Return the shape of *kind*: a model or TypedDict of `azure.mgmt.dataprotection`, or a TypedDict of ours.

    *code* is that of the errors; without it, Azure Backup's for its own shapes and ARM's for all others. Raises
    TypeError if no shape can be made of *kind*.
    """
    node = compile_shape(kind)
    ours = isinstance(kind, type) and kind.__module__.startswith("strongroom.")
    return Shape(node.name, node, code or (INVALID_CONTENT if ours else str(ErrorCode.INVALID_INPUT)))
