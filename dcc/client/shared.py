"""What all calls of one client share: topology, health of addresses, cluster time, request ids.

The calls (`calls`) and their plans know this and nothing above it; `ClientCore` (`core`) begins
them. It has no socket, thread, clock or randomness of its own.

*Topology.* The first call asks for it before anything else. Later refreshes never delay a call:
they ride along as one more message (`chores`), to a random node.

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
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

from dcc.client.chores import Chores
from dcc.client.hedging import Hedging
from dcc.client.outlived import Outlived
from dcc.client.routing import Health, Target, View
from dcc.client.spreading import Spreading
from dcc.client.timings import Timings
from dcc.effects import Effect, Notify, Send
from dcc.errors import ForeignCluster, PeerError
from dcc.types import Now
from dcc.units import MILLISECOND, NEVER, SECOND
from dcc.wire.codec import Codec, Header
from dcc.wire.messages import Message, Topology, TopologyGet
from dcc.wire.shapes import MS_MAX

ATTEMPT_LEAST_NS = 50 * MILLISECOND
ATTEMPT_MOST_NS = 250 * MILLISECOND
"After this long without an answer a node counts as silent. Two in a row stay under 500 ms."

SEEK_FIRST_NS = 100 * MILLISECOND
SEEK_MOST_NS = 2 * SECOND
"Between two calls that look for the cluster at the configured nodes, too, before all else."
QUIET_NS = 2 * SECOND
"""A node that a client has not heard for as long is asked for a word before it gets a write: one
that stands still would hold the write until its deadline, and nobody else may be given it."""

CLOCK_SAMPLE_KEPT_NS = 10 * SECOND
"How long a good clock sample keeps worse ones out; two clocks drift apart 1 ms in it at most."


class Shared:
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
        self.nodes: tuple[str, ...] = tuple(nodes)
        self.cluster = cluster
        self.client_id: int = client_id
        self.boot: int = boot
        self.timeout_ns = timeout_ns
        self.attempt_ns: int = max(ATTEMPT_LEAST_NS, min(timeout_ns // 3, ATTEMPT_MOST_NS))
        "How long one node may be silent before the next is asked."
        self.attempt_ms: int = -(-self.attempt_ns // MILLISECOND)
        self.rng = rng
        self.view: View | None = None
        self.on_view: Callable[[View], None] | None = None
        "Told of each view that is routed by from now on."
        self.health: Health = Health(rng)
        self.seen: int = 0
        "The largest stamp that any reply named."
        self.heard_at: dict[str, int] = {}
        "Monotonic time of the last answer from each address; of members and seeds only."
        self.lost: bool = False
        "The last call heard nobody at all: do not wait long for a cluster that is gone."
        self.shared = False
        "Many calls at a time share one connection to each node (`dispatch`)."
        self.codec: Codec = self.new_codec()
        self.offset_ms: int = 0
        "Cluster milliseconds minus monotonic ones."
        self._clock_known = False
        self._sample = (NEVER, 0)  # (round trip of the sample in use, when it was taken)
        self._lock = lock or nullcontext()
        self.hedging: Hedging = Hedging(self.attempt_ns, self._lock)
        self.timings: Timings = Timings()
        self.outlived: Outlived = Outlived(self._lock)
        self.hot: Spreading = Spreading(self._lock)
        self._ids = itertools.count(1)
        self.next_request: Callable[[], int] = self._ids.__next__
        self._seek_at, self._seek_pause_ns = 0, SEEK_FIRST_NS
        self.chores: Chores = Chores(self.health, rng, self._lock)

    def new_codec(self) -> Codec:
        """Return another encoder of this client; one may not be shared between threads."""
        return Codec(self.cluster, sender=self.client_id, boot=self.boot)

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
        if at_ms > MS_MAX // 2:
            return  # Nobody's clock shows that, and deadlines could not be told in it.
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
        """Go on from a node's own stamp after it refused ours as too far ahead.

        The cluster's clock went back: what is written from now on has stamps below those that
        were known, so these no longer tell what is newer.
        """
        with self._lock:
            back, self.seen = stamp < self.seen, stamp
        if back:
            self.outlived.forget_above(stamp)

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

    def learns_first(self, now: Now) -> bool:
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
        self.chores.want(now)

    def adopt(self, topology: Topology, header: Header, now: Now) -> View:
        """Take a topology answer as the one to route by, and return its view.

        That is the present one, with the routes that it has worked out, if nothing has changed.
        """
        view = self.view
        if view is None or not view.is_of(topology, header.epoch):
            view = View(topology, header.epoch)
        with self._lock:
            self.health.keep(view)
            known = {*view.by_address, *self.nodes}
            self.heard_at = {one: at for one, at in self.heard_at.items() if one in known}
            self.view, self._seek_pause_ns = view, SEEK_FIRST_NS
            if self.on_view is not None:
                self.on_view(view)
            self.chores.refreshed(view, now, ready=topology.ready)
        return view

    # -------------------------------------------------------------- beside the calls

    def do_chores(self, now: Now, codec: Codec) -> list[Effect]:
        """Return the refresh or probe that is due, to be sent beside a call; often nothing."""
        chores = self.chores
        if now.mono < chores.due_at:
            return []
        with self._lock:
            address = chores.whom_to_ask(self.view, self.nodes, now)
            if not address:
                return []
            request, epoch = self.next_request(), self.view.epoch if self.view is not None else 0
            frames = codec.encode(TopologyGet(), epoch=epoch, request=request)
            chores.sent(request, address, frames, now)
        return [Send(address, frames), Notify("topology_refresh", {"address": address})]

    def absorb(self, address: str, header: Header, message: Message, now: Now) -> bool:
        """Take a reply that no call waits for; true if it answers a chore."""
        sent_at = self.chores.answered(header.request, address, self.view, now)
        if sent_at is None:
            return False
        if isinstance(message, Topology):
            self.learn_clock(header.at, sent_at, now.mono)
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
        self.chores.forget(address)
        self.failed(address, now)

    def chore_undeliverable(self, frames: list[bytes], now: Now) -> bool:
        """Return whether `frames` were a chore's; if so it is over and the address failed."""
        address = self.chores.undeliverable(frames)
        if address:
            self.failed(address, now)
        return bool(address)

    def check(self) -> None:
        """Assert the invariants: the topology and the chore belong together."""
        self.chores.check()
        assert self.view is None or all(
            address is None or address in self.view.by_address for address in self.view.primaries
        )
