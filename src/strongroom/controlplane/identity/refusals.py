"""Keeps the audit trail of refused requests readable and small, however many there are.

Of refusals that are alike the 1st, 10th, 100th and so on within a window are written: a client that asks in a loop, or
somebody who tries, is seen with the size of it, and cannot fill the database.
"""

import threading
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from strongroom.controlplane.identity.audit import AuditEvent, AuditKind

WINDOW: Final = timedelta(seconds=60)
MAX_DIFFERENT: Final = 100  # refusals of one kind in one window; all further ones count as one


class Refusals:
    """Counts refusals, and says which are to be written. Thread-safe; bounded memory."""

    def __init__(self, *, window: timedelta = WINDOW, different: int = MAX_DIFFERENT) -> None:
        self._window = window
        self._different = different
        self._lock = threading.Lock()
        self._began: datetime | None = None
        # For each kind apart: who collects denials must not hide that somebody tries tokens.
        self._counts: dict[AuditKind, dict[AuditEvent, int]] = {}

    def note(self, event: AuditEvent, now: datetime) -> AuditEvent | None:
        """Count *event*; return what is to be written for it, with how many there were, or None."""
        with self._lock:
            # A clock that jumped back opens a new window, too.
            if self._began is None or not self._began <= now < self._began + self._window:
                self._began, self._counts = now, {}
            counts = self._counts.setdefault(event.kind, {})
            others = AuditEvent(event.kind, "", "", "", "further refusals that differ")
            key = event if event in counts or len(counts) < self._different else others
            count = counts[key] = counts.get(key, 0) + 1
        if not _is_power_of_ten(count):
            return None
        if count == 1:
            return key
        seconds = self._window.total_seconds()
        return replace(key, detail=f"{key.detail}; {count} like it within {seconds:.0f} seconds".lstrip("; "))

    def __len__(self) -> int:
        return sum(map(len, self._counts.values()))


def _is_power_of_ten(number: int) -> bool:
    while number % 10 == 0:
        number //= 10
    return number == 1
