"""A server that warms up and then forks as servers written in C do, without Python's hooks.

    python -m tests.support.prefork_server HOST:PORT

Has no thread of Python's but its own, as such servers have when they fork. Prints one word.
"""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable

import dcc


def fork() -> int:
    """Fork without any hook."""
    process: int = ctypes.PyDLL(None).fork()
    return process


def started(work: Callable[[], bool]) -> int:
    """Start `work` in a child, which ends with 0 if it is true, and by force after a while."""
    process = fork()
    if process == 0:
        signal.alarm(20)
        code = 1
        try:
            code = 0 if work() else 2
        finally:
            os._exit(code)
    return process


def ended(process: int) -> int:
    """Return the exit code of a child."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def main() -> None:
    """Run the server."""
    cache = dcc.Client(sys.argv[1], timeout=5)
    cache.put("k", b"v")

    def works() -> bool:
        return cache.get("k") == b"v" and cache.put("child", b"c") is not None

    def serves() -> bool:
        """Answer requests in four threads, which all find out at once that this is a child."""
        found: list[bool] = []
        start = threading.Barrier(4)

        def serve() -> None:
            start.wait(10)
            found.extend(works() for _ in range(25))

        threads = [threading.Thread(target=serve) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return found == [True] * 100

    def has_children() -> bool:
        return works() and ended(started(works)) == 0 and works()

    def closes() -> bool:
        cache.close()
        try:
            cache.get("k")
        except dcc.ClientClosed:
            return True
        return False

    def forgets() -> bool:
        nonlocal cache
        del cache
        gc.collect()
        return True

    def is_another() -> bool:
        return cache._core.client_id != identity and works()

    identity = cache._core.client_id
    for _ in range(3):
        for work in (works, serves, has_children, is_another, closes, forgets):
            process = started(work)
            assert works()
            assert ended(process) == 0, work.__name__
            assert works()
    workers = [started(serves) for _ in range(4)]
    assert [ended(worker) for worker in workers] == [0] * 4
    cache.close()
    assert ended(started(closes)) == 0
    print("right")


if __name__ == "__main__":
    main()
