"""Says by which sign each program of a cluster is known to do its work: one that only its work gives."""

from collections.abc import Callable, Mapping
from typing import Protocol

from strongroom.testbed import components, node_components, objects
from strongroom.testbed.access import PROBE_SECONDS, TIMEOUT_SECONDS, Connection
from strongroom.testbed.capsule import Capsule
from strongroom.testbed.components import Setting
from strongroom.testbed.options import Level

_DEFAULT_SERVICE_ACCOUNT = "/api/v1/namespaces/default/serviceaccounts/default"


class Connect(Protocol):
    """Connects to one of the servers of a kind, by the name of its port."""

    def __call__(self, port: str = ..., *, seconds: float = TIMEOUT_SECONDS) -> Connection: ...


def ready_checks(setting: Setting, api: Connect, store: Connect) -> Mapping[str, Callable[[], bool]]:
    """Return a check for each program that gives a sign; of the others it is enough that they run.

    A check raises `ServerRefused` or `ServerUnreachable` where that is the reason why it does not hold.
    """
    layout, ports = setting.layout, setting.ports
    checks: dict[str, Callable[[], bool]] = {
        components.ETCD: lambda: answers(store(seconds=PROBE_SECONDS), "/health"),
        components.ETCD_OVERRIDES: lambda: answers(store("overrides", seconds=PROBE_SECONDS), "/health"),
        components.APISERVER: lambda: answers(api(seconds=PROBE_SECONDS), "/readyz"),
        # The controller manager has a health check too, but tests need what it makes: tokens for their pods.
        components.CONTROLLER_MANAGER: lambda: answers(api(), _DEFAULT_SERVICE_ACCOUNT),
        components.SCHEDULER: lambda: answers(api("scheduler", seconds=PROBE_SECONDS), "/readyz"),
        components.KWOK: lambda: _node_ready(api),
        components.CAPSULE: Capsule(layout).ready.exists,
        components.FORWARDER: Capsule(layout).forwarded.exists,
        components.CONTAINERD: lambda: node_components.containerd_answers(layout),
        # After it was started anew its Node still says that it is ready.
        components.KUBELET: lambda: node_components.healthy(ports["kubelet-health"]) and _node_ready(api),
        components.KUBE_PROXY: lambda: node_components.healthy(ports["proxy-health"]),
    }
    if setting.options.level is Level.NODE:
        checks[components.DRIVER] = lambda: _driver_registered(api)
    return checks


def _node_ready(api: Connect) -> bool:
    with api() as connection:
        node = connection.get(f"/api/v1/nodes/{components.NODE_NAME}")
    return condition(node, "Ready") and not node["spec"].get("taints")


def _driver_registered(api: Connect) -> bool:
    with api() as connection:
        node = connection.get(f"/apis/storage.k8s.io/v1/csinodes/{components.NODE_NAME}")
    return any(driver["name"] == components.DRIVER_NAME for driver in node["spec"]["drivers"] or ())


def answers(connection: Connection, path: str) -> bool:
    """Tell whether *path* of a server is answered with success now, and leave the server."""
    with connection:
        return connection.answers(path)


def condition(document: objects.Object, name: str) -> bool:
    """Tell whether an object's status has the condition *name* with status True."""
    # An object that nobody looked at yet has conditions: null.
    conditions = document.get("status", {}).get("conditions") or []
    return any(condition["type"] == name and condition["status"] == "True" for condition in conditions)
