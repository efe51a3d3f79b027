"""Something that happens between two instructions, as signal handlers do, at a chosen one."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any


class Interruption(Exception):
    """What a handler raises."""


class Tracer:
    """Runs something in the place of the n-th instruction that is executed in dcc's files."""

    def __init__(self, at: int, run: Callable[[], Any]) -> None:
        self.left, self._run = at, run

    def __enter__(self) -> None:
        # Python 3.12 looks for this when tracing begins, 3.13 when a frame gets its tracer.
        sys._getframe().f_trace_opcodes = True
        sys.settrace(self._on_call)

    def __exit__(self, *_error: object) -> None:
        sys.settrace(None)

    def _on_call(self, frame: FrameType, event: str, argument: Any) -> Any:
        # What is raised while an object is collected is lost: Python has nobody to give it to.
        code = frame.f_code
        if "/dcc/" not in code.co_filename or code.co_name == "__del__":
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        frame.f_trace = self._on_opcode
        return self._on_opcode

    def _on_opcode(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "opcode":
            self.left -= 1
            if self.left < 0:
                sys.settrace(None)
                self._run()
        return self._on_opcode


def interrupt() -> None:
    raise Interruption
