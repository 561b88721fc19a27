"""Builds the nodes of a shape from a model of Azure's SDK, or from a TypedDict of ours.

Azure's models, not the TypedDicts beside them, are the source: `azure.mgmt.dataprotection.types` lacks the ordinary
restore request (its name stands for its one subclass) and every shape of an answer, and does not say what only the
service writes.
"""

import enum
import inspect
import threading
import types
import typing
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Final, Literal, NotRequired, Required

from azure.mgmt.dataprotection import models
from azure.mgmt.dataprotection import types as wire

from .nodes import Anything, Choice, Field, ListOf, MapOf, Node, Number, Record, Text, Truth, Union, Whole

READ_ONLY: Final = "read only"
"""Mark of a TypedDict's property, `Annotated[str, READ_ONLY]`: the service writes it, a request's value is ignored."""
WRITE_ONLY: Final = "write only"
"""Mark of a TypedDict's property that never stands in an answer: a credential."""

# What the service needs although the model says it may be absent: a PUT without properties is no resource.
_ALSO_REQUIRED: Mapping[str, frozenset[str]] = {
    "BackupInstanceResource": frozenset({"properties"}),
    "BaseBackupPolicyResource": frozenset({"properties"}),
}
# What callers write although the model says that only the service does: recorded answers repeat the caller's tag id.
_ALSO_WRITABLE: Mapping[str, frozenset[str]] = {
    "RetentionTag": frozenset({"id", "eTag"}),
}
_SCALARS: Mapping[object, Node] = {
    str: Text(),
    bool: Truth(),
    int: Whole(),
    float: Number(),
    datetime: Text("date-time"),
    Any: Anything(),
    object: Anything(),
}


def compile_shape(kind: object) -> Record | Union:
    """Return the node that reads *kind*: a model of `azure.mgmt.dataprotection`, or a TypedDict.

    A TypedDict or a union of `azure.mgmt.dataprotection.types` stands for the model of the same name. Raises TypeError
    for what JSON documents cannot be made of.
    """
    with _compiling:
        return _compiler.object(_model_beside(kind))


def _model_beside(kind: object) -> object:
    """Return the model of the same name if *kind* comes from the SDK's `types`, else *kind*."""
    if isinstance(kind, type):
        return getattr(models, kind.__name__) if kind.__module__ == wire.__name__ else kind
    names = [name for name, value in vars(wire).items() if value is kind]
    if len(names) != 1:
        raise TypeError(f"{kind!r} is no class, and no union that has one name in {wire.__name__}")
    return getattr(models, names[0])


class _Compiler:
    """Remembers what it made: one node a kind, and a kind may contain itself."""

    def __init__(self) -> None:
        self.records: dict[type, Record] = {}
        self.unions: dict[type, Union] = {}

    def object(self, kind: Any) -> Record | Union:
        """Return the node of a kind that is a JSON object."""
        if typing.is_typeddict(kind):
            return self.records.get(kind) or self._typed_dict(kind)
        if isinstance(kind, type) and kind.__module__ == "azure.mgmt.dataprotection.models._models":
            if _arms(kind):
                return self.unions.get(kind) or self._union(kind)
            return self.records.get(kind) or self._model(kind)
        raise TypeError(f"{kind!r} is neither a model of Azure's SDK nor a TypedDict")

    def annotated(self, hint: Any) -> Node:
        """Return the node of the annotation *hint*, without what it says about being absent."""
        if hint in _SCALARS:
            return _SCALARS[hint]
        origin, arguments = typing.get_origin(hint), typing.get_args(hint)
        if origin in (Annotated, Required, NotRequired):
            return self.annotated(arguments[0])
        if origin is Literal:
            return Choice(tuple(_text(value) for value in arguments))
        if origin is list:
            return ListOf(self.annotated(arguments[0]))
        if origin is dict:
            return MapOf(self.annotated(arguments[1]))
        if origin in (typing.Union, types.UnionType):
            present = [argument for argument in arguments if argument is not types.NoneType]
            enums = [argument for argument in present if _is_enum(argument)]  # the SDK writes `str | SomeEnum`
            if enums or len(present) == 1:
                return self.annotated((enums or present)[0])
            raise TypeError(f"a union without a discriminator: {hint!r}")
        if _is_enum(hint):
            return Choice(tuple(_text(member) for member in hint))
        return self.object(hint)

    def _typed_dict(self, kind: Any) -> Record:
        record = self.records[kind] = Record(kind.__name__, _description(kind))
        fields = []
        for name, hint in typing.get_type_hints(kind, include_extras=True).items():
            marks = _marks(hint)
            fields.append(
                Field(
                    name,
                    self.annotated(hint),
                    required=name in kind.__required_keys__,
                    read_only=READ_ONLY in marks,
                    write_only=WRITE_ONLY in marks,
                )
            )
        record.complete(fields)
        return record

    def _union(self, kind: Any) -> Union:
        """Return the node of a model under which others tell themselves apart."""
        arms = _arms(kind)
        own = _own_discriminator_value(kind)
        if own:
            arms = {own: kind, **arms}
        # A kind that also has kinds below it bears one name for both; a schema needs two.
        name = f"{kind.__name__}Kinds" if own else kind.__name__
        discriminator = next(str(rest._rest_name) for rest in _rest_fields(kind).values() if rest._is_discriminator)
        union = self.unions[kind] = Union(name, discriminator, description=_description(kind))
        union.complete({value: self.records.get(arm) or self._model(arm) for value, arm in arms.items()})
        return union

    def _model(self, kind: Any) -> Record:
        record = self.records[kind] = Record(kind.__name__, _description(kind))
        hints = typing.get_type_hints(kind, vars(inspect.getmodule(kind)) | {"_models": models})
        also_required = _ALSO_REQUIRED.get(kind.__name__, frozenset())
        also_writable = _ALSO_WRITABLE.get(kind.__name__, frozenset())
        fields = []
        for attribute, rest in _rest_fields(kind).items():
            hint = hints[attribute]
            fields.append(
                Field(
                    rest._rest_name,
                    self.annotated(hint),
                    required=types.NoneType not in typing.get_args(hint) or rest._rest_name in also_required,
                    read_only=rest._visibility == ["read"] and rest._rest_name not in also_writable,
                )
            )
        record.complete(fields)
        return record


_compiler: Final = _Compiler()
_compiling: Final = threading.Lock()  # no thread may see a node before it is complete


def _marks(hint: Any) -> tuple[Any, ...]:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Required, NotRequired):
        return _marks(arguments[0])
    return arguments[1:] if origin is Annotated else ()


def _arms(kind: Any) -> dict[str, type]:
    """Return the models under *kind* by discriminator value, those under them included."""
    arms: dict[str, type] = {}
    for value, arm in sorted(vars(kind).get("__mapping__", {}).items()):
        arms[_text(value)] = arm
        arms |= _arms(arm)
    return arms


def _own_discriminator_value(kind: Any) -> str:
    """Return the value by which *kind* itself is told apart, empty for a kind that only stands for others."""
    for base in kind.__mro__[1:]:
        for value, arm in vars(base).get("__mapping__", {}).items():
            if arm is kind:
                return _text(value)
    return ""


def _rest_fields(kind: Any) -> dict[str, Any]:
    kind.__new__(kind)  # the SDK completes a model's fields when the first one is made
    return dict(kind._attr_to_rest_field)


def _is_enum(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, enum.Enum)


def _text(value: Any) -> str:
    return str(value.value) if isinstance(value, enum.Enum) else str(value)


def _description(kind: type) -> str:
    """Return the first paragraph of *kind*'s docstring on one line."""
    paragraph = inspect.cleandoc(vars(kind).get("__doc__") or "").split("\n\n", 1)[0]
    return " ".join(paragraph.split())
