"""Work in a forked child, whose exit code says how it went."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable


def in_child(work: Callable[[], bool], timeout: float = 20) -> int | None:
    """Fork; return the child's exit code: 0 if `work` returned True in it; None if it hangs."""
    with warnings.catch_warnings():
        # Newer Pythons warn of forking with threads, which is what is tested here.
        warnings.simplefilter("ignore", DeprecationWarning)
        process = os.fork()
    if process == 0:
        code = 1
        try:
            code = 0 if work() else 2
        finally:
            os._exit(code)
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(process, 9)
    os.waitpid(process, 0)
    return None
