"""Where an API server is and how to prove who we are: read from a kubeconfig or from a pod's ServiceAccount.

A kubeconfig is taken here as its owner's own file: its exec plugin is run and its paths are read. One that somebody
sent must be checked before it comes here (design.md section 8).
"""

import base64
import ipaddress
import os
import ssl
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import lightkube.core.exceptions
import msgspec
import yaml
from lightkube.config.client_adapter import verify_cluster
from lightkube.config.kubeconfig import SERVICE_ACCOUNT, KubeConfig, SingleConfig
from lightkube.config.models import User

from strongroom.dataplane.kube.credentials import (
    Credentials,
    ExecCredentials,
    ExecPlugin,
    NoCredentials,
    StaticCredentials,
    TokenFileCredentials,
)
from strongroom.dataplane.kube.errors import KubeconfigInvalid

DEFAULT_KUBECONFIG: Final = "~/.kube/config"
_CLUSTER_PATHS: Final = ("certificate-authority",)
_USER_PATHS: Final = ("client-certificate", "client-key", "tokenFile")


@dataclass(frozen=True, slots=True)
class ClusterAccess:
    """All that a connection to one API server needs. *warnings* are for the user: what is unsafe in it.

    *refuse_address* is asked for each IP address just before it is connected to, whatever DNS says by then: the reason
    why that may not be, or "". A proxy's address is asked for, not the one behind it.
    """

    server: str
    tls: ssl.SSLContext | None
    credentials: Credentials
    namespace: str = "default"
    tls_server_name: str | None = None
    proxy: str | None = None
    compression: bool = True
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    warnings: tuple[str, ...] = ()
    refuse_address: Callable[[str], str] | None = None


class _ClusterExtras(msgspec.Struct, frozen=True, rename="kebab"):
    """Fields of a cluster entry that lightkube does not read."""

    disable_compression: bool = False
    proxy_url: str | None = None
    tls_server_name: str | None = None


class _UserExtras(msgspec.Struct, frozen=True):
    """Impersonation: left out, requests would run with more rights than the kubeconfig means."""

    as_: str | None = msgspec.field(default=None, name="as")
    as_uid: str | None = msgspec.field(default=None, name="as-uid")
    as_groups: list[str] = msgspec.field(default_factory=list, name="as-groups")
    as_user_extra: dict[str, list[str]] = msgspec.field(default_factory=dict, name="as-user-extra")


def load_kubeconfig(path: Path | None = None, context: str | None = None) -> ClusterAccess:
    """Return how to reach the cluster of *context* (default: the file's current one).

    Without *path* the files of `KUBECONFIG` are merged as kubectl does it (the first mention of a name wins), else
    `~/.kube/config` is read. Raises `KubeconfigInvalid`, which names the field.
    """
    document, config, name = _chosen(path, context)
    found = config.contexts[name]
    chosen = config.get(name)
    assert chosen is not None
    return _access(chosen, _entry(document, "clusters", found.cluster), _entry(document, "users", found.user))


def read_entries(path: Path | None, context: str | None) -> tuple[dict[str, Any], dict[str, Any], str, str]:
    """Return the cluster and the user of *context* as they stand in the file, and what messages call the two.

    Paths in them are absolute. Finds the file and raises as `load_kubeconfig` does. The user holds secrets.
    """
    document, config, name = _chosen(path, context)
    found = config.contexts[name]
    cluster, user = (_entry(document, *pair) for pair in (("clusters", found.cluster), ("users", found.user)))
    return dict(cluster), dict(user), f"clusters[{found.cluster}].cluster", f"users[{found.user}].user"


def _chosen(path: Path | None, context: str | None) -> tuple[dict[str, Any], KubeConfig, str]:
    """Return the merged document, its value, and the name of the chosen context, whose cluster and user exist."""
    if path is not None:
        paths = [path]
    else:
        given = [Path(part) for part in os.environ.get("KUBECONFIG", "").split(os.pathsep) if part]
        paths = [part for part in given if part.exists()] or given[:1] or [Path(DEFAULT_KUBECONFIG).expanduser()]
    document = _merge([_read(part) for part in paths])
    source = ", ".join(str(part) for part in paths)
    try:
        config = KubeConfig.from_dict(document)
    except msgspec.ValidationError as error:
        raise KubeconfigInvalid(f"kubeconfig {source}: {error}", field=_at(error)) from error
    name = context or config.current_context
    if not name:
        raise KubeconfigInvalid(
            f"kubeconfig {source} has no current context", field="current-context", hint="Name one with --context"
        )
    found = config.contexts.get(name)
    if found is None:
        known = ", ".join(sorted(config.contexts)) or "none"
        raise KubeconfigInvalid(
            f"kubeconfig {source} has no context {name!r}", field=f"contexts[{name}]", hint=f"It has: {known}"
        )
    for section, wanted in (("clusters", found.cluster), ("users", found.user)):
        if wanted and wanted not in getattr(config, section):
            message = f"context {name!r} of kubeconfig {source} names {wanted!r}, which is not among its {section}"
            raise KubeconfigInvalid(message, field=f"{section}[{wanted}]")
    return document, config, name


def load_in_cluster(account: Path = Path(SERVICE_ACCOUNT)) -> ClusterAccess:
    """Return how a pod reaches its own cluster: its ServiceAccount's token file, read again as the kubelet renews it.

    Raises `KubeconfigInvalid` outside of a pod.
    """
    try:
        config = KubeConfig.from_service_account(account).get()
    except (lightkube.core.exceptions.ConfigError, KeyError) as error:
        raise KubeconfigInvalid(
            f"not inside a cluster: {error}", field=str(account), hint="Give a kubeconfig instead"
        ) from error
    assert config is not None
    return _access(config, {}, {})


def is_loopback(server: str) -> bool:
    """Tell whether *server* (a URL) is this machine, without asking DNS."""
    host = urlsplit(server).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _read(path: Path) -> dict[str, Any]:
    """Return one file's document with its relative paths made absolute against its own folder."""
    try:
        document = yaml.safe_load(path.expanduser().read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise KubeconfigInvalid(f"cannot read kubeconfig {path}: {error}", field=str(path)) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""  # the error's own text quotes the file: it may hold a key
        raise KubeconfigInvalid(f"kubeconfig {path} is no YAML{where}", field=str(path)) from None
    if not isinstance(document, dict):
        raise KubeconfigInvalid(f"kubeconfig {path} is no mapping", field=str(path))
    folder = path.expanduser().absolute().parent
    for section, singular, paths in (("clusters", "cluster", _CLUSTER_PATHS), ("users", "user", _USER_PATHS)):
        for entry in _entries(document, section, singular, path):
            body = entry[singular]
            for key in paths:
                if isinstance(body.get(key), str) and body[key]:
                    body[key] = str(folder / body[key])
            plugin = body.get("exec")
            if isinstance(plugin, dict) and "/" in str(plugin.get("command", "")):
                plugin["command"] = str(folder / plugin["command"])
    _entries(document, "contexts", "context", path)
    return document


def _entries(document: dict[str, Any], section: str, singular: str, path: Path) -> list[dict[str, Any]]:
    entries = document.get(section) or []
    document[section] = entries
    if not isinstance(entries, list):
        raise KubeconfigInvalid(f"{section} of kubeconfig {path} is no list", field=section)
    for number, entry in enumerate(entries):
        where = f"{section}[{number}]"
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            raise KubeconfigInvalid(f"{where} of kubeconfig {path} has no name", field=f"{where}.name")
        entry[singular] = entry.get(singular) or {}
        if not isinstance(entry[singular], dict):
            raise KubeconfigInvalid(
                f"{where}.{singular} of kubeconfig {path} is no mapping", field=f"{where}.{singular}"
            )
    return entries


def _merge(documents: list[dict[str, Any]]) -> dict[str, Any]:
    merged: dict[str, Any] = {"clusters": [], "contexts": [], "users": []}
    for document in documents:
        merged["current-context"] = merged.get("current-context") or document.get("current-context")
        for section in ("clusters", "contexts", "users"):
            known = {entry["name"] for entry in merged[section]}
            merged[section] += [entry for entry in document[section] if entry["name"] not in known]
    return merged


def _entry(document: Mapping[str, Any], section: str, name: str | None) -> Mapping[str, Any]:
    for entry in document[section]:
        if entry["name"] == name:
            found: Mapping[str, Any] = entry[section.removesuffix("s")]
            return found
    return {}


def _access(config: SingleConfig, cluster: Mapping[str, Any], user: Mapping[str, Any]) -> ClusterAccess:
    at_cluster = f"clusters[{config.context.cluster}].cluster"
    at_user = f"users[{config.context.user}].user"
    try:
        extras = msgspec.convert(cluster, _ClusterExtras)
        impersonation = msgspec.convert(user, _UserExtras)
    except msgspec.ValidationError as error:
        raise KubeconfigInvalid(f"context {config.context_name!r}: {error}", field=_at(error)) from error
    server = config.cluster.server.rstrip("/")
    parts = urlsplit(server)
    if parts.scheme not in ("https", "http") or not parts.hostname:
        raise KubeconfigInvalid(f"{at_cluster}.server is no http(s) URL: {server!r}", field=f"{at_cluster}.server")
    proxy = extras.proxy_url or _environment_proxy(server)
    if proxy and urlsplit(proxy).scheme not in ("http", "https"):
        raise KubeconfigInvalid(
            f"{at_cluster}.proxy-url has a scheme that is not supported", field=f"{at_cluster}.proxy-url"
        )
    warnings = []
    if config.cluster.insecure:
        if config.cluster.certificate_auth or config.cluster.certificate_auth_data:
            message = f"{at_cluster} has both a certificate authority and insecure-skip-tls-verify"
            raise KubeconfigInvalid(message, field=f"{at_cluster}.insecure-skip-tls-verify")
        warnings.append(f"the certificate of {server} is not verified: {at_cluster}.insecure-skip-tls-verify is set")
    credentials = _credentials(config.user or User(), at_user, server)
    if parts.scheme == "http":
        warnings.append(f"the connection to {server} is not encrypted")
    return ClusterAccess(
        server=server,
        tls=_tls(config, at_cluster, at_user) if parts.scheme == "https" else None,
        credentials=credentials,
        namespace=config.namespace,
        tls_server_name=extras.tls_server_name,
        proxy=proxy,
        # On loopback compressing may cost the API server 2.5 times the CPU: docs/reference/kubernetes-access.md
        compression=not extras.disable_compression and not is_loopback(server),
        headers=tuple(_impersonation_headers(impersonation, at_user)),
        warnings=tuple(warnings),
    )


def _at(error: msgspec.ValidationError) -> str:
    """Return the field that msgspec complains of: it ends its messages with "- at `$.field`"."""
    return str(error).rpartition("at `$")[2].strip("`.")


def _tls(config: SingleConfig, at_cluster: str, at_user: str) -> ssl.SSLContext:
    try:
        context = verify_cluster(config.cluster, config.user or User(), config.abs_file)
    except (OSError, ValueError, TypeError, lightkube.core.exceptions.ConfigError) as error:
        # TypeError: a certificate without its key. The text of an ssl.SSLError holds no key material.
        at = at_user if config.user and (config.user.client_cert or config.user.client_cert_data) else at_cluster
        if config.cluster.certificate_auth and not Path(config.cluster.certificate_auth).is_file():
            at = f"{at_cluster}.certificate-authority"
        raise KubeconfigInvalid(f"the certificates of {at} cannot be used: {error}", field=at) from error
    # Python 3.13 turned this on by default; authorities of clusters often lack the extensions that it demands, and
    # kubectl does not demand them either.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def _credentials(user: User, at_user: str, server: str) -> Credentials:
    """Choose as kubectl does: a token file goes before a token, these before a password, an exec plugin last."""
    if user.auth_provider:
        raise KubeconfigInvalid(
            f"{at_user}.auth-provider is not supported", field=f"{at_user}.auth-provider", hint="Use an exec plugin"
        )
    if user.token_file:
        return TokenFileCredentials(Path(user.token_file))
    if user.token:
        return StaticCredentials(f"Bearer {user.token}")
    if user.username and user.password:
        pair = base64.b64encode(f"{user.username}:{user.password}".encode()).decode()
        return StaticCredentials(f"Basic {pair}")
    if user.exec:
        environment = {variable.name: variable.value for variable in user.exec.env or []}
        plugin = ExecPlugin(
            api_version=user.exec.apiVersion,
            command=(user.exec.command, *(user.exec.args or [])),
            environment=environment,
            install_hint=user.exec.installHint or "",
            field=f"{at_user}.exec",
            server=server,
        )
        return ExecCredentials(plugin)
    return NoCredentials()


def _impersonation_headers(user: _UserExtras, at_user: str) -> list[tuple[str, str]]:
    if user.as_ is None:
        if user.as_groups or user.as_uid or user.as_user_extra:
            raise KubeconfigInvalid(f"{at_user} impersonates groups without a user", field=f"{at_user}.as")
        return []
    headers = [("Impersonate-User", user.as_)]
    headers += [("Impersonate-Group", group) for group in user.as_groups]
    headers += [("Impersonate-Uid", user.as_uid)] if user.as_uid else []
    headers += [(f"Impersonate-Extra-{key}", value) for key, values in user.as_user_extra.items() for value in values]
    return headers


def _environment_proxy(server: str) -> str | None:
    """Return what HTTPS_PROXY and NO_PROXY say of *server*; as in Go's clients loopback is never proxied."""
    parts = urlsplit(server)
    if is_loopback(server) or urllib.request.proxy_bypass(parts.netloc):
        return None
    return urllib.request.getproxies_environment().get(parts.scheme)
