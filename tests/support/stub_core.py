"""A loop over real sockets and a core of a few lines, for the tests of the node's shell."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from dcc.config import NodeConfig
from dcc.effects import Effect, Reply
from dcc.node.access import Access
from dcc.node.counters import Load
from dcc.node.loop import Loop
from dcc.node.options import Address
from dcc.node.transport import Transport
from dcc.types import Identity, NodeKey, Now, topic_of
from dcc.units import NEVER

HERE = Address("127.0.0.1", 0)


class ToyCore:
    """Serves frames that begin with `get`, echoes all others, and remembers what it was told.

    A frame `hold` is taken only once `release` is set; `spend N` costs N ms of the loop's time.
    """

    def __init__(self) -> None:
        self.load = Load()
        self.ready = self.slots_ready = True
        self.left = False
        self.received: list[list[bytes]] = []
        self.access = Access()
        self.gossip: list[list[bytes]] = []
        self.undelivered: list[tuple[NodeKey | str, list[bytes]]] = []
        self.ticks = 0
        self.holding, self.release = threading.Event(), threading.Event()
        self.stuck = False
        self.spend: Callable[[int], None] = lambda _ms: None
        self.order: list[str] = []
        "Requests that took the slow path, gossip and ticks, in the order in which they came."
        self.times: list[Now] = []
        "The time that the core was told at each of those."
        self.next_tick = NEVER
        self.always = NEVER
        "When the next tick is due after each one."
        self.todo: list[Effect] = []

    def start(self, now: Now) -> list[Effect]:
        return []

    def serve(self, route: bytes, frame: bytes, now: Now) -> bytes | None:
        return b"got " + frame[4:] if frame.startswith(b"get ") else None

    def receive(
        self, route: bytes, frames: list[bytes], now: Now, _who: Identity | None = None
    ) -> list[Effect]:
        self.received.append(frames)
        self._note("request", now)
        if frames[0] == b"hold":
            self._hold()
        if frames[0].startswith(b"spend "):
            self.spend(int(frames[0][6:]))
        if frames[0] == b"bug":
            raise RuntimeError("a bug in the core")
        short = self.serve(route, frames[0], now) if len(frames) == 1 else None
        return [Reply(route, [short] if short else frames)] if route else []

    def receive_gossip(self, frames: list[bytes], now: Now) -> list[Effect]:
        self.gossip.append(frames)
        self._note("gossip", now)
        return []

    def undeliverable(self, to: NodeKey | str, frames: list[bytes], now: Now) -> list[Effect]:
        self.undelivered.append((to, frames))
        return []

    def tick(self, now: Now) -> list[Effect]:
        self.ticks += 1
        self._note("tick", now)
        if self.stuck:
            self._hold()
        self.next_tick = self.always
        todo, self.todo = self.todo, []
        return todo

    def wake_at(self) -> int:
        return self.next_tick

    def leave(self, now: Now) -> list[Effect]:
        self.left = True
        return []

    @property
    def displaced(self) -> bool:
        return False

    def observe(self, command: str, duration_ns: int, times: int) -> None:
        self.observed = (command, duration_ns, times)

    def _hold(self) -> None:
        self.holding.set()
        assert self.release.wait(30)

    def _note(self, what: str, now: Now) -> None:
        self.order.append(what)
        self.times.append(now)

    def unsent(self, frames: list[bytes]) -> list[bytes]:
        return [b"refused"]

    def stats(self, now: Now) -> dict[str, Any]:
        return {"ticks": self.ticks}


class Harness:
    """A loop over a toy core in a thread."""

    def __init__(self) -> None:
        self.core = ToyCore()
        self.transport = Transport(reconnect_ms=100)
        self.request, self.gossip = self.transport.bind(HERE, HERE)
        self.transport.subscribe(topic_of(1))
        self.events: list[tuple[str, dict[str, Any]]] = []
        config = NodeConfig(name="toy", request=str(self.request), gossip=str(self.gossip))
        self.ready = threading.Event()
        self.loop = Loop(
            self.core,
            self.transport,
            config,
            log=lambda event, fields: self.events.append((event, dict(fields))),
            on_ready=self.ready.set,
        )
        self.thread = threading.Thread(target=self.loop.run)
        self.thread.start()

    def do(self, *effects: Effect) -> None:
        """Have the core ask for `effects` in the loop's own thread."""
        self.core.todo += effects
        self.core.next_tick = 0
        self.loop._wishes.wake()

    def stick(self) -> None:
        """Hold the loop inside the core until `core.release` is set."""
        self.core.stuck = True
        self.do()
        assert self.core.holding.wait(10)

    def end(self) -> None:
        self.loop.stop()
        self.thread.join(10)
        assert not self.thread.is_alive()
