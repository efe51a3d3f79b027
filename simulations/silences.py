"""Since when one node's questions to another have been in vain: the observer's own count.

Who is alive by gossip and has answered nothing on the request plane for `MUTE_NS`, though it was
asked, is not asked before a hit until it answers again: else one dead link would hold up every
read of what its two ends share. So it is no fault, for that long, not to know what only such a
member has. The count begins anew with each answer of any kind, with each life of either node, when
the asker has stood still or been thought dead, and when the two come to share a view again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dcc.replication.agenda import MUTE_NS
from dcc.units import MILLISECOND, NEVER
from dcc.wire.codec import unpack_items
from dcc.wire.messages import (
    TAG,
    Compare,
    CompareReply,
    CompareRoot,
    CompareRootReply,
    FetchReply,
    Pull,
    PullReply,
)

if TYPE_CHECKING:
    from simulations.processes import NodeProcess

COMPARING = frozenset(TAG[kind] for kind in (CompareRoot, Compare, Pull))
"Put again and again, by probes, while no answer comes."
REPLIES = frozenset(TAG[kind] for kind in (CompareRootReply, CompareReply, PullReply, FetchReply))

Pair = tuple[str, int, str, int]
REQUEST_AT = 5
"The place of a message's number in its header."

DRIFT_NS = 50 * MILLISECOND
"So much may a node's clock gain on the world's in that time."


class Silences:
    """Notes questions between nodes and answers to them."""

    def __init__(self) -> None:
        self._open: dict[Pair, set[int]] = {}
        "Who asks and its life, who is asked and its life → the numbers of questions in vain."
        self._since: dict[Pair, int] = {}

    def asks(self, node: NodeProcess, of: NodeProcess, frames: list[bytes]) -> None:
        """Note a question of repair."""
        pair = _pair(node, of)
        self._open.setdefault(pair, set()).add(_number(frames))
        self._since.setdefault(pair, node.world.now_ns)

    def hears(self, node: NodeProcess, by: NodeProcess, frames: list[bytes]) -> None:
        """Note an answer that `node` is about to take: to an open question it ends all of them."""
        pair = _pair(node, by)
        if _number(frames) in self._open.get(pair, ()):
            del self._open[pair], self._since[pair]
        self._begin_anew(pair, node.world.now_ns)

    def stood_still(self, node: NodeProcess) -> None:
        """Note that `node` could not hear anybody, or was thought dead."""
        for pair in [pair for pair in self._since if pair[0] == node.name]:
            self._begin_anew(pair, node.world.now_ns)

    def met(self, node: NodeProcess, other: str) -> None:
        """Note that `node` has come to share a view with another one."""
        for pair in [pair for pair in self._since if {pair[0], pair[2]} == {node.name, other}]:
            self._begin_anew(pair, node.world.now_ns)

    def is_mute(self, node: NodeProcess, of: NodeProcess) -> bool:
        """Return whether `of` has left `node` without any answer for so long that it is let be."""
        since_ns = self._since.get(_pair(node, of), NEVER)
        return since_ns + MUTE_NS <= node.world.now_ns + DRIFT_NS

    def _begin_anew(self, pair: Pair, now_ns: int) -> None:
        if pair in self._since:
            self._since[pair] = now_ns


def _number(frames: list[bytes]) -> int:
    number = unpack_items(frames[0])[REQUEST_AT]
    assert isinstance(number, int)
    return number


def _pair(node: NodeProcess, other: NodeProcess) -> Pair:
    return (node.name, node.life, other.name, other.life)
