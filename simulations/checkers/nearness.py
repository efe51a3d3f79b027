"""Near caches: no copy that is served is older than the node that it came from had lately.

"Lately" is the bound that a near cache promises. A later life of the node knows nothing of what an
earlier one held, so lives are told apart.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from typing import TYPE_CHECKING

from simulations.history import Violation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from simulations.nearby import Held, NearHit

BOUND = "no copy is older than its bound"
OWN = "no copy is older than what its client has written or read"


def check(hits: Sequence[NearHit], held: Sequence[Held], bound_ns: int) -> list[Violation]:
    """Return copies that were served although they were too old.

    Complexity: O(n log n).
    """
    newest: defaultdict[object, list[tuple[int, int]]] = defaultdict(list)
    for one in held:
        line = newest[one.origin, one.key]
        line.append((one.at_ns, max(one.stamp, line[-1][1] if line else 0)))
    found: list[Violation] = []
    for hit in hits:
        if hit.stamp < hit.known:
            found.append(Violation(OWN, str(hit), hit.at_ns))
        line = newest[hit.origin, hit.key]
        before = bisect_right(line, (hit.at_ns - bound_ns, 1 << 64))
        if before and line[before - 1][1] > hit.stamp:
            late_ms = (hit.at_ns - line[before - 1][0]) // 1_000_000
            text = f"{hit} behind {line[before - 1]} by {late_ms} ms"
            found.append(Violation(BOUND, text, hit.at_ns))
    return found
