"""Starts the extension: `python -m strongroom.extension.main --pipe` is the child that `serve` hosts for a cluster."""

import argparse
import asyncio
import contextlib
import ctypes
import logging
import os
import signal
import sys
from typing import Final

from strongroom.extension.api.pipe import LINE_BYTES
from strongroom.extension.pipe import Outbox, PipeServer, writer_to

log = logging.getLogger("strongroom.extension")

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
# What a LogRecord has by itself; the rest are the fields of an event.
_RECORD_FIELDS: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class EventFormatter(logging.Formatter):
    """Writes an event with its fields on one line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; a trace follows it."""
        fields = "".join(f" {name}={value!r}" for name, value in vars(record).items() if name not in _RECORD_FIELDS)
        return super().format(record) + fields


def main() -> int:
    """Run until the parent closes the pipe or SIGTERM comes; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m strongroom.extension.main", description=__doc__)
    parser.add_argument("--pipe", action="store_true", required=True, help="take orders on stdin, answer on stdout")
    parser.parse_args()
    # Whatever prints must not print among the answers.
    answers = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(EventFormatter("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    _die_with_parent()
    return asyncio.run(_serve(answers))


async def _serve(answers: int) -> int:
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    reader = asyncio.StreamReader(limit=LINE_BYTES)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    outbox = Outbox()
    server = PipeServer(outbox)
    tasks = [
        asyncio.create_task(server.serve(reader)),
        asyncio.create_task(outbox.send(writer_to(answers))),
        asyncio.create_task(stopped.wait()),
    ]
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    await server.close()
    failed = [error for task in done if (error := task.exception()) is not None]
    for error in failed:
        if not isinstance(error, BrokenPipeError):
            log.error("the extension stops", exc_info=error)
    code = 1 if any(not isinstance(error, BrokenPipeError) for error in failed) else 0
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    # Not by returning: a run that will not stop, or a write that nobody reads, would keep the process.
    os._exit(code)


def _die_with_parent() -> None:
    """Have Linux send SIGTERM when the parent dies. Elsewhere, and before this call, the pipe's end says it."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


if __name__ == "__main__":
    sys.exit(main())
