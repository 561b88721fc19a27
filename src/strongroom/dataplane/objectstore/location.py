"""Reads the URL of an object store. Pure: opening it is `opening.py`'s task.

A URL never carries credentials: it ends up in logs, shell histories and manifests. They come from the environment
variables that the provider's own tools read, and a URL that holds any is refused without being repeated.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit

from strongroom.dataplane.objectstore.errors import StoreMisused
from strongroom.dataplane.objectstore.port import parse_key

FORMS = "file:///path, memory://name, az://account/container/prefix, s3://bucket/prefix, gs://bucket/prefix"

# Learn: "Naming rules for Azure resources", Microsoft.Storage; a sovereign cloud or Azurite keeps them.
_AZURE_ACCOUNT = re.compile(r"[a-z0-9]{3,24}", re.ASCII)
_AZURE_CONTAINER = re.compile(r"(?=.{3,63}$)[a-z0-9]+(-[a-z0-9]+)*", re.ASCII)
# S3's "General purpose bucket naming rules"; GCS adds the underscore and lengths up to 222 for names with dots.
_S3_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", re.ASCII)
_GCS_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]", re.ASCII)
_REGION = re.compile(r"[a-z0-9-]{1,64}", re.ASCII)
_MEMORY_NAME = re.compile(r"[A-Za-z0-9._-]{1,128}", re.ASCII)

# Query parameters by which other tools carry secrets: SAS tokens, signed URLs, access keys.
_SECRET_PARAMETER = re.compile(r"sig|signature|s[vpretksi]|.*(key|secret|token|password|credential|signature).*", re.I)

VARIABLES = {
    "az": "AZURE_STORAGE_ACCOUNT_KEY, AZURE_STORAGE_SAS_TOKEN or the AZURE_* variables of an identity",
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_ROLE_ARN with AWS_WEB_IDENTITY_TOKEN_FILE",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
}
"""The environment variables that hold credentials, by URL scheme, as said to users."""


@dataclass(frozen=True, slots=True)
class FileLocation:
    """A folder of this machine; *path* is absolute."""

    path: Path

    @property
    def url(self) -> str:
        return f"file://{quote(str(self.path))}"


@dataclass(frozen=True, slots=True)
class MemoryLocation:
    """A named store in this process's memory."""

    name: str

    @property
    def url(self) -> str:
        return f"memory://{self.name}"


@dataclass(frozen=True, slots=True)
class AzureLocation:
    """Keys under *prefix* (no slash at its ends, perhaps empty) of a container; *endpoint* None is the public cloud."""

    account: str
    container: str
    prefix: str
    endpoint: str | None = None

    @property
    def url(self) -> str:
        return _join("az", self.account, self.container, self.prefix, endpoint=self.endpoint)


@dataclass(frozen=True, slots=True)
class S3Location:
    """Keys under *prefix* of a bucket; *endpoint* None is AWS, *region* None is what the environment says."""

    bucket: str
    prefix: str
    endpoint: str | None = None
    region: str | None = None

    @property
    def url(self) -> str:
        return _join("s3", self.bucket, self.prefix, endpoint=self.endpoint, region=self.region)


@dataclass(frozen=True, slots=True)
class GcsLocation:
    """Keys under *prefix* of a bucket; *endpoint* None is Google's."""

    bucket: str
    prefix: str
    endpoint: str | None = None

    @property
    def url(self) -> str:
        return _join("gs", self.bucket, self.prefix, endpoint=self.endpoint)


Location = FileLocation | MemoryLocation | AzureLocation | S3Location | GcsLocation


def parse_location(url: str) -> Location:
    """Return where *url* points, or raise `StoreMisused` saying what is wrong and what would be right.

    The message repeats the URL only where it holds no credentials.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        # Not chained: it repeats what stands after the first colon, which may be a secret key with a slash in it.
        raise StoreMisused(
            "the repository URL cannot be read", hint=f"Write one of {FORMS}, with no user or password"
        ) from None
    scheme = parts.scheme
    if scheme not in ("file", "memory", "az", "s3", "gs"):
        raise StoreMisused(_describe_foreign(parts), hint=f"Write one of {FORMS}")
    parameters = _parameters(parts)
    if parts.fragment:
        raise StoreMisused(f"a {scheme}:// URL has no part after '#'", hint=f"Write one of {FORMS}")
    if port is not None:
        raise StoreMisused(
            f"a {scheme}:// URL names no port", hint="Name a server of your own by ?endpoint=https://host:port"
        )
    match scheme:
        case "file":
            return _file(parts, parameters)
        case "memory":
            _allow(scheme, parameters, ())
            if not _MEMORY_NAME.fullmatch(parts.netloc) or parts.path.strip("/"):
                raise StoreMisused("a memory store is named by letters, digits, . _ -", hint="Write memory://name")
            return MemoryLocation(parts.netloc)
        case "az":
            _allow(scheme, parameters, ("endpoint",))
            container, _, prefix = parts.path.lstrip("/").partition("/")
            _check(_AZURE_ACCOUNT, parts.netloc, "an Azure storage account name", "az://account/container/prefix")
            _check(_AZURE_CONTAINER, container, "an Azure container name", "az://account/container/prefix")
            return AzureLocation(parts.netloc, container, _prefix(prefix), _endpoint(scheme, parameters))
        case "s3":
            _allow(scheme, parameters, ("endpoint", "region"))
            _check(_S3_BUCKET, parts.netloc, "an S3 bucket name", "s3://bucket/prefix")
            region = parameters.get("region")
            if region is not None:
                _check(_REGION, region, "an S3 region", "s3://bucket/prefix?region=eu-west-1")
            return S3Location(parts.netloc, _prefix(parts.path), _endpoint(scheme, parameters), region)
        case _:
            _allow(scheme, parameters, ("endpoint",))
            _check(_GCS_BUCKET, parts.netloc, "a GCS bucket name", "gs://bucket/prefix")
            return GcsLocation(parts.netloc, _prefix(parts.path), _endpoint(scheme, parameters))


def _describe_foreign(parts: SplitResult) -> str:
    if parts.scheme in ("http", "https"):
        # Its query may be a signature: not repeated.
        return "an https:// URL does not say which kind of store answers there"
    if parts.scheme:
        return f"{parts.scheme}:// is not a kind of store that Strongroom knows"
    return "a repository is named by a URL, for a folder by file:// and its absolute path"


def _parameters(parts: SplitResult) -> dict[str, str]:
    """Return the query, refusing anything in the URL that looks like a credential."""
    variables = VARIABLES.get(parts.scheme, "nothing: this kind of store needs no credentials")
    if "@" in parts.netloc:
        raise StoreMisused("the repository URL holds a user or password before '@'", hint=_instead(variables))
    parameters: dict[str, str] = {}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if _SECRET_PARAMETER.fullmatch(name):
            raise StoreMisused(
                f"the repository URL holds a credential in its parameter {name!r}", hint=_instead(variables)
            )
        if name in parameters:
            raise StoreMisused(f"the repository URL says {name!r} twice")
        parameters[name] = value
    return parameters


def _instead(variables: str) -> str:
    return f"Take it out (it may stand in your shell history now: consider it known) and set {variables}"


def _allow(scheme: str, parameters: dict[str, str], allowed: tuple[str, ...]) -> None:
    for name in parameters:
        if name not in allowed:
            known = " and ".join(f"?{one}=" for one in allowed) or "no parameter"
            raise StoreMisused(f"a {scheme}:// URL has no parameter {name!r}", hint=f"It takes {known}")


def _check(pattern: re.Pattern[str], text: str, what: str, form: str) -> None:
    if not pattern.fullmatch(text):
        raise StoreMisused(f"{text!r} is not {what}", hint=f"Write {form}")


def _prefix(path: str) -> str:
    """Return the folder part of a URL without slashes at its ends; it is made of key segments, or empty."""
    prefix = unquote(path).strip("/")
    if prefix:
        parse_key(prefix)
    return prefix


def _endpoint(scheme: str, parameters: dict[str, str]) -> str | None:
    """Return the endpoint without a slash at its end. Plain http is allowed here only, where somebody wrote it."""
    endpoint = parameters.get("endpoint")
    if endpoint is None:
        return None
    try:
        parts = urlsplit(endpoint)
        host = parts.hostname
        _ = parts.port  # raises where it is not a number
    except ValueError:
        raise StoreMisused(
            "the endpoint in the repository URL cannot be read", hint="Write ?endpoint=https://host[:port][/path]"
        ) from None
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise StoreMisused(
            "the endpoint in the repository URL holds a user, a query or a fragment",
            hint=f"Write ?endpoint=https://host[:port][/path] and set {VARIABLES[scheme]}",
        )
    if parts.scheme not in ("http", "https") or not host:
        raise StoreMisused(
            f"{endpoint!r} is not an endpoint", hint="Write ?endpoint=https://host[:port][/path] (or http://)"
        )
    return endpoint.rstrip("/")


def _file(parts: SplitResult, parameters: dict[str, str]) -> FileLocation:
    _allow("file", parameters, ())
    if parts.netloc not in ("", "localhost"):
        raise StoreMisused(
            f"file://{parts.netloc}… names a host, not a folder",
            hint="Write file:// and an absolute path: file:///path",
        )
    path = unquote(parts.path)
    if not path.startswith("/") or "\0" in path:
        raise StoreMisused("a file:// URL holds an absolute path", hint="Write file:///path")
    return FileLocation(Path(path))


def _join(scheme: str, *parts: str, **parameters: str | None) -> str:
    query = urlencode({name: value for name, value in parameters.items() if value is not None}, safe=":/")
    return f"{scheme}://{'/'.join(part for part in parts if part)}{'?' + query if query else ''}"
