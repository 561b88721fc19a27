"""Limits how many bytes of answers are in memory at once, over all kinds that are read side by side."""

import asyncio
from collections import deque
from typing import Final

BUDGET_BYTES: Final = 64 * 1024 * 1024
"""Design: section 5, step 5. With the copies that splitting makes, a backup stays well below 300 MiB of memory."""
PAGE_ESTIMATE_BYTES: Final = 8 * 1024 * 1024
"""What a page is counted as until it is there: twice what pages aim at (kube/pages.py); the first is a guess."""


class ByteBudget:
    """Bytes that readers share. First come, first served, so that a large page is not starved by small ones."""

    def __init__(self, total: int = BUDGET_BYTES) -> None:
        self._free = total
        self._total = total
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def in_flight(self) -> int:
        """Bytes now taken; more than the total where an answer was larger than its estimate."""
        return self._total - self._free

    async def take(self, size: int) -> None:
        """Wait until *size* bytes (at most the whole budget) are free and take them."""
        size = min(size, self._total)
        if not self._waiting and size <= self._free:
            self._free -= size
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (size, turn)
        self._waiting.append(entry)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give(size)
            else:
                self._waiting.remove(entry)
                self._wake()
            raise

    def settle(self, estimated: int, actual: int) -> None:
        """Replace an estimate by what really came. It may overdraw the budget: the bytes are there already."""
        self.give(min(estimated, self._total) - actual)

    def give(self, size: int) -> None:
        """Give *size* bytes back and let waiting readers go on."""
        self._free += size
        self._wake()

    def _wake(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._free:
            size, turn = self._waiting.popleft()
            if not turn.done():
                self._free -= size
                turn.set_result(None)
