"""Keeps the memory of a long run near to what it uses: large buffers go back to the system when they are freed."""

import ctypes
from typing import Final

MIB: Final = 1024 * 1024
M_MMAP_THRESHOLD: Final = -3  # malloc.h of glibc
LARGE_BUFFER_BYTES: Final = 4 * MIB


def return_large_buffers() -> None:
    """Have the C library map buffers of 4 MiB and more one by one, as it does until the first such buffer is freed.

    Then glibc raises that bound to 32 MiB by itself, list pages and packs come from the heap, and the heap fragments:
    200,000 objects took 308 MiB instead of 247, 1,200 Secrets of 1 MB 321 instead of 234, when this was added;
    `python benchmarks/run.py --only many,secrets` prints the peak with it.
    Other C libraries do not have the habit, and nothing is done there.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        library.mallopt(M_MMAP_THRESHOLD, LARGE_BUFFER_BYTES)
