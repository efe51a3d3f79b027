"""Sendings: what was sent is not sent again while it may still arrive; late reads get no answer.

And no new write is given to a node that has stood still for long: it could go nowhere else. One
that was given to it before is repeated there for as long as its call lasts.
"""

from __future__ import annotations

from collections.abc import Iterable

from dcc.units import SECOND
from simulations.history import Violation

AGAIN = "nothing is sent again while it is on its way"
STOPPED = "nothing is written to who stands still"
STOPPED_NS = 5 * SECOND
"As long as a client may take a node for there, and what was late on its way."
LATE = "late reads are not served"

Link = tuple[str, int, str, int]
"Sender and its life, receiver and its life."


def check_late(served: Iterable[tuple[str, int]]) -> list[Violation]:
    """Return a violation for each read that came too late and was answered all the same."""
    return [Violation(LATE, text, at_ns) for text, at_ns in served]


class Sendings:
    """Batches of replication that are on their way, by number."""

    def __init__(self) -> None:
        self.violations: list[Violation] = []
        self._flying: dict[tuple[Link, int], list[bytes]] = {}
        self._given: set[tuple[str, str, int]] = set()
        "Client, a node that stood still, and the number of the write's request."

    def sent(self, link: Link, number: int, frame: bytes) -> None:
        """Note the first frame of a batch as it leaves."""
        self._flying.setdefault((link, number), []).append(frame)

    def written(self, client: str, node: str, request: int, stood_ns: int, now_ns: int) -> None:
        """Note that a client gives a write to a node that has stood still for `stood_ns`."""
        if stood_ns <= STOPPED_NS:
            self._given.add((client, node, request))
        elif (client, node, request) not in self._given:
            text = f"{client} writes to {node}, which has stood still for {stood_ns / 1e9:.1f} s"
            self.violations.append(Violation(STOPPED, text, now_ns))

    def arrived(self, link: Link, number: int, frame: bytes, now_ns: int) -> None:
        """Note that the very frame has arrived: what was sent behind it was sent in vain."""
        flying = self._flying.get((link, number), [])
        places = [place for place, one in enumerate(flying) if one is frame]
        if not places:
            return  # A fault repeats what an earlier life has sent.
        del flying[: places[0] + 1]
        if flying:
            text = f"batch {number} of {link[0]} to {link[2]} was under way {len(flying) + 1} times"
            self.violations.append(Violation(AGAIN, text, now_ns))
