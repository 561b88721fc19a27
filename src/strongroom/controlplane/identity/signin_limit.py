"""Slows down guessing: failed sign-ins are counted for each application and address, in bounded memory."""

import threading
from collections import OrderedDict
from datetime import datetime, timedelta
from typing import Final

MAX_FAILURES: Final = 10  # within one window; more than a person mistypes, and less than a script needs
WINDOW: Final = timedelta(seconds=60)
MAX_TRACKED: Final = 10_000  # pairs; about 2 MiB. Beyond it the longest unseen pair is forgotten


class SignInLimit:
    """Counts failures in a window that starts at the first of them. Thread-safe."""

    def __init__(self, *, max_failures: int = MAX_FAILURES, window: timedelta = WINDOW, tracked: int = MAX_TRACKED):
        self._max = max_failures
        self._window = window
        self._tracked = tracked
        self._lock = threading.Lock()
        self._failures: OrderedDict[tuple[str, str], tuple[datetime, int]] = OrderedDict()

    def wait(self, app_id: str, address: str, now: datetime) -> timedelta | None:
        """Return how long this application must wait at this address, None when it may try."""
        with self._lock:
            first, count = self._failures.get((app_id.lower(), address), (now, 0))
        left = first + self._window - now
        # A clock that jumped back must not lock anybody out for longer than a window.
        return min(left, self._window) if count >= self._max and left > timedelta(0) else None

    def failed(self, app_id: str, address: str, now: datetime) -> bool:
        """Count a failure; return whether it was the last one allowed in this window."""
        key = (app_id.lower(), address)
        with self._lock:
            first, count = self._failures.pop(key, (now, 0))
            # Sign-ins that run at once report out of order: only a clock that jumped counts as a new window.
            if not first - self._window < now < first + self._window:
                first, count = now, 0
            self._failures[key] = (first, count + 1)
            while len(self._failures) > self._tracked:
                self._failures.popitem(last=False)
        return count + 1 == self._max

    def succeeded(self, app_id: str, address: str) -> None:
        """Forget the failures of somebody who knows the secret."""
        with self._lock:
            self._failures.pop((app_id.lower(), address), None)

    def __len__(self) -> int:
        return len(self._failures)
