"""Lets applications stand still while volumes are cut: intent, pre hooks, a cap, post hooks.

The order is begin, watch, thaw; thaw always, also where begin raised. Killed anywhere, the intent says what to thaw
(`intent.thaw_leftovers`); cancelled, the thaw goes on to its end.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from strongroom.dataplane.hooks.commands import COMMANDS_AT_ONCE, End, Outcome, carry_out
from strongroom.dataplane.hooks.errors import FreezeFailed, HookFailed
from strongroom.dataplane.hooks.intent import intent_name, remove_intent, undone, write_intent
from strongroom.dataplane.hooks.select import PodTasks, Task
from strongroom.dataplane.hooks.spec import Hook, OnError
from strongroom.dataplane.kube.api import KubeApi
from strongroom.dataplane.kube.errors import KubeError

log = logging.getLogger(__name__)

FREEZE_SECONDS: Final = 120.0  # design.md section 5, step 2: no application stands still for longer
# A thaw that does not get through is tried again: an API server that restarts is back within a minute.
THAW_PAUSES_SECONDS: Final = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)

CutClaim = tuple[str, str, str]
"""Namespace, name and uid of a claim whose volume was cut."""


@dataclass(frozen=True)
class BackupHooks:
    """The hooks of a backup. *namespace* is ours, where the intent lies; *cap_s* bounds how long anything is frozen.

    *live* holds the names of the intents of runs under way in this process: `thaw_leftovers` leaves them alone.
    """

    hooks: tuple[Hook, ...]
    namespace: str
    cap_s: float = FREEZE_SECONDS
    live: set[str] = field(default_factory=set)


class Freeze:
    """The hooks of one run."""

    def __init__(self, api: KubeApi, hooks: BackupHooks, run: str, pods: Sequence[PodTasks]) -> None:
        self._api = api
        self._hooks = hooks
        self._run = run
        self._pods = pods
        self._name = intent_name(run)
        self._gate = asyncio.Semaphore(COMMANDS_AT_ONCE)
        self._deadline = float("inf")
        self._intended = False
        self._begun: set[str] = set()
        self._stopped: Outcome | None = None
        self._ready = asyncio.Event()
        self._cut: Callable[[], Collection[CutClaim]] = tuple
        self._cap: asyncio.Task[None] | None = None
        self._thawing: asyncio.Task[None] | None = None
        self.commands = 0
        self.failures: list[Outcome] = []
        self.frozen: set[str] = set()
        """The uids of the pods whose pre hooks all succeeded."""
        self.cut: frozenset[CutClaim] = frozenset()
        """The claims whose volumes were cut before the thaw began."""
        self.capped = False
        self.not_thawed = False
        """Whether a post hook with `onError: Fail` failed, or was not carried out."""
        self.began: datetime | None = None
        self.thawed: datetime | None = None

    @property
    def pods(self) -> int:
        """In how many pods something runs."""
        return len(self._pods)

    async def begin(self) -> None:
        """Write the intent and run the pre hooks, pods beside each other, those of one pod in their order.

        Raises `FreezeFailed`, and `HookFailed` for a command with `onError: Fail`; call `thaw` then too. A command
        that the cap does not let begin counts as failed.
        """
        post = [task for pod in self._pods for task in pod.post if task.container]
        if post:
            self._hooks.live.add(self._name)
            self._intended = True  # before the write: its reply may be lost
            try:
                await write_intent(self._api, self._hooks.namespace, self._run, post)
            except KubeError as error:
                raise FreezeFailed(
                    f"the intent to freeze could not be written, so nothing was frozen: {error.message}",
                    hint=error.hint,
                ) from error
        clock = asyncio.get_running_loop().time
        self._deadline = clock() + self._hooks.cap_s
        self.began = datetime.now(UTC)
        self._cap = asyncio.create_task(self._at_cap(), name=f"cap of {self._name}")
        try:
            await asyncio.gather(*(self._freeze(pod) for pod in self._pods))
        finally:
            self._ready.set()
        if self._stopped is not None:
            raise HookFailed(self._stopped.message, hint=self._stopped.hint)

    def watch(self, cut: Callable[[], Collection[CutClaim]]) -> None:
        """Take note of how to ask which claims are cut by now; asked once, when the thaw begins."""
        self._cut = cut

    async def thaw(self) -> None:
        """Run the post hooks of all pods that were frozen, or that have no pre hooks. Raises nothing.

        Cancelled it goes on, and the cancellation counts after its end.
        """
        thawing = self._begin_thaw()
        try:
            await asyncio.shield(thawing)
        except asyncio.CancelledError:
            await asyncio.wait((thawing,))
            raise
        finally:
            if self._cap is not None:
                self._cap.cancel()

    def warnings(self) -> list[str]:
        """Return in words what a reader of the recovery point has to know."""
        said = [f"{one.message}. {one.hint}" if one.hint else one.message for one in self.failures]
        if self.capped:
            said.append(
                f"applications were thawed after {self._hooks.cap_s:g} s, before everything was cut: "
                f"volumes that were cut later are crash-consistent"
            )
        return said

    async def _at_cap(self) -> None:
        await asyncio.sleep(self._hooks.cap_s)
        await self._ready.wait()  # pre hooks under way have just met their own end: the thaw comes after them
        if self._thawing is None:
            self.capped = True
            self._begin_thaw()

    def _begin_thaw(self) -> "asyncio.Task[None]":
        if self._thawing is None:
            # What was seen cut before this line was cut while all stood still: no clock has to be compared.
            self.cut = frozenset(self._cut())
            self._thawing = asyncio.create_task(self._thaw(), name=f"thaw {self._name}")
        return self._thawing

    async def _freeze(self, pod: PodTasks) -> None:
        whole = bool(pod.pre)
        for task in pod.pre:
            async with self._gate:
                if self._stopped is not None:
                    return
                left = self._deadline - asyncio.get_running_loop().time()
                if left <= 0:
                    reason = f"it was not run: the {self._hooks.cap_s:g} s that anything may stand still were over"
                    outcome = Outcome(task, End.FAILED, reason)
                else:
                    first = pod.pod.uid not in self._begun
                    self._begun.add(pod.pod.uid)
                    outcome = await self._run_one(task, min(task.command.timeout_s, left))
                    if first and outcome.forbidden:
                        self._begun.discard(pod.pod.uid)  # it surely goes on as before, and we may not thaw it either
            if outcome.end is not End.DONE:
                whole = False
                self.failures.append(outcome)
                if task.command.on_error is OnError.FAIL:
                    self._stopped = self._stopped or outcome
                    return
        if whole:
            self.frozen.add(pod.pod.uid)

    async def _thaw(self) -> None:
        all_frozen = self._ready.is_set() and self._stopped is None
        due = [pod for pod in self._pods if pod.pod.uid in self._begun or (all_frozen and not pod.pre)]
        outcomes = [one for some in await asyncio.gather(*(self._thaw_pod(pod.post) for pod in due)) for one in some]
        self.thawed = datetime.now(UTC)
        for outcome in outcomes:
            if outcome.end is not End.DONE:
                self.failures.append(outcome)
                self.not_thawed |= outcome.task.command.on_error is OnError.FAIL or outcome.end is End.NOT_RUN
        if self._intended and not undone(outcomes):
            try:
                await remove_intent(self._api, self._hooks.namespace, self._name)
            except KubeError as error:
                log.warning("an intent to freeze stays", extra={"intent": self._name, "reason": error.message})
        self._hooks.live.discard(self._name)

    async def _thaw_pod(self, tasks: Iterable[Task]) -> list[Outcome]:
        outcomes = []
        for task in tasks:
            for pause in (*THAW_PAUSES_SECONDS, None):
                async with self._gate:
                    outcome = await self._run_one(task, task.command.timeout_s)
                if outcome.end is not End.NOT_RUN or outcome.forbidden or pause is None:
                    break
                await asyncio.sleep(pause)
            outcomes.append(outcome)
        return outcomes

    async def _run_one(self, task: Task, timeout_s: float) -> Outcome:
        self.commands += 1
        outcome = await carry_out(self._api, task, timeout_s)
        log.info("hook run", extra={"hook": task.hook, "pod": task.pod.key, "end": outcome.end.value})
        return outcome
