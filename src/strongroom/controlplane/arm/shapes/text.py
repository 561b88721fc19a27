"""Turns the bytes of a request body into a JSON object, within bounds, or refuses them.

Whatever the bytes are, the outcome is an object or `Refused`: no recursion error, no number too long to convert, no
text that a database would later refuse.
"""

import json
from collections import Counter
from typing import Any

from strongroom.protection.errors import Refused, UserError

from .problems import shown

INVALID_CONTENT = "InvalidRequestContent"  # ARM's code for a body that it cannot read
TOO_LARGE = "RequestEntityTooLarge"
MAX_BODY_BYTES = 4 * 1024 * 1024  # Azure Resource Manager's own limit on a request body
MAX_BRACKETS = 100_000  # objects and arrays: real bodies have hundreds at most; 4 MiB of `{}` took 2 s to read
MAX_DEPTH = 64  # ten times the deepest body that a client sends (a restore request: 6)


def parse_object(raw: bytes) -> dict[str, Any]:
    """Return the JSON object that *raw* spells: UTF-8, with or without a byte order mark.

    Raises `Refused` (InvalidRequestContent; RequestEntityTooLarge with 413) for anything else: not JSON, not an object,
    deeper than `MAX_DEPTH`, more than `MAX_BRACKETS` objects and arrays, a name twice in one object, NaN or Infinity.
    """
    if len(raw) > MAX_BODY_BYTES:
        message = f"the body has {len(raw)} bytes; accepted are at most {MAX_BODY_BYTES}"
        raise Refused(UserError(TOO_LARGE, message), status=413)
    brackets = raw.count(b"{") + raw.count(b"[")
    if brackets > MAX_BRACKETS:
        raise _refused(f"the body has more than {MAX_BRACKETS} objects and arrays")
    try:
        document = json.loads(raw.decode("utf-8-sig"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except RecursionError as error:
        raise _too_deep() from error
    except UnicodeDecodeError as error:
        raise _refused(f"the body is not UTF-8 text: byte {error.start} is no part of it") from error
    except json.JSONDecodeError as error:
        found = "nothing" if not raw.strip() else f"{error.msg} at line {error.lineno}, column {error.colno}"
        raise _refused(f"the body is not JSON: {found}") from error
    except ValueError as error:  # our own two below, and int() on more than 4300 digits
        raise _refused(f"the body is not acceptable JSON: {error}") from error
    if not isinstance(document, dict):
        raise _refused("the body is not a JSON object")
    # Fewer brackets than the limit cannot nest deeper than it: nearly every real body ends here.
    if brackets > MAX_DEPTH:
        require_depth(document)
    return document


def require_depth(document: object) -> None:
    """Raise `Refused` if *document* nests deeper than `MAX_DEPTH`."""
    level: list[Any] = [document]
    for _ in range(MAX_DEPTH + 1):
        inner: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                inner.extend(item for item in value.values() if isinstance(item, (dict, list)))
            elif isinstance(value, list):
                inner.extend(item for item in value if isinstance(item, (dict, list)))
        if not inner:
            return
        level = inner
    raise _too_deep()


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        counted = Counter(name for name, _ in pairs)
        raise ValueError(f"the name {shown(counted.most_common(1)[0][0])} stands twice in one object")
    return members


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON value")


def _too_deep() -> Refused:
    return _refused(f"the body nests deeper than {MAX_DEPTH} levels")


def _refused(message: str) -> Refused:
    return Refused(UserError(INVALID_CONTENT, message))
