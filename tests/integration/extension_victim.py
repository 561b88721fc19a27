"""The extension, which dies or stops at one write that a file names. Not a test.

Usage: extension_victim.py FATE --pipe, and so on as the extension's own arguments; or extension_victim.py --fork.

FATE holds {"at": a pattern of the write, "when": "before" | "after" | "hold" | "pause" | "each", "nth": the how-manieth
write that matches} and is removed when it is met, so the next process lives. "hold" stops it for ever, "pause" until
the file FATE.paused is removed. With "each" FATE stays, and processes die one after the other, before each write that
differs from those at which one died already, and after each that creates something; FATE.steps lists them. A write is
`store KEY` or `METHOD PATH` to the API server, with the phase behind it for a status.

With --fork it forks a process for each line of its input, `Birth` as JSON, and answers with its number: importing takes
ten times as long as forking. How a process ended stands in the file FATE.NUMBER.
"""

import asyncio
import contextlib
import ctypes
import json
import os
import re
import signal
import sys
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any, TypedDict

from strongroom.dataplane.kube.transport import Call, Transport
from strongroom.dataplane.objectstore.cloud import CloudStore
from strongroom.dataplane.objectstore.filesystem import FilesystemStore
from strongroom.dataplane.snapshots import leftovers
from strongroom.extension.main import main

PAUSE_SECONDS = 0.05


class Birth(TypedDict):
    """What a process is born with. *days*: how much later its sweep for leftovers believes it is."""

    arguments: list[str]
    environment: dict[str, str]
    fate: str
    log: str
    days: int


class Victim:
    """What the writes of this process meet."""

    def __init__(self, fate: Path) -> None:
        self._fate = fate
        self._seen = 0

    async def meet(self, write: str, when: str) -> None:
        if not self._fate.exists():
            return
        fate = json.loads(self._fate.read_text())
        if not re.search(fate["at"], write):
            return
        if fate["when"] == "each":
            # After a change nobody can tell from before the next step. After what creates something, one can.
            if when == "before" or write.startswith(("store ", "POST ")):
                self._each(f"{when} {step(write)}")
            return
        if (fate["when"] == "after") != (when == "after"):
            return
        self._seen += 1
        if self._seen < fate["nth"]:
            return
        paused = self._fate.with_name("fate.paused")
        if fate["when"] == "pause":
            paused.touch()
        self._fate.unlink()
        if fate["when"] == "hold":
            await asyncio.Event().wait()
        if fate["when"] != "pause":
            os.kill(os.getpid(), signal.SIGKILL)
        while True:
            await asyncio.sleep(PAUSE_SECONDS)
            if not paused.exists():
                return

    def _each(self, met: str) -> None:
        steps = self._fate.with_name("fate.steps")
        if met not in (steps.read_text().splitlines() if steps.exists() else ()):
            with steps.open("a") as known:
                known.write(f"{met}\n")
            os.kill(os.getpid(), signal.SIGKILL)


def step(write: str) -> str:
    """Return a write without what differs from run to run: ids have digits, but not all parts of a UUID."""
    return re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|\w*\d\w*", "*", write)


def arm(victim: Victim) -> None:
    """Have the writes of this process meet *victim*."""
    request = Transport.request

    def fateful(put: Any) -> Any:
        async def fateful_put(self: Any, key: Any, *arguments: Any, **options: Any) -> None:
            await victim.meet(f"store {key}", "before")
            await put(self, key, *arguments, **options)
            await victim.meet(f"store {key}", "after")

        return fateful_put

    async def fateful_request(self: Transport, call: Call) -> bytes:
        if call.method == "GET":
            return await request(self, call)
        phase = re.search(rb'"phase":"(\w+)"', call.body or b"") if call.path.endswith("/status") else None
        write = f"{call.method} {call.path}{f' {phase[1].decode()}' if phase else ''}"
        await victim.meet(write, "before")
        answer = await request(self, call)
        await victim.meet(write, "after")
        return answer

    for store in (FilesystemStore, CloudStore):
        store.put = fateful(store.put)  # type: ignore[method-assign]
    Transport.request = fateful_request  # type: ignore[method-assign]


def live(birth: Birth) -> int:
    """Be an extension; return its exit code."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG of linux/prctl.h: a test run may be killed
    log = os.open(birth["log"], os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
    os.dup2(log, 2)
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    os.dup2(0, 1)
    os.environ.clear()
    os.environ.update(birth["environment"])
    sys.argv = ["extension_victim", *birth["arguments"]]
    if birth["days"]:
        age(birth["days"])
    arm(Victim(Path(birth["fate"])))
    return main()


def age(days: int) -> None:
    """Let the sweep for leftovers believe that it is *days* later."""

    class Later(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz or UTC) + timedelta(days=days)

    leftovers.datetime = Later  # type: ignore[misc]


def fork_lives() -> None:
    """Fork a process for each line of the input, until it ends."""
    fates: dict[int, str] = {}

    def reap(*_: object) -> None:
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                told = Path(f"{fates.pop(ended[0])}.{ended[0]}")
                new = told.with_suffix(".new")
                new.write_text(str(os.waitstatus_to_exitcode(ended[1])))
                new.rename(told)

    signal.signal(signal.SIGCHLD, reap)
    for line in sys.stdin:
        birth: Birth = json.loads(line)
        # One that ends at once must find its fate noted.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        pid = os.fork()
        if not pid:
            code = 1
            try:
                code = live(birth)
            finally:
                os._exit(code)
        fates[pid] = birth["fate"]
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        print(pid, flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "--fork":
        fork_lives()
    else:
        arm(Victim(Path(sys.argv.pop(1))))
        sys.exit(main())
