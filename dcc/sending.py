"""libzmq's send without the binding's wrapper in Python, which costs three times what it wraps.

The wrapper is for draft sockets, which are not used here. Errors are the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from zmq.backend import Socket

send: Callable[..., Any] = Socket.send
"Called with a socket, a frame, flags and, if it is False, whether the frame is copied."
