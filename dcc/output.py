"""The standard streams of a command, and what becomes of it when they cannot be written.

A reader that goes ends a command quietly, with the code that a shell shows for other tools: `dcc
status | head -1` is no failure of dcc. A device that is full or broken is one, in one line.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

STANDARD = (0, 1, 2)
READER_GONE = 141
"128 and the number of SIGPIPE."
UNWRITABLE = 74
"The number that sysexits.h has for it."

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

_FAILURES = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}


class Parser(argparse.ArgumentParser):
    """A parser whose help fails like any other output; argparse itself would not tell."""

    def print_help(self, file: SupportsWrite[str] | None = None) -> None:
        """Write the help to `file`, standard output by default."""
        (file or sys.stdout).write(self.format_help())


def guarded(command: Callable[[], int]) -> int:
    """Run `command`; return its exit code, or another one if its output is not all written."""
    fill_standard()
    try:
        try:
            return command()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        _silence(sys.stdout)
        return READER_GONE
    except OSError as error:
        if error.errno not in _FAILURES:
            raise
        _silence(sys.stdout)
        complain(f"dcc: the output cannot be written: {(error.strerror or str(error)).lower()}")
        return UNWRITABLE


def fill_standard() -> None:
    """Open the null device in place of standard input, output and error if they are closed.

    A socket that got one of their numbers would be sent what is meant for the log.
    """
    for fd in STANDARD:
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # The lowest free number is this one.
    # Python has made no files of those that were closed.
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


def complain(line: str) -> None:
    """Write a line to standard error, if anything can be written there."""
    try:
        sys.stderr.write(line + "\n")
        sys.stderr.flush()
    except OSError:
        _silence(sys.stderr)


def _silence(stream: TextIO) -> None:
    """Let `stream` end in the null device: Python writes what it still holds there at exit."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)
