"""Reads BackupHook and RestoreHook, the documents by which users say what to run in which pods. Pure.

They are Azure's (reference/azure-backup-for-aks.md section 1.4); what that leaves open is as in Velero, on which
Azure's extension stands. Reading is strict: a misspelt field would leave an application unfrozen.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any, Final, TypeVar

import msgspec

from strongroom.dataplane.hooks.errors import HookInvalid
from strongroom.dataplane.kube.kinds import Kind
from strongroom.dataplane.kube.selectors import LabelSelector, Operator, Requirement

GROUP: Final = "clusterbackup.dataprotection.microsoft.com"
VERSION: Final = "v1alpha1"
_LIST: Final = frozenset(("list",))
BACKUP_HOOKS: Final = Kind(GROUP, VERSION, "BackupHook", "backuphooks", namespaced=True, verbs=_LIST)
RESTORE_HOOKS: Final = Kind(GROUP, VERSION, "RestoreHook", "restorehooks", namespaced=True, verbs=_LIST)

EXEC_SECONDS: Final = 30.0  # Velero's default for a command
WAIT_SECONDS: Final = 300.0  # for a container to run after a restore; Velero waits for ever, a job must not
LONGEST_SECONDS: Final = 3600.0  # of any duration: a job that waits longer is taken for hung

_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)", re.ASCII)
_OPERATORS: Final = {
    "In": Operator.IN,
    "NotIn": Operator.NOT_IN,
    "Exists": Operator.EXISTS,
    "DoesNotExist": Operator.DOES_NOT_EXIST,
}
_ANY: Final = LabelSelector("", ())
_T = TypeVar("_T")


class OnError(StrEnum):
    """What becomes of the job when the command fails: it goes on with a warning, or it does not."""

    CONTINUE = "Continue"
    FAIL = "Fail"


@dataclass(frozen=True, slots=True)
class Command:
    """One command: in *container* ("": the pod's first), without a shell; *timeout_s* and *wait_s* are seconds.

    *wait_s* counts after a restore only: how long to wait for the container to run.
    """

    command: tuple[str, ...]
    container: str = ""
    on_error: OnError = OnError.FAIL
    timeout_s: float = EXEC_SECONDS
    wait_s: float = WAIT_SECONDS


@dataclass(frozen=True, slots=True)
class Hook:
    """One entry of a document: what to run in which pods. *source* is `namespace/name` of the document.

    Namespaces may be patterns (`shop-*`); none included means all.
    """

    source: str
    name: str
    included: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    labels: LabelSelector = _ANY
    pre: tuple[Command, ...] = ()
    post: tuple[Command, ...] = ()

    def picks(self, namespace: str, labels: Mapping[str, str]) -> bool:
        """Say whether a pod with these *labels* in *namespace* is meant."""
        if any(fnmatchcase(namespace, pattern) for pattern in self.excluded):
            return False
        if self.included and not any(fnmatchcase(namespace, pattern) for pattern in self.included):
            return False
        return self.labels.matches(labels)

    def __str__(self) -> str:
        return f"{self.name} of {self.source}"


class _Strict(msgspec.Struct, frozen=True, rename="camel", kw_only=True, forbid_unknown_fields=True):
    pass


class _BackupExec(_Strict, frozen=True, kw_only=True):
    command: tuple[str, ...]
    container: str | None = None
    on_error: OnError = OnError.FAIL
    timeout: str | None = None


class _RestoreExec(_Strict, frozen=True, kw_only=True):
    command: tuple[str, ...]
    container: str | None = None
    on_error: OnError = OnError.CONTINUE
    exec_timeout: str | None = None
    wait_timeout: str | None = None


class _BackupCommand(_Strict, frozen=True, kw_only=True):
    exec: _BackupExec


class _RestoreCommand(_Strict, frozen=True, kw_only=True):
    exec: _RestoreExec


class _Expression(_Strict, frozen=True, kw_only=True):
    key: str
    operator: str
    values: tuple[str, ...] | None = None


class _Selector(_Strict, frozen=True, kw_only=True):
    match_labels: dict[str, str] | None = None
    match_expressions: tuple[_Expression, ...] | None = None


class _HookSpec(_Strict, frozen=True, kw_only=True):
    name: str
    included_namespaces: tuple[str, ...] | None = None
    excluded_namespaces: tuple[str, ...] | None = None
    label_selector: _Selector | None = None


class _BackupHookSpec(_HookSpec, frozen=True, kw_only=True):
    pre_hooks: tuple[_BackupCommand, ...] | None = None
    post_hooks: tuple[_BackupCommand, ...] | None = None


class _RestoreHookSpec(_HookSpec, frozen=True, kw_only=True):
    post_hooks: tuple[_RestoreCommand, ...] | None = None


class _BackupSpec(_Strict, frozen=True, kw_only=True):
    backup_hook: tuple[_BackupHookSpec, ...]


class _RestoreSpec(_Strict, frozen=True, kw_only=True):
    restore_hook: tuple[_RestoreHookSpec, ...]


class _BackupDocument(msgspec.Struct, frozen=True):
    spec: _BackupSpec


class _RestoreDocument(msgspec.Struct, frozen=True):
    spec: _RestoreSpec


def read_backup_hook(document: bytes | Mapping[str, Any], source: str) -> tuple[Hook, ...]:
    """Return the hooks of a BackupHook, *source* is its `namespace/name`. Raises `HookInvalid` naming the field."""
    found = _convert(document, _BackupDocument, f"BackupHook {source}").spec.backup_hook
    hooks = []
    for number, one in enumerate(found):
        place = _Place(f"BackupHook {source}", f"spec.backupHook[{number}]")
        hooks.append(
            _hook(
                one,
                source,
                place,
                pre=_backup_commands(one.pre_hooks, place.at("preHooks")),
                post=_backup_commands(one.post_hooks, place.at("postHooks")),
            )
        )
    return tuple(hooks)


def read_restore_hook(document: bytes | Mapping[str, Any], source: str) -> tuple[Hook, ...]:
    """Return the hooks of a RestoreHook; as `read_backup_hook`."""
    found = _convert(document, _RestoreDocument, f"RestoreHook {source}").spec.restore_hook
    hooks = []
    for number, one in enumerate(found):
        place = _Place(f"RestoreHook {source}", f"spec.restoreHook[{number}]")
        commands = tuple(
            Command(
                command=_words(each.exec.command, place.at(f"postHooks[{n}]")),
                container=each.exec.container or "",
                on_error=each.exec.on_error,
                timeout_s=_seconds(each.exec.exec_timeout, EXEC_SECONDS, place.at(f"postHooks[{n}].exec.execTimeout")),
                wait_s=_seconds(each.exec.wait_timeout, WAIT_SECONDS, place.at(f"postHooks[{n}].exec.waitTimeout")),
            )
            for n, each in enumerate(one.post_hooks or ())
        )
        hooks.append(_hook(one, source, place, post=commands))
    return tuple(hooks)


def duration(text: str) -> float:
    """Return the seconds of a Go duration such as `30s`, `1m30s`, `500ms`. Raises `ValueError` for anything else."""
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"{text[:40]!r} is no duration: write 30s, 5m or 1m30s")
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if not 0 < seconds <= LONGEST_SECONDS:
        raise ValueError(f"{text[:40]!r} is not between 1ms and {LONGEST_SECONDS / 3600:g}h")
    return seconds


@dataclass(frozen=True, slots=True)
class _Place:
    document: str
    field: str

    def at(self, name: str) -> "_Place":
        return _Place(self.document, f"{self.field}.{name}")

    def wrong(self, why: str) -> HookInvalid:
        return HookInvalid(f"{self.document}: {self.field}: {why}", field=self.field)


def _hook(
    one: _HookSpec, source: str, place: _Place, *, pre: tuple[Command, ...] = (), post: tuple[Command, ...] = ()
) -> Hook:
    if not one.name:
        raise place.at("name").wrong("it is empty")
    if not pre and not post:
        raise place.wrong("it runs nothing")
    return Hook(
        source=source,
        name=one.name,
        included=one.included_namespaces or (),
        excluded=one.excluded_namespaces or (),
        labels=_labels(one.label_selector, place.at("labelSelector")),
        pre=pre,
        post=post,
    )


def _backup_commands(given: tuple[_BackupCommand, ...] | None, place: _Place) -> tuple[Command, ...]:
    return tuple(
        Command(
            command=_words(each.exec.command, _Place(place.document, f"{place.field}[{n}]")),
            container=each.exec.container or "",
            on_error=each.exec.on_error,
            timeout_s=_seconds(
                each.exec.timeout, EXEC_SECONDS, _Place(place.document, f"{place.field}[{n}].exec.timeout")
            ),
        )
        for n, each in enumerate(given or ())
    )


def _words(command: tuple[str, ...], place: _Place) -> tuple[str, ...]:
    if not command or not command[0]:
        raise place.at("exec.command").wrong("it names no program")
    return command


def _seconds(text: str | None, default: float, place: _Place) -> float:
    if not text:
        return default
    try:
        return duration(text)
    except ValueError as error:
        raise place.wrong(str(error)) from error


def _labels(selector: _Selector | None, place: _Place) -> LabelSelector:
    """Return a LabelSelector of Kubernetes' objects (matchLabels, matchExpressions) as requirements."""
    if selector is None:
        return _ANY
    found = [Requirement(key, Operator.IN, frozenset((value,))) for key, value in (selector.match_labels or {}).items()]
    for number, one in enumerate(selector.match_expressions or ()):
        here = place.at(f"matchExpressions[{number}]")
        operator = _OPERATORS.get(one.operator)
        if operator is None:
            raise here.wrong(f"{one.operator[:40]!r} is none of {', '.join(_OPERATORS)}")
        if bool(one.values) is not (operator in (Operator.IN, Operator.NOT_IN)):
            raise here.wrong("In and NotIn need values, Exists and DoesNotExist take none")
        found.append(Requirement(one.key, operator, frozenset(one.values or ())))
    return LabelSelector("", tuple(found))


def _convert(document: bytes | Mapping[str, Any], found: type[_T], name: str) -> _T:
    try:
        if isinstance(document, Mapping):
            return msgspec.convert(document, found)
        return msgspec.json.decode(document, type=found)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        said = str(error)
        text, _, path = said.rpartition(" - at `$")
        field = path.strip("`").removeprefix(".") if text else ""
        raise HookInvalid(f"{name}: {field or 'the document'}: {text or said}", field=field) from error
