"""What happens in a run, drawn from its seed: the simulator's faults, and some of processes alone.

One fault after the other, with a pause behind each in which the cluster may become whole, so that
much of a run is calm and can be judged strictly; now and then the next one comes at once. Every
kind comes up as often as any other: they are drawn from a pack that is shuffled anew when it is
empty.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from dcc.units import MILLISECOND, SECOND
from simulations import faults as f

NODES = 4
"From the beginning; their places are the first ones."
SPARE = 2
"Places for nodes that join."
CLIENTS = 2

REPLICAS = 2
REBALANCE_SECONDS = 5

WARM_UP_NS = 8 * SECOND
PAUSE_NS = (4 * SECOND, 14 * SECOND)
"Behind a fault; the cluster needs some seconds until all see all again."


@dataclass(frozen=True, slots=True, kw_only=True)
class Logs:
    """A node dies and starts again with a standard error that takes nothing."""

    at_ns: int
    lasts_ns: int
    node: str
    closed: bool
    "No descriptor at all; otherwise a full disk."


Event = f.Fault | Logs


def node_names() -> list[str]:
    """Return the nodes that there are from the beginning."""
    return [f"n{index}" for index in range(NODES)]


def client_names() -> list[str]:
    """Return the client processes."""
    return [f"c{index}" for index in range(CLIENTS)]


def draw(seed: int, lasts_ns: int) -> list[Event]:
    """Return the events of a run of that length, in order of time; always the same ones."""
    return _Drawing(Random(f"{seed}/chaos")).draw(lasts_ns)


class _Drawing:
    """Draws one run."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._spare = [f"n{NODES + index}" for index in range(SPARE)]
        self._joined: list[str] = []
        self._pack: list[Callable[[int, int], Event]] = []

    def draw(self, lasts_ns: int) -> list[Event]:
        events: list[Event] = []
        at_ns = WARM_UP_NS
        while True:
            if not self._pack:
                self._pack = [
                    self._cut, self._one_way, self._restart, self._restart, self._pause,
                    self._loss, self._delay, self._narrow, self._clock, self._client,
                    self._logs, self._join, self._leave,
                ]  # fmt: skip
                self._rng.shuffle(self._pack)
            event = self._pack.pop()(at_ns, self._between(1, 8) * SECOND)
            if f.until_ns(event) > lasts_ns:  # type: ignore[arg-type]
                return sorted(events, key=lambda one: one.at_ns)
            events.append(event)
            at_ns += event.lasts_ns
            at_ns += 0 if self._rng.random() < 0.2 else self._between(*PAUSE_NS)

    def _between(self, low: int, high: int) -> int:
        return self._rng.randint(low, high)

    def _node(self) -> str:
        return self._rng.choice(node_names())

    def _sides(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        everybody = node_names() + client_names() + self._joined
        self._rng.shuffle(everybody)
        count = self._between(1, len(everybody) - 1)
        return tuple(sorted(everybody[:count])), tuple(sorted(everybody[count:]))

    def _cut(self, at_ns: int, lasts_ns: int) -> Event:
        left, right = self._sides()
        return f.Partition(at_ns=at_ns, lasts_ns=2 * lasts_ns, left=left, right=right)

    def _one_way(self, at_ns: int, lasts_ns: int) -> Event:
        left, right = self._sides()
        return f.Partition(at_ns=at_ns, lasts_ns=2 * lasts_ns, left=left, right=right, one_way=True)

    def _restart(self, at_ns: int, lasts_ns: int) -> Event:
        return f.Restart(at_ns=at_ns, lasts_ns=lasts_ns, node=self._node())

    def _pause(self, at_ns: int, lasts_ns: int) -> Event:
        return f.Pause(at_ns=at_ns, lasts_ns=lasts_ns, node=self._node())

    def _loss(self, at_ns: int, lasts_ns: int) -> Event:
        permille = self._between(20, 300)
        return f.Loss(at_ns=at_ns, lasts_ns=lasts_ns, node=self._node(), permille=permille)

    def _delay(self, at_ns: int, lasts_ns: int) -> Event:
        extra_ns = self._between(5, 400) * MILLISECOND
        return f.Delay(at_ns=at_ns, lasts_ns=lasts_ns, node=self._node(), extra_ns=extra_ns)

    def _narrow(self, at_ns: int, lasts_ns: int) -> Event:
        rate = self._between(20_000, 200_000)
        return f.Narrow(at_ns=at_ns, lasts_ns=lasts_ns, node=self._node(), bytes_per_second=rate)

    def _clock(self, at_ns: int, lasts_ns: int) -> Event:
        by_ns = self._between(-60_000, 60_000) * MILLISECOND
        return f.ClockStep(at_ns=at_ns, lasts_ns=lasts_ns, node=self._node(), by_ns=by_ns)

    def _client(self, at_ns: int, _lasts_ns: int) -> Event:
        return f.ClientDeath(at_ns=at_ns, client=self._rng.choice(client_names()))

    def _logs(self, at_ns: int, _lasts_ns: int) -> Event:
        closed = self._rng.random() < 0.5
        return Logs(at_ns=at_ns, lasts_ns=2 * SECOND, node=self._node(), closed=closed)

    def _join(self, at_ns: int, lasts_ns: int) -> Event:
        if not self._spare:
            return self._leave(at_ns, lasts_ns)
        name = self._spare.pop(0)
        self._joined.append(name)
        return f.Join(at_ns=at_ns, node=name)

    def _leave(self, at_ns: int, lasts_ns: int) -> Event:
        if not self._joined:
            return self._join(at_ns, lasts_ns)
        name = self._joined.pop(0)
        self._spare.append(name)
        return f.Leave(at_ns=at_ns, lasts_ns=20 * SECOND, node=name)
