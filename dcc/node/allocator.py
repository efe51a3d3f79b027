"""What the C library keeps of freed memory, bounded.

glibc raises by itself the size from which a block comes from the kernel and goes back to it, up to
32 MiB, once such a block was freed. Values below that size then leave holes that the process never
gives back, beside its limit. A fixed size ends that; few arenas end the same for threads.
"""

from __future__ import annotations

import ctypes
import sys

from dcc.units import KIB

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
"Numbers of mallopt(3)."

LARGE_BYTES = 256 * KIB
"Blocks of this size and more go back at once; a page fault for each 4 KiB is their price."
TRIM_BYTES = 1_024 * KIB
ARENAS = 2


def give_back_early() -> bool:
    """Fix the allocator's limits for this process; return whether it has taken them.

    Elsewhere than on Linux with glibc nothing is done: other allocators give back by themselves.
    """
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    mallopt.argtypes, mallopt.restype = (ctypes.c_int, ctypes.c_int), ctypes.c_int
    settings = {M_MMAP_THRESHOLD: LARGE_BYTES, M_TRIM_THRESHOLD: TRIM_BYTES, M_ARENA_MAX: ARENAS}
    taken: list[int] = [mallopt(name, value) for name, value in settings.items()]
    return all(taken)
