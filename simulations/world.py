"""The world: one heap of events in virtual time, the processes, the network between them.

Events are ordered by (time, tie, sequence number). The tie is drawn from the scheduler's own
random stream, so that things that happen at one instant happen in an order that differs from seed
to seed, but never from run to run. Time jumps from event to event; nothing waits.

Whatever a core receives goes into the digest of the trace, as bytes: two runs are the same if
their digests are.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from heapq import heappop, heappush
from random import Random
from typing import Any, NamedTuple, Protocol

from xxhash import xxh3_128

from dcc.effects import Notify
from dcc.units import SECOND
from dcc.wire.messages import TAG, Replicate
from simulations.clocks import ProcessClock
from simulations.company import Outsiders
from simulations.lives import Lives
from simulations.network import Frames, LinkSettings, Network
from simulations.observer import Observer, batch_of, tag_of
from simulations.processes import CoreMaker, NodeProcess

REPLICATE = TAG[Replicate]

ECHO_MAX = 64
"Frames of a node that are remembered, to arrive again after its restart."


class ClockSettings(NamedTuple):
    """How wrong clocks are from the start: uniformly within these bounds either way."""

    offset_ns: int = 0
    drift_ppm: int = 0


class MemoryLoss(NamedTuple):
    """A node lost what it held."""

    at_ns: int
    node: str


class Happening(Protocol):
    """A fault, as the world sees it (`faults`)."""

    @property
    def at_ns(self) -> int: ...
    @property
    def lasts_ns(self) -> int: ...
    def begin(self, world: World) -> None: ...
    def end(self, world: World) -> None: ...


class Caller(Protocol):
    """A client, as the world sees it (`clients`)."""

    def restart(self) -> None: ...


class World:
    """Everything that exists in one run."""

    def __init__(
        self,
        seed: int | str,
        make_core: CoreMaker,
        *,
        links: LinkSettings | None = None,
        clocks: ClockSettings | None = None,
        wrong_clocks: Mapping[str, int] | None = None,
        check_every: int = 100,
        keyed: bool = False,
    ) -> None:
        self.seed = str(seed)
        self.keyed = keyed
        self.now_ns = 0
        self.events = 0
        self.inputs = 0
        self.network = Network(self, self.seed, links or LinkSettings())
        self.nodes: dict[str, NodeProcess] = {}
        self.clients: dict[str, Caller] = {}
        self.losses: list[MemoryLoss] = []
        self.lives = Lives()
        self.counts: Counter[str] = Counter()
        "Faults and notable things, each by name; an ensemble shows that every one happened."
        self.copies_min = 0
        "With so few nodes left, one that leaves takes copies with it that nobody can replace."
        self.drop_permille = 0
        "Of replication batches; the same ones each time they are sent."
        self.observer: Observer | None = None
        self.on_notify: Callable[[NodeProcess, Notify], None] | None = None
        self.on_turn: Callable[[NodeProcess], None] | None = None
        "Called at the end of each turn of a node."
        self._make_core = make_core
        self._clocks = clocks or ClockSettings()
        self._wrong_clocks = wrong_clocks or {}
        self._check_every = check_every
        self._heap: list[tuple[int, float, int, Callable[[Any], None], Any]] = []
        self._tie = Random(f"{self.seed}/ties").random
        self._sequence = 0
        self._digest = xxh3_128()
        self._turns = 0
        self.outsiders = Outsiders(self)
        self._active: list[Happening] = []
        self._healed = False
        self._sent: dict[str, deque[tuple[NodeProcess, Frames]]] = {}
        self._by_key: dict[int, NodeProcess] = {}

    # -------------------------------------------------------------- time

    def at(self, time_ns: int, action: Callable[[Any], None], argument: Any) -> None:
        """Do `action(argument)` at world time `time_ns`, not before now."""
        self._sequence += 1
        heappush(self._heap, (time_ns, self._tie(), self._sequence, action, argument))

    def run(self, until_ns: int) -> None:
        """Let everything happen up to and including world time `until_ns`."""
        assert until_ns >= self.now_ns, "time runs forwards"
        heap = self._heap
        while heap and heap[0][0] <= until_ns:
            time_ns, _, _, action, argument = heappop(heap)
            assert time_ns >= self.now_ns, "time runs forwards"
            self.now_ns = time_ns
            self.events += 1
            action(argument)
        self.now_ns = until_ns

    def digest(self) -> str:
        """Return the digest of everything that any core has received so far."""
        return self._digest.hexdigest()

    # -------------------------------------------------------------- processes

    def add_node(self, name: str) -> NodeProcess:
        """Return a machine for the node `name`, not yet started."""
        rng = Random(f"{self.seed}/clock/{name}")
        clock = self._draw_clock(rng)
        clock.step_wall(self._wrong_clocks.get(name, 0))
        node = NodeProcess(self, len(self.nodes), name, clock)
        self.nodes[name] = node
        self._by_key[node.key] = node
        self._sent[name] = deque(maxlen=ECHO_MAX)
        return node

    def _draw_clock(self, rng: Random) -> ProcessClock:
        offset, drift = self._clocks
        return ProcessClock(
            mono_ns=int(rng.random() * 1_000_000 * SECOND),
            offset_ns=int((2 * rng.random() - 1) * offset),
            drift_ppm=int((2 * rng.random() - 1) * drift),
        )

    def client_clock(self, name: str) -> ProcessClock:
        """Return the clock of a client's machine."""
        return self._draw_clock(Random(f"{self.seed}/clock/{name}"))

    def start(self, name: str, *, seedless: bool = False) -> None:
        """Start a node that is not running; a name that is new gets a machine first."""
        node = self.nodes.get(name) or self.add_node(name)
        if not node.alive:
            self.counts["start"] += 1
            self.lives.began(name, self.now_ns)
            self.counts["start without seeds"] += seedless
            node.seedless = seedless
            self.boot(node)

    def boot(self, node: NodeProcess) -> None:
        """Begin a life of a node's process."""
        node.boot_up(self._make_core)

    def kill(self, name: str, *, silent: bool = False) -> None:
        """End a running node, its memory lost."""
        node = self.nodes.get(name)
        if node is not None and node.alive:
            self.losses.append(MemoryLoss(self.now_ns, name))
            self.lives.ended(name, self.now_ns)
            node.kill(silent=silent)

    def departed(self, node: NodeProcess, *, in_time: bool) -> None:
        """End a node that has left.

        Args:
            in_time: it ended by itself before its time-out, so that it must have handed over.
        """
        if node.outside:
            self.counts["outsider left"] += 1
            node.kill(silent=False)
            return
        self.counts["left"] += 1
        self.lives.ended(node.name, self.now_ns)
        node.kill(silent=False)
        if not in_time or len(self.living()) <= self.copies_min:
            self.losses.append(MemoryLoss(self.now_ns, node.name))

    def living(self) -> list[NodeProcess]:
        """Return the running nodes in the order in which they were added."""
        return [node for node in self.nodes.values() if node.alive]

    def echo(self, name: str, count: int) -> None:
        """Let the last frames that the node's earlier boot sent to peers arrive once more."""
        if count == 0:
            return
        for target, frames in list(self._sent[name])[-count:]:
            if target.alive and not target.paused:
                self.counts["echo"] += 1
                target.stray(frames)

    # -------------------------------------------------------------- faults

    def schedule(self, faults: Sequence[Happening]) -> None:
        """Let each of the faults begin and end at its time."""
        for fault in faults:
            self.at(fault.at_ns, self._begin, fault)

    def _begin(self, fault: Happening) -> None:
        if self._healed:
            return
        self.counts[type(fault).__name__] += 1
        self._active.append(fault)
        fault.begin(self)
        self.at(self.now_ns + fault.lasts_ns, self._end, fault)

    def _end(self, fault: Happening) -> None:
        if fault in self._active:
            self._active.remove(fault)
            fault.end(self)

    def heal(self, revive: tuple[str, ...]) -> None:
        """End every fault, begin no more, and start the named nodes if they are dead."""
        self._healed = True
        for fault in list(self._active):
            self._end(fault)
        self.network.mend_all()
        for name in revive:
            self.start(name)

    # -------------------------------------------------------------- what the processes report

    def drops(self, node: NodeProcess, to: object, frames: Frames) -> bool:
        """Return whether frames are a batch of replication that is to be lost for good."""
        if not self.drop_permille or tag_of(frames[0]) != REPLICATE:
            return False
        batch = batch_of(frames)
        chance = Random(f"{self.seed}/drop/{node.name}/{to}/{batch}").random()
        lost = chance * 1000 < self.drop_permille
        self.counts["dropped copies"] += lost
        return lost

    def sent(self, node: NodeProcess, to: object, frames: Frames) -> None:
        """Note frames that a node sends on the request plane."""
        if node.outside:
            return
        target = self._by_key.get(to) if isinstance(to, int) else None
        if self.observer is not None:
            self.observer.frames(node, target, frames)
        if target is not None:
            self._sent[node.name].append((target, frames))

    def answering(self, node: NodeProcess, route: bytes, frames: Frames) -> None:
        """Let the observer see a reply that leaves a node through its ROUTER."""
        asker = self.network.opener(route)
        if self.observer is not None and asker is not None and not node.outside:
            self.observer.answering(node, asker, frames)

    def digest_input(self, index: int, kind: str, frames: Frames) -> None:
        """Add one input of one process to the trace."""
        self.inputs += 1
        update = self._digest.update
        update(b"%d %d %s %d" % (self.now_ns, index, kind.encode(), len(frames)))
        for frame in frames:
            update(frame)

    def notified(self, node: NodeProcess, note: Notify) -> None:
        """Count an event that a core reports."""
        self.counts[note.event] += 1
        self._digest.update(note.event.encode())
        if node.outside:
            return
        if note.event == "name_conflict" and note.fields["lost"]:
            self.outsiders.displaced.append(node.name)
        if self.observer is not None and note.event == "view_changed":
            self.observer.answers.view_changed(node)
        if self.observer is not None and note.event in ("standstill", "refuted"):
            self.observer.answers.silences.stood_still(node)
        if self.on_notify is not None:
            self.on_notify(node, note)

    def before_input(self, node: NodeProcess, route: bytes, frames: Frames) -> None:
        """Let the observer look at a node before it takes a message of the request plane."""
        if self.observer is not None and not node.outside:
            self.observer.before(node, self.network.opener(route), frames)

    def after_input(self, node: NodeProcess) -> None:
        """Let it look again."""
        if self.observer is not None and not node.outside:
            self.observer.after(node)

    def checked(self, node: NodeProcess) -> None:
        """Let limits be judged at the end of a turn, and the core's invariants at every so many."""
        if self.on_turn is not None and not node.outside:
            self.on_turn(node)
        self._turns += 1
        if self._turns >= self._check_every:
            self._turns = 0
            self.counts["check"] += 1
            node.core.check()
