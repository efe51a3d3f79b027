"""Faults as data: what goes wrong, when and for how long.

A fault is a frozen dataclass with `at_ns`, counted from the start of the world, and two verbs,
`begin` and `end`, that change the world. Being data it can be drawn from a seed, drawn and shrunk
by Hypothesis, printed, and quoted in a test. A fault that no longer makes sense (its node is
already dead) does nothing, so that any list of faults is a legal schedule.

Names: nodes are n0, n1, …; clients c0, c1, …
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from dcc.units import SECOND
from simulations.network import BOTH_PLANES
from simulations.world import World

Names = tuple[str, ...]

LEAVE_TIMEOUT_NS = 20 * SECOND
"What simulated nodes are configured with."


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """Nothing passes from `left` to `right` (nor back, unless `one_way`).

    Who is in neither list talks to both: a bridge. Several at once make any pattern: flapping,
    isolated nodes, a ring of overlapping majorities.
    """

    at_ns: int
    lasts_ns: int
    left: Names
    right: Names
    one_way: bool = False
    planes: Names = BOTH_PLANES

    def _pairs(self) -> list[tuple[str, str]]:
        pairs = [(a, b) for a in self.left for b in self.right if a != b]
        return pairs if self.one_way else pairs + [(b, a) for a, b in pairs]

    def begin(self, world: World) -> None:
        world.network.cut(self._pairs(), self.planes)

    def end(self, world: World) -> None:
        world.network.mend(self._pairs(), self.planes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Crash:
    """A node dies with its memory; it comes back when the world heals, or stays away."""

    at_ns: int
    node: str
    silent: bool = False
    "The machine is gone, not just the process: peers notice by silence only."
    lasts_ns: int = 0

    def begin(self, world: World) -> None:
        world.kill(self.node, silent=self.silent)

    def end(self, world: World) -> None:
        pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Restart:
    """A node dies with its memory and starts again under the same name with a new boot."""

    at_ns: int
    node: str
    lasts_ns: int
    "How long it is down."
    silent: bool = False
    echo: int = 0
    "So many of the last frames of the earlier boot arrive again once the new one runs."
    seedless: bool = False
    "It starts without seeds: it founds a cluster of its own until the others have found it."

    def begin(self, world: World) -> None:
        world.kill(self.node, silent=self.silent)

    def end(self, world: World) -> None:
        world.start(self.node, seedless=self.seedless)
        world.echo(self.node, self.echo)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """A node is stopped (SIGSTOP): messages queue, timers stand, then everything at once."""

    at_ns: int
    lasts_ns: int
    node: str

    def begin(self, world: World) -> None:
        process = world.nodes.get(self.node)
        if process is not None and process.alive and not process.paused:
            process.pause()

    def end(self, world: World) -> None:
        process = world.nodes.get(self.node)
        if process is not None and process.alive and process.paused:
            process.resume()


@dataclass(frozen=True, slots=True, kw_only=True)
class Slow:
    """Every message costs a node this long, one after the other."""

    at_ns: int
    lasts_ns: int
    node: str
    message_ns: int

    def begin(self, world: World) -> None:
        process = world.nodes.get(self.node)
        if process is not None:
            process.slow_ns = self.message_ns

    def end(self, world: World) -> None:
        process = world.nodes.get(self.node)
        if process is not None:
            process.slow_ns = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """A process loses this share of its messages, both ways (TCP: they are late)."""

    at_ns: int
    lasts_ns: int
    node: str
    permille: int

    def begin(self, world: World) -> None:
        world.network.extra_loss[self.node] = self.permille

    def end(self, world: World) -> None:
        world.network.extra_loss.pop(self.node, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delay:
    """A process's messages are late by up to this much, both ways."""

    at_ns: int
    lasts_ns: int
    node: str
    extra_ns: int

    def begin(self, world: World) -> None:
        world.network.extra_delay_ns[self.node] = self.extra_ns

    def end(self, world: World) -> None:
        world.network.extra_delay_ns.pop(self.node, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Corrupt:
    """Frames that are no message: cut short, random, foreign or oversized, on both planes.

    Single flipped bits are left out: dcc relies on TCP's and the link's checksums for those.
    """

    at_ns: int
    lasts_ns: int
    permille: int

    def begin(self, world: World) -> None:
        world.network.mangle = mangle
        world.network.mangle_permille = self.permille

    def end(self, world: World) -> None:
        world.network.mangle_permille = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockStep:
    """Somebody sets a machine's wall clock forwards or back."""

    at_ns: int
    node: str
    by_ns: int
    lasts_ns: int = 0

    def begin(self, world: World) -> None:
        process = world.nodes.get(self.node)
        if process is not None:
            process.clock.step_wall(self.by_ns)

    def end(self, world: World) -> None:
        pass


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockDrift:
    """A machine's clocks run too fast or too slow from now on."""

    at_ns: int
    node: str
    ppm: int
    lasts_ns: int = 0

    def begin(self, world: World) -> None:
        process = world.nodes.get(self.node)
        if process is not None:
            process.clock.set_drift(self.ppm, world.now_ns)

    def end(self, world: World) -> None:
        pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Join:
    """A new node starts and joins by the seeds."""

    at_ns: int
    node: str
    lasts_ns: int = 0

    def begin(self, world: World) -> None:
        world.start(self.node)

    def end(self, world: World) -> None:
        pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Leave:
    """A node is asked to leave gracefully (SIGTERM)."""

    at_ns: int
    node: str
    lasts_ns: int = 0

    def begin(self, world: World) -> None:
        process = world.nodes.get(self.node)
        last = len(world.living()) == 1  # Then there would be no cluster to join any more.
        if process is not None and process.alive and not process.paused and not last:
            process.leave(LEAVE_TIMEOUT_NS)

    def end(self, world: World) -> None:
        pass


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientDeath:
    """A client dies in the middle of whatever it does; a new one takes its place."""

    at_ns: int
    client: str
    lasts_ns: int = 0

    def begin(self, world: World) -> None:
        client = world.clients.get(self.client)
        if client is not None:
            client.restart()

    def end(self, world: World) -> None:
        pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop:
    """This share of replication batches is lost for good, however often they are sent again.

    TCP loses nothing, but a full queue or a stream that is given up does: only repair finds out.
    """

    at_ns: int
    lasts_ns: int
    permille: int

    def begin(self, world: World) -> None:
        world.drop_permille = self.permille

    def end(self, world: World) -> None:
        world.drop_permille = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Narrow:
    """A process sends and reads so many bytes a second to and from each other one, no more."""

    at_ns: int
    lasts_ns: int
    node: str
    bytes_per_second: int
    only_reads: bool = False
    "It reads slowly what is sent to it, and sends as fast as ever."

    def begin(self, world: World) -> None:
        wires = world.network.wires
        wires.narrow_in[self.node] = self.bytes_per_second
        if not self.only_reads:
            wires.narrow_out[self.node] = self.bytes_per_second

    def end(self, world: World) -> None:
        wires = world.network.wires
        wires.narrow_in.pop(self.node, None)
        wires.narrow_out.pop(self.node, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Twin:
    """Another machine is given a node's name, as by a copied unit file."""

    at_ns: int
    lasts_ns: int
    node: str

    def begin(self, world: World) -> None:
        if self.node in world.nodes:
            world.outsiders.start(self.node, reachable=True)

    def end(self, world: World) -> None:
        world.outsiders.end(self.node)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreached:
    """A new node advertises an address that leads nowhere; what it asks is answered."""

    at_ns: int
    lasts_ns: int
    node: str

    def begin(self, world: World) -> None:
        world.outsiders.start(self.node, reachable=False)

    def end(self, world: World) -> None:
        world.outsiders.end(self.node)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lies:
    """Somebody tells every node of so many members that do not exist."""

    at_ns: int
    count: int
    lasts_ns: int = 0

    def begin(self, world: World) -> None:
        world.outsiders.lie(self.count)

    def end(self, world: World) -> None:
        pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Forgery:
    """A client tells every node in another one's name that all was cleared."""

    at_ns: int
    lasts_ns: int = 0

    def begin(self, world: World) -> None:
        world.outsiders.forge()

    def end(self, world: World) -> None:
        pass


Fault = (
    Partition | Crash | Restart | Pause | Slow | Loss | Delay | Corrupt | ClockStep | ClockDrift
    | Join | Leave | ClientDeath | Drop | Narrow | Twin | Unreached | Lies | Forgery
)  # fmt: skip

GRAVE = (Partition, Pause, Slow, Loss, Delay, Narrow, Drop)
"""Faults during which a node may be wrong about who is alive, or copies are lost; others only lose
memory. A clock that is wrong excuses nothing: a node goes by the time of the others."""


def until_ns(fault: Fault) -> int:
    """When the fault is over, in world time."""
    return fault.at_ns + fault.lasts_ns


def mangle(rng: Random, frames: list[bytes]) -> list[bytes]:
    """Return frames that no decoder may accept, made from good ones."""
    first = frames[0]
    way = int(rng.random() * 5)
    if way == 0:
        return [first[: int(rng.random() * len(first))], *frames[1:]]
    if way == 1:
        return [bytes(int(rng.random() * 256) for _ in range(int(rng.random() * 64)))]
    if way == 2:
        return [b"dc\x63" + first[3:], *frames[1:]]
    if way == 3:
        return [first[:3] + b"other" + first[8:], *frames[1:]]
    return [first + bytes(300 * 1024), *frames[1:]]


def calm(
    faults: tuple[Fault, ...], from_ns: int, to_ns: int, over_ns: Callable[[Fault], int] = until_ns
) -> bool:
    """Whether no grave fault touches an interval; `over_ns` says until when each does."""
    return not any(
        isinstance(fault, GRAVE) and fault.at_ns <= to_ns and over_ns(fault) >= from_ns
        for fault in faults
    )
