"""How a process of ours ends."""

import contextlib
import logging
import os
import sys
from typing import NoReturn


def leave(code: int) -> NoReturn:
    """End this process with *code*: what was printed and logged is written, the interpreter is not torn down.

    The threads of obstore's runtime hand their last results over at any time. One that does so while the interpreter
    goes aborts the process (PyO3/pyo3-async-runtimes issue 40): about one command in eight whose store lies in a cloud
    ended so, with 134, its work done. Nor does a thread that hangs in a call hold the process back.
    """
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # its reader is gone, or it was closed
            stream.flush()
    os._exit(code)
