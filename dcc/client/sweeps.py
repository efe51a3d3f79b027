"""What goes over all slots in steps, each of them a call with a deadline of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from dcc.client.asks import Audited
from dcc.client.audit import Audit, compared
from dcc.client.calls import Operation
from dcc.client.operations import AUDIT_SLOTS, slots_by_primary
from dcc.client.routing import View
from dcc.wire.messages import AuditGet, Scan

CallOut = Callable[[Operation], Any]
"Carries out one operation and returns its result."


def scanned(call: CallOut, prefix: bytes, view: View) -> Iterator[str]:
    """Yield the keys that begin with `prefix`."""
    for slots in slots_by_primary(view):
        keys: list[bytes] = call(Scan(slots=slots, prefix=prefix))
        for key in keys:
            yield key.decode()


def audited(call: CallOut, slots: Iterable[int]) -> Audit:
    """Return the comparison of what the owners of `slots` hold."""
    wanted, found = sorted(slots), Audit()
    for start in range(0, len(wanted), AUDIT_SLOTS):
        question = AuditGet(slots=tuple(wanted[start : start + AUDIT_SLOTS]))
        answers: dict[str, Audited | str] = call(question)
        found.merge(compared(answers))
    return found
