"""A node on a machine whose wall clock is stepped while it runs: `… FILE OPTIONS of the node …`.

The first eight bytes of the file are how many ns the clock is off, signed, little-endian; whoever
writes them sets the clock. The node reads the wall clock with `time.time_ns` alone, so this is what
a step of the machine's clock looks like to it; monotonic clocks are right, as on such a machine.
"""

from __future__ import annotations

import mmap
import runpy
import struct
import sys
import time
from pathlib import Path

OFF = struct.Struct("<q")


def create(path: Path) -> None:
    """Make the file of a clock that is right."""
    path.write_bytes(OFF.pack(0))


def set_off(path: Path, off_ns: int) -> None:
    """Set the clock."""
    with path.open("r+b") as file:
        file.write(OFF.pack(off_ns))


def main() -> None:
    """Run the node."""
    with open(sys.argv[1], "r+b") as file:
        off = mmap.mmap(file.fileno(), OFF.size)
    right = time.time_ns
    time.time_ns = lambda: right() + int(OFF.unpack(off[:8])[0])
    time.time = lambda: time.time_ns() / 1e9
    sys.argv = ["dcc.node", *sys.argv[2:]]
    runpy.run_module("dcc.node", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
