"""A small deterministic network of `Membership` machines, for their tests.

One heap of events; messages pass through the real codec; the two planes differ as they do on
ZeroMQ: gossip reaches a node only if it has connected to the sender some milliseconds ago, the
request plane needs a connection or an address. The full simulator is in `simulations/`.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable
from heapq import heappop, heappush
from typing import Any

from dcc.config import NodeConfig
from dcc.effects import Answer, Connect, Disconnect, Effect, Gossip, Notify, Tell
from dcc.gossip.membership import Membership
from dcc.limits import GOSSIP_BYTES_MAX
from dcc.types import Member, NodeKey, Settings, Standing, node_key
from dcc.units import MILLISECOND, NEVER, SECOND
from dcc.wire.codec import Codec
from dcc.wire.messages import Message, PushPullReply

EPOCH_MS = 1_700_000_000_000
CONNECT_NS = 5 * MILLISECOND

Cut = Callable[[str, str, str], bool]
"(from name, to name, plane) -> whether a message is lost."


def name_of(index: int) -> str:
    return f"node-{index}"


class Node:
    """One life of a process: machine, codec and connections."""

    def __init__(self, net: Net, index: int, options: dict[str, Any]) -> None:
        self.net, self.index, self.name = net, index, options.pop("name", name_of(index))
        host = options.pop("host", f"10.0.{index // 256}.{index % 256}")
        self.config = NodeConfig(
            name=self.name, request=f"{host}:7001", gossip=f"{host}:7002", **options
        )
        boot = net.cluster_ms << 16
        me = Member(
            self.name, self.config.request, self.config.gossip, "", 1.0, boot, net.cluster_ms,
            Standing.ALIVE, net.cluster_ms, False,
        )  # fmt: skip
        self.key = me.key
        self.codec = Codec("test", sender=self.key, boot=boot)
        rng = random.Random(f"{net.seed}/{self.name}/{boot}")
        settings = Settings(self.config.replicas, 0, 0)
        self.machine = Membership(
            me, self.config, rng=rng, settings=settings, now=net.now, cluster_ms=net.cluster_ms
        )
        self.up = True
        self.paused_at: int | None = None
        self.waiting: list[Callable[[], None]] = []
        self.linked: dict[NodeKey, tuple[str, str, int]] = {}
        self.ticking_at = NEVER


class Net:
    """Nodes, links and virtual time."""

    def __init__(self, seed: int = 0, *, loss: float = 0.0, check: bool = True) -> None:
        self.seed, self.loss, self.checking = seed, loss, check
        self.rng = random.Random(f"{seed}/net")
        self.now = 1_000 * SECOND
        self.clock_ms = EPOCH_MS
        self.nodes: dict[int, Node] = {}
        self.by_request: dict[str, Node] = {}
        self.by_key: dict[NodeKey, list[Node]] = {}
        "By name, at every address that it was given."
        self.cut: Cut = lambda a, b, plane: False
        self.events: list[tuple[int, str, Notify]] = []
        self.sent: Counter[str] = Counter()
        self.largest_gossip_bytes = 0
        self._heap: list[tuple[int, int, Callable[[], None]]] = []
        self._seq = 0

    @property
    def cluster_ms(self) -> int:
        return self.clock_ms + self.now // MILLISECOND

    # ---------------------------------------------------------- nodes

    def add(self, index: int, *, start: bool = True, **options: Any) -> Node:
        """Start (or restart) a node; seeds may be given as indexes."""
        seeds = options.pop("seeds", ())
        options["seeds"] = tuple(
            f"10.0.{seed // 256}.{seed % 256}:7001" if isinstance(seed, int) else seed
            for seed in seeds
        )
        node = Node(self, index, options)
        self.nodes[index] = self.by_request[node.config.request] = node
        named = self.by_key.get(node.key, [])
        elsewhere = [twin for twin in named if twin.config.request != node.config.request]
        self.by_key[node.key] = [*elsewhere, node]
        if start:
            self.carry_out(node, node.machine.start(self.now, self.cluster_ms))
        return node

    def cluster(self, count: int, **options: Any) -> None:
        """Start `count` nodes that already know each other, and let a few seconds pass."""
        options.setdefault("seeds", (0, 1))
        for index in range(count):
            # Hand everybody the whole view as the answer of a seed: quicker than joins.
            self.add(index, **dict(options))
        rows = tuple(node.machine.me for node in self.nodes.values())
        reply = PushPullReply(members=rows, settings=Settings(1, 1, 0))
        frames = Codec("test", sender=1, boot=1).encode(reply)
        for node in self.nodes.values():
            self._hand_over(node, frames, "request", b"")
        self.run(5)
        self.events.clear()
        self.sent.clear()

    def crash(self, index: int) -> None:
        self.nodes[index].up = False

    def pause(self, index: int) -> None:
        self.nodes[index].paused_at = self.now

    def resume(self, index: int, *, told: bool = True) -> None:
        """Wake a stopped node: first the gap (unless its loop missed it), then what waited."""
        node = self.nodes[index]
        assert node.paused_at is not None
        if told:
            node.machine.standstill(self.now - node.paused_at, self.now)
        node.paused_at = None
        waiting, node.waiting = node.waiting[:256], []
        for deliver in waiting:
            deliver()
        self._tick(node)

    def live(self) -> list[Node]:
        return [node for node in self.nodes.values() if node.up]

    # ---------------------------------------------------------- time

    def run(self, seconds: float, *, until: Callable[[], bool] | None = None) -> bool:
        """Let time pass; return early, and True, when `until` holds (asked every 20 ms)."""
        end = self.now + int(seconds * SECOND)
        ask_at = self.now
        while self._heap and self._heap[0][0] <= end:
            self.now, _, action = heappop(self._heap)
            action()
            if until is not None and self.now >= ask_at:
                if until():
                    return True
                ask_at = self.now + 20 * MILLISECOND
        self.now = end
        return until is not None and until()

    def _after(self, delay_ns: int, action: Callable[[], None]) -> None:
        self._seq += 1
        heappush(self._heap, (self.now + delay_ns, self._seq, action))

    def _plan(self, node: Node) -> None:
        at = max(node.machine.wake_at(), self.now)
        if node.ticking_at <= at or at >= NEVER:
            return
        node.ticking_at = at

        def fire() -> None:
            if node.ticking_at == at:
                node.ticking_at = NEVER
                self._tick(node)

        self._after(at - self.now, fire)

    def _tick(self, node: Node) -> None:
        if not node.up or node.paused_at is not None:
            return
        if node.machine.wake_at() <= self.now:
            self.carry_out(node, node.machine.tick(self.now, self.cluster_ms))
        else:
            self._plan(node)

    # ---------------------------------------------------------- effects

    def carry_out(self, node: Node, effects: Iterable[Effect]) -> None:
        for effect in effects:
            match effect:
                case Notify():
                    self.events.append((self.now, node.name, effect))
                case Connect(key, request, gossip):
                    node.linked[key] = (request, gossip, self.now + CONNECT_NS)
                case Disconnect(key):
                    if isinstance(key, int):
                        del node.linked[key]
                case Gossip(to, message):
                    self._gossip(node, to, message)
                case Tell(to, message, request):
                    self._tell(node, to, message, request)
                case Answer(route, message, request):
                    to_node = self.by_request.get(route.decode())
                    self._send(node, to_node, message, "request", request)
                case _:
                    raise AssertionError(effect)
        if self.checking:
            node.machine.check()
        self._plan(node)

    def _gossip(self, node: Node, to: NodeKey, message: Message) -> None:
        for target in self.by_key.get(to, ()):
            link = target.linked.get(node.key)
            if link is None or link[1] != node.config.gossip or link[2] > self.now:
                continue
            if self.rng.random() >= self.loss:
                self._send(node, target, message, "gossip", 0)

    def _tell(self, node: Node, to: NodeKey | str, message: Message, request: int) -> None:
        if isinstance(to, str):
            self._send(node, self.by_request.get(to), message, "request", request)
            return
        link = node.linked.get(to)
        if link is not None and link[2] <= self.now:
            self._send(node, self.by_request.get(link[0]), message, "request", request)

    def _send(
        self, node: Node, target: Node | None, message: Message, plane: str, request: int
    ) -> None:
        frames = node.codec.encode(message, request=request, at=self.cluster_ms)
        self.sent[f"{plane} {type(message).__name__}"] += 1
        if plane == "gossip":
            self.largest_gossip_bytes = max(self.largest_gossip_bytes, len(frames[0]) + 8)
            assert len(frames[0]) + 8 <= GOSSIP_BYTES_MAX
        if target is None or self.cut(node.name, target.name, plane):
            return
        route = node.config.request.encode()
        delay_ns = int((0.2 + 0.8 * self.rng.random()) * MILLISECOND)
        self._after(delay_ns, lambda: self._hand_over(target, frames, plane, route))

    def _hand_over(self, node: Node, frames: list[bytes], plane: str, route: bytes) -> None:
        if not node.up:
            return
        if node.paused_at is not None:
            node.waiting.append(lambda: self._hand_over(node, frames, plane, route))
            return
        header, message = node.codec.decode(frames)
        on_request = plane == "request"
        self.carry_out(
            node,
            node.machine.receive(
                header, message, self.now, self.cluster_ms, request_plane=on_request, route=route
            ),
        )

    # ---------------------------------------------------------- questions

    def named(self, event: str, about: int | None = None) -> list[tuple[int, str, Notify]]:
        """Return (when, at whom, event) of every such event, about one member or all."""
        return [
            entry
            for entry in self.events
            if entry[2].event == event
            and (about is None or entry[2].fields.get("key") == node_key(name_of(about)))
        ]

    def view(self, node: Node) -> dict[str, tuple[int, int]]:
        rows = node.machine.members.values()
        return {row.name: row.precedence for row in rows}

    def one_view(self) -> bool:
        """Whether all live nodes hold the same rows, and each other as alive."""
        live = self.live()
        names = {node.name for node in live}
        first = self.view(live[0])
        if {name for name, (_, standing) in first.items() if standing == 0} != names:
            return False
        return all(self.view(node) == first for node in live[1:])
