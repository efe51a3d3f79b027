"""Requests about the cluster instead of keys: its members, settings, figures and content.

A change of settings is stamped by the node that is asked, held to what the caller knew and when it
asked (`settings`), and answered once every live member has it or the deadline comes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from dcc.effects import Effect
from dcc.gossip.dissemination import fit
from dcc.gossip.pushpull import VIEW_BYTES
from dcc.node.admission import Admission, Request
from dcc.node.audit import AUDIT_SLOTS_MAX, AUDITS_MAX
from dcc.node.converging import ROUNDS_MAX, Converging
from dcc.node.lifecycle import Lifecycle
from dcc.node.machines import Machines
from dcc.node.settings import CHANGES_MAX, stamp_of_change, stamp_of_clear
from dcc.node.stats import Statistics, packed
from dcc.node.views import Views
from dcc.types import Settings
from dcc.wire import messages as m


class Administration:
    """Answers what operators, and clients that look for the cluster, ask."""

    def __init__(
        self,
        machines: Machines,
        admission: Admission,
        lifecycle: Lifecycle,
        views: Views,
        converging: Converging,
        statistics: Statistics,
    ) -> None:
        self._machines, self._membership = machines, machines.membership
        self._admission, self._lifecycle, self._views = admission, lifecycle, views
        self._converging, self._statistics = converging, statistics

    # -------------------------------------------------------------- what there is

    def topology(self, request: Request, _message: m.TopologyGet) -> list[Effect]:
        """Tell all that a client needs to place keys itself."""
        membership = self._membership
        members = sorted(
            membership.members.values(), key=lambda one: (not one.in_ring, -one.since_ms, one.name)
        )
        reply = m.Topology(
            settings=membership.settings,
            members=fit(members, VIEW_BYTES),
            ready=self._lifecycle.ready and not self._machines.certainty.lone,
        )
        return [request.asker.answer(reply)]

    def stats(self, request: Request, message: m.StatsGet) -> list[Effect]:
        """Tell this node's own statistics."""
        figures = self._statistics.all(request.at.mono)
        if message.hot_keys:
            figures["detail"]["hottest"] = self._statistics.hottest()
        return [request.asker.answer(m.StatsReply(stats=packed(figures)))]

    def watch(self, request: Request, _message: m.Watch) -> list[Effect]:
        """Let clients be told of what changes here."""
        return [request.asker.answer(self._machines.watchers.watch(request.at.mono))]

    def converged(self, request: Request, _message: m.ConvergedGet) -> list[Effect]:
        """Ask all members whether the cluster has converged."""
        if len(self._converging) >= ROUNDS_MAX:
            return [self._too_many(request, f"{ROUNDS_MAX} such questions wait")]
        until = self._admission.until(request)
        return self._converging.begin(request.asker, until, request.at)

    def audit(self, request: Request, message: m.AuditGet) -> list[Effect]:
        """Begin to read the content of some slots."""
        audits = self._machines.audits
        if len(message.slots) > AUDIT_SLOTS_MAX or len(set(message.slots)) < len(message.slots):
            text = f"{len(message.slots)} slots, at most {AUDIT_SLOTS_MAX}, each once"
            return [self._admission.refuse(request.asker, m.Code.MALFORMED, text)]
        if len(audits) >= AUDITS_MAX:
            return [self._too_many(request, f"{AUDITS_MAX} audits are under way")]
        audits.begin(request.asker, message.slots, message.above)
        return []

    # -------------------------------------------------------------- changes of settings

    def clear(self, request: Request, message: m.Clear) -> list[Effect]:
        """Make everything that was written up to now absent, everywhere."""
        refusal = self._unfit_to_change(request)
        if refusal is not None:
            return [refusal]
        clock, settings, at = self._machines.clock, self._membership.settings, request.at
        if clock.too_far_ahead(message.seen, at.ms):
            text = "a stamp seen lies too far ahead of cluster time"
            refuse = self._admission.refuse
            return [refuse(request.asker, m.Code.CLOCK_SKEW, text, stamp=clock.present(at.ms))]
        made = clock.next_stamp(at.ms, message.seen)
        stamp = stamp_of_clear(made, message.seen, message.issued_ms, at.ms)
        stamp = max(stamp, settings.cleared)
        reply = partial(m.ClearReply, stamp=stamp)
        return self._change(request, settings._replace(cleared=stamp), reply)

    def set_replicas(self, request: Request, message: m.SetReplicas) -> list[Effect]:
        """Set the number of copies in the whole cluster."""
        refusal = self._unfit_to_change(request)
        if refusal is not None:
            return [refusal]
        settings = self._membership.settings
        if settings.replicas != message.replicas or not settings.replicas_stamp:
            # The same number again is no change: a repetition must not beat what came between.
            made = self._machines.clock.next_stamp(request.at.ms, settings.replicas_stamp)
            stamp = stamp_of_change(made, 0, message.issued_ms)
            if stamp <= settings.replicas_stamp:
                text = "the number was set anew since"
                return [self._admission.refuse(request.asker, m.Code.TOO_LATE, text)]
            settings = settings._replace(replicas=message.replicas, replicas_stamp=stamp)
        return self._change(request, settings, partial(m.SettingsReply, settings=settings))

    def _unfit_to_change(self, request: Request) -> Effect | None:
        """Return the refusal of a change of settings that comes too late, or to a node too new."""
        asker, header, _frames, at = request
        refuse = self._admission.refuse
        if header.at and at.ms > header.at:
            return refuse(asker, m.Code.TOO_LATE, f"read {at.ms - header.at} ms too late")
        if not self._machines.serving:
            return refuse(asker, m.Code.NOT_READY, "the node does not know the time yet")
        if self._machines.clock.is_ahead(at.ms) and len(self._membership.alive()) > 1:
            return refuse(asker, m.Code.NOT_READY, "the node's stamps are ahead of time")
        if len(self._machines.changes) >= CHANGES_MAX:
            return self._too_many(request, f"{CHANGES_MAX} changes are under way")
        return None

    def _change(
        self, request: Request, settings: Settings, reply: Callable[..., m.Message]
    ) -> list[Effect]:
        effects = self._views.change_settings(settings, request.at)
        until = self._admission.until(request)
        return effects + self._machines.changes.begin(request.asker, settings, reply, until)

    def _too_many(self, request: Request, text: str) -> Effect:
        return self._admission.refuse(request.asker, m.Code.OVERLOADED, text)
