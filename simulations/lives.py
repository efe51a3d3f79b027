"""When which node's process ran, in one run."""

from __future__ import annotations

from dataclasses import dataclass

from dcc.units import NEVER


@dataclass(slots=True)
class Life:
    """One life of a node's process."""

    node: str
    from_ns: int
    to_ns: int = NEVER


class Lives:
    """The lives of all nodes, in order of their beginning."""

    def __init__(self) -> None:
        self._lives: list[Life] = []

    def began(self, node: str, now_ns: int) -> None:
        """Note that a node's process has started."""
        self._lives.append(Life(node, now_ns))

    def ended(self, node: str, now_ns: int) -> None:
        """Note that it has ended."""
        for life in self._lives:
            if life.node == node and life.to_ns == NEVER:
                life.to_ns = now_ns

    def throughout(self, from_ns: int, to_ns: int) -> set[str]:
        """Return the nodes whose process ran all the time."""
        return {life.node for life in self._lives if life.from_ns <= from_ns and to_ns < life.to_ns}

    @property
    def any_ended(self) -> bool:
        """Whether any process has ended."""
        return any(life.to_ns != NEVER for life in self._lives)
