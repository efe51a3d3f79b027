"""Is the cluster well? One line, the reasons why not, and the next command to run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dcc import ClusterStats, Topology


@dataclass(slots=True)
class Verdict:
    """What `dcc status` says first."""

    line: str
    problems: list[str] = field(default_factory=list)
    next: str = "dcc members"

    @property
    def healthy(self) -> bool:
        """Nothing is wrong."""
        return not self.problems


def verdict(topology: Topology, found: ClusterStats, *, cluster: str) -> Verdict:
    """Judge by one node's member list and every node's own statistics."""
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
        elif not mine.slots_ready:
            judged.problems.append(f"{name} is still filling its slots")
    if judged.problems:
        judged.next = "dcc stats"
    one_view = _compare_views([node.name for node in inside], found, judged)
    copies = topology.replicas + 1
    word = "healthy" if judged.healthy else "degraded"
    view = "one view" if one_view else "views differ"
    judged.line = (
        f"{word}: cluster {cluster}, {len(alive)} of {len(inside)} nodes alive, {view},"
        f" {copies} {'copy' if copies == 1 else 'copies'}"
    )
    if len(alive) < copies:
        judged.line += f" wanted, {len(alive)} possible"
    return judged


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
