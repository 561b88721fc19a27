"""Makes requests that are nearly right: good ones of every operation, changed in a place or three. Seeded."""

import json
import random
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from strongroom.controlplane.arm.routing import Operation, fill, parameters

METHODS = ("GET", "HEAD", "PUT", "PATCH", "POST", "DELETE", "OPTIONS", "TRACE", "BREW")
# Texts that parsers, databases, paths, terminals and templates have stumbled over. No URL: nothing may be asked for.
ODD_TEXTS = (
    "",
    " ",
    "null",
    "true",
    "0",
    "-1",
    "1e999",
    "NaN",
    ".",
    "..",
    "../../etc/passwd",
    "a" * 300,
    "a" * 70_000,
    "/" * 40,
    "ß" * 70,
    "\u202eevil",
    "\x00",
    "a\x00b",
    "\n",
    "\r\nX-Injected: 1",
    "\x7f",
    "\x1b[31m",
    "\ufeff",
    "\ud800",
    "\U0001f512",
    "İ",
    "e\u0301",
    "' OR 1=1 --",
    '"; DROP TABLE resources; --',
    "%",
    "%00",
    "%2e%2e%2f",
    "_",
    "{vault}",
    "{0.__class__}",
    "${jndi:x}",
    "<script>",
    "P1Y2M3DT4H",
    "P99999999999999999D",
    "R/2026-01-04T09:00:00+00:00/PT0S",
    "2026-13-45T99:99:99Z",
    "9999-12-31T23:59:59.9999999Z",
    "00000000-0000-0000-0000-000000000000",
    "/subscriptions/00000000-0000-0000-0000-000000000000",
    "/subscriptions/a/resourceGroups/b/providers/Microsoft.ContainerService/managedClusters/c",
    "Microsoft.ContainerService/managedClusters",
)
ODD_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1.5, 1e308, -0.0, 2**31, 2**63, 2**70, 10**400, [], {}, [[]], [{}], [None], {"": None},
    {"a": {"b": {"c": 1}}}, ["a"], [1, "a", None],
)  # fmt: skip
FILTERS = (
    "startDate eq '2026-01-01T00:00:00Z' and endDate eq '2026-12-31T00:00:00Z'",
    "tagName eq 'a'",
    "roleName eq 'Reader'",
    "principalId eq '11111111-2222-3333-4444-555555555555'",
    "assignedTo('x')",
    "atScope()",
    "a eq",
    "((((((((((",
    "'" * 50,
    "name eq 'x' or " * 200,
    "resourceType eq 'Microsoft.DataProtection/backupVaults'",
)


@dataclass(frozen=True)
class Request:
    """What is sent; *path* and *query* are percent-encoded. *what* says how it was made."""

    operation: str
    method: str
    path: str
    body: bytes
    query: str
    headers: Mapping[str, str] = field(default_factory=dict)
    what: tuple[str, ...] = ()

    def __str__(self) -> str:
        body = self.body[:300].decode("utf-8", "backslashreplace")
        sent = f"{self.method} {self.path[:300]}?{self.query[:200]} {dict(self.headers)} {body}"
        return f"{self.operation} {self.what}: {sent}"


class Mutations:
    """Draws requests from *operations*; *names* fill their paths, *bodies* are good bodies by operation name."""

    def __init__(
        self, seed: int, operations: tuple[Operation, ...], names: Mapping[str, str], bodies: Mapping[str, Any]
    ) -> None:
        self._random = random.Random(seed)
        self._operations = operations
        self._names = names
        self._bodies = bodies

    def request(self) -> Request:
        """Return the next request."""
        draw = self._random
        # Half of them to operations with a body: these have more that can be wrong.
        rows = self._operations if draw.random() < 0.5 else [o for o in self._operations if o.body is not None]
        operation = draw.choice(rows)
        what: list[str] = []
        method, query, headers = operation.method, "api-version=2026-06-01", {}
        path = self.path(operation)
        body: bytes = json.dumps(self.body(operation)).encode() if operation.body is not None else b""
        for _ in range(draw.choice((1, 1, 1, 2, 3))):
            kind = draw.random()
            if operation.body is not None and kind < 0.6:
                name, body = self._of_body(operation)
            elif kind < 0.8:
                name, path = self._of_path(operation)
            elif kind < 0.9:
                name, query = self._of_query()
            elif kind < 0.95:
                name, method = "method", draw.choice(METHODS)
            else:
                name, headers = self._of_headers()
            what.append(name)
        return Request(operation.name, method, path, body, query, headers, tuple(what))

    def path(self, operation: Operation, **other: str) -> str:
        """Return an operation's path with the names of what exists (and others for what is not known here)."""
        names = {name: self._names.get(name, "x1") for name in parameters(operation.path)}
        return quote(fill(operation.path, {**names, **other}))

    def body(self, operation: Operation) -> Any:
        """Return a good body if there is one, else one that the operation's schema allows."""
        if operation.name in self._bodies:
            return json.loads(json.dumps(self._bodies[operation.name]))
        assert operation.body is not None
        schema, components = operation.body.schema()
        return self._of_schema(schema, components, 0)

    def _of_schema(self, schema: Any, components: Mapping[str, Any], depth: int) -> Any:
        draw = self._random
        if "$ref" in schema:
            return self._of_schema(components[schema["$ref"].rpartition("/")[2]], components, depth)
        for choice in ("oneOf", "anyOf"):
            if choice in schema:
                return self._of_schema(draw.choice(schema[choice]), components, depth)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return draw.choice(schema["enum"])
        kinds = schema.get("type", "object" if "properties" in schema else "string")
        match draw.choice(kinds) if isinstance(kinds, list) else kinds:
            case "object":
                required = set(schema.get("required", ()))
                found = {
                    name: self._of_schema(part, components, depth + 1)
                    for name, part in schema.get("properties", {}).items()
                    if name in required or (depth < 6 and draw.random() < 0.5)
                }
                more = schema.get("additionalProperties")
                if isinstance(more, dict) and more and depth < 6:
                    found["key"] = self._of_schema(more, components, depth + 1)
                return found
            case "array":
                items = schema.get("items", {})
                count = draw.choice((0, 1, 2)) if depth < 6 else 0
                return [self._of_schema(items, components, depth + 1) for _ in range(count)]
            case "integer":
                return draw.choice((0, 1, 7, 30))
            case "number":
                return draw.choice((0.0, 1.5, 14.0))
            case "boolean":
                return draw.random() < 0.5
            case "null":
                return None
        return draw.choice(("a", "name1", "P7D", "2026-01-04T09:00:00Z", *self._names.values()))

    def _of_body(self, operation: Operation) -> tuple[str, bytes]:
        draw = self._random
        good = self.body(operation)
        places = list(_places(good))
        kind = draw.choice(_BODY_KINDS)
        if not places and kind not in ("raw", "whole"):
            kind = "whole"
        if kind == "whole":
            return kind, _encode(draw.choice((*ODD_VALUES, *ODD_TEXTS)))
        if kind == "raw":
            return kind, self._raw(_encode(good))
        holder, key = draw.choice(places)
        match kind:
            case "drop":
                del holder[key]
            case "value":
                holder[key] = draw.choice(ODD_VALUES)
            case "text":
                holder[key] = draw.choice(ODD_TEXTS)
            case "key":
                name = draw.choice((*ODD_TEXTS, "id", "objectType", "provisioningState"))
                target = holder if isinstance(holder, dict) else good
                if isinstance(target, dict):
                    target[name] = draw.choice(ODD_VALUES)
            case "case":
                if isinstance(holder, dict):
                    holder[_other_case(draw, str(key))] = holder.pop(key)
            case "twice":
                if isinstance(holder, dict):
                    holder[str(key).swapcase()] = draw.choice((*ODD_VALUES, holder[key]))
                else:
                    holder.append(holder[key])
            case "swap":
                other, place = draw.choice(places)
                if isinstance(holder, list) and isinstance(key, int) and key >= len(holder):
                    return kind, _encode(good)
                value = json.loads(_encode(other[place]))
                holder[key] = value
            case "many":
                holder[key] = [holder[key]] * draw.choice((2, 50, 1000))
            case "deep":
                nested: Any = holder[key]
                for _ in range(draw.choice((3, 60, 900))):
                    nested = [nested] if draw.random() < 0.5 else {"a": nested}
                holder[key] = nested
        return kind, _encode(good)

    def _raw(self, good: bytes) -> bytes:
        draw = self._random
        cut = draw.randrange(len(good) + 1)
        return draw.choice(
            (
                b"",
                b" ",
                good[:cut],
                good[:cut] + bytes([draw.randrange(256)]) + good[cut:],
                good + good,
                b"\xef\xbb\xbf" + good,
                good.decode().encode("utf-16"),
                good.replace(b'"', b"'"),
                good.replace(b"{", b'{"location":"x",', 1),
                good[:-1] + b',"properties":null}' if good.endswith(b"}") else b"}",
                b"[" * 5000,
                b'{"a":' * 5000,
                b'{"a":NaN}',
                b'{"a":' + b"9" * 5000 + b"}",
                b"\xff\xfe\x00",
                b"location=westus",
            )
        )

    def _of_path(self, operation: Operation) -> tuple[str, str]:
        draw = self._random
        segments = self.path(operation).split("/")
        at = draw.randrange(1, len(segments)) if len(segments) > 1 else 0
        text = draw.choice(ODD_TEXTS)
        encoded = quote(text.encode("utf-8", "surrogatepass"), safe=draw.choice(("", "/.%")))[:3000]
        kind = draw.choice(
            ("segment", "segment", "case", "more", "less", "swap", "slashes", "blanks", "raw", "encoded")
        )
        match kind:
            case "segment":
                segments[at] = encoded
            case "case":
                segments[at] = _other_case(draw, segments[at])
            case "more":
                segments.insert(at, encoded or "x")
            case "less":
                del segments[at]
            case "swap":
                other = draw.randrange(len(segments))
                segments[at], segments[other] = segments[other], segments[at]
            case "slashes":
                segments.insert(at, "")
            case "blanks":
                segments[at] = f"%20{segments[at]}%20"
            case "raw":
                segments[at] += draw.choice(
                    ("%", "%zz", "%ff", "%c3%28", "\xff", "%00", "%0a", "%ed%a0%80", "%23", "%3F")
                )
            case "encoded":
                segments[at] = "".join(f"%{ord(c):02x}" if c in string.ascii_letters else c for c in segments[at])
        path = "/".join(segments)
        return f"path {kind}", path if path.startswith("/") else "/" + path

    def _of_query(self) -> tuple[str, str]:
        draw = self._random
        text = quote(draw.choice((*ODD_TEXTS, *FILTERS)).encode("utf-8", "surrogatepass"))[:4000]
        version = "api-version=2026-06-01"
        return "query", draw.choice(
            (
                "",
                "api-version=",
                f"api-version={text}",
                f"{version}&{version}",
                f"API-VERSION=2026-06-01&$filter={text}",
                f"{version}&$filter={text}",
                f"{version}&$filter={quote(draw.choice(FILTERS))}",
                f"{version}&$top={draw.choice(('-1', '0', '1', '99999999999999999999', 'x', '1.5', '٣'))}",
                f"{version}&$skipToken={text}",
                f"{version}&$skipToken=eyJhIjoxfQ==",
                f"{version}&$skipToken=eyJhZnRlciI6MX0",
                f"{version}&$expand={text}",
                f"{version}&{text}={text}",
                f"{version}&%ff=%ff&=&&",
                f"{version}&forceDelete={text}&deleteSnapshots=x",
            )
        ).encode("utf-8").decode("latin-1")

    def _of_headers(self) -> tuple[str, dict[str, str]]:
        draw = self._random
        name = draw.choice(
            (
                "if-match",
                "if-none-match",
                "x-ms-client-request-id",
                "x-ms-correlation-request-id",
                "content-type",
                "user-agent",
                "accept",
                "x-ms-deleted-vault-id",
                "x-ms-authorization-auxiliary",
            )
        )
        value = draw.choice(("", "*", '"x"', 'W/"x", "y"', "\xff\xfe", "a" * 2000, "text/plain", "1", "azsdk-python"))
        return f"header {name}", {name: value}


_BODY_KINDS = ("drop", "drop", "value", "value", "text", "text", "key", "case", "twice", "swap", "many", "deep", "raw",
               "whole")  # fmt: skip


def _places(value: Any) -> Any:
    """Yield each (container, key) below *value*."""
    keys: Any = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from _places(value[key])


def _encode(value: Any) -> bytes:
    return json.dumps(value).encode()


def _other_case(draw: random.Random, text: str) -> str:
    change: Callable[[str], str] = draw.choice((str.upper, str.lower, str.swapcase, str.title))
    return change(text)
