"""The hosted extension, which dies or stops for ever at one write that a file names. Not a test.

Usage: extension_victim.py FATE --pipe. FATE holds {"at": a pattern of the write, "when": "before" | "after" | "hold",
"nth": the how-manieth write that matches} and is removed when it is met, so the next process lives. A write is
`store KEY` or `METHOD PATH` to the API server.
"""

import asyncio
import json
import os
import re
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from strongroom.dataplane.kube.transport import Call, Transport
from strongroom.dataplane.objectstore.filesystem import FilesystemStore
from strongroom.extension.main import main

FATE = Path(sys.argv.pop(1))
seen = Counter[str]()
put, request = FilesystemStore.put, Transport.request


async def meet(write: str, when: str) -> None:
    if not FATE.exists():
        return
    fate = json.loads(FATE.read_text())
    if not re.search(fate["at"], write) or (fate["when"] == "after") != (when == "after"):
        return
    seen[when] += 1
    if seen[when] < fate["nth"]:
        return
    FATE.unlink()
    if fate["when"] == "hold":
        await asyncio.Event().wait()
    os.kill(os.getpid(), signal.SIGKILL)


async def fateful_put(self: FilesystemStore, key: Any, *arguments: Any, **options: Any) -> None:
    await meet(f"store {key}", "before")
    await put(self, key, *arguments, **options)
    await meet(f"store {key}", "after")


async def fateful_request(self: Transport, call: Call) -> bytes:
    if call.method == "GET":
        return await request(self, call)
    await meet(f"{call.method} {call.path}", "before")
    answer = await request(self, call)
    await meet(f"{call.method} {call.path}", "after")
    return answer


FilesystemStore.put = fateful_put  # type: ignore[method-assign]
Transport.request = fateful_request  # type: ignore[method-assign]

if __name__ == "__main__":
    sys.exit(main())
