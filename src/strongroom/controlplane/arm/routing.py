"""The table of operations: which method and path does what, under which action, and how a request finds its row.

Paths are matched without regard to case. `{name}` takes one segment; `{+scope}` at the start takes several, for
extension resources such as role assignments. Blanks around a segment are dropped (the how-to's ids have them), and
casing of what callers named is kept.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

if TYPE_CHECKING:
    from strongroom.controlplane.arm.call import Call, Reply
    from strongroom.controlplane.arm.shapes import Shape

Handler = Callable[["Call"], "Reply"]
MAX_PATH: Final = 8192  # ARM's ids end at 2,048 characters; a longer path is no id


@dataclass(frozen=True)
class Operation:
    """One row of the API.

    *name* is Azure's operation id. *action* is what RBAC asks for, at the scope that `scope_of` takes from the path;
    "" means any signed-in caller. *body* reads the request's document (None: there is none or it is not read).
    *statuses* are all that it answers besides errors. *optional_body*: an absent body is read as {}. *safe*: a POST
    that changes nothing. *needs_api_version*: all of ARM's do, the directory's (Graph) have none. *polls*: it answers
    how the long-running operation of the path stands, and whoever began that one may ask, whatever his roles. *waits*:
    the handler may wait for a cluster or a store. *searches*: it may compute for seconds, and takes its turn.
    """

    name: str
    method: str
    path: str
    action: str
    handler: Handler
    body: "Shape | None" = None
    statuses: tuple[int, ...] = (200,)
    summary: str = ""
    optional_body: bool = False
    query: tuple[str, ...] = ()
    safe: bool = False
    needs_api_version: bool = True
    polls: bool = False
    waits: bool = False
    searches: bool = False

    @property
    def is_action(self) -> bool:
        """Whether it is a POST that changes something, and so must not be carried out twice."""
        return self.method == "POST" and not self.safe


@dataclass(frozen=True)
class Found:
    """The operation that a request asks for, and what its path names: parameters and the *id* (no trailing action)."""

    operation: Operation
    path: Mapping[str, str]


class Router:
    """Finds operations by method and path."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        self.operations = tuple(operations)
        self._fixed: dict[int, list[tuple[re.Pattern[str], dict[str, Operation]]]] = {}
        self._greedy: list[tuple[re.Pattern[str], dict[str, Operation]]] = []
        paths: dict[str, dict[str, Operation]] = {}
        for operation in self.operations:
            methods = paths.setdefault(operation.path, {})
            if operation.method in methods:
                raise ValueError(f"two operations are {operation.method} {operation.path}")
            methods[operation.method] = operation
        # More literal text first: …/backupJobs/operations/{op} before …/backupJobs/{job}/{x}.
        for path, methods in sorted(paths.items(), key=lambda item: (item[0].count("{"), item[0])):
            entry = (_pattern(path), methods)
            if "{+" in path:
                self._greedy.append(entry)
            else:
                self._fixed.setdefault(path.count("/"), []).append(entry)

    def find(self, method: str, path: str) -> Found | set[str] | None:
        """Return the operation; the methods that the path has, when it lacks this one; None for an unknown path."""
        found = path.split("/")
        segments = [s.strip() for s in found]
        if any(before and not after for before, after in zip(found, segments, strict=True)):
            return None  # a name of blanks alone is no name: dropped, `DELETE vault/%20` would be that of the vault
        cleaned = "/".join(segments).rstrip("/") or "/"
        allowed: set[str] = set()
        for pattern, methods in [*self._fixed.get(cleaned.count("/"), ()), *self._greedy]:
            match = pattern.fullmatch(cleaned)
            if match is None:
                continue
            if operation := methods.get(method):
                return Found(operation, {k: v.strip("/") for k, v in match.groupdict().items()})
            allowed |= set(methods)
        return allowed or None


def _pattern(path: str) -> re.Pattern[str]:
    parts = []
    for segment in path.split("/"):
        if segment.startswith("{+"):
            parts.append(f"(?P<{segment[2:-1]}>.*)")
        elif segment.startswith("{"):
            parts.append(f"(?P<{segment[1:-1]}>[^/]+)")
        else:
            parts.append(re.escape(segment))
    # `{+scope}` may be empty: /providers/Microsoft.Authorization/… is the root scope.
    return re.compile(re.sub(r"^/(\(\?P<\w+>\.\*\)/)", r"\1", "/".join(parts)), re.IGNORECASE)


def fill(template: str, path: Mapping[str, str]) -> str:
    """Return *template* with the parameters of *path*: the canonical casing of Azure's words, the caller's of names."""
    filled = re.sub(r"\{\+?(\w+)\}", lambda match: path[match.group(1)], template)
    return "/" + filled.lstrip("/")


def scope_of(operation: Operation, path: Mapping[str, str]) -> str:
    """Return the scope at which RBAC is asked: the resource of the path, for a list or a creation by POST its parent.

    A path ends in a name (the resource), in a type (a list) or in an action (of the resource before it).
    """
    template = operation.path
    segments = template.split("/")
    if not segments[-1].startswith("{"):
        segments = segments[:-1]
        if len(segments) > 2 and segments[-2].lower() == "providers":
            segments = segments[:-2]
        # A list below a location (operations, deletedVaults) is asked for at the subscription or group above it.
    return fill("/".join(segments), path) if len(segments) > 1 else "/"


def decode(raw_path: bytes) -> str:
    """Return the path of a request with percent-encoding undone once. Raises ValueError if it is not UTF-8 text."""
    if len(raw_path) > MAX_PATH:
        raise ValueError("the path is too long")
    text = unquote(raw_path.decode("ascii"), errors="strict")
    if "\x00" in text or any(ord(c) < 32 for c in text):
        raise ValueError("the path holds control characters")
    return text


def parameters(template: str) -> list[str]:
    """Return the names of a path's parameters in order."""
    return re.findall(r"\{\+?(\w+)\}", template)
