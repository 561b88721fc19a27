"""Which objects of a recovery point a restore takes (the same words as for a backup). Pure.

Patterns are matched against the point, not against a cluster: the source may be gone.
"""

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

import msgspec

from strongroom.dataplane.kube.selectors import LabelSelector, parse_selector
from strongroom.dataplane.repository.model import KindEntry, ObjectRow, Selection
from strongroom.dataplane.restore.errors import SelectionInvalid

_LABELS = msgspec.json.Decoder(dict[str, str])


class ChosenObjects:
    """The selection of a request, made ready for asking object by object."""

    def __init__(
        self, selection: Selection, kinds: Iterable[KindEntry], short_names: Mapping[str, tuple[str, str]]
    ) -> None:
        """*short_names* maps a kind's short name to (group, kind). Raises `SelectionInvalid`."""
        self._selection = selection
        self._selectors: tuple[LabelSelector, ...] = tuple(parse_selector(text) for text in selection.selectors)
        known = list(kinds)
        self._included = _resolve(selection.include_kinds, known, short_names)
        self._excluded = _resolve(selection.exclude_kinds, known, short_names)
        self._labels: dict[str, bool] = {}

    @property
    def narrowed(self) -> bool:
        """Whether namespaces, kinds or labels leave anything out."""
        chosen = self._selection
        return bool(chosen.include_namespaces or chosen.include_kinds or chosen.exclude_kinds or chosen.selectors)

    def kind(self, entry: KindEntry) -> bool:
        """Say whether objects of this kind may be taken."""
        key = (entry.group, entry.kind)
        if key in self._excluded or (self._included and key not in self._included):
            return False
        if entry.namespaced:
            return True
        chosen = self._selection
        if key == ("", "Namespace") and chosen.include_namespaces and not (chosen.include_kinds or chosen.selectors):
            return True  # a namespace that was asked for comes back though it is empty
        if chosen.cluster_scoped is not None:
            return chosen.cluster_scoped
        # Unsaid beside a selection of namespaces or labels means: what the selection needs, and nothing else.
        by_namespace = bool(chosen.include_namespaces) and "*" not in chosen.include_namespaces
        return not (by_namespace or chosen.exclude_namespaces or chosen.selectors)

    def namespace(self, name: str) -> bool:
        """Say whether objects of this namespace may be taken."""
        chosen = self._selection
        if chosen.include_namespaces and not any(fnmatchcase(name, pattern) for pattern in chosen.include_namespaces):
            return False
        return not any(fnmatchcase(name, pattern) for pattern in chosen.exclude_namespaces)

    def object(self, row: ObjectRow) -> bool:
        """Say whether this object, of a chosen kind, is taken. Labels choose among namespaced objects only."""
        if not row.namespace:
            return (row.group, row.kind) != ("", "Namespace") or self.namespace(row.name)
        if not self.namespace(row.namespace):
            return False
        if not self._selectors:
            return True
        known = self._labels.get(row.labels)
        if known is None:
            labels = _LABELS.decode(row.labels)
            known = self._labels[row.labels] = any(selector.matches(labels) for selector in self._selectors)
        return known


def check_mapping(mapping: Mapping[str, str]) -> None:
    """Raise `SelectionInvalid` for a mapping that names an empty namespace or a pattern."""
    for source, target in mapping.items():
        if not source or not target or any(sign in source + target for sign in "*?[]/"):
            raise SelectionInvalid(
                f"cannot map namespace {source!r} to {target!r}", hint="Name both exactly: --map-namespace from=to"
            )


def _resolve(
    spellings: Iterable[str], kinds: list[KindEntry], short_names: Mapping[str, tuple[str, str]]
) -> frozenset[tuple[str, str]]:
    found: set[tuple[str, str]] = set()
    for spelling in spellings:
        matches = {(entry.group, entry.kind) for entry in kinds if _is_called(entry, spelling)}
        if not matches and spelling.lower() in short_names:
            matches = {short_names[spelling.lower()]}
        if not matches:
            raise SelectionInvalid(
                f"the recovery point knows no kind {spelling!r}",
                hint="Kinds are spelled as in kubectl; `strongroom point coverage` lists those of the point",
            )
        core = {match for match in matches if not match[0]}
        found |= core or matches
    return frozenset(found)


def _is_called(entry: KindEntry, spelling: str) -> bool:
    """Say whether *spelling* means this kind: `pods`, `Pod`, `pod`, `deployments.apps`, `apps/v1/Deployment`."""
    word = spelling.lower()
    if "/" in word:
        version, _, word = word.rpartition("/")
        own = f"{entry.group}/{entry.version}" if entry.group else entry.version
        if version != own.lower():
            return False
        return word in (entry.kind.lower(), entry.plural)
    names = {entry.kind.lower(), entry.plural}
    return word in names or (bool(entry.group) and word in {f"{name}.{entry.group}" for name in names})
