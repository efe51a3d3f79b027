"""Is the cluster well, and are its copies? Two lines, the reasons why not, and what to run next."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dcc.cli import tables

if TYPE_CHECKING:
    from dcc import ClusterStats, NodeStats, Topology
    from dcc.client.results import Convergence


@dataclass(slots=True)
class Verdict:
    """What `dcc status` says first."""

    line: str
    copies: str = ""
    "Its second line: are all copies in their places, how stale are reads, how old is the lag."
    problems: list[str] = field(default_factory=list)
    next: str = "dcc members"

    @property
    def healthy(self) -> bool:
        """Nothing is wrong."""
        return not self.problems


def verdict(
    topology: Topology, found: ClusterStats, convergence: Convergence | None, *, cluster: str
) -> Verdict:
    """Judge by one node's member list, every node's own statistics, and what nodes say of copies.

    The latter is None when no node could say. Copies that are merely on their way are no problem.
    """
    inside = [node for node in topology.nodes if node.standing in ("alive", "suspect", "dead")]
    alive = [node.name for node in inside if node.standing == "alive"]
    judged = Verdict("")
    for node in inside:
        if node.standing != "alive":
            judged.problems.append(f"{node.name} is {node.standing}")
    for name in sorted(set(alive) & set(found.unreachable)):
        judged.problems.append(f"{name} does not answer: {found.unreachable[name]}")
    for name, mine in found.nodes.items():
        if not mine.ready:
            judged.problems.append(f"{name} is not ready")
        elif mine.filling:
            judged.problems.append(f"{name} is new and still filling its slots")
        elif mine.slow:
            judged.problems.append(f"{name} answers many times slower than the others")
    if judged.problems:
        judged.next = "dcc stats"
    copies = topology.replicas + 1
    _judge_room(len(alive), copies, judged)
    _judge_copies(found, convergence, judged)
    one_view = _compare_views([node.name for node in inside], found, judged)
    word = "healthy" if judged.healthy else "degraded"
    view = "one view" if one_view else "views differ"
    judged.line = (
        f"{word}: cluster {cluster}, {len(alive)} of {len(inside)} nodes alive, {view},"
        f" {copies} {'copy' if copies == 1 else 'copies'}"
    )
    if len(alive) < copies:
        judged.line += f" wanted, {len(alive)} possible"
    if any("insecure" in _modes(mine) for mine in found.nodes.values()):
        judged.line += ", INSECURE"
    return judged


def _modes(mine: NodeStats) -> Collection[object]:
    """Return how a node says that it keeps others out."""
    modes = mine.detail.get("security")
    return list(modes.values()) if isinstance(modes, dict) else []


def _judge_room(alive: int, copies: int, judged: Verdict) -> None:
    """Say if there cannot be as many copies as wanted, whoever may have them all."""
    if alive < copies:
        judged.problems.append(f"{alive} nodes cannot hold {copies} copies")
        judged.next = "start more nodes, or dcc replicas with a smaller number"


def _judge_copies(found: ClusterStats, convergence: Convergence | None, judged: Verdict) -> None:
    """Say how far the cluster has converged; copies that are missing are a problem."""
    total = found.total
    if convergence is None:
        text = "copies not known"
    elif convergence.converged:
        text = "all copies in their places"
    elif not convergence.under_replicated:
        text = "copies on their way"
    else:
        text = f"{convergence.under_replicated} copies of slots missing or not known to be complete"
        judged.problems.append(text)
        judged.next = "dcc converged --wait 60"
    stale = total.stale_read_ratio
    judged.copies = (
        f"{text}, stale reads {tables.share(stale) if total.sampled_reads else '-'},"
        f" lag {tables.span(total.replication_lag_seconds)}"
    )


def _compare_views(members: list[str], found: ClusterStats, judged: Verdict) -> bool:
    """Note each of `members` about whom nodes disagree; return whether all views are one."""
    differ = False
    for member in members:
        who: dict[str, list[str]] = {}
        for name, mine in found.nodes.items():
            who.setdefault(mine.members.get(member, "unknown"), []).append(name)
        if len(who) > 1:
            says = "; ".join(f"{', '.join(names)}: {what}" for what, names in who.items())
            judged.problems.append(f"views of {member} differ ({says})")
            differ = True
    if not differ and len({mine.epoch for mine in found.nodes.values()}) > 1:
        judged.problems.append("the nodes' rings differ, though not their members' standing")
        differ = True
    if differ:
        judged.next = "dcc status again in a few seconds; then look for a network partition"
    return not differ
