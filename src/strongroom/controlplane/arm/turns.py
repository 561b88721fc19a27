"""Gives searches their turn: each may compute for seconds, so few run at once, and no caller crowds out others.

All of it happens in the event loop; a search that waits holds no thread.
"""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Final

import anyio

from strongroom.controlplane.arm.errors import ArmError
from strongroom.protection.errors import UserError

RUNNING: Final = 4  # of all callers: Python computes one at a time, and each may hold MAX_ROWS_HELD rows
RUNNING_OF_CALLER: Final = 2
MAX_OF_CALLER: Final = 15  # running and waiting: Azure's own number of queries in its window of 5 seconds
RETRY_SECONDS: Final = 5


@dataclass
class _Caller:
    turn: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(RUNNING_OF_CALLER))
    asked: int = 0


class SearchTurns:
    """Who may search now. Used in one event loop."""

    def __init__(self) -> None:
        self._threads = anyio.CapacityLimiter(RUNNING)
        self._callers: dict[str, _Caller] = {}

    @contextlib.asynccontextmanager
    async def of(self, caller: str) -> AsyncIterator[anyio.CapacityLimiter]:
        """Wait until *caller* may search; yield what limits the threads to do it in. Raises `ArmError` (429)."""
        mine = self._callers.setdefault(caller, _Caller())
        if mine.asked >= MAX_OF_CALLER:
            raise throttled()
        mine.asked += 1
        try:
            async with mine.turn:
                yield self._threads
        finally:
            mine.asked -= 1
            if not mine.asked:
                del self._callers[caller]


def throttled() -> ArmError:
    """Return Azure Resource Graph's answer to a caller who asks too much at once.

    Source: https://learn.microsoft.com/azure/governance/resource-graph/concepts/guidance-for-throttled-requests
    """
    message = (
        "Client application has been throttled and should not attempt to repeat the request until an amount of time "
        "has elapsed."
    )
    headers = {
        "Retry-After": str(RETRY_SECONDS),
        "x-ms-user-quota-remaining": "0",
        "x-ms-user-quota-resets-after": f"00:00:{RETRY_SECONDS:02}",
    }
    return ArmError(429, "RateLimiting", message, headers=headers, details=(UserError("RateLimiting", message),))
