"""Hosts the extension of one cluster as a child process: starts it, tells it folders of this machine, ends it.

The child carries out its cluster's custom resources, each once by its name; what it was at goes on in the next one.
"""

import asyncio
import base64
import contextlib
import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import msgspec

from strongroom.errors import ExitCode, StrongroomError
from strongroom.extension.api import pipe as wire
from strongroom.extension.api.documents import BackupStorageLocation

log = logging.getLogger(__name__)

START_SECONDS: Final = 60.0  # Python and its libraries take 2 s; the child gives an unreachable server up after 30
ANSWER_SECONDS: Final = 30.0  # orders are answered at once; a child that hangs must not hang its waiters
STOP_SECONDS: Final = 15.0  # the child itself gives its runs 10 s to clear away
LOG_LINE_BYTES: Final = 64 * 1024  # of the child's log; longer lines are cut

# What a process needs to run at all, to find its CA bundle and proxy. Above all no credentials of a store: those of
# this server's own environment are not the cluster's, and a child's environment can be read by others of its user.
ENVIRONMENT: Final = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TZ",
    "TMPDIR",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "HTTPS_PROXY",
    "https_proxy",
    "NO_PROXY",
    "no_proxy",
    "SYSTEMROOT",
    "VIRTUAL_ENV",
    "PYTHONPATH",
)
MODULE: Final = "strongroom.extension.main"


class ExtensionError(StrongroomError):
    """The root of this module's errors."""


class ExtensionGone(ExtensionError):
    """The child process ended, or does not answer."""

    exit_code = ExitCode.UNREACHABLE


class ExtensionRefused(ExtensionError):
    """The child refused an order; *code* is Azure's where there is one, *field* the path of what is wrong."""

    def __init__(self, message: str, *, code: str, field: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.code = code
        self.field = field


@dataclass(frozen=True)
class ExtensionKeys:
    """The public halves of the extension's keys: `age1…`; a raw Ed25519 key of 32 bytes."""

    recipient: str
    writer: bytes


class _Child:
    """One child process, from its start to its end; a new one has nothing of it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.keys: ExtensionKeys | None = None
        self.gone = asyncio.Event()
        self._answers: dict[int, asyncio.Future[wire.Event]] = {}
        self._seq = 0
        self._writing = asyncio.Lock()
        self._tasks = (asyncio.create_task(self._read()), asyncio.create_task(self._log()))

    @classmethod
    async def spawn(cls, command: Sequence[str]) -> Self:
        environment = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                env=environment,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                limit=wire.LINE_BYTES,
            )
        except OSError as error:
            raise ExtensionGone(f"the extension's process could not be started: {error.strerror}") from error
        return cls(process)

    @property
    def alive(self) -> bool:
        return not self.gone.is_set() and self.process.returncode is None

    async def ask(self, make: Callable[[int], wire.Order], seconds: float = ANSWER_SECONDS) -> wire.Event:
        """Send an order and return its answer. Raises `ExtensionGone`, `ExtensionRefused`."""
        if not self.alive:
            raise self.lost()
        self._seq += 1
        seq = self._seq
        answer: asyncio.Future[wire.Event] = asyncio.get_running_loop().create_future()
        self._answers[seq] = answer
        try:
            async with asyncio.timeout(seconds):
                await self._send(make(seq))
                event = await answer
        except TimeoutError as error:
            # A child that does not answer is of no use to anybody; its end frees all who wait for it.
            self.kill()
            raise ExtensionGone(f"the extension did not answer within {seconds:.0f} s and was ended") from error
        finally:
            self._answers.pop(seq, None)
        if isinstance(event, wire.Error):
            raise ExtensionRefused(event.message, code=event.code, field=event.field, hint=event.hint)
        return event

    def lost(self) -> ExtensionGone:
        code = self.process.returncode
        return ExtensionGone("the extension's process ended" + (f" with {code}" if code is not None else ""))

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()

    async def stop(self) -> None:
        """Let it end by closing its pipe; end it if it does not."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            await asyncio.wait_for(self.process.wait(), STOP_SECONDS)
        except TimeoutError:
            log.warning("the extension did not stop and is killed", extra={"pid": self.process.pid})
            self.kill()
            await self.process.wait()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _send(self, order: wire.Order) -> None:
        assert self.process.stdin is not None
        line = msgspec.json.encode(order) + b"\n"
        async with self._writing:
            try:
                self.process.stdin.write(line)
                await self.process.stdin.drain()
            except (ConnectionError, RuntimeError) as error:
                raise self.lost() from error

    async def _read(self) -> None:
        assert self.process.stdout is not None
        try:
            while True:
                try:
                    line = await self.process.stdout.readline()
                except ValueError:
                    log.error("the extension wrote a line that is too long and is ended")
                    self.kill()
                    return
                if not line.endswith(b"\n"):
                    return
                self._take(line)
        finally:
            self.gone.set()
            for answer in self._answers.values():
                if not answer.done():
                    answer.set_exception(self.lost())
            await self.process.wait()

    def _take(self, line: bytes) -> None:
        try:
            event = msgspec.json.decode(line, type=wire.Event)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            log.error("the extension wrote what is no event", extra={"reason": str(error)})
            return
        answer = self._answers.get(event.seq)
        if answer is not None and not answer.done():
            answer.set_result(event)
        elif isinstance(event, wire.Error):
            log.error("the extension complains", extra={"code": event.code, "reason": event.message})

    async def _log(self) -> None:
        """Pass the child's log on, line by line: a pipe that nobody reads would stop it."""
        assert self.process.stderr is not None
        while True:
            try:
                line = await self.process.stderr.readline()
            except ValueError:
                continue  # a line longer than the buffer: its beginning is dropped
            if not line:
                return
            text = line[:LOG_LINE_BYTES].decode("utf-8", "replace").rstrip()
            log.info("extension: %s", text, extra={"pid": self.process.pid})


class HostedExtension:
    """The extension of one cluster, in a child process of this one. Used from one event loop.

    *server* is the API server's URL, *ca* its CA as PEM text, *token_file* a file (0600) that whoever uses this keeps
    filled with a valid token of the extension's account; the child reads it again every minute. *allow_loopback* is as
    for `parse_kubeconfig`. On Linux the child ends with the thread that runs this loop.
    """

    def __init__(
        self,
        *,
        server: str,
        ca: str,
        token_file: Path,
        namespace: str,
        allow_loopback: bool = False,
        command: Sequence[str] | None = None,
    ) -> None:
        self._settings = (server, ca, token_file, namespace, allow_loopback)
        self._command = tuple(command) if command is not None else (sys.executable, "-m", MODULE, "--pipe")
        self._child: _Child | None = None
        self._starting = asyncio.Lock()
        self.folders: dict[str, BackupStorageLocation] = {}
        """The locations on this machine: what starts next knows them before it begins anything."""

    @property
    def alive(self) -> bool:
        """Whether the child runs and was configured."""
        return self._child is not None and self._child.alive and self._child.keys is not None

    @property
    def pid(self) -> int | None:
        """The child's process id, None while there is none."""
        return self._child.process.pid if self._child is not None and self._child.alive else None

    async def start(self) -> ExtensionKeys:
        """Start the child unless it runs; return the public halves of its keys.

        Raises `ExtensionGone` where it ended or did not answer, `ExtensionRefused` where it cannot work in the cluster.
        """
        async with self._starting:
            if self._child is not None and self._child.alive and self._child.keys is not None:
                return self._child.keys
            if self._child is not None:
                await self._child.stop()
            self._child = child = await _Child.spawn(self._command)
            server, ca, token_file, namespace, allow_loopback = self._settings
            try:
                event = await child.ask(
                    lambda seq: wire.Configure(
                        seq=seq,
                        server=server,
                        ca=ca,
                        token_file=str(token_file),
                        namespace=namespace,
                        allow_loopback=allow_loopback,
                        locations=tuple(folder.to_json() for folder in self.folders.values()),
                    ),
                    START_SECONDS,
                )
            except BaseException:
                await asyncio.shield(child.stop())
                raise
            if not isinstance(event, wire.Ready):
                await child.stop()
                raise ExtensionGone(f"the extension answered its start with {type(event).__name__}")
            child.keys = ExtensionKeys(event.recipient, base64.b64decode(event.writer))
            return child.keys

    async def stop(self) -> None:
        """End the child; what it was at goes on in the next one."""
        async with self._starting:
            child, self._child = self._child, None
            if child is not None:
                await child.stop()

    async def ended(self) -> None:
        """Return when the child that runs has ended; at once where none runs."""
        if self._child is not None:
            await self._child.gone.wait()

    def remember(self, document: BackupStorageLocation) -> None:
        """Have the next child know a folder from its start."""
        self.folders[document.name] = document

    async def location(self, document: BackupStorageLocation) -> None:
        """Have the child know a folder from now on. Raises `ExtensionGone`, `ExtensionRefused`."""
        self.remember(document)
        await self._running().ask(lambda seq: wire.Location(seq=seq, document=document.to_json()))

    def _running(self) -> _Child:
        if self._child is None or self._child.keys is None:
            raise ExtensionGone("the extension was not started")
        if not self._child.alive:
            raise self._child.lost()
        return self._child
