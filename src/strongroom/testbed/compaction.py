"""Makes a cluster forget its past: compacts etcd, and tells when the API server has followed.

Since Kubernetes 1.34 the API server answers lists at an exact revision from snapshots of its watch cache. It drops
them when it learns of a compaction, which it looks for every 15 s in each kind's cache.
"""

import base64
import contextlib

from strongroom.testbed.access import Connection
from strongroom.testbed.errors import ServerRefused

# Where API servers tell each other what is compacted (k8s.io/apiserver, storage/etcd3/compact.go); they watch it.
_KEY = b"compact_rev_key"


def revision(store: Connection) -> int:
    """Return the revision of an etcd."""
    answer = store.post("/v3/kv/range", {"key": _encoded(_KEY), "count_only": True})
    return int(answer["header"]["revision"])


def compact(store: Connection) -> int:
    """Compact an etcd to its revision now, tell the API server of it as another API server would, and return it."""
    now = revision(store)
    store.post("/v3/kv/put", {"key": _encoded(_KEY), "value": _encoded(str(now).encode())})
    store.post("/v3/kv/compaction", {"revision": str(now), "physical": True})
    return now


class Forgotten:
    """The condition that no kind can be listed at *revision* any more. Call it until it is true."""

    def __init__(self, api: Connection, revision: int) -> None:
        self._api = api
        self._revision = str(revision)
        self._served = self._lists()

    def __call__(self) -> bool:
        self._served = {path for path in self._served if self._serves(path)}
        return not self._served

    def _lists(self) -> set[str]:
        # What another server answers for (or, dead, does not) is not in this etcd.
        services = self._api.get("/apis/apiregistration.k8s.io/v1/apiservices")["items"]
        own = [item["spec"] for item in services if not item["spec"].get("service")]
        found = set()
        for spec in own:
            group, version = spec.get("group"), spec["version"]
            path = f"/apis/{group}/{version}" if group else f"/api/{version}"
            with contextlib.suppress(
                ServerRefused
            ):  # a version whose kinds are all gone is still registered for a while
                kinds = self._api.get(path)["resources"]
                found |= {f"{path}/{kind['name']}" for kind in kinds if "list" in kind["verbs"]}
        return found

    def _serves(self, path: str) -> bool:
        query = f"?resourceVersion={self._revision}&resourceVersionMatch=Exact&limit=1"
        try:
            answer = self._api.get(path + query)
        except ServerRefused:
            return False
        # A kind that is not stored (ComponentStatus) answers without a revision, whatever one asks for.
        return bool(answer["metadata"].get("resourceVersion") == self._revision)


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()
