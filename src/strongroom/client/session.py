"""Talks to one control plane: signs in, sends requests as Azure's clients do, waits for long-running operations.

A synchronous client on azure-core, whose policies repeat what may be repeated, renew tokens and register a provider
that the subscription does not use yet.
"""

from collections.abc import Iterator, Mapping
from importlib.metadata import version
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote, urlsplit

from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError, ServiceRequestError
from azure.core.pipeline import policies
from azure.core.polling import LROPoller
from azure.core.rest import HttpRequest, HttpResponse
from azure.identity import ClientSecretCredential
from azure.mgmt.core import ARMPipelineClient
from azure.mgmt.core.policies import ARMAutoResourceProviderRegistrationPolicy, ARMChallengeAuthenticationPolicy
from azure.mgmt.core.polling.arm_polling import ARMPolling

from strongroom.client.errors import AccessDenied, ClientError, RequestRefused, ServerUnreachable
from strongroom.client.problems import problems_of_answer
from strongroom.client.readyfile import ReadyFile

Json = dict[str, Any]

# Each provider's API version; the server takes any that Azure has.
API_VERSIONS: Final[Mapping[str, str]] = {
    "microsoft.resources": "2024-11-01",
    "microsoft.containerservice": "2025-08-01",
    "microsoft.storage": "2024-01-01",
    "microsoft.authorization": "2022-04-01",
    "microsoft.dataprotection": "2026-06-01",
}
POLL_SECONDS: Final = 1.0  # where the server names no time itself
CONNECT_SECONDS: Final = 10.0  # a server that listens answers the handshake at once
READ_SECONDS: Final = 120.0  # attaching storage waits for the store, which may be at the other end of the world
RETRIES: Final = 3  # beyond that a person should hear of it


class Session:
    """An open connection to the server of a ready file, as its service principal. A context manager."""

    def __init__(self, ready: ReadyFile, *, subscription: str = "") -> None:
        self.endpoint = ready.endpoint.rstrip("/")
        self.subscription = subscription or ready.subscription_id
        self._ca_file = ready.ca_file
        self._credential = ClientSecretCredential(
            ready.tenant_id,
            ready.client_id,
            ready.client_secret,
            authority=self.endpoint,
            # The private authority is not among those that azure-identity knows.
            disable_instance_discovery=True,
            connection_verify=ready.ca_file,
            retry_total=RETRIES,
        )
        scope = f"{self.endpoint}/.default"
        self._client: ARMPipelineClient[Any, Any] = ARMPipelineClient(
            base_url=self.endpoint,
            connection_verify=ready.ca_file,
            connection_timeout=CONNECT_SECONDS,
            read_timeout=READ_SECONDS,
            policies=[
                policies.RequestIdPolicy(),
                policies.UserAgentPolicy(base_user_agent=f"strongroom/{version('strongroom')} azsdk-python-core"),
                policies.ContentDecodePolicy(),
                ARMAutoResourceProviderRegistrationPolicy(),
                policies.RetryPolicy(retry_total=RETRIES),
                ARMChallengeAuthenticationPolicy(self._credential, scope),
            ],
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()
        self._credential.close()

    @property
    def root(self) -> str:
        """The ARM id of the subscription."""
        return f"/subscriptions/{self.subscription}"

    def group(self, name: str) -> str:
        """Return the ARM id of a resource group of the subscription."""
        return f"{self.root}/resourceGroups/{name}"

    def get(self, path: str) -> Json:
        """Return the document at an ARM id. Raises `RequestRefused` (status 404 if there is none) and the others."""
        return _document(self._send("GET", path))

    def find(self, path: str) -> Json | None:
        """Return the document at an ARM id, None if there is none."""
        try:
            return self.get(path)
        except RequestRefused as error:
            if error.status == 404 and error.code == "ResourceNotFound":
                return None
            raise

    def items(self, path: str) -> Iterator[Json]:
        """Yield the elements of a list, page after page."""
        page = self.get(path)
        while True:
            yield from page.get("value", ())
            link = page.get("nextLink")
            if not link:
                return
            if urlsplit(link).netloc != urlsplit(self.endpoint).netloc:
                raise ClientError(f"the server's list goes on at another server: {urlsplit(link).netloc}")
            page = _document(self._request(HttpRequest("GET", link)))

    def put(self, path: str, body: Json) -> Json:
        """Create or change a resource, wait until that is done, and return it as it is then.

        Raises `RequestRefused` for a refusal at once and for a failure on the way.
        """
        self._until_done(self._build("PUT", path, body))
        return self.get(path)

    def post(self, path: str, body: Json | None = None) -> Json:
        """Carry out an action, wait until that is done, and return its result ({} for none)."""
        return self._until_done(self._build("POST", path, body))

    def delete(self, path: str) -> None:
        """Delete a resource, and wait until that is done; one that is not there is no error."""
        self._until_done(self._build("DELETE", path, None))

    def _send(self, method: str, path: str) -> HttpResponse:
        return self._request(self._build(method, path, None))

    def _build(self, method: str, path: str, body: Json | None) -> HttpRequest:
        url = f"{self.endpoint}{quote(path)}"
        return HttpRequest(method, url, params={"api-version": _api_version(path)}, json=body)

    def _request(self, request: HttpRequest) -> HttpResponse:
        try:
            response: HttpResponse = self._client.send_request(request)
            response.raise_for_status()
        except AzureError as error:
            raise self._translated(error) from error
        return response

    def _until_done(self, request: HttpRequest) -> Json:
        try:
            # The poller needs the pipeline's own answer, of which the new interface gives the inner part only.
            first = self._client.send_request(request, _return_pipeline_response=True)
            first.http_response.raise_for_status()
            if first.http_response.status_code not in (201, 202) and request.method != "DELETE":
                # Done at once; a 200 with a state that is not final is polled below.
                document = _document(first.http_response)
                if _final(document):
                    return document
            poller: LROPoller[Any] = LROPoller(
                self._client, first, lambda answer: answer.http_response, ARMPolling(POLL_SECONDS)
            )
            answer = poller.result()
        except AzureError as error:
            raise self._translated(error) from error
        return _document(answer) if answer is not None else {}

    def _translated(self, error: AzureError) -> ClientError:
        """Return our error for azure-core's. No message of it holds a secret: ARM's errors name fields, not values."""
        if isinstance(error, ClientAuthenticationError) and isinstance(error.__cause__, ServiceRequestError):
            error = error.__cause__  # azure-identity says that signing in failed where nobody answered
        if isinstance(error, ClientAuthenticationError) and error.response is None:
            return AccessDenied(
                f"{self.endpoint} does not let us sign in: {_first_line(error)}",
                hint="The ready file is of an earlier start, or of another server",
            )
        if isinstance(error, HttpResponseError) and error.response is not None:
            return _refusal(error)
        reason = _first_line(error)
        hint = "Is `strongroom serve` running there?" if isinstance(error, ServiceRequestError) else ""
        if "CERTIFICATE_VERIFY_FAILED" in reason:
            hint = f"The server's certificate is not of the authority in {self._ca_file}: is it another server?"
        return ServerUnreachable(f"{self.endpoint} does not answer: {reason}", hint=hint)


def _api_version(path: str) -> str:
    provider = path.lower().rpartition("/providers/")[2].split("/")[0] if "/providers/" in path.lower() else ""
    return API_VERSIONS.get(provider, API_VERSIONS["microsoft.resources"])


def _document(response: HttpResponse) -> Json:
    if not response.content:
        return {}
    try:
        found = response.json()
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ClientError("the server answered with something else than a JSON object", hint="Is it Strongroom?")
    return found


def _final(document: Json) -> bool:
    properties = document.get("properties")
    state = properties.get("provisioningState") if isinstance(properties, dict) else None
    return state in (None, "Succeeded", "Failed", "Canceled")


def _refusal(error: HttpResponseError) -> ClientError:
    """Return our error for ARM's: that of an answer, or of an operation that failed while it was polled."""
    said = _said(error)
    status = error.status_code or 0
    code = str(said.get("code") or status)
    message = f"{code}: {said.get('message') or _first_line(error)}"
    hint = _hint(said)
    if status in (401, 403):
        return AccessDenied(message, hint=hint)
    if status == 503:
        return ServerUnreachable(message, hint=hint or "Try again")
    # A failure that was found while polling comes with the 200 of the poll.
    target = str(said.get("target") or "")
    return RequestRefused(
        message,
        code=code,
        status=0 if status < 400 else status,
        target=target,
        hint=hint,
        problems=problems_of_answer(said),
    )


def _said(error: HttpResponseError) -> Json:
    try:
        found = error.response.json()["error"]  # type: ignore[union-attr]
    except (AttributeError, ValueError, KeyError, TypeError):
        return {}  # not ARM's words: the status and azure-core's own have to do
    return found if isinstance(found, dict) else {}


def _hint(said: Json) -> str:
    """Return what the server recommends: Azure's `UserFacingError` among the error's additional information."""
    for more in said.get("additionalInfo") or ():
        info = more.get("info") if isinstance(more, dict) else None
        actions = info.get("recommendedAction") if isinstance(info, dict) else None
        if isinstance(actions, list) and actions:
            return " ".join(str(action) for action in actions)
    return ""


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0]
