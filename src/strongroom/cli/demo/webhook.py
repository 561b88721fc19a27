"""The sample application's admission webhook: an HTTPS server in the demo's own process, with its own authority."""

import base64
import json
import ssl
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

from strongroom.testbed.certificates import make_authority, make_server

ADDRESS = "127.0.0.1"
STAMP = "shop.example.com/checked-by"
LABELS = {"app.kubernetes.io/part-of": "sample-shop"}
REFUSAL = "quantity must be positive"


class OrderWebhook:
    """Stamps every new Order and refuses those without a positive quantity. A context manager."""

    def __init__(self, folder: Path) -> None:
        """Certificate and key are put into *folder*, readable by the owner alone."""
        self._authority = make_authority("sample-shop")
        make_server(self._authority, "sample-shop", [ADDRESS]).write(folder, "webhook")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "webhook.crt", folder / "webhook.key")
        self.calls: list[str] = []
        """The names of the Orders that were reviewed, in order."""
        self._server = ThreadingHTTPServer((ADDRESS, 0), partial(_Handler, self.calls))
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, name="webhook", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def configurations(self) -> list[dict[str, Any]]:
        """Return the webhook configurations that make the API server ask this server."""
        return [
            self._configuration("MutatingWebhookConfiguration", "stamp", ["CREATE"]),
            self._configuration("ValidatingWebhookConfiguration", "check", ["CREATE", "UPDATE"]),
        ]

    def _configuration(self, kind: str, what: str, operations: list[str]) -> dict[str, Any]:
        url = f"https://{ADDRESS}:{self._server.server_address[1]}/{what}"
        return {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": kind,
            "metadata": {"name": f"sample-shop-{what}", "labels": LABELS},
            "webhooks": [
                {
                    "name": f"{what}.orders.shop.example.com",
                    "clientConfig": {
                        "url": url,
                        "caBundle": base64.b64encode(self._authority.certificate).decode(),
                    },
                    "rules": [
                        {
                            "apiGroups": ["shop.example.com"],
                            "apiVersions": ["v1"],
                            "resources": ["orders"],
                            "operations": operations,
                        }
                    ],
                    "failurePolicy": "Fail",
                    "sideEffects": "None",
                    "admissionReviewVersions": ["v1"],
                }
            ],
        }


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, calls: list[str], *connection: Any) -> None:
        self._calls = calls
        super().__init__(*connection)

    def do_POST(self) -> None:
        review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        request = review["request"]
        order = request["object"]
        self._calls.append(order["metadata"]["name"])
        response: dict[str, Any] = {"uid": request["uid"], "allowed": True}
        if self.path.startswith("/check") and order["spec"]["quantity"] <= 0:
            response |= {"allowed": False, "status": {"code": 403, "message": REFUSAL}}
        if self.path.startswith("/stamp"):
            patch = json.dumps(_stamp(order)).encode()
            response |= {"patchType": "JSONPatch", "patch": base64.b64encode(patch).decode()}
        self._answer({"apiVersion": review["apiVersion"], "kind": "AdmissionReview", "response": response})

    def _answer(self, document: dict[str, Any]) -> None:
        body = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Keep requests off the demo's screen."""


def _stamp(order: dict[str, Any]) -> list[dict[str, Any]]:
    if "annotations" not in order["metadata"]:
        return [{"op": "add", "path": "/metadata/annotations", "value": {STAMP: "webhook"}}]
    return [{"op": "add", "path": f"/metadata/annotations/{STAMP.replace('/', '~1')}", "value": "webhook"}]
