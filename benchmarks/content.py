"""Makes the objects that benchmarks back up and restore: the same ones at every run, as JSON bytes.

Pure. The 2 KB of a typical object are lines of settings: words, numbers, and one hexadecimal id in every few lines.
zstd -3 makes 57 % of one such object alone and 33 % of a hundred together: neither the repetition that flatters a
backup nor random bytes.
Each namespace holds 500 objects, 40 namespaces make 20,000, a quarter of them custom resources.
"""

import base64
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

OBJECT_BYTES = 2 * 1000  # a typical object
LARGE_BYTES = 500 * 1000  # and a large one, as dashboards and scripts in ConfigMaps are
LARGE_EVERY = 2  # namespaces: every second one has one large ConfigMap
NAMESPACES = 40
GROUP = "bench.example.com"
MANAGER = "benchmark"

_WORDS = (Path(__file__).parent / "words.txt").read_text().split()


@dataclass(frozen=True, slots=True)
class Made:
    """One object to create: *path* is the collection's, *name* is unique in it."""

    kind: str
    namespace: str
    name: str
    path: str
    body: bytes


def settings(draw: random.Random, size: int) -> str:
    """Return *size* characters of settings, one a line."""
    lines: list[str] = []
    length = 0
    while length < size:
        key = ".".join(draw.choices(_WORDS, k=3))
        match draw.randrange(5):
            case 0:
                value = f"{draw.getrandbits(64):016x}"
            case 1:
                value = str(draw.randrange(100_000))
            case 2:
                value = f"https://{draw.choice(_WORDS)}.{draw.choice(_WORDS)}.example.com:{draw.randrange(1024, 65536)}"
            case _:
                value = " ".join(draw.choices(_WORDS, k=4))
        lines.append(f"{key}={value}")
        length += len(lines[-1]) + 1
    return "\n".join(lines)[:size]


def namespace_name(number: int, prefix: str = "bench") -> str:
    """Return the name of the namespace *number*."""
    return f"{prefix}-{number:03d}"


def namespace(name: str) -> Made:
    """Return a Namespace."""
    metadata = {"name": name, "labels": {"purpose": "benchmark"}}
    return _made("v1", "Namespace", "/api/v1/namespaces", metadata, {})


def definition() -> Made:
    """Return the CustomResourceDefinition of `Widget`."""
    text = {"type": "string"}
    spec = {
        "type": "object",
        "properties": {
            "size": {"type": "integer"},
            "paused": {"type": "boolean"},
            "owner": text,
            "settings": text,
            "targets": {"type": "array", "items": {"type": "object", "properties": {"host": text, "port": text}}},
        },
    }
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}},
    }
    names = {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"}
    body = {"spec": {"group": GROUP, "scope": "Namespaced", "names": names, "versions": [version]}}
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    return _made("apiextensions.k8s.io/v1", "CustomResourceDefinition", path, {"name": f"widgets.{GROUP}"}, body)


def namespace_objects(number: int, name: str) -> Iterator[Made]:
    """Yield the 500 objects of namespace *number*, which is called *name*."""
    draw = random.Random(number)  # the same objects at every run
    for at in range(220):
        size = LARGE_BYTES if at == 0 and number % LARGE_EVERY == 0 else OBJECT_BYTES
        yield _core(
            name, "ConfigMap", "configmaps", draw, at, {"data": {"application.properties": settings(draw, size)}}
        )
    for at in range(100):
        text = settings(draw, OBJECT_BYTES * 3 // 4).encode()  # base64 makes it 2 KB again
        data = {"token": base64.b64encode(draw.randbytes(32)).decode(), "config": base64.b64encode(text).decode()}
        yield _core(name, "Secret", "secrets", draw, at, {"type": "Opaque", "data": data})
    for at in range(125):
        spec = {
            "size": draw.randrange(100),
            "paused": draw.random() < 0.1,
            "owner": draw.choice(_WORDS),
            "targets": [{"host": f"{draw.choice(_WORDS)}.example.com", "port": str(at)} for _ in range(5)],
            "settings": settings(draw, OBJECT_BYTES - 400),
        }
        path = f"/apis/{GROUP}/v1/namespaces/{name}/widgets"
        yield _made(f"{GROUP}/v1", "Widget", path, _metadata(name, "widget", draw, at), {"spec": spec})
    for at in range(20):
        path = f"/apis/apps/v1/namespaces/{name}/deployments"
        yield _made("apps/v1", "Deployment", path, _metadata(name, "app", draw, at), {"spec": _deployment(draw, at)})
    for at in range(20):
        ports = [{"name": f"p{port}", "port": 8000 + port, "targetPort": 8000 + port} for port in range(3)]
        yield _core(name, "Service", "services", draw, at, {"spec": {"selector": {"app": f"app-{at}"}, "ports": ports}})
    for at in range(10):
        rules = [{"apiGroups": [""], "resources": [draw.choice(_WORDS)], "verbs": ["get", "list"]} for _ in range(8)]
        path = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{name}/roles"
        metadata = _metadata(name, "role", draw, at)
        yield _made("rbac.authorization.k8s.io/v1", "Role", path, metadata, {"rules": rules})
    for at in range(5):
        path = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{name}/rolebindings"
        body = {
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
            "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": name}],
        }
        yield _made("rbac.authorization.k8s.io/v1", "RoleBinding", path, _metadata(name, "binding", draw, at), body)


def _deployment(draw: random.Random, at: int) -> dict[str, Any]:
    labels = {"app": f"app-{at}"}
    environment = [{"name": draw.choice(_WORDS).upper() + str(n), "value": settings(draw, 40)} for n in range(20)]
    container = {"name": "main", "image": f"registry.example.com/app:{draw.randrange(100)}", "env": environment}
    # No replicas: a benchmark of objects needs no pods, and 800 of them would keep the scheduler busy meanwhile.
    return {
        "replicas": 0,
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
    }


def _metadata(namespace: str, stem: str, draw: random.Random, at: int) -> dict[str, Any]:
    return {
        "name": f"{stem}-{draw.choice(_WORDS)}-{at:04d}",
        "namespace": namespace,
        "labels": {"app.kubernetes.io/name": draw.choice(_WORDS), "app.kubernetes.io/part-of": draw.choice(_WORDS)},
        "annotations": {"example.com/checksum": f"{draw.getrandbits(128):032x}"},
    }


def _core(namespace: str, kind: str, plural: str, draw: random.Random, at: int, rest: dict[str, Any]) -> Made:
    path = f"/api/v1/namespaces/{namespace}/{plural}"
    return _made("v1", kind, path, _metadata(namespace, plural[:-1], draw, at), rest)


def _made(api_version: str, kind: str, path: str, metadata: dict[str, Any], rest: dict[str, Any]) -> Made:
    body = json.dumps({"apiVersion": api_version, "kind": kind, "metadata": metadata, **rest}).encode()
    return Made(kind, metadata.get("namespace", ""), metadata["name"], path, body)
