"""Lists in pages: how long a page is, and the opaque token by which the next request goes on where this one ended.

A token is no secret and gives no right: it says after which entry to go on, in a list that the caller may read anyway.
What it holds is checked as any other input is.
"""

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Final

from strongroom.controlplane.arm.shapes.nodes import storable
from strongroom.protection.errors import Refused, UserError

DEFAULT_PAGE: Final = 200  # entries; a page of jobs (1.1 KB each) stays near 200 KB and some milliseconds
MAX_PAGE: Final = 1000  # entries; Resource Graph's own limit, taken for all lists
_TOKEN_VERSION: Final = 1  # of what a token holds; another version's token is refused, and the caller begins anew
_MAX_TOKEN_CHARACTERS: Final = 4096  # ours name one entry: an ARM id (2,048 at most) and a time


class SkipToken(dict[str, str]):
    """What a token holds; a name that it lacks is refused as the caller's mistake, since a caller can write one."""

    def __missing__(self, name: str) -> str:
        raise _refused("$skipToken", "it is none of this list's", "the one in nextLink, unchanged")


def page_size(query: Mapping[str, str]) -> int:
    """Return how many entries a page may have: `$top` of *query* (lower-case names), at most `MAX_PAGE`.

    Raises `Refused` (InvalidParameter) if `$top` is not a positive integer.
    """
    top = query.get("$top", "").strip()
    if not top:
        return DEFAULT_PAGE
    if not (top.isascii() and top.isdigit() and len(top) <= 18 and int(top) > 0):
        raise _refused("$top", f"found {top[:40]!a}", "an integer of at least 1")
    return min(int(top), MAX_PAGE)


def skip_token(position: Mapping[str, str]) -> str:
    """Return the token for *position*: what the entry before the next page is known by."""
    text = json.dumps({"v": _TOKEN_VERSION, **position}, separators=(",", ":"), ensure_ascii=False)
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def read_token(query: Mapping[str, str]) -> SkipToken | None:
    """Return what the `$skipToken` of *query* (lower-case names) holds, None if there is none.

    Raises `Refused` (InvalidParameter) for a token that `skip_token` did not make.
    """
    token = query.get("$skiptoken", "").strip()
    if not token:
        return None
    try:
        if len(token) > _MAX_TOKEN_CHARACTERS:
            raise ValueError("too long")
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        position = json.loads(raw.decode())
        if not isinstance(position, dict) or position.pop("v", None) != _TOKEN_VERSION:
            raise ValueError("another version")
        if not all(isinstance(value, str) and storable(value) for value in position.values()):
            raise ValueError("not text")
    except (binascii.Error, ValueError, RecursionError) as error:
        raise _refused("$skipToken", "it cannot be read", "the one in nextLink, unchanged") from error
    return SkipToken(position)


def _refused(parameter: str, found: str, accepted: str) -> Refused:
    message = f"The query parameter {parameter} is not acceptable: {found}; accepted is {accepted}."
    return Refused(UserError("InvalidParameter", message, target=parameter))
