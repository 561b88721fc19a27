"""Reads a kubeconfig that a user sent: untrusted input, from which nothing but inline values is taken.

A kubeconfig can name programs to run, files to read, proxies and names of other users. On the server each of these
would act with the server's rights, not the sender's, so the whole field is refused, by name, and so is every field that
this module does not know. Only the chosen context's cluster and user are looked at. Pure: no file, no DNS, no network;
the address that a name stands for is judged when it is connected to (`addresses.py`).
"""

import base64
import binascii
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

import yaml

from strongroom.controlplane.clusters.errors import KubeconfigRefused, translated
from strongroom.dataplane.kube.config import ClusterAccess as KubeAccess
from strongroom.dataplane.kube.credentials import Credentials, StaticCredentials
from strongroom.dataplane.kube.inline import inline_access
from strongroom.protection.addresses import refused_address

MAX_BYTES: Final = 128 * 1024  # a context with its certificates takes 10 KB; a file of many clusters may hold a dozen
MAX_DEPTH: Final = 16  # a kubeconfig has 4 levels; a thousand would end PyYAML in a RecursionError
MAX_NODES: Final = 20_000  # keeps the parser's time below a second
MAX_TOKEN: Final = 16 * 1024  # characters; API servers stop reading headers earlier
MAX_HOST: Final = 253  # characters of a DNS name: RFC 1035
_SHOWN: Final = 60  # characters of a user's name, path or address that a message repeats

TOKEN: Final = re.compile(r"[!-~]+")  # what an Authorization header can carry
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?\.?")
_URL_PATH = re.compile(r"(/[A-Za-z0-9._~:-]+)*/?")
# https://url.spec.whatwg.org/#ends-in-a-number-checker: the C library reads such a "name" as an IPv4 address.
_ENDS_IN_NUMBER = re.compile(r"(?:.*\.)?(?:[0-9]+|0[xX][0-9A-Fa-f]*)\.?")

_INLINE: Final = (
    "The field is left out; certificates, key and token stand inline (`kubectl config view --minify --flatten`)"
)
_CREDENTIAL: Final = "A client-certificate-data with its client-key-data, or a token"
_WHY: Final[Mapping[str, tuple[str, str]]] = {
    "certificate-authority": ("a path of a file", "The certificate inline, as certificate-authority-data"),
    "client-certificate": ("a path of a file", "The certificate inline, as client-certificate-data"),
    "client-key": ("a path of a file", "The key inline, as client-key-data"),
    "tokenFile": ("a path of a file", "The token inline, as token"),
    "insecure-skip-tls-verify": (
        "the server's certificate would not be verified",
        "The field is left out, and certificate-authority-data holds the authority",
    ),
    "proxy-url": ("a proxy", "The field is left out: the server connects directly"),
    "tls-server-name": ("another name than the server's", "A server URL whose name or address its certificate has"),
    "exec": (
        "a program that would run on the server",
        f"{_CREDENTIAL}; `strongroom cluster connect` runs the program on your side and makes one",
    ),
    "auth-provider": ("an authentication plugin", _CREDENTIAL),
    "username": ("a user name and password", _CREDENTIAL),
    "password": ("a user name and password", _CREDENTIAL),
    "as": ("impersonation", "Credentials that have the rights themselves"),
    "as-uid": ("impersonation", "Credentials that have the rights themselves"),
    "as-groups": ("impersonation", "Credentials that have the rights themselves"),
    "as-user-extra": ("impersonation", "Credentials that have the rights themselves"),
}
"""Fields of a kubeconfig (k8s.io/client-go, tools/clientcmd/api/v1/types.go) that are refused: what stands there, and
what is accepted instead."""

_CLUSTER_FIELDS: Final = frozenset(("server", "certificate-authority-data", "disable-compression", "extensions"))
_USER_FIELDS: Final = frozenset(("client-certificate-data", "client-key-data", "token", "extensions"))
_CONTEXT_FIELDS: Final = frozenset(("cluster", "user", "namespace", "extensions"))


@dataclass(frozen=True, slots=True)
class AdminConnection:
    """How to reach a cluster as its administrator, once, in memory. Certificates and key are PEM, or empty.

    *server* is an https URL without a user, query or fragment. No `repr` shows a secret.
    """

    server: str
    ca: bytes = field(repr=False)
    client_certificate: bytes = field(default=b"", repr=False)
    client_key: bytes = field(default=b"", repr=False)
    token: str = field(default="", repr=False)
    allow_loopback: bool = False

    def kube_access(self) -> KubeAccess:
        """Return the connection's parts for a `KubeApi`. Raises `KubeconfigRefused` for certificates that are none."""
        credentials = StaticCredentials(f"Bearer {self.token}") if self.token else None
        return kube_access(
            self.server,
            self.ca,
            credentials,
            allow_loopback=self.allow_loopback,
            certificate=self.client_certificate,
            key=self.client_key,
        )


def kube_access(
    server: str,
    ca: bytes,
    credentials: Credentials | None,
    *,
    allow_loopback: bool,
    certificate: bytes = b"",
    key: bytes = b"",
) -> KubeAccess:
    """Return access to a connected cluster under the address rule. Raises `KubeconfigRefused`."""
    with translated("use the kubeconfig"):
        return inline_access(
            server,
            ca,
            credentials,
            certificate=certificate,
            key=key,
            refuse_address=lambda address: refused_address(address, allow_loopback=allow_loopback),
        )


def parse_kubeconfig(raw: bytes, context: str | None = None, *, allow_loopback: bool) -> AdminConnection:
    """Return the connection of *context* (default: the current one) of the kubeconfig *raw*, YAML or JSON.

    *allow_loopback* permits loopback addresses, for a server that itself listens on loopback alone. Raises
    `KubeconfigRefused` for anything else than plain inline values, naming the field.
    """
    document = _document(raw)
    name = context or document.get("current-context")
    if not isinstance(name, str) or not name:
        raise KubeconfigRefused("current-context", "there is none", "The name of a context of the file")
    chosen = _named(document, "contexts", "context", name)
    at = f"contexts[{_shown(name)}].context"
    _known_fields(chosen, at, _CONTEXT_FIELDS)
    cluster_name, user_name = (_text(chosen, key, at) for key in ("cluster", "user"))
    if not cluster_name or not user_name:
        key = "user" if cluster_name else "cluster"
        raise KubeconfigRefused(f"{at}.{key}", "it is missing", f"The name of a {key} of the file")
    cluster = _named(document, "clusters", "cluster", cluster_name)
    user = _named(document, "users", "user", user_name)
    at_cluster, at_user = f"clusters[{_shown(cluster_name)}].cluster", f"users[{_shown(user_name)}].user"
    _known_fields(cluster, at_cluster, _CLUSTER_FIELDS)
    _known_fields(user, at_user, _USER_FIELDS)
    server = _server(_text(cluster, "server", at_cluster), f"{at_cluster}.server", allow_loopback=allow_loopback)
    ca = _pem(cluster, "certificate-authority-data", at_cluster)
    if not ca:
        accepted = "The certificate of the authority that signed the API server's, base64 of PEM"
        raise KubeconfigRefused(f"{at_cluster}.certificate-authority-data", "it is missing", accepted)
    certificate, key_pem = (_pem(user, key, at_user) for key in ("client-certificate-data", "client-key-data"))
    token = _token(user, at_user)
    if bool(certificate) != bool(key_pem):
        key = "client-key-data" if certificate else "client-certificate-data"
        raise KubeconfigRefused(f"{at_user}.{key}", "it is missing", _CREDENTIAL)
    if not certificate and not token:
        raise KubeconfigRefused(at_user, "it holds no credential", _CREDENTIAL)
    connection = AdminConnection(server, ca, certificate, key_pem, token, allow_loopback)
    try:
        connection.kube_access()  # certificates that OpenSSL does not take are refused now, not when somebody waits
    except KubeconfigRefused as error:
        at = f"{at_cluster}.certificate-authority-data" if error.field == "ca" else f"{at_user}.client-certificate-data"
        raise KubeconfigRefused(at, error.found, error.accepted) from error
    return connection


class _Refusing(yaml.SafeLoader):
    """YAML without what can make a small file large or a scalar a surprise: no anchors, no tags, no depth."""

    depth = 0
    nodes = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise KubeconfigRefused("", "it has a YAML anchor or alias", "YAML or JSON without anchors")
        if getattr(event, "tag", None) is not None:
            raise KubeconfigRefused("", "it has a YAML tag", "YAML or JSON without tags")
        self.nodes += 1
        self.depth += 1
        if self.depth > MAX_DEPTH or self.nodes > MAX_NODES:
            raise KubeconfigRefused("", "it is nested too deep or has too many entries", "A kubeconfig of one cluster")
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


# Numbers, times and merge keys stay the text that they are: no field that is taken holds one.
_Refusing.yaml_implicit_resolvers = {
    first: kept
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    if (kept := [pair for pair in resolvers if pair[0] in ("tag:yaml.org,2002:null", "tag:yaml.org,2002:bool")])
}


def _document(raw: bytes) -> dict[str, Any]:
    if len(raw) > MAX_BYTES:
        raise KubeconfigRefused(
            "", f"it has {len(raw)} bytes", f"At most {MAX_BYTES} bytes: `kubectl config view --minify --flatten`"
        )
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise KubeconfigRefused("", "it is no UTF-8 text", "YAML or JSON in UTF-8") from None
    try:
        # S506 is about loaders that make any Python object: this one is a narrowed SafeLoader.
        document = yaml.load(text, Loader=_Refusing)  # noqa: S506
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        # The error's own text quotes the file, which may hold a key: not chained.
        raise KubeconfigRefused("", f"it is no YAML{where}", "YAML or JSON") from None
    if not isinstance(document, dict):
        raise KubeconfigRefused("", "it is no mapping", "A kubeconfig, as kubectl writes it")
    return document


def _named(document: Mapping[str, Any], section: str, singular: str, name: str) -> dict[str, Any]:
    """Return what *name* stands for in one of the file's three lists."""
    at = f"{section}[{_shown(name)}]"
    entries = document.get(section)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise KubeconfigRefused(section, "it is no list of mappings", "A kubeconfig, as kubectl writes it")
    found = [entry for entry in entries if entry.get("name") == name]
    if len(found) != 1:
        raise KubeconfigRefused(at, "there is none" if not found else "there are several", "One entry of that name")
    body = found[0].get(singular)
    if not isinstance(body, dict):
        raise KubeconfigRefused(f"{at}.{singular}", "it is no mapping", "A kubeconfig, as kubectl writes it")
    return body


def _known_fields(body: Mapping[str, Any], at: str, accepted: frozenset[str]) -> None:
    for key, value in body.items():
        if key in accepted or value in (None, "", False):
            continue
        found, instead = _WHY.get(str(key), ("a field that is not known here", _INLINE))
        raise KubeconfigRefused(f"{at}.{_shown(str(key))}", found, instead)


def _text(body: Mapping[str, Any], key: str, at: str) -> str:
    value = body.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise KubeconfigRefused(f"{at}.{key}", "it is no text", "A text")
    return value


def _pem(body: Mapping[str, Any], key: str, at: str) -> bytes:
    text = "".join(_text(body, key, at).split())
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise KubeconfigRefused(f"{at}.{key}", "it is no base64", "Base64 of PEM") from None
    if data and (b"-----BEGIN " not in data or not data.isascii()):
        raise KubeconfigRefused(f"{at}.{key}", "it is base64 of something that is no PEM", "Base64 of PEM")
    return data


def _token(user: Mapping[str, Any], at: str) -> str:
    token = _text(user, "token", at)
    if token and (len(token) > MAX_TOKEN or not TOKEN.fullmatch(token)):
        raise KubeconfigRefused(f"{at}.token", "it is too long or has characters that no token has", _CREDENTIAL)
    return token


def _server(server: str, at: str, *, allow_loopback: bool) -> str:
    accepted = "An https URL of the API server, without a user, query or fragment"
    try:
        parts = urlsplit(server)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise KubeconfigRefused(at, "it is no URL", accepted) from None
    if parts.scheme != "https":
        raise KubeconfigRefused(at, "it is no https URL", accepted)
    if parts.username is not None or parts.password is not None or "@" in server:
        raise KubeconfigRefused(at, "it holds a user or password", accepted)
    # A literal "?" or "#" counts also where nothing follows it, which urlsplit does not tell.
    if set(server) & set("?#\\") or any(not " " < letter < "\x7f" for letter in server) or port == 0:
        raise KubeconfigRefused(at, "it has parts or characters that no API server's URL has", accepted)
    if not _URL_PATH.fullmatch(parts.path) or ".." in parts.path.split("/") or "." in parts.path.split("/"):
        raise KubeconfigRefused(at, "it has a path that is not plain", accepted)
    try:
        ipaddress.ip_address(host)
    except ValueError:
        if len(host) > MAX_HOST or not _HOST.fullmatch(host) or _ENDS_IN_NUMBER.fullmatch(host):
            raise KubeconfigRefused(
                at, "its host is neither a name nor an IP address in its usual form", accepted
            ) from None
        bare = host.rstrip(".").lower()
        refused = f"{_shown(host)} is this machine" if bare == "localhost" or bare.endswith(".localhost") else ""
        refused = "" if allow_loopback else refused
    else:
        refused = refused_address(host, allow_loopback=allow_loopback)
    if refused:
        raise KubeconfigRefused(at, refused, "An address of a cluster that is not on this machine or its link")
    return f"https://{parts.netloc}{parts.path.rstrip('/')}"


def _shown(text: str) -> str:
    printable = "".join(letter if letter.isprintable() else "?" for letter in text)
    return printable if len(printable) <= _SHOWN else printable[:_SHOWN] + "…"
