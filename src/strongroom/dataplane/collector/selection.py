"""Decides what a selection means on one cluster: which kinds and namespaces are kept, and by which rule others are not.

Pure: takes what the user asked for and what the server serves. Reading and needed-by come after it.
"""

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from strongroom.dataplane.collector import rules
from strongroom.dataplane.kube.errors import AmbiguousKind, UnknownKind
from strongroom.dataplane.kube.kinds import Kind
from strongroom.dataplane.kube.selectors import AnyOf, parse_selectors
from strongroom.dataplane.repository.model import Selection
from strongroom.errors import UsageError

NEAR_MATCHES = 3  # names suggested for a misspelt one

NAMESPACE = ("", "Namespace")
CLAIM = ("", "PersistentVolumeClaim")
VOLUME = ("", "PersistentVolume")
STORAGE_CLASS = ("storage.k8s.io", "StorageClass")
DEFINITION = ("apiextensions.k8s.io", "CustomResourceDefinition")
CONTENT = ("snapshot.storage.k8s.io", "VolumeSnapshotContent")
NEEDED_KINDS = frozenset((NAMESPACE, CLAIM, VOLUME, STORAGE_CLASS, DEFINITION))
"""Kinds whose objects come along because kept objects need them, whatever the selection says of the kind."""

UNKEEPABLE = frozenset((rules.RULE_NOT_LISTABLE, rules.RULE_OWN_KIND))
"""Rules that no selection overrides."""


class UnknownNamespace(UsageError):
    """A selection names a namespace that the cluster does not have; *near* lists similar ones."""

    def __init__(self, message: str, *, hint: str = "", near: Sequence[str] = ()) -> None:
        super().__init__(message, hint=hint)
        self.near = tuple(near)


class NothingSelected(UsageError):
    """The selection contradicts itself or the rules: nothing could be in the backup."""


@dataclass(frozen=True, slots=True)
class KindChoice:
    """What is to become of one served kind.

    *rule* is empty for a kept kind, else names the rule that leaves it out. *needed_only*: of a kept kind only the
    objects that other kept objects need are taken.
    """

    kind: Kind
    rule: str = ""
    needed_only: bool = False


@dataclass(frozen=True)
class NamespaceFilter:
    """Which namespaces are kept, by name.

    *labelled_out* are the namespaces whose own label leaves them out (`rules.EXCLUDE_MARK`).
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    labelled_out: frozenset[str] = frozenset()
    _known: dict[str, str] = field(default_factory=dict, compare=False, repr=False)

    def rule(self, name: str) -> str:
        """Return the rule that leaves namespace *name* out, "" when it is kept. Answers are remembered."""
        rule = self._known.get(name)
        if rule is None:
            rule = self._known[name] = self._decide(name)
        return rule

    def _decide(self, name: str) -> str:
        if name in rules.SYSTEM_NAMESPACES:
            return rules.RULE_SYSTEM_NAMESPACE
        if name == rules.OWN_NAMESPACE:
            return rules.RULE_OWN_NAMESPACE
        if any(fnmatchcase(name, pattern) for pattern in self.exclude):
            return rules.RULE_NAMESPACE_EXCLUDED
        if self.include and not any(fnmatchcase(name, pattern) for pattern in self.include):
            return rules.RULE_NAMESPACE_NOT_INCLUDED
        if name in self.labelled_out:
            return rules.RULE_NAMESPACE_LABEL
        return ""

    @property
    def narrows(self) -> bool:
        """True when the user selected namespaces (a lone `*` selects none)."""
        return bool(self.exclude) or (bool(self.include) and "*" not in self.include)

    @property
    def names(self) -> tuple[str, ...] | None:
        """The kept namespaces in the one order when they are all named exactly, else None."""
        if not self.include or any(_is_glob(pattern) for pattern in self.include):
            return None
        return in_order(name for name in set(self.include) if not self.rule(name))


@dataclass(frozen=True)
class Resolved:
    """A selection as it applies to one cluster. *kinds* holds every served kind, in the one order (group, kind)."""

    selection: Selection
    kinds: tuple[KindChoice, ...]
    namespaces: NamespaceFilter
    labels: AnyOf
    warnings: tuple[str, ...] = ()
    skipped_groups: bool = False
    """True when kinds were included by name and none of them lies in a group that failed discovery."""

    @property
    def everything(self) -> bool:
        """True when nothing was narrowed: then what kept objects need is kept anyway."""
        return (
            not self.namespaces.narrows
            and self.labels.everything
            and not self.selection.include_kinds
            and not self.selection.exclude_kinds
            and self.selection.cluster_scoped is not False
        )

    def choice(self, group_kind: tuple[str, str]) -> KindChoice | None:
        """Return the choice for one kind, None when it is not served."""
        return next((each for each in self.kinds if (each.kind.group, each.kind.kind) == group_kind), None)


def resolve(
    selection: Selection,
    kinds: Sequence[Kind],
    find: Callable[[str], Kind],
    failed_groups: Iterable[str] = (),
    labelled_out: Iterable[str] = (),
) -> Resolved:
    """Apply *selection* to the served *kinds*; *find* turns a spelling into a kind as kubectl does.

    *failed_groups* are the groups (or `group/version`) whose discovery failed: a kind spelt with such a group cannot be
    known, and is a warning. Raises `UnknownKind`, `AmbiguousKind`, `SelectorInvalid`, `NothingSelected` (exit code 2).
    """
    warnings: list[str] = []
    failed = {group.partition("/")[0] for group in failed_groups}
    included, included_failed = _find_all(selection.include_kinds, find, failed, warnings)
    excluded, _ = _find_all(selection.exclude_kinds, find, failed, warnings)
    if selection.include_kinds and included and included <= excluded:
        raise NothingSelected(
            "every included kind is excluded as well", hint="Take the kind out of --exclude-kind or of --include-kind"
        )
    namespaces = NamespaceFilter(selection.include_namespaces, selection.exclude_namespaces, frozenset(labelled_out))
    labels = parse_selectors(selection.selectors)
    all_cluster_scoped = (
        selection.cluster_scoped
        if selection.cluster_scoped is not None
        else not namespaces.narrows and labels.everything
    )
    choices = tuple(
        _choose(kind, bool(selection.include_kinds), included, excluded, all_cluster_scoped)
        for kind in sorted(kinds, key=lambda kind: (kind.group, kind.kind))
    )
    for choice in choices:
        if choice.rule == rules.RULE_CLUSTER_SCOPED and (choice.kind.group, choice.kind.kind) in included:
            warnings.append(f"{choice.kind.resource} is cluster-scoped and left out; --cluster-scoped takes it along")
        elif choice.rule in UNKEEPABLE and (choice.kind.group, choice.kind.kind) in included:
            warnings.append(f"{choice.kind.resource} is left out although it is included by name: {choice.rule}")
    skipped = bool(selection.include_kinds) and not included_failed
    return Resolved(selection, choices, namespaces, labels, tuple(warnings), skipped)


def check_namespaces(namespaces: NamespaceFilter, existing: Sequence[str]) -> tuple[str, ...]:
    """Check the selection's namespaces against those that exist; return warnings.

    Raises `UnknownNamespace` for an included name that does not exist, `NothingSelected` when no namespace is left.
    An excluded name that does not exist is a warning: a namespace that went away must not stop its schedule.
    """
    warnings: list[str] = []
    for pattern in namespaces.include:
        if _is_glob(pattern):
            if not any(fnmatchcase(name, pattern) for name in existing):
                warnings.append(f"no namespace matches {pattern!r}")
        elif pattern not in existing:
            near = difflib.get_close_matches(pattern, existing, n=NEAR_MATCHES)
            raise UnknownNamespace(
                f"there is no namespace {pattern!r}",
                hint=f"Did you mean {' or '.join(near)}?" if near else "`kubectl get namespaces` lists those there are",
                near=near,
            )
        elif rule := namespaces.rule(pattern):
            warnings.append(f"namespace {pattern} is left out: {rule}")
    warnings.extend(
        f"there is no namespace {pattern!r} to exclude"
        for pattern in namespaces.exclude
        if not _is_glob(pattern) and pattern not in existing
    )
    if namespaces.include and all(namespaces.rule(name) for name in existing):
        raise NothingSelected(
            "no namespace is left of those selected", hint="Check --include-namespace and --exclude-namespace"
        )
    return tuple(warnings)


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Sort namespaces so that the lists of each, one after the other, stand in the one order (`a-b/x` before `a/x`)."""
    return tuple(sorted(names, key=lambda name: f"{name}/".encode()))


def excluded_namespaces(namespaces: NamespaceFilter, existing: Iterable[str]) -> Mapping[str, str]:
    """Return each existing namespace that is left out, with its rule."""
    return {name: rule for name in sorted(existing) if (rule := namespaces.rule(name))}


def _choose(
    kind: Kind, only_included: bool, included: set[tuple[str, str]], excluded: set[tuple[str, str]], cluster: bool
) -> KindChoice:
    key = (kind.group, kind.kind)
    if rules.is_own_kind(kind.group, kind.kind):
        return KindChoice(kind, rules.RULE_OWN_KIND)
    if "list" not in kind.verbs:
        return KindChoice(kind, rules.RULE_NOT_LISTABLE)
    if key in excluded:
        # What the user excludes by name stays out even where kept objects need it: a decision, not an oversight.
        return KindChoice(kind, rules.RULE_KIND_EXCLUDED)
    rule = ""
    if only_included and key not in included:
        rule = rules.RULE_KIND_NOT_INCLUDED
    elif key not in included:
        rule = rules.kind_rule(kind.group, kind.kind)
    if not rule and not kind.namespaced and not cluster:
        rule = rules.RULE_CLUSTER_SCOPED
    if rule and key in NEEDED_KINDS:
        return KindChoice(kind, needed_only=True)
    return KindChoice(kind, rule)


def _find_all(
    spellings: Sequence[str], find: Callable[[str], Kind], failed: set[str], warnings: list[str]
) -> tuple[set[tuple[str, str]], bool]:
    """Return group and kind of each spelling, and whether one lies in a failed group (a warning then)."""
    found: set[tuple[str, str]] = set()
    in_failed = False
    for spelling in spellings:
        try:
            kind = find(spelling)
        except AmbiguousKind:
            raise
        except UnknownKind:
            group = next((each for each in failed if _spelt_with(spelling, each)), None)
            if group is None:
                raise
            in_failed = True
            warnings.append(f"kind {spelling!r} could not be looked up: discovery of {group} failed")
        else:
            found.add((kind.group, kind.kind))
    return found, in_failed


def _spelt_with(spelling: str, group: str) -> bool:
    return bool(group) and (spelling.endswith("." + group) or spelling.startswith(group + "/"))


def _is_glob(pattern: str) -> bool:
    return any(character in pattern for character in "*?[")
