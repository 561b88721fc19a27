"""A store that loses messages, stops at a write, and whose clock a test can move: for crash and prune tests."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from enum import Enum, auto

from strongroom.dataplane.objectstore.errors import StoreUnavailable
from strongroom.dataplane.objectstore.memory import MemoryStore
from strongroom.dataplane.objectstore.port import Key


class Lost(Enum):
    """What of a write gets lost: the request (nothing happens) or only the reply (it happened, nobody hears of it)."""

    REQUEST = auto()
    REPLY = auto()


class Killed(RuntimeError):
    """The process that used the store would have been killed here. No retry catches it."""


class UnreliableStore(MemoryStore):
    """A memory store with faults. Writes are counted from 0; after `lose` fires once, everything works again.

    `dead` makes every later call of this instance fail, as for a process that was killed; open the same name again to
    go on. `before_put` runs before each write, with its key.
    """

    def __init__(self, name: str, *, create: bool = False) -> None:
        super().__init__(name, create=create)
        self.writes = 0
        self.dead = False
        self.before_put: Callable[[Key], Awaitable[None]] | None = None
        self._lose: tuple[int, Lost, bool, str] | None = None

    def lose(self, write: int, lost: Lost, *, then_dead: bool, prefix: str = "") -> None:
        """Lose write number *write* of those under *prefix* from now on; *then_dead*: this instance then is dead."""
        self.writes = 0
        self._lose = (write, lost, then_dead, prefix)

    def age(self, by: timedelta) -> None:
        """Let the store's clock go on by *by*: everything stored so far becomes older."""
        for key, (data, modified) in list(self._objects.items()):
            self._objects[key] = (data, modified - by)

    async def put(self, key: Key, data: bytes | memoryview, *, if_absent: bool = True) -> None:
        if self.before_put is not None:
            await self.before_put(key)
        self._check(key)
        if self._lose is None or key.startswith(self._lose[3]):
            self.writes += 1
        if self._lose is not None and self.writes > self._lose[0]:
            _, lost, then_dead, _ = self._lose
            self._lose = None
            self.dead = then_dead
            if lost is Lost.REPLY:
                await super().put(key, data, if_absent=if_absent)
            if then_dead:
                raise Killed(key)
            raise StoreUnavailable(f"the {lost.name.lower()} of {key} was lost", store=self.url, key=key)
        await super().put(key, data, if_absent=if_absent)

    async def get(self, key: Key) -> bytes:
        self._check(key)
        return await super().get(key)

    def _check(self, key: Key) -> None:
        if self.dead:
            raise Killed(key)
