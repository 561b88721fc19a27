"""The real node does what any node does: pods run, are probed, mount their volumes, and speak to the cluster."""

import base64
import http.server
import threading
from collections.abc import Iterator

import pytest

from strongroom.testbed import certificates
from strongroom.testbed.cluster import Testbed
from strongroom.testbed.errors import ComponentFailed
from strongroom.testbed.python_images import EXTENSION, PYTHON, extension_image, python_image

from .node_stage import claim, create, eventually, pod, run, snapshot

SLEEP = ("sleep", "100000")

WHO_AM_I = """
import json, os, ssl, urllib.request
own = "/var/run/secrets/kubernetes.io/serviceaccount/"
host, port = (os.environ["KUBERNETES_SERVICE_" + part] for part in ("HOST", "PORT"))
request = urllib.request.Request(
    f"https://{host}:{port}/apis/authentication.k8s.io/v1/selfsubjectreviews",
    data=json.dumps({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}).encode(),
    headers={"Authorization": "Bearer " + open(own + "token").read(), "Content-Type": "application/json"},
)
answer = urllib.request.urlopen(request, context=ssl.create_default_context(cafile=own + "ca.crt"))
print(json.load(answer)["status"]["userInfo"]["username"])
"""


def logs_of_the_ended(cluster: Testbed, namespace: str, name: str) -> str:
    succeeded = "--for=jsonpath={.status.phase}=Succeeded"
    cluster.kubectl("wait", f"pod/{name}", "-n", namespace, succeeded, "--timeout=60s")
    return cluster.kubectl("logs", name, "-n", namespace).strip()


def once(document: dict[str, object]) -> dict[str, object]:
    spec = document["spec"]
    assert isinstance(spec, dict)
    return {**document, "spec": {**spec, "restartPolicy": "Never"}}


def test_a_pod_runs_as_its_user_and_can_be_asked_by_exec(node_testbed: Testbed, node_namespace: str) -> None:
    run(node_testbed, node_namespace, pod("shell", *SLEEP))
    assert node_testbed.kubectl("exec", "shell", "-n", node_namespace, "--", "id", "-u").strip() == "65534"
    with pytest.raises(ComponentFailed, match="exit code 3"):
        node_testbed.kubectl("exec", "shell", "-n", node_namespace, "--", "sh", "-c", "exit 3")


def test_a_pod_reaches_the_api_server_by_its_service_with_its_own_account(
    node_testbed: Testbed, node_namespace: str
) -> None:
    node_testbed.load_image(python_image())
    create(node_testbed, node_namespace, once(pod("me", "python3", "-c", WHO_AM_I, image=PYTHON)))
    assert logs_of_the_ended(node_testbed, node_namespace, "me") == f"system:serviceaccount:{node_namespace}:default"


def test_the_image_of_the_extension_runs_it_without_a_registry(node_testbed: Testbed, node_namespace: str) -> None:
    node_testbed.load_image(extension_image())
    script = "import strongroom.extension.main as main; print(main.__name__)"
    create(node_testbed, node_namespace, once(pod("extension", "python3", "-c", script, image=EXTENSION)))
    assert logs_of_the_ended(node_testbed, node_namespace, "extension") == "strongroom.extension.main"


def test_a_pod_that_is_not_alive_is_started_anew_and_one_that_is_not_ready_gets_no_requests(
    node_testbed: Testbed, node_namespace: str
) -> None:
    dead = {"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 1}
    create(node_testbed, node_namespace, pod("dying", *SLEEP, livenessProbe=dead))
    serve = "echo fine >/tmp/page; exec httpd -f -p 8080 -h /tmp"
    ready = {"exec": {"command": ["test", "-e", "/tmp/ready"]}, "periodSeconds": 1}
    web = pod("web", "sh", "-c", serve, readinessProbe=ready)
    web["spec"]["volumes"] = [{"name": "tmp", "emptyDir": {}}]
    web["spec"]["containers"][0]["volumeMounts"] = [{"name": "tmp", "mountPath": "/tmp"}]
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]},
    }
    create(node_testbed, node_namespace, service, web)
    run(node_testbed, node_namespace, pod("client", *SLEEP))
    address = node_testbed.kubectl("get", "service/web", "-n", node_namespace, "-o", "jsonpath={.spec.clusterIP}")

    def page() -> str:
        fetch = ("wget", "-q", "-O", "-", f"http://{address}/page")
        return node_testbed.kubectl("exec", "client", "-n", node_namespace, "--", *fetch).strip()

    running = "--for=jsonpath={.status.phase}=Running"
    node_testbed.kubectl("wait", "pod/web", "-n", node_namespace, running, "--timeout=60s")
    with pytest.raises(ComponentFailed, match="refused"):
        page()
    node_testbed.kubectl("exec", "web", "-n", node_namespace, "--", "touch", "/tmp/ready")
    node_testbed.kubectl("wait", "pod/web", "-n", node_namespace, "--for=condition=Ready", "--timeout=60s")

    def served() -> bool:
        try:
            return page() == "fine"
        except ComponentFailed:  # the proxy has not heard of it yet
            return False

    eventually(served, "the Service leads to the pod")

    def restarted() -> bool:
        path = "jsonpath={.status.containerStatuses[0].restartCount}"
        return int(node_testbed.kubectl("get", "pod/dying", "-n", node_namespace, "-o", path) or 0) > 0

    eventually(restarted, "the pod is started anew")


def test_a_volume_that_a_pod_wrote_is_restored_from_its_snapshot_into_another_pod(
    node_testbed: Testbed, node_namespace: str
) -> None:
    create(node_testbed, node_namespace, claim("ledger"))
    run(node_testbed, node_namespace, pod("writer", "sh", "-c", "echo before >/data/f; sleep 100000", claim="ledger"))

    def in_pod(name: str, *command: str) -> str:
        return node_testbed.kubectl("exec", name, "-n", node_namespace, "--", *command).strip()

    eventually(lambda: in_pod("writer", "cat", "/data/f") == "before", "the pod has written")
    create(node_testbed, node_namespace, snapshot("cut", of="ledger"))
    ready = "--for=jsonpath={.status.readyToUse}=true"
    node_testbed.kubectl("wait", "volumesnapshot/cut", "-n", node_namespace, ready, "--timeout=60s")
    in_pod("writer", "sh", "-c", "echo after >/data/f")
    create(node_testbed, node_namespace, claim("copy", snapshot="cut"))
    run(node_testbed, node_namespace, pod("reader", *SLEEP, claim="copy"))
    assert in_pod("reader", "cat", "/data/f") == "before"
    assert in_pod("reader", "stat", "-c", "%u", "/data/f") == "65534"
    assert in_pod("writer", "cat", "/data/f") == "after"
    node_testbed.kubectl("delete", "pod/reader", "-n", node_namespace, "--timeout=60s")
    node_testbed.kubectl("delete", "pvc/copy", "-n", node_namespace, "--timeout=60s")


@pytest.fixture
def greeter() -> Iterator[int]:
    """The port of an HTTP server on the machine's loopback."""

    class Greeter(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"good day")

        def log_message(self, *_: object) -> None:
            return

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Greeter) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def test_a_pod_reaches_a_port_of_the_machines_loopback_that_is_exposed_and_no_other(
    node_testbed: Testbed, node_namespace: str, greeter: int
) -> None:
    run(node_testbed, node_namespace, pod("client", *SLEEP))

    def fetched(address: str) -> str:
        fetch = ("wget", "-q", "-O", "-", f"http://{address}/")
        return node_testbed.kubectl("exec", "client", "-n", node_namespace, "--", *fetch)

    with pytest.raises(ComponentFailed, match="refused"):
        fetched(f"10.99.0.1:{greeter}")
    address = node_testbed.expose(greeter)
    assert address == f"10.99.0.1:{greeter}"
    assert node_testbed.expose(greeter) == address
    assert fetched(address) == "good day"


REFUSER = """
import http.server, json, ssl

class Refuser(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        response = {"uid": review["request"]["uid"], "allowed": False, "status": {"message": "not on a Monday"}}
        answer = json.dumps({**review, "request": None, "response": response}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

server = http.server.HTTPServer(("", 8443), Refuser)
context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
context.load_cert_chain("/tls/tls.crt", "/tls/tls.key")
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""


def test_the_api_server_asks_an_admission_webhook_that_runs_in_a_pod(
    node_testbed: Testbed, node_namespace: str
) -> None:
    authority = certificates.make_authority("webhook")
    pair = certificates.make_server(authority, "webhook", (), [f"refuser.{node_namespace}.svc"])
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "tls"},
        "type": "kubernetes.io/tls",
        "stringData": {"tls.crt": pair.certificate.decode(), "tls.key": pair.key.decode()},
    }
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "refuser"},
        "spec": {"selector": {"app": "refuser"}, "ports": [{"port": 443, "targetPort": 8443}]},
    }
    listens = {"tcpSocket": {"port": 8443}, "periodSeconds": 1}
    server = pod("refuser", "python3", "-c", REFUSER, image=PYTHON, readinessProbe=listens)
    server["spec"]["volumes"] = [{"name": "tls", "secret": {"secretName": "tls"}}]
    server["spec"]["containers"][0]["volumeMounts"] = [{"name": "tls", "mountPath": "/tls"}]
    node_testbed.load_image(python_image())
    create(node_testbed, node_namespace, secret, service)
    run(node_testbed, node_namespace, server)
    webhook = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": node_namespace},
        "webhooks": [
            {
                "name": "refuser.strongroom.test",
                "clientConfig": {
                    "service": {"namespace": node_namespace, "name": "refuser"},
                    "caBundle": base64.b64encode(authority.certificate).decode(),
                },
                "rules": [
                    {"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}
                ],
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": node_namespace}},
                "sideEffects": "None",
                "admissionReviewVersions": ["v1"],
            }
        ],
    }
    create(node_testbed, node_namespace, webhook)
    said: list[str] = []

    def refused() -> bool:
        try:
            node_testbed.kubectl("create", "configmap", f"c{len(said)}", "-n", node_namespace)
        except ComponentFailed as refusal:
            said.append(str(refusal))
            return "not on a Monday" in said[-1]
        said.append("created")  # the API server has not heard of the webhook yet
        return False

    try:
        eventually(refused, "the webhook is asked")
    finally:
        node_testbed.kubectl("delete", "validatingwebhookconfiguration", node_namespace)


def test_pods_go_on_while_the_kubelet_and_containerd_are_killed_and_started_anew(
    node_testbed: Testbed, node_namespace: str
) -> None:
    run(node_testbed, node_namespace, pod("steady", *SLEEP))
    for component in ("kubelet", "containerd"):
        node_testbed.stop(component, kill=True)
        node_testbed.start(component)
    run(node_testbed, node_namespace, pod("later", *SLEEP))

    def answers() -> bool:
        try:
            node_testbed.kubectl("exec", "steady", "-n", node_namespace, "--", "true")
        except ComponentFailed:  # the kubelet has not found containerd again yet
            return False
        return True

    eventually(answers, "the pod from before answers")
    path = "jsonpath={.status.containerStatuses[0].restartCount}"
    assert node_testbed.kubectl("get", "pod/steady", "-n", node_namespace, "-o", path) == "0"
