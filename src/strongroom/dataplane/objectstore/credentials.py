"""Finds a provider's credentials in its usual environment variables, or checks those that a caller hands over.

The environment is asked before the first request: without this, a missing key shows as a minute of waiting for a
metadata server that only exists on the provider's own machines. Whoever means that server says so by naming it.
"""

from collections.abc import Mapping
from pathlib import Path

from strongroom.dataplane.objectstore.errors import StoreDenied, StoreMisused
from strongroom.dataplane.objectstore.location import AzureLocation, GcsLocation, S3Location

_Ways = tuple[tuple[str, ...], ...]
# Each line is one complete way; the names are those that obstore 0.12 reads by itself, except as said.
_AZURE: _Ways = (
    ("AZURE_STORAGE_ACCOUNT_KEY",),
    ("AZURE_STORAGE_ACCESS_KEY",),
    ("AZURE_STORAGE_KEY",),  # what the Azure CLI reads; handed on by us
    ("AZURE_STORAGE_SAS_TOKEN",),
    ("AZURE_STORAGE_SAS_KEY",),
    ("AZURE_STORAGE_TOKEN",),
    ("AZURE_CLIENT_ID", "AZURE_TENANT_ID", "AZURE_FEDERATED_TOKEN_FILE"),  # workload identity
    ("AZURE_CLIENT_ID", "AZURE_TENANT_ID", "AZURE_CLIENT_SECRET"),
    ("AZURE_CLIENT_ID",),  # a user-assigned managed identity
    ("AZURE_MSI_ENDPOINT",),
    ("IDENTITY_ENDPOINT",),
    ("AZURE_USE_AZURE_CLI",),
)
_S3: _Ways = (
    ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
    ("AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN"),
    ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",),
    ("AWS_CONTAINER_CREDENTIALS_FULL_URI",),
    ("AWS_METADATA_ENDPOINT",),
)
_GCS: _Ways = (
    ("GOOGLE_APPLICATION_CREDENTIALS",),
    ("GOOGLE_SERVICE_ACCOUNT",),
    ("GOOGLE_SERVICE_ACCOUNT_PATH",),
    ("GOOGLE_SERVICE_ACCOUNT_KEY",),
    ("GCE_METADATA_HOST",),
    ("GCE_METADATA_ROOT",),
)
# Where `gcloud auth application-default login` puts its file.
_GCLOUD_FILE = Path(".config/gcloud/application_default_credentials.json")

GIVEN: Mapping[str, _Ways] = {
    "az": (("accountKey",), ("sasToken",)),
    "s3": (("accessKeyId", "secretAccessKey"),),
    "gs": (("serviceAccountKey",),),
}
"""The names of credentials that a caller hands over, by URL scheme; each line is one complete way. `sasToken` is the
query of a SAS URL, `serviceAccountKey` the JSON text of a key file."""
_GIVEN_EXTRAS = {"s3": frozenset({"sessionToken"})}


def require_given(location: AzureLocation | S3Location | GcsLocation, credentials: Mapping[str, str]) -> None:
    """Raise `StoreDenied` unless *credentials* are one way of `GIVEN`, `StoreMisused` where they name anything else.

    The messages name the fields and never their values.
    """
    scheme = location.url.partition(":")[0]
    ways = GIVEN[scheme]
    accepted = " or ".join(" and ".join(way) for way in ways)
    known = frozenset(name for way in ways for name in way) | _GIVEN_EXTRAS.get(scheme, frozenset())
    if unknown := sorted(set(credentials) - known):
        raise StoreMisused(
            f"credentials for {location.url} have no field {unknown[0]!r}", hint=f"Give {accepted}", store=location.url
        )
    present = {name for name, value in credentials.items() if value}
    complete = [way for way in ways if present.issuperset(way)]
    if not complete:
        raise StoreDenied(f"no credentials were given for {location.url}", hint=f"Give {accepted}", store=location.url)
    if len(complete) > 1:
        raise StoreMisused(
            f"two kinds of credentials were given for {location.url}",
            hint=f"Give either {accepted}",
            store=location.url,
        )


def require_credentials(location: AzureLocation | S3Location | GcsLocation, environment: Mapping[str, str]) -> None:
    """Raise `StoreDenied` unless *environment* names some credentials for *location*; says nothing of their worth.

    A variable that names a file which is not there raises it too. `StoreMisused`: half of a pair is set.
    """
    match location:
        case AzureLocation():
            ways, extra = _AZURE, "; for a system-assigned managed identity AZURE_MSI_ENDPOINT"
            advice = (
                "Set AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN, or AZURE_CLIENT_ID with AZURE_TENANT_ID "
                "and AZURE_CLIENT_SECRET or AZURE_FEDERATED_TOKEN_FILE"
            )
        case S3Location():
            ways, extra = _S3, "; for an instance's own role AWS_METADATA_ENDPOINT"
            advice = "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_ROLE_ARN and AWS_WEB_IDENTITY_TOKEN_FILE"
        case GcsLocation():
            ways, extra = _GCS, "; for an instance's or pod's own account GCE_METADATA_HOST=metadata.google.internal"
            advice = "Set GOOGLE_APPLICATION_CREDENTIALS to a key file"
            home = environment.get("HOME")
            if home and (Path(home) / _GCLOUD_FILE).is_file():
                return
    for way in ways:
        if all(environment.get(name) for name in way):
            _require_files(way, environment, location.url)
            return
    for way in ways:
        present = [name for name in way if environment.get(name)]
        if present:
            absent = " and ".join(name for name in way if name not in present)
            raise StoreMisused(
                f"{present[0]} is set, but {absent} is not", hint=f"Set {absent} as well", store=location.url
            )
    raise StoreDenied(f"no credentials for {location.url} in the environment", hint=advice + extra, store=location.url)


def _require_files(way: tuple[str, ...], environment: Mapping[str, str], url: str) -> None:
    for name in way:
        named_file = name.endswith(("_FILE", "_PATH")) or name == "GOOGLE_APPLICATION_CREDENTIALS"
        if named_file and not Path(environment[name]).is_file():
            raise StoreDenied(
                f"{name} names a file that is not there or not readable",
                hint=f"Set {name} to the file that holds the credentials",
                store=url,
            )
