"""The options that several commands share, and how they become the values that the data plane takes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from strongroom.dataplane.repository.model import Selection
from strongroom.errors import UsageError

# Texts of more than one line stand here: a field's docstring would be printed with its indentation.
_URL_HELP = (
    "file:///…, az://account/container/prefix, s3://bucket/prefix or gs://bucket/prefix; `?endpoint=` for Azurite, "
    "MinIO and sovereign clouds. Credentials come from the provider's environment variables."
)
_KEY_HELP = (
    "The repository's key file. Unsaid: STRONGROOM_KEY_FILE, else "
    "${XDG_CONFIG_HOME:-~/.config}/strongroom/keys/<repository id>.json."
)
_KIND_HELP = (
    "Only these kinds, spelled as in kubectl (`deploy`, `certificates.cert-manager.io`) or `apps/v1/Deployment`. "
    "Repeatable."
)
_SELECTOR_HELP = (
    "Only objects with matching labels (`app=shop,tier in (web,api),!canary`). Of several, one has to match. "
    "Repeatable."
)
_CLUSTER_SCOPED_HELP = (
    "All cluster-scoped objects, or only those that the selection needs. Unsaid: only those needed where namespaces or "
    "labels are selected, else all."
)

Repeatable = Annotated[tuple[str, ...], Parameter(negative="", show_default=False)]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class RepositoryOptions:
    """Which repository, and with which key."""

    repository: Annotated[str, Parameter(env_var="STRONGROOM_REPOSITORY", metavar="URL", help=_URL_HELP)]
    key_file: Annotated[Path | None, Parameter(metavar="FILE", help=_KEY_HELP)] = None


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ClusterOptions:
    """Which cluster, and as whom."""

    kubeconfig: Annotated[Path | None, Parameter(metavar="FILE")] = None
    """Unsaid: KUBECONFIG, else ~/.kube/config, else the service account of the pod that this runs in."""
    context: str | None = None
    """A context of the kubeconfig. Unsaid: its current one."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class SelectionOptions:
    """What to take. With none of these, everything."""

    include_namespace: Repeatable = ()
    """Only these namespaces: a name or a pattern with * and ?. Repeatable."""
    exclude_namespace: Repeatable = ()
    """Not these namespaces. Repeatable."""
    include_kind: Annotated[tuple[str, ...], Parameter(negative="", show_default=False, help=_KIND_HELP)] = ()
    exclude_kind: Repeatable = ()
    """Not these kinds. Repeatable."""
    selector: Annotated[
        tuple[str, ...], Parameter(alias="-l", negative="", show_default=False, help=_SELECTOR_HELP)
    ] = ()
    cluster_scoped: Annotated[bool | None, Parameter(show_default=False, help=_CLUSTER_SCOPED_HELP)] = None

    def selection(self) -> Selection:
        """Return the options as the data plane's `Selection`."""
        return Selection(
            include_namespaces=self.include_namespace,
            exclude_namespaces=self.exclude_namespace,
            include_kinds=self.include_kind,
            exclude_kinds=self.exclude_kind,
            selectors=self.selector,
            cluster_scoped=self.cluster_scoped,
        )


EVERYTHING = SelectionOptions()
NO_CLUSTER_NAMED = ClusterOptions()


def pairs(option: str, texts: Sequence[str]) -> dict[str, str]:
    """Return `a=b` texts as a mapping; raise `UsageError`, naming *option*, for one that is none or comes twice."""
    result: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not (equals and key and value):
            raise UsageError(f"{option} takes NAME=VALUE, not {text!r}")
        if key in result:
            raise UsageError(f"{option} names {key!r} twice")
        result[key] = value
    return result


# Units of `--max-run` in seconds.
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def duration_seconds(option: str, text: str) -> int:
    """Return `90`, `5s`, `30m`, `12h` or `7d` in seconds; raise `UsageError`, naming *option*, for anything else."""
    number, unit = (text[:-1], text[-1:]) if text[-1:] in _UNITS else (text, "s")
    if not (number.isascii() and number.isdigit()) or int(number) == 0:
        raise UsageError(f"{option} takes a duration such as 5s, 30m, 12h or 7d, not {text!r}")
    return int(number) * _UNITS[unit]


def split_kind_name(target: str) -> tuple[str, str]:
    """Return `(namespace, name)` of `NAMESPACE/NAME` or `NAME`; raise `UsageError` for anything else."""
    parts = target.split("/")
    if len(parts) > 2 or not all(parts):
        raise UsageError(f"{target!r} is not an object's name", hint="Write NAMESPACE/NAME, or NAME for cluster scope.")
    return (parts[0], parts[1]) if len(parts) == 2 else ("", parts[0])
