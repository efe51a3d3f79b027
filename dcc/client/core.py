"""The face of a client without I/O: begins calls over what they all share.

A `ClientCore` begins calls (`Call`), one for each operation, each with one deadline. Whoever drives
it carries out the effects. It is the shared state itself (`shared`), not a wrapper around it: the
hot paths read that at each call.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from contextlib import AbstractContextManager

from dcc.client.asks import Learn
from dcc.client.calls import Call, Operation
from dcc.client.many import ReadMany
from dcc.client.plans import plan_of
from dcc.client.reads import Read
from dcc.client.shared import Shared
from dcc.client.writes import Change
from dcc.types import Now, Stamp
from dcc.wire.codec import Codec
from dcc.wire.messages import Get, GetMany, TopologyGet, Write


class ClientCore(Shared):
    """One client's shared state, and the calls that are begun with it."""

    def begin(
        self,
        operation: Operation,
        now: Now,
        *,
        timeout_ns: int | None = None,
        codec: Codec | None = None,
    ) -> Call:
        """Return the call of `operation`: the message whose answer the caller wants.

        `Get(direct=True)` means: any owner will do. `codec` is the caller's own encoder where
        several threads share this core.
        """
        deadline = now.mono + (self.timeout_ns if timeout_ns is None else timeout_ns)
        call = Call(self, now.mono, deadline, codec or self.codec)
        learns = not isinstance(operation, TopologyGet) and self.learns_first(now)
        return call.bind(
            plan_of(call.attempts, operation), Learn(call.attempts) if learns else None
        )

    def resume(
        self,
        operation: Get | GetMany,
        under_way: Iterable[tuple[str, int, list[bytes]]],
        sent: Now,
        codec: Codec,
        deadline: int | None = None,
        known: Stamp | None = None,
        direct: bool = False,
    ) -> Call:
        """Return the call that goes on where a hot path stands, with what that has sent.

        `under_way` has address, request id and keys of each question that was sent at `sent` and
        has no answer yet. `known` is what was known of a lone key at that time; `direct`: its owner
        was asked as a holder. To be started like any other call.
        """
        call = Call(self, sent.mono, deadline or sent.mono + self.timeout_ns, codec)
        plan: Read | ReadMany
        if isinstance(operation, Get):
            plan = Read(call.attempts, operation.key, known=known)
        else:
            plan = ReadMany(call.attempts, operation.keys)
        for address, request, keys in under_way:
            attempt = call.attempts.adopt(plan, address, request, sent.mono, direct=direct)
            plan.resume(attempt, keys)
        return call.bind(plan, None)

    def resume_write(
        self,
        write: Write,
        address: str,
        request: int,
        boot: int,
        seen: int,
        sent: Now,
        codec: Codec,
    ) -> Call:
        """Return the call that goes on with a write which a hot path has sent once.

        It was sent at `sent` to the life `boot` of the node at `address`, and named `seen`.
        """
        call = Call(self, sent.mono, sent.mono + self.timeout_ns, codec)
        plan = Change(call.attempts, write)
        plan.resume(call.attempts.adopt(plan, address, request, sent.mono, boot), seen)
        return call.bind(plan, None)

    def heir(self, client_id: int, boot: int, lock: AbstractContextManager[object]) -> ClientCore:
        """Return a core with the same knowledge and another identity, for a child process."""
        core = ClientCore(
            self.nodes,
            cluster=self.cluster,
            client_id=client_id,
            boot=boot,
            rng=random.Random(client_id),
            timeout_ns=self.timeout_ns,
            lock=lock,
        )
        core.view, core.seen, core.chores.due_at = self.view, self.seen, 0
        core.on_view = self.on_view
        core.offset_ms, core._clock_known = self.offset_ms, self._clock_known
        core.outlived = self.outlived.heir(lock)
        core.hot.enabled = self.hot.enabled
        return core
