"""Truth of `converged`: when a node says so, every copy is in its place among those it knows.

Judged each time that it is said. A yes holds for the moment of the answer, and what was written
within the last seconds may still be on its way: the caller leaves such keys out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from dcc.types import Record, Version
from simulations.checkers import convergence
from simulations.history import Violation

PROMISE = "converged is true when a node says so"


def check(
    newest: Mapping[bytes, Record],
    owners: Mapping[bytes, Sequence[str]],
    held: Mapping[str, Mapping[bytes, Record]],
    covers: Callable[[str, bytes, Version], bool],
    teller: str,
    at_ns: int,
    *,
    may_evict: bool,
    kept_all: Callable[[str], bool] = lambda owner: False,
) -> list[Violation]:
    """Return what is not converged although `teller` has just said so; see `convergence.check`."""
    return [
        Violation(PROMISE, f"{teller} says so, but {found.text}", at_ns)
        for found in convergence.check(
            newest, owners, held, covers, may_evict=may_evict, kept_all=kept_all
        )
    ]
