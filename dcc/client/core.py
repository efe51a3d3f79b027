"""What all calls of one client share: topology, health of addresses, cluster time, request ids.

A `ClientCore` begins calls (`Call`), one per operation, each with one deadline; it has no socket,
thread, clock or randomness of its own. Whoever drives it carries out the effects.

*Topology.* The first call asks for it before anything else. Later refreshes never delay a call:
they ride along as one more message (`chores`), one at a time, at most one a second per client,
to a random node. A refresh is wanted when a reply's epoch differs from the known one, when a node
failed, every two seconds while somebody is not well, and every thirty otherwise. Probes of
addresses that failed are the same message and share the same limit, so a cluster in trouble is
never stormed by its clients.

When nobody of the known ring answers any more, the ring may be gone and the cluster live at other
addresses. Then the configured nodes are asked as well: by the refreshes, and by a call before it
does anything else, at growing intervals, so that a cluster that is only down costs no more.

*Cluster time.* Every reply says its sender's cluster milliseconds. The offset to the monotonic
clock is what the reply with the shortest round trip of late says, so stepping the machine's clock
has no effect. Deadlines travel in cluster time: a node refuses what it reads too late.

*Threads.* Everything that is read on the hot path is swapped by one assignment; everything that
is read and then written is under the lock that the shell passes in.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

from dcc.client.asks import Learn
from dcc.client.calls import Call, Operation
from dcc.client.hedging import Hedging
from dcc.client.many import ReadMany
from dcc.client.outlived import Outlived
from dcc.client.plans import plan_of
from dcc.client.reads import Read
from dcc.client.routing import Health, Target, View
from dcc.client.timings import Timings
from dcc.client.writes import Change
from dcc.effects import Effect, Notify, Send
from dcc.errors import ForeignCluster, PeerError
from dcc.types import Now, Stamp
from dcc.units import MILLISECOND, NEVER, SECOND
from dcc.wire.codec import Codec, Header
from dcc.wire.messages import Get, GetMany, Message, Topology, TopologyGet, Write
from dcc.wire.shapes import MS_MAX

ATTEMPT_LEAST_NS = 50 * MILLISECOND
ATTEMPT_MOST_NS = 250 * MILLISECOND
"After this long without an answer a node counts as silent. Two in a row stay under 500 ms."

CHORE_SPACING_NS = 1 * SECOND
REFRESH_TROUBLED_NS = 2 * SECOND
REFRESH_CALM_NS = 30 * SECOND
SEEK_FIRST_NS = 100 * MILLISECOND
SEEK_MOST_NS = 2 * SECOND
"Between two calls that look for the cluster at the configured nodes, too, before all else."
QUIET_NS = 2 * SECOND
"""A node that a client has not heard for as long is asked for a word before it gets a write: one
that stands still would hold the write until its deadline, and nobody else may be given it."""

CLOCK_SAMPLE_KEPT_NS = 10 * SECOND
"How long a good clock sample keeps worse ones out; two clocks drift apart 1 ms in it at most."


class _Chore(NamedTuple):
    request: int
    address: str
    frames: list[bytes]
    expires_at: int


class ClientCore:
    """The shared state of one client. See the module's text for its rules."""

    def __init__(
        self,
        nodes: Sequence[str],
        *,
        cluster: str = "dcc",
        client_id: int,
        boot: int,
        rng: random.Random,
        timeout_ns: int = SECOND,
        lock: AbstractContextManager[object] | None = None,
    ) -> None:
        self.nodes = tuple(nodes)
        self.cluster = cluster
        self.client_id, self.boot = client_id, boot
        self.timeout_ns = timeout_ns
        self.attempt_ns = max(ATTEMPT_LEAST_NS, min(timeout_ns // 3, ATTEMPT_MOST_NS))
        "How long one node may be silent before the next is asked."
        self.attempt_ms = -(-self.attempt_ns // MILLISECOND)
        self.rng = rng
        self.view: View | None = None
        self.health = Health(rng)
        self.seen = 0
        "The largest stamp that any reply named."
        self.due_at = NEVER
        "When `chores` has something to do, at the earliest."
        self.heard_at: dict[str, int] = {}
        "Monotonic time of the last answer from each address; of members and seeds only."
        self.lost = False
        "The last call heard nobody at all: do not wait long for a cluster that is gone."
        self.shared = False
        "Many calls at a time share one connection to each node (`dispatch`)."
        self.codec = self.new_codec()
        self.offset_ms = 0
        "Cluster milliseconds minus monotonic ones."
        self._clock_known = False
        self._sample = (NEVER, 0)  # (round trip of the sample in use, when it was taken)
        self._lock = lock or nullcontext()
        self.hedging = Hedging(self.attempt_ns, self._lock)
        self.timings = Timings()
        self.outlived = Outlived(self._lock)
        self._ids = itertools.count(1)
        self.next_request = self._ids.__next__
        self._provisional = False
        "The topology in use is that of a node that was not ready: others may know better."
        self._seek_at, self._seek_pause_ns = 0, SEEK_FIRST_NS
        self._chore: _Chore | None = None
        self._chore_sent_at = -CHORE_SPACING_NS
        self._refreshed_at = 0
        self._probe_last = False

    # -------------------------------------------------------------- calls

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
        learns = not isinstance(operation, TopologyGet) and self._learns_first(now)
        return call.bind(plan_of(call, operation), Learn(call) if learns else None)

    def resume(
        self,
        operation: Get | GetMany,
        under_way: Iterable[tuple[str, int, list[bytes]]],
        sent: Now,
        codec: Codec,
        deadline: int | None = None,
        known: Stamp | None = None,
    ) -> Call:
        """Return the call that goes on where a hot path stands, with what that has sent.

        `under_way` has address, request id and keys of each question that was sent at `sent` and
        has no answer yet. `known` is what was known of a lone key at that time. To be started like
        any other call.
        """
        call = Call(self, sent.mono, deadline or sent.mono + self.timeout_ns, codec)
        plan: Read | ReadMany
        if isinstance(operation, Get):
            plan = Read(call, operation.key, known=known)
        else:
            plan = ReadMany(call, operation.keys)
        for address, request, keys in under_way:
            plan.resume(call.adopt(plan, address, request, sent.mono), keys)
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
        plan = Change(call, write)
        plan.resume(call.adopt(plan, address, request, sent.mono, boot), seen)
        return call.bind(plan, None)

    def new_codec(self) -> Codec:
        """Return another encoder of this client; one may not be shared between threads."""
        return Codec(self.cluster, sender=self.client_id, boot=self.boot)

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
        core.view, core.seen, core.due_at = self.view, self.seen, 0
        core.offset_ms, core._clock_known = self.offset_ms, self._clock_known
        core.outlived = self.outlived.heir(lock)
        return core

    # -------------------------------------------------------------- time

    def cluster_ms(self, now: Now) -> int:
        """Return cluster time; the machine's own until the first reply."""
        if not self._clock_known:
            return now.wall // MILLISECOND
        return now.mono // MILLISECOND + self.offset_ms

    def time_ms(self, mono: int) -> int:
        """Return the monotonic instant `mono` in cluster ms, rounded up; 0 before any reply."""
        return max(0, mono // MILLISECOND + self.offset_ms + 1) if self._clock_known else 0

    def learn_clock(self, at_ms: int, sent_at: int, heard_at: int, *, anew: bool = False) -> None:
        """Take a reply's clock reading, unless a better one is fresh. `anew`: whatever we had.

        Every reply is told, those of the hot paths, too: they are the quick ones, and what is left
        to the ordinary path when something was lost errs most.

        The reply was written somewhere between sending and hearing, in monotonic ns: the middle
        errs by half the round trip at most, so the shorter round trip wins. A node that does not
        know it says 0.
        """
        if not at_ms:
            return
        trip = heard_at - sent_at
        if at_ms > MS_MAX:
            return  # Nobody's clock shows that, and no deadline could be told in it.
        best, taken_at = self._sample
        if anew or trip <= best or heard_at - taken_at > CLOCK_SAMPLE_KEPT_NS:
            with self._lock:
                self._sample = (trip, heard_at)
                self.offset_ms = at_ms - (sent_at + trip // 2) // MILLISECOND
                self._clock_known = True

    def saw(self, stamp: int) -> None:
        """Note a stamp: what this client writes from now on is newer."""
        if stamp > self.seen:
            with self._lock:
                self.seen = max(self.seen, stamp)

    def refused_stamp(self, stamp: int) -> None:
        """Go on from a node's own stamp after it refused ours as too far ahead."""
        with self._lock:
            self.seen = stamp

    # -------------------------------------------------------------- who answers

    def targets(self, slot: int) -> list[Target]:
        """Return where to ask for a key of `slot`, best first; empty without a topology."""
        view = self.view
        return self.health.sorted(view.targets(slot)) if view is not None else []

    @property
    def astray(self) -> bool:
        """Whether nobody is known who answers: the ring that is known may be gone."""
        view = self.view
        return view is None or self.health.sick.keys() >= set(view.alive.values())

    def _learns_first(self, now: Now) -> bool:
        """Return whether a call is to ask for the topology before anything else."""
        if self.view is None:
            return True
        if not self.health.sick or now.mono < self._seek_at or not self.astray:
            return False
        with self._lock:
            pause = round(self._seek_pause_ns * self.rng.uniform(0.75, 1.25))
            self._seek_at = now.mono + pause
            self._seek_pause_ns = min(2 * self._seek_pause_ns, SEEK_MOST_NS)
        return True

    def failed(self, address: str, now: Now) -> None:
        """Note that `address` could not be reached or stayed silent."""
        view = self.view
        with self._lock:
            self.health.failed(address, view.boot_of(address) if view else 0, now.mono)
        self.want_refresh(now)

    def is_quiet(self, address: str, mono: int) -> bool:
        """Return whether `address` has not been heard of late, by monotonic ns. O(1)."""
        return mono - self.heard_at.get(address, -QUIET_NS) >= QUIET_NS

    def silent(self, address: str, since: int, now: Now) -> None:
        """Note that `address` left a question of `since` open; answering another excuses it."""
        if self.heard_at.get(address, 0) <= since:
            self.failed(address, now)

    def busy_until(self, address: str, since: int, deadline: int) -> int:
        """Return until when `address` may rightly owe an answer to a question of `since`.

        Where calls share a connection, a node that gets on with the others' is not silent: to
        ask it again, or others, would only add to what it has to do. But half of a call's time is
        kept for other ways, since a single question may have been lost.
        """
        if not self.shared:
            return 0
        busy = self.heard_at.get(address, 0) + self.attempt_ns
        return min(busy, since + (deadline - since) // 2)

    def overdue(self, address: str, since: int, now: Now) -> bool:
        """Judge who owes an answer of `since` to a call that ended without it; false: too early.

        For whoever has just looked for that answer in vain.
        """
        if now.mono - since < self.attempt_ns:
            return False
        self.silent(address, since, now)
        return True

    def heard(self, address: str, header: Header, now: Now) -> None:
        """Note that `address` answered, and whether its epoch is news."""
        self.lost = False
        self.heard_at[address] = now.mono
        if address in self.health.sick:
            with self._lock:
                self.health.answered(address)
        view = self.view
        if view is not None and header.epoch != view.epoch and header.epoch:
            self.want_refresh(now)

    def want_refresh(self, now: Now) -> None:
        """Ask for the topology with the next call that the limit allows."""
        with self._lock:
            if self._chore is None:
                self.due_at = min(self.due_at, self._next_chore_at(now.mono))

    def adopt(self, topology: Topology, header: Header, now: Now) -> View:
        """Take a topology answer as the one to route by, and return its view."""
        view = View(topology, header.epoch)
        with self._lock:
            self.health.keep(view)
            known = {*view.by_address, *self.nodes}
            self.heard_at = {one: at for one, at in self.heard_at.items() if one in known}
            self.view, self._provisional = view, not topology.ready
            self._refreshed_at, self._seek_pause_ns = now.mono, SEEK_FIRST_NS
            self._plan_chores(now.mono)
        return view

    # -------------------------------------------------------------- chores

    def chores(self, now: Now, codec: Codec) -> list[Effect]:
        """Return the refresh or probe that is due, to be sent beside a call; often nothing."""
        if now.mono < self.due_at:
            return []
        with self._lock:
            self._expire_chore(now)
            if now.mono < self.due_at or self._chore is not None:
                return []
            address = self._choose(now.mono)
            request = self.next_request()
            frames = codec.encode(TopologyGet(), epoch=self._epoch(), request=request)
            self._chore = _Chore(request, address, frames, now.mono + CHORE_SPACING_NS)
            self._chore_sent_at = now.mono
            self.due_at = self._chore.expires_at
        return [Send(address, frames), Notify("topology_refresh", {"address": address})]

    def absorb(self, address: str, header: Header, message: Message, now: Now) -> bool:
        """Take a reply that no call waits for; true if it answers a chore."""
        chore = self._chore
        if chore is None or chore.request != header.request or chore.address != address:
            return False
        with self._lock:
            self._chore = None
            self._plan_chores(now.mono)
        if isinstance(message, Topology):
            self.learn_clock(header.at, self._chore_sent_at, now.mono)
            if message.ready:
                self.adopt(message, header, now)
        return True

    def receive(self, address: str, frames: list[bytes], now: Now) -> list[Effect]:
        """Take frames that arrived while no call was waiting."""
        try:
            header, message = self.codec.decode(frames)
        except PeerError as error:
            if isinstance(error, ForeignCluster):
                self.refused_by(address, now)
            return [Notify("message_dropped", {"address": address, "reason": type(error).__name__})]
        return self.take(address, header, message, now)

    def take(self, address: str, header: Header, message: Message, now: Now) -> list[Effect]:
        """Take a message that no call waits for: the answer to a chore, or a late one."""
        self.heard(address, header, now)
        if self.absorb(address, header, message, now):
            return []
        return [Notify("late_reply", {"address": address, "request": header.request})]

    def refused_by(self, address: str, now: Now) -> None:
        """Note that another cluster's node is at `address`: nobody who could answer a call."""
        if self._chore is not None and self._chore.address == address:
            with self._lock:
                self._chore = None
        self.failed(address, now)

    def chore_undeliverable(self, frames: list[bytes], now: Now) -> bool:
        """Return whether `frames` were a chore's; if so it is over and the address failed."""
        chore = self._chore
        if chore is None or chore.frames is not frames:
            return False
        with self._lock:
            self._chore = None
        self.failed(chore.address, now)
        return True

    def is_chore(self, frames: list[bytes]) -> bool:
        """Return whether `frames` are those of the chore that is on its way."""
        return self._chore is not None and self._chore.frames is frames

    def chore_addresses(self) -> set[str]:
        """Return who owes the answer to a chore: nobody or one address."""
        return {self._chore.address} if self._chore is not None else set()

    def _expire_chore(self, now: Now) -> None:
        """End a chore that nobody answered; the lock is held."""
        # Not the node's failure: perhaps no call came by to carry the message, or the answer.
        if self._chore is not None and now.mono >= self._chore.expires_at:
            self._chore = None
            self.due_at = self._next_chore_at(now.mono)

    def _choose(self, now: int) -> str:
        """Return whom to ask: an overdue sick address every other time, else anybody well."""
        probe = self.health.probe_due(now)
        if probe is not None and not self._probe_last:
            self._probe_last = True
            self.health.probed(probe, now)
            return probe
        self._probe_last = False
        sick = self.health.sick
        known = set(self.view.alive.values()) if self.view is not None else set()
        if self._provisional or sick.keys() >= known:
            known.update(self.nodes)
        well = [address for address in sorted(known) if address not in sick]
        return self.rng.choice(well or sorted(known))

    def _next_chore_at(self, now: int) -> int:
        spacing = round(CHORE_SPACING_NS * self.rng.uniform(1.0, 1.25))
        return max(now, self._chore_sent_at + spacing)

    def _plan_chores(self, now: int) -> None:
        troubled = self._provisional or bool(self.health.sick)
        troubled = troubled or self.view is None or not self.view.settled
        pause = REFRESH_TROUBLED_NS if troubled else REFRESH_CALM_NS
        due = self._refreshed_at + round(pause * self.rng.uniform(1.0, 1.25))
        self.due_at = max(min(due, self.health.probe_at()), self._next_chore_at(now))
        if self._chore is not None:
            self.due_at = min(self.due_at, self._chore.expires_at)

    def _epoch(self) -> int:
        return self.view.epoch if self.view is not None else 0

    def check(self) -> None:
        """Assert the invariants: the topology and the chore belong together."""
        assert self._chore is None or self.due_at <= self._chore.expires_at
        assert self.view is None or all(
            address is None or address in self.view.by_address for address in self.view.primaries
        )
