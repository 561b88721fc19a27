"""Sends requests as az's extensions send them, and polls as they do: with azure-core's own pollers.

The extensions' generated code (aaz) polls with a copy of azure-core's `ARMPolling` and the same `lro_options`.
"""

import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError
from azure.core.pipeline import PipelineResponse
from azure.core.pipeline.policies import RequestIdPolicy, RetryPolicy
from azure.core.polling import LROPoller
from azure.core.rest import HttpRequest, HttpResponse
from azure.mgmt.core import ARMPipelineClient
from azure.mgmt.core.exceptions import ARMErrorFormat
from azure.mgmt.core.policies import ARMChallengeAuthenticationPolicy
from azure.mgmt.core.polling.arm_polling import ARMPolling

from ..serving import RunningServer

USER_AGENT = "AZURECLI/2.91.0 (PIP) azsdk-python-core/1.39.0 Python/3.11.7 (Linux-6.1.0-x86_64-with-glibc2.36)"
POLL_SECONDS = 1.0  # only where an answer says nothing: the clients' own 30 s would be the tests' time
OPERATION_SECONDS = 120

Pipelined = PipelineResponse[HttpRequest, HttpResponse]


@dataclass(frozen=True)
class Sent:
    """The first answer to a request, before any polling."""

    response: HttpResponse
    pipelined: Pipelined = field(repr=False)

    @property
    def status(self) -> int:
        return self.response.status_code

    @property
    def body(self) -> Any:
        text = self.response.text()
        return json.loads(text) if text else None


class RecordedClient:
    """az with an extension, as far as a server can tell."""

    def __init__(self, server: RunningServer) -> None:
        self.server = server
        scope = f"{server.url}/.default"
        self._client: ARMPipelineClient[HttpRequest, HttpResponse] = ARMPipelineClient(
            base_url=server.url,
            policies=[
                RequestIdPolicy(),  # polls carry the id of the first request
                RetryPolicy(retry_total=0),
                ARMChallengeAuthenticationPolicy(server.credential, scope),
            ],
            connection_verify=server.ready["caFile"],
        )

    def close(self) -> None:
        self._client.close()

    def send(self, method: str, path: str, body: Any = None, *, command: str = "", headers: Any = None) -> Sent:
        """Send one request with the headers that every command of az sends."""
        noise = {
            "User-Agent": USER_AGENT,
            "Accept": "application/json",
            "Content-Type": "application/json",
            "CommandName": command or "dataprotection",
            "ParameterSetName": "--resource-group --vault-name",
        }
        content = None if body is None else json.dumps(body)
        url = path if path.startswith("https://") else f"{self.server.url}{path}"
        request = HttpRequest(method, url, headers={**noise, **(headers or {})}, content=content)
        pipelined: Pipelined = self._client._pipeline.run(request)
        return Sent(pipelined.http_response, pipelined)

    def wait(self, sent: Sent, final_state: str = "") -> Any:
        """Poll as the CLI does for a `final-state-via`, as the SDK for "". Raises `HttpResponseError` if it failed."""
        options = {"final-state-via": final_state} if final_state else None

        def document(pipelined: Pipelined) -> Any:
            text = pipelined.http_response.text()
            return json.loads(text) if text else None

        polling: ARMPolling[Any] = ARMPolling(POLL_SECONDS, lro_options=options)
        poller: LROPoller[Any] = LROPoller(self._client, sent.pipelined, document, polling)
        return poller.result(OPERATION_SECONDS)

    def failure(self, sent: Sent, final_state: str = "") -> Any:
        """Poll an operation that must fail; return its error in azure-core's form, of which the CLI's is a copy."""
        with pytest.raises(HttpResponseError) as caught:
            self.wait(sent, final_state)
        answer = caught.value.response
        assert answer is not None
        return ARMErrorFormat(json.loads(answer.text()))
