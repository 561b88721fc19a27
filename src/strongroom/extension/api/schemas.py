"""Makes the structural OpenAPI schema of a custom resource from a Struct: one source for reading and for serving. Pure.

Structural means what Kubernetes demands of a CRD (no references, every node typed); a Struct inside itself is therefore
written out once.
"""

import inspect
from collections.abc import Mapping
from typing import Any, Final

import msgspec

Schema = dict[str, Any]
"""A node of an OpenAPI v3 schema, as JSON has it."""

LIST_ITEMS: Final = 10_000  # of lists in a spec: Azure takes 800 namespaces; without a bound CEL rules cost too much
TEXT_CHARACTERS: Final = 4096  # of texts in a spec: the longest are URLs and label selectors
MAP_ENTRIES: Final = 1000  # of maps in a spec: caller data, namespace mappings

Changes = Mapping[tuple[str, str], Schema]
"""What a node has besides its type, by the Struct's name and the field's: bounds, rules, a description."""


def schema_of(struct: type[msgspec.Struct], changes: Changes, *, bounded: bool) -> Schema:
    """Return the schema of *struct*. With *bounded* texts, lists and maps have the bounds above (for what users write).

    Raises `TypeError` for a type that has no schema here.
    """
    return _struct(msgspec.inspect.type_info(struct), changes, bounded, ())


def _struct(found: msgspec.inspect.Type, changes: Changes, bounded: bool, above: tuple[type, ...]) -> Schema:
    assert isinstance(found, msgspec.inspect.StructType)
    properties: Schema = {}
    required = []
    for each in found.fields:
        inner = _inner(each.type, found.cls, above)
        if inner is None:
            continue
        properties[each.encode_name] = {
            **_node(inner, changes, bounded, (*above, found.cls)),
            **changes.get((found.cls.__name__, each.encode_name), {}),
        }
        if each.required:
            required.append(each.encode_name)
    told = " ".join(inspect.cleandoc(found.cls.__doc__ or "").split("\n\n")[0].split())
    schema: Schema = {"type": "object", "description": told, "properties": properties}
    return {**schema, "required": required} if required else schema


def _inner(found: msgspec.inspect.Type, of: type, above: tuple[type, ...]) -> msgspec.inspect.Type | None:
    """Return the type without its `None`; None for a list of the very Struct that *of* is inside already."""
    if isinstance(found, msgspec.inspect.UnionType):
        [found] = [each for each in found.types if not isinstance(each, msgspec.inspect.NoneType)]
    if isinstance(found, msgspec.inspect.VarTupleType) and isinstance(found.item_type, msgspec.inspect.StructType):
        cls = found.item_type.cls
        if cls is of and cls in above:
            return None
    return found


def _node(found: msgspec.inspect.Type, changes: Changes, bounded: bool, above: tuple[type, ...]) -> Schema:
    match found:
        case msgspec.inspect.StrType():
            return {"type": "string", **({"maxLength": TEXT_CHARACTERS} if bounded else {})}
        case msgspec.inspect.BoolType():
            return {"type": "boolean"}
        case msgspec.inspect.IntType():
            return {"type": "integer", "format": "int64"}
        case msgspec.inspect.EnumType():
            return {"type": "string", "enum": [str(each) for each in found.cls]}
        case msgspec.inspect.VarTupleType():
            items = _node(found.item_type, changes, bounded, above)
            return {"type": "array", "items": items, **({"maxItems": LIST_ITEMS} if bounded else {})}
        case msgspec.inspect.DictType():
            values = _node(found.value_type, changes, bounded, above)
            most = {"maxProperties": MAP_ENTRIES} if bounded else {}
            return {"type": "object", "additionalProperties": values, **most}
        case msgspec.inspect.StructType():
            return _struct(found, changes, bounded, above)
        case _:
            raise TypeError(f"{found} has no schema")
