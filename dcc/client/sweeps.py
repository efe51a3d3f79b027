"""What goes over all slots in steps, each of them a call with a deadline of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from dcc.client.asks import Audited
from dcc.client.audit import Audit, compared
from dcc.client.calls import Operation
from dcc.client.operations import AUDIT_SLOTS, slots_by_primary
from dcc.client.routing import View
from dcc.limits import SLOT_COUNT
from dcc.types import Stamp
from dcc.wire.messages import AuditGet, Scan

CallOut = Callable[[Operation], Any]
"Carries out one operation and returns its result."


def scanned(call: CallOut, prefix: bytes, view: View) -> Iterator[str]:
    """Yield the keys that begin with `prefix`."""
    for slots in slots_by_primary(view):
        keys: list[bytes] = call(Scan(slots=slots, prefix=prefix))
        for key in keys:
            yield key.decode()


def audited(call: CallOut, above: Mapping[int, Stamp]) -> Audit:
    """Return the comparison of what the owners of slots hold that is stamped above; 0 = all."""
    found = Audit()
    for question in audit_steps(above):
        answers: dict[str, Audited | str] = call(question)
        found.merge(compared(answers, above))
    return found


def audit_steps(above: Mapping[int, Stamp]) -> Iterator[AuditGet]:
    """Yield the questions of an audit of these slots."""
    wanted = sorted(above)
    for start in range(0, len(wanted), AUDIT_SLOTS):
        slots = tuple(wanted[start : start + AUDIT_SLOTS])
        stamps = tuple([above[slot] for slot in slots])
        yield AuditGet(slots=slots, above=stamps if any(stamps) else ())


WHOLE: Mapping[int, Stamp] = dict.fromkeys(range(SLOT_COUNT), 0)
"All slots, all that is in them."
