"""What an ARM scope is, and which scopes lie above it."""

from collections.abc import Iterator
from typing import Final, NewType

from strongroom.controlplane.identity.errors import ScopeInvalid

Scope = NewType("Scope", tuple[str, ...])
"""The segments of a scope, folded for comparison; `()` is the root `/`, above everything."""

ROOT: Final = Scope(())

_MAX_CHARACTERS: Final = 4096  # ARM ids end at about 1,000
_MAX_SEGMENTS: Final = 64  # the longest that is served has 16; each one is a look-up
_MANAGEMENT_GROUPS: Final = ("providers", "microsoft.management", "managementgroups")

# Only ASCII is folded. Where the database folds more (a Kelvin sign to "k"), two spellings of one resource are two
# scopes here: that denies, and never grants.
_FOLD: Final = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}


def parse_scope(text: str, *, tenant_id: str = "") -> Scope:
    """Return the scope that *text* names; blanks around it and a slash at its end do not matter.

    The management group named like *tenant_id* is the tenant's root: above every subscription, so `ROOT`. Raises
    `ScopeInvalid` for a text that does not start with a slash, or with empty or dotted segments.
    """
    trimmed = text.strip()
    if trimmed == "/":
        return ROOT
    if not trimmed.startswith("/") or len(trimmed) > _MAX_CHARACTERS:
        raise ScopeInvalid(text)
    inner = trimmed[1:].removesuffix("/")
    folded = inner.lower() if inner.isascii() else inner.translate(_FOLD)
    segments = tuple(folded.split("/"))
    if len(segments) > _MAX_SEGMENTS or any(segment in ("", ".", "..") for segment in segments):
        raise ScopeInvalid(text)
    if tenant_id and segments == (*_MANAGEMENT_GROUPS, tenant_id.lower()):
        return ROOT
    return Scope(segments)


def above(scope: Scope) -> Iterator[Scope]:
    """Yield *scope* and all scopes that it inherits from, the root last."""
    for end in range(len(scope), -1, -1):
        yield Scope(scope[:end])


def within(scope: Scope, outer: Scope) -> bool:
    """Say whether *scope* is *outer* or lies below it, segment by segment."""
    return scope[: len(outer)] == outer
