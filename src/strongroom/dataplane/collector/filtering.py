"""Decides for each object of a kept kind whether it is in the backup, and counts what is not by rule. Pure."""

from collections import Counter
from collections.abc import Callable, Container
from typing import Final

import msgspec

from strongroom.dataplane.collector import rules
from strongroom.dataplane.collector.selection import NamespaceFilter
from strongroom.dataplane.kube.selectors import AnyOf
from strongroom.dataplane.snapshots.claims import MANAGED_BY, MANAGED_BY_LABEL

_decode_labels = msgspec.json.Decoder(dict[str, str] | None).decode
_MARK: Final = rules.EXCLUDE_MARK.encode()
_OURS: Final = MANAGED_BY.encode()
SNAPSHOT_GROUP: Final = "snapshot.storage.k8s.io"


class ObjectFilter:
    """The rules that apply to the objects of one kind.

    *labels* None: no label selection (cluster-scoped kinds).
    *own_names* are cluster-scoped objects of the run itself. *needed* says of `namespace/name` whether a kept object
    needs it; with *needed_only* nothing else is kept. *names_are_namespaces* for the kind Namespace itself.
    `skipped` counts objects left out by each rule; those that a request did not ask for are not counted.
    """

    def __init__(
        self,
        namespaces: NamespaceFilter,
        labels: AnyOf | None,
        *,
        group: str = "",
        own_names: Container[str] = (),
        needed: Callable[[str, str], bool] | None = None,
        needed_only: bool = False,
        names_are_namespaces: bool = False,
    ) -> None:
        self._namespace_rule = namespaces.rule
        self._labels = None if labels is None or labels.everything else labels
        self._needed = needed
        self._needed_only = needed_only
        self._names_are_namespaces = names_are_namespaces
        self._own_objects = group == SNAPSHOT_GROUP
        self._own_names = own_names
        self.skipped: Counter[str] = Counter()

    @property
    def reads_labels(self) -> bool:
        """Whether the labels decide, apart from the mark that excludes an object."""
        return self._labels is not None or self._own_objects

    def keeps(self, namespace: str, name: str, labels: bytes) -> bool:
        """Say whether the object is kept; *labels* is the JSON text of its labels. Counts it when not."""
        rule = self.rule(namespace, name, labels)
        if rule:
            self.skipped[rule] += 1
        return not rule

    def rule(self, namespace: str, name: str, labels: bytes) -> str:
        """Return the rule that leaves the object out, "" when it is kept."""
        if namespace and (rule := self._namespace_rule(namespace)):
            return rule
        if self._names_are_namespaces and (rule := self._namespace_rule(name)):
            return rule
        if _MARK in labels and (_decode_labels(labels) or {}).get(rules.EXCLUDE_MARK) == "true":
            return rules.RULE_OBJECT_LABEL
        if self._own_objects and _OURS in labels and (_decode_labels(labels) or {}).get(MANAGED_BY_LABEL) == MANAGED_BY:
            return rules.RULE_OWN_OBJECT
        if not namespace and name in self._own_names:
            return rules.RULE_OWN_OBJECT
        if self._needed is not None and self._needed(namespace, name):
            return ""
        if self._needed_only:
            return rules.RULE_NOT_NEEDED
        if self._labels is not None and not self._labels.matches(_decode_labels(labels) or {}):
            return rules.RULE_SELECTOR
        return ""


def needed_in(names: Container[str]) -> Callable[[str, str], bool]:
    """Return a test whether `namespace/name` (or `name`) is in *names*."""
    return lambda namespace, name: (f"{namespace}/{name}" if namespace else name) in names
