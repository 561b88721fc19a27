"""Says what a shape accepts and answers as JSON schema, in the dialect of OpenAPI 3.1.

One component a kind, for requests and answers alike: `readOnly` and `writeOnly` tell them apart. Null is allowed where
a property may be absent, because requests with explicit nulls are taken and answers carry some, as Azure's do.
"""

from collections.abc import Callable
from typing import Any

from .nodes import MAX_INTEGER, Anything, Choice, Field, ListOf, MapOf, Node, Number, Record, Text, Truth, Union, Whole

Schema = dict[str, Any]


def json_schema(node: Node, prefix: str, components: dict[str, Schema]) -> Schema:
    """Return the schema of *node*; kinds it refers to (`$ref` below *prefix*) are added to *components*.

    Raises ValueError if two kinds have one name: one of them has to be renamed.
    """
    match node:
        case Record():
            return _component(node.name, prefix, components, lambda: _record(node, prefix, components))
        case Union():
            return _component(node.name, prefix, components, lambda: _union(node, prefix, components))
        case Choice():
            return {"type": "string", "enum": list(node.values)}
        case ListOf():
            return {"type": "array", "items": json_schema(node.item, prefix, components)}
        case MapOf():
            return {"type": "object", "additionalProperties": _or_null(json_schema(node.item, prefix, components))}
        case Anything():
            return {}
        case Text(format="date-time"):
            return {"type": "string", "format": "date-time"}
        case Whole():
            return {"type": "integer", "format": "int64", "minimum": -MAX_INTEGER, "maximum": MAX_INTEGER}
        case Number():
            return {"type": "number", "format": "double", "minimum": -MAX_INTEGER, "maximum": MAX_INTEGER}
        case Truth():
            return {"type": "boolean"}
        case Text():
            return {"type": "string"}
    raise TypeError(f"no JSON schema for {node!r}")


def _component(name: str, prefix: str, components: dict[str, Schema], make: Callable[[], Schema]) -> Schema:
    if name not in components:
        components[name] = {}  # stands there while it is made: it may contain itself
        components[name] |= make()
    return {"$ref": prefix + name}


def _record(node: Record, prefix: str, components: dict[str, Schema]) -> Schema:
    schema: Schema = {"type": "object"}
    if node.description:
        schema["description"] = node.description
    schema["properties"] = {item.name: _property(item, prefix, components) for item in node.fields}
    required = [item.name for item in node.fields if item.required]
    if required:
        schema["required"] = required
    return schema


def _property(item: Field, prefix: str, components: dict[str, Schema]) -> Schema:
    schema = json_schema(item.node, prefix, components)
    if not item.required:
        schema = _or_null(schema)
    if item.read_only:
        schema = schema | {"readOnly": True}
    if item.write_only:
        schema = schema | {"writeOnly": True}
    return schema


def _or_null(schema: Schema) -> Schema:
    if "$ref" in schema:
        return {"anyOf": [schema, {"type": "null"}]}
    if "type" not in schema:
        return schema
    nullable = schema | {"type": [schema["type"], "null"]}
    if "enum" in schema:
        nullable["enum"] = [*schema["enum"], None]
    return nullable


def _union(node: Union, prefix: str, components: dict[str, Schema]) -> Schema:
    references = {value: json_schema(arm, prefix, components)["$ref"] for value, arm in node.arms.items()}
    return {
        "description": node.description,
        "oneOf": [{"$ref": reference} for reference in references.values()],
        "discriminator": {"propertyName": node.discriminator, "mapping": references},
    }
