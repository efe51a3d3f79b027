"""The rules by which a claim changes a view, one machine at a time."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dcc.config import NodeConfig
from dcc.effects import Answer, Connect, Disconnect, Effect, Gossip, Notify, Tell
from dcc.gossip.membership import Membership
from dcc.limits import MEMBERS_MAX
from dcc.types import Member, Settings, Standing, node_key
from dcc.units import MILLISECOND, SECOND
from dcc.wire.codec import Header
from dcc.wire.messages import (
    Ack,
    Message,
    Nack,
    Ping,
    PingReq,
    PushPull,
    PushPullReply,
    Rumors,
)

MS = 1_700_000_000_000
FOUNDED = Settings(1, 1, 0)
HOUR_MS = 3_600_000


def row(
    name: str, incarnation: int = MS, standing: Standing = Standing.ALIVE, **other: Any
) -> Member:
    fields: dict[str, Any] = {
        "name": name, "request": f"{name}:1", "gossip": f"{name}:2", "zone": "", "weight": 1.0,
        "boot": MS << 16, "incarnation": incarnation, "standing": standing, "since_ms": MS,
        "draining": False,
    }  # fmt: skip
    return Member(**{**fields, **other})


class Bench:
    """One machine called "me" that has founded a cluster, with its clock."""

    def __init__(
        self, *peers: str, seeds: tuple[str, ...] = (), filling: bool = False, **options: Any
    ) -> None:
        config = NodeConfig(name="me", request="me:1", gossip="me:2", seeds=seeds, **options)
        self.now = 50 * SECOND
        self.start_ms = MS
        self.unreachable: set[str] = set()
        self.machine = Membership(
            row("me", filling=filling),
            config,
            rng=random.Random(3),
            settings=Settings(1, 0, 0),
            now=self.now,
            cluster_ms=self.cluster_ms,
        )
        self.first = self.machine.start(self.now, self.cluster_ms)
        for name in peers:
            self.push_pull(row(name))

    @property
    def cluster_ms(self) -> int:
        return self.start_ms + (self.now - 50 * SECOND) // MILLISECOND

    def receive(
        self,
        sender: str,
        message: Message,
        *,
        boot: int = MS << 16,
        request_plane: bool = False,
        request: int = 0,
    ) -> list[Effect]:
        header = Header(0, node_key(sender), boot, 0, 0, request, self.cluster_ms)
        effects = self.machine.receive(
            header,
            message,
            self.now,
            self.cluster_ms,
            request_plane=request_plane,
            route=b"route",
        )
        self.machine.check()
        return effects + self._verify(message)

    def _verify(self, message: Message) -> list[Effect]:
        """Let newcomers answer the ping that asks them, but for those that nobody reaches."""
        effects: list[Effect] = []
        rows = (*getattr(message, "members", ()), *getattr(message, "rumors", ()))
        by: dict[Any, Member] = {row.key: row for row in rows} | {row.request: row for row in rows}
        for effect in self.machine._newcomers.tick(self.now):
            asked = by.get(effect.to) if isinstance(effect, Tell) else None
            if asked is None or asked.name in self.unreachable:
                effects.append(effect)
            elif isinstance(effect, Tell) and isinstance(effect.message, Ping):
                ack = Ack(seq=effect.message.seq)
                effects += self.receive(asked.name, ack, boot=asked.boot, request_plane=True)
        return effects

    def push_pull(self, *members: Member, stamp: int = 1, joining: bool = False) -> list[Effect]:
        message = PushPull(members=members, settings=Settings(1, stamp, 0), joining=joining)
        sender = members[0]
        return self.receive(sender.name, message, boot=sender.boot, request_plane=True, request=8)

    def gossip(self, sender: str, *rumors: Member) -> list[Effect]:
        return self.receive(sender, Rumors(rumors=rumors, settings=FOUNDED))

    def pass_time(self, seconds: float) -> list[Effect]:
        """Tick at every due moment for a while."""
        end = self.now + int(seconds * SECOND)
        effects: list[Effect] = []
        while (at := max(self.now, self.machine.wake_at())) <= end:
            self.now = at
            effects += self.machine.tick(self.now, self.cluster_ms)
            self.machine.check()
        self.now = end
        return effects

    def held(self, name: str) -> Member:
        return self.machine.members[node_key(name)]


def events(effects: list[Effect]) -> list[str]:
    return [effect.event for effect in effects if isinstance(effect, Notify)]


def gossiped(effects: list[Effect], to: str) -> list[Member]:
    """Rows of all `Rumors` sent to one member."""
    return [
        member
        for effect in effects
        if isinstance(effect, Gossip) and effect.to == node_key(to)
        if isinstance(effect.message, Rumors)
        for member in effect.message.rumors
    ]


# ------------------------------------------------------------------ one order of beliefs


def test_a_new_member_is_connected_and_announced() -> None:
    bench = Bench()
    effects = bench.push_pull(row("a"))
    assert Connect(node_key("a"), "a:1", "a:2") in effects
    joined = next(effect for effect in effects if isinstance(effect, Notify))
    assert joined == Notify(
        "member_joined",
        {"node": "a", "key": node_key("a"), "standing": "alive", "incarnation": MS},
    )


def test_a_member_in_another_life_is_connected_anew() -> None:
    """The old connection may be seconds from its next attempt: it has found nobody there."""
    bench = Bench()
    bench.push_pull(row("a"))
    anew = [Disconnect(node_key("a")), Connect(node_key("a"), "a:1", "a:2")]
    again = row("a", MS + 1)
    effects = bench.push_pull(again._replace(boot=again.boot + 1))
    assert links(effects) == anew
    assert links(bench.push_pull(again._replace(boot=again.boot + 1, incarnation=MS + 2))) == []


def links(effects: list[Effect]) -> list[Effect]:
    """Return what changes the connections to members."""
    return [one for one in effects if isinstance(one, Connect | Disconnect) and one.key != "a:1"]


claims = st.builds(
    lambda name, incarnation, standing: row(name, MS + incarnation, standing),
    st.sampled_from("bcd"),
    st.integers(0, 3),
    st.sampled_from([Standing.ALIVE, Standing.SUSPECT, Standing.LEFT]),
)


@settings(deadline=None, max_examples=60)
@given(st.lists(claims, max_size=12), st.randoms(use_true_random=False))
def test_order_and_repetition_of_claims_do_not_matter(
    heard: list[Member], shuffler: random.Random
) -> None:
    """Views are joins. Death is left out: it takes the time of a suspicion, tested below."""
    one, other = Bench("a"), Bench("a")
    one.gossip("a", *heard)
    again = heard * 2
    shuffler.shuffle(again)
    other.gossip("a", *again)
    views = [
        {key: each.precedence for key, each in bench.machine.members.items()}
        for bench in (one, other)
    ]
    assert views[0] == views[1]


def test_a_claim_of_death_first_makes_an_alive_member_suspect() -> None:
    bench = Bench("a", "b")
    dead = row("b", standing=Standing.DEAD)
    assert "member_suspect" in events(bench.gossip("a", dead))
    assert bench.held("b").standing == Standing.SUSPECT
    bench.gossip("a", dead)
    assert bench.held("b").standing == Standing.SUSPECT
    effects = bench.pass_time(2.01)
    looks = [each for each in effects if isinstance(each, Tell) and each.to == node_key("b")]
    assert any(isinstance(look.message, Ping) for look in looks)
    assert "member_dead" in events(effects)
    assert Disconnect(node_key("b")) in effects


def test_a_member_under_suspicion_for_two_periods_is_dead_as_soon_as_somebody_says_so() -> None:
    bench = Bench("a", "b", "c", "d")
    bench.gossip("a", row("b", standing=Standing.SUSPECT, accuser=1))
    bench.pass_time(2.5)
    effects = bench.gossip("a", row("b", standing=Standing.DEAD, accuser=1))
    assert "member_dead" in events(effects)


def test_a_higher_incarnation_ends_a_suspicion() -> None:
    bench = Bench("a", "b")
    bench.gossip("a", row("b", standing=Standing.SUSPECT, accuser=1))
    assert "member_alive" in events(bench.gossip("a", row("b", MS + 1)))
    assert bench.held("b").standing == Standing.ALIVE


def test_the_dead_come_back_with_a_higher_incarnation_only() -> None:
    bench = Bench("a")
    bench.push_pull(row("a"), row("b", standing=Standing.REMOVED))
    bench.gossip("a", row("b"))
    assert bench.held("b").standing == Standing.REMOVED
    effects = bench.gossip("a", row("b", MS + 1))
    assert "member_alive" in events(effects)
    assert Connect(node_key("b"), "b:1", "b:2") in effects


def test_a_restart_at_a_new_address_is_taken_with_a_higher_incarnation() -> None:
    bench = Bench("a", "b")
    moved = row("b", MS + 9, request="new:1", gossip="new:2", boot=(MS + 9) << 16)
    effects = bench.push_pull(moved)
    assert Connect(node_key("b"), "new:1", "new:2") not in effects, "its old life may answer yet"
    effects = bench.pass_time(0.6)
    assert Connect(node_key("b"), "new:1", "new:2") in effects
    assert "member_updated" in events(effects)


def test_packets_of_an_earlier_boot_are_dropped() -> None:
    bench = Bench("a")
    bench.push_pull(row("a", MS + 9, boot=(MS + 9) << 16))
    effects = bench.receive("a", Ping(seq=1, target=node_key("me")))
    assert effects == [
        Notify("message_dropped", {"reason": "earlier_boot", "sender": node_key("a")})
    ]


def test_packets_of_strangers_on_the_gossip_plane_earn_nothing() -> None:
    bench = Bench("a")
    ping = Ping(seq=1, target=node_key("me"), rumors=(row("x"),))
    assert events(bench.receive("x", ping)) == ["message_dropped"]
    assert node_key("x") not in bench.machine.members


def test_a_fallback_ping_introduces_its_sender() -> None:
    bench = Bench("a")
    ping = Ping(seq=1, target=node_key("me"), rumors=(row("x"),))
    effects = bench.receive("x", ping, request_plane=True)
    assert Connect(node_key("x"), "x:1", "x:2") in effects
    assert any(isinstance(each, Gossip) and isinstance(each.message, Ack) for each in effects)


def test_a_stale_claim_is_answered_with_the_row_held() -> None:
    bench = Bench("a", "b")
    bench.gossip("a", row("b", MS + 4))
    bench.pass_time(0.9)
    assert gossiped(bench.gossip("a", row("b", MS, Standing.SUSPECT)), "a") == [row("b", MS + 4)]


# ------------------------------------------------------------------ claims about oneself


@pytest.mark.parametrize("standing", list(Standing)[1:])
def test_every_accusation_is_refuted_above_its_incarnation(standing: Standing) -> None:
    bench = Bench("a")
    effects = bench.gossip("a", row("me", MS + 7, standing))
    refuted = next(each for each in effects if isinstance(each, Notify))
    assert refuted.event == "refuted"
    assert refuted.fields["accused"] == standing.name.lower()
    assert bench.machine.me.precedence == (MS + 8, Standing.ALIVE)
    assert bench.machine.score == 1
    assert row("me", MS + 8, since_ms=bench.cluster_ms) in gossiped(bench.pass_time(0.3), "a")


def test_an_old_accusation_is_not_refuted_twice() -> None:
    bench = Bench("a")
    bench.gossip("a", row("me", MS, Standing.SUSPECT))
    assert "refuted" not in events(bench.gossip("a", row("me", MS, Standing.DEAD)))
    assert bench.machine.me.incarnation == MS + 1


def test_a_node_called_dead_tells_others_by_address_until_one_agrees() -> None:
    """Those who believe it dead no longer listen to its gossip."""
    bench = Bench("a", "b")
    bench.gossip("a", row("me", MS, Standing.DEAD))
    told = [each for each in bench.pass_time(1.5) if isinstance(each, Tell)]
    asks = [each for each in told if isinstance(each.message, PushPull)]
    assert {each.to for each in asks} >= {"a:1", "b:1"}
    assert all(each.message.joining for each in asks if isinstance(each.message, PushPull))
    agreed = PushPullReply(members=(row("a"), bench.machine.me), settings=FOUNDED)
    bench.receive("a", agreed, request_plane=True)
    more = [each.to for each in bench.pass_time(1.5) if isinstance(each, Tell)]
    assert not [to for to in more if isinstance(to, str)]


def test_an_earlier_life_with_a_higher_incarnation_is_refuted() -> None:
    """The clock was set back before the restart."""
    bench = Bench("a")
    bench.gossip("a", row("me", MS + 50, boot=(MS + 40) << 16))
    assert bench.machine.me.incarnation == MS + 51
    assert not bench.machine.displaced


# ------------------------------------------------------------------ probes


def probe_of(effects: list[Effect], name: str) -> Ping:
    for each in effects:
        match each:
            case Gossip(to, Ping() as ping) if to == node_key(name):
                return ping
    raise AssertionError("no ping")


def test_a_member_that_answers_in_no_way_is_suspected_after_a_period() -> None:
    """SWIM: direct ping, then ping-reqs; here a ping on the request plane in parallel."""
    bench = Bench("a", "b", "c", "d")
    effects: list[Effect] = []
    while "member_suspect" not in events(effects):
        effects += bench.pass_time(0.1)
    asked = [each for each in effects if isinstance(each, Gossip)]
    requests = [each for each in asked if isinstance(each.message, PingReq)]
    assert len(requests) == 3
    target = requests[0].message
    assert isinstance(target, PingReq)
    assert all(each.to != target.target for each in requests)
    tells = [each for each in effects if isinstance(each, Tell) and each.to == target.target]
    assert len(tells) == 1
    assert bench.machine.members[target.target].standing == Standing.SUSPECT
    # None of the three helpers sent a nack.
    assert bench.machine.score == 3


@pytest.mark.parametrize("plane", ["gossip", "request"])
def test_an_ack_on_either_plane_is_an_answer(plane: str) -> None:
    bench = Bench("a")
    effects = bench.pass_time(1.9)
    ping = probe_of(effects, "a")
    bench.receive("a", Ack(seq=ping.seq), request_plane=plane == "request")
    bench.pass_time(0.4)
    assert bench.held("a").standing == Standing.ALIVE
    assert bench.machine.score == 0


def test_an_ack_of_somebody_who_was_not_asked_counts_for_nothing() -> None:
    bench = Bench("a", "b")
    ping = next(
        each.message
        for each in bench.pass_time(1.4)
        if isinstance(each, Gossip) and isinstance(each.message, Ping)
    )
    other = "b" if ping.target == node_key("a") else "a"
    bench.receive(other, Ack(seq=ping.seq))
    bench.receive(other, Ack(seq=ping.seq + 1))
    bench.pass_time(1)
    assert bench.machine.members[ping.target].standing == Standing.SUSPECT


def test_a_helper_relays_the_ack_and_sends_a_nack_where_none_comes() -> None:
    bench = Bench("a", "b")
    bench.pass_time(0.01)
    forward = bench.receive("a", PingReq(seq=77, target=node_key("b")))
    ping = probe_of(forward, "b")
    relayed = bench.receive("b", Ack(seq=ping.seq))
    ack = next(each.message for each in relayed if isinstance(each, Gossip))
    assert isinstance(ack, Ack)
    assert ack.seq == 77
    bench.receive("a", PingReq(seq=78, target=node_key("b")))
    assert Gossip(node_key("a"), Nack(seq=78)) in bench.pass_time(0.41)


def test_pings_for_others_are_ignored() -> None:
    assert Bench("a").receive("a", Ping(seq=1, target=node_key("b"))) == []


def test_a_ping_to_a_suspect_says_so() -> None:
    """Lifeguard's buddy system."""
    bench = Bench("a", "b")
    accusation = row("b", standing=Standing.SUSPECT, accuser=5)
    bench.gossip("a", accusation)
    acks = bench.receive("b", Ping(seq=4, target=node_key("me")))
    ack = next(each.message for each in acks if isinstance(each, Gossip))
    assert isinstance(ack, Ack)
    assert ack.rumors[0] == accusation


def test_confirmations_are_counted_by_accuser_and_gossiped_on() -> None:
    bench = Bench(*"abcdefgh")
    for accuser in (1, 2, 2, 3):
        bench.gossip("a", row("b", standing=Standing.SUSPECT, accuser=accuser))
    # Shortest time-out of 9 members: 4 s; unconfirmed it would be 24 s.
    assert "member_dead" in events(bench.pass_time(4.1))


def test_a_last_look_asks_helpers_and_tells_them_of_the_suspicion() -> None:
    """Whoever knows of a refutation answers the suspicion, which is stale to it."""
    bench = Bench(*"abcdef")
    accusation = row("b", standing=Standing.SUSPECT, accuser=1)
    bench.gossip("a", accusation, *[accusation._replace(accuser=i) for i in (2, 3)])
    looks = [
        each.message
        for each in bench.pass_time(3.5)
        if isinstance(each, Gossip) and isinstance(each.message, PingReq)
        if each.message.target == node_key("b") and each.message.rumors[0].name == "b"
    ]
    assert len(looks) >= 3


def test_helpers_are_those_heard_from_last() -> None:
    """They can surely be reached; across a partition random ones mostly could not."""
    bench = Bench(*"abcdef")
    bench.gossip("a", row("b", standing=Standing.DEAD, accuser=1))
    for name in "cde":
        bench.now += 1
        bench.gossip(name)
    looks = [
        each.to
        for each in bench.pass_time(1.1)
        if isinstance(each, Gossip) and isinstance(each.message, PingReq)
    ]
    assert set(looks) == {node_key(name) for name in "cde"}


def test_a_helper_that_knows_better_says_so_even_while_it_gossips_the_news() -> None:
    bench = Bench("a", "b")
    bench.gossip("a", row("b", MS + 4))
    asks = PingReq(seq=1, target=node_key("b"), rumors=(row("b", MS, Standing.SUSPECT),))
    assert row("b", MS + 4) in gossiped(bench.receive("a", asks), "a")


# ------------------------------------------------------------------ time


def test_a_standstill_shifts_every_deadline() -> None:
    bench = Bench("a", "b")
    bench.gossip("a", row("b", standing=Standing.SUSPECT, accuser=1))
    bench.pass_time(0.5)
    bench.now += 120 * SECOND
    bench.machine.standstill(120 * SECOND, bench.now)
    effects = bench.machine.tick(bench.now, bench.cluster_ms)
    # It asks how it is seen, at once; and the accused keeps what is left of its time.
    assert [each for each in effects if isinstance(each, Tell)]
    assert "member_dead" not in events(bench.pass_time(3))
    assert "member_dead" in events(bench.pass_time(1))


def test_sleep_until_the_time_asked_for_is_no_standstill() -> None:
    """A loop that is idle between two probes must not shift them for ever."""
    bench = Bench()
    for _ in range(50):
        before, bench.now = bench.now, bench.machine.wake_at()
        bench.machine.standstill(bench.now - before, bench.now)
        bench.machine.tick(bench.now, bench.cluster_ms)
        assert bench.machine.wake_at() > bench.now
    assert bench.machine.score == 0
    assert bench.machine.me.incarnation == MS


def test_a_turn_that_comes_far_too_late_is_a_standstill_of_its_own() -> None:
    bench = Bench("a", "b")
    bench.gossip("a", row("b", standing=Standing.SUSPECT, accuser=1))
    bench.pass_time(0.5)
    bench.now += 120 * SECOND
    effects = bench.gossip("a", row("c"))
    effects += bench.pass_time(3)
    assert "member_dead" not in events(effects)
    assert bench.held("b").standing == Standing.SUSPECT


def test_the_dead_are_removed_after_the_rebalance_delay_and_keep_their_date() -> None:
    bench = Bench("a", rebalance_delay_ns=3 * SECOND)
    bench.push_pull(row("a"), row("b", standing=Standing.DEAD, since_ms=MS - 500))
    assert "member_removed" not in events(bench.pass_time(2.9))
    assert "member_removed" in events(bench.pass_time(0.2))
    assert bench.held("b").since_ms == MS - 500


def test_retention_ends_at_an_absolute_time_and_for_good() -> None:
    bench = Bench("a", forget_after_ns=3600 * SECOND)
    old = row("b", standing=Standing.REMOVED, since_ms=MS - HOUR_MS + 20_000)
    bench.push_pull(row("a"), old)
    assert node_key("b") in bench.machine.members
    bench.pass_time(31)
    assert node_key("b") not in bench.machine.members
    bench.push_pull(row("a"), old)
    bench.gossip("a", old)
    assert node_key("b") not in bench.machine.members


def test_a_date_in_the_far_future_does_not_keep_the_dead_for_ever() -> None:
    bench = Bench("a")
    bench.push_pull(row("a"), row("b", standing=Standing.DEAD, since_ms=1 << 47))
    assert bench.held("b").since_ms <= bench.cluster_ms + 60_000


def test_a_full_table_takes_the_living_in_place_of_the_longest_dead() -> None:
    bench = Bench("a")
    dead = [row(f"d{i}", standing=Standing.LEFT, since_ms=MS + i) for i in range(MEMBERS_MAX - 2)]
    bench.push_pull(row("a"), *dead)
    assert len(bench.machine.members) == MEMBERS_MAX
    bench.gossip("a", row("new"))
    assert node_key("new") in bench.machine.members
    assert node_key("d0") not in bench.machine.members
    assert len(bench.machine.members) == MEMBERS_MAX


# ------------------------------------------------------------------ leaving, settings, push/pull


def test_leaving_takes_two_steps_and_a_dissemination_time() -> None:
    bench = Bench("a", "b")
    bench.machine.drain(bench.now, bench.cluster_ms)
    assert bench.machine.me.draining
    assert bench.machine.me.incarnation == MS + 1
    bench.machine.leave(bench.now, bench.cluster_ms)
    assert not bench.machine.gone(bench.now)
    left = bench.machine.me
    assert left.standing == Standing.LEFT
    assert left in gossiped(bench.pass_time(1), "a")
    assert bench.machine.gone(bench.now)
    assert events(bench.gossip("a", row("me", MS + 9, Standing.SUSPECT))) == []


def test_a_newcomer_that_is_filled_says_so_in_another_incarnation() -> None:
    bench = Bench(seeds=("a:1",), filling=True)
    bench.push_pull(row("a"))
    assert bench.machine.joined
    assert bench.machine.me.filling
    bench.gossip("a", row("me", MS, Standing.SUSPECT, filling=True))
    assert bench.machine.me.filling, "who refutes is no fuller for that"
    refuted = bench.machine.me.incarnation
    bench.machine.filled(bench.now, bench.cluster_ms, stamps_above=5)
    me = bench.machine.me
    assert (me.filling, me.incarnation, me.stamps_above) == (False, refuted + 1, 5)
    assert me in gossiped(bench.pass_time(1), "a")


def test_who_founds_a_cluster_is_full_and_those_who_heard_of_it_before_learn_so() -> None:
    bench = Bench(filling=True)
    assert (bench.machine.me.filling, bench.machine.me.incarnation) == (False, MS + 1)


def test_a_node_alone_is_gone_at_once() -> None:
    bench = Bench()
    bench.machine.leave(bench.now, bench.cluster_ms)
    assert bench.machine.gone(bench.now)


def test_settings_spread_by_gossip_when_they_change() -> None:
    bench = Bench("a")
    bench.pass_time(5)
    changed = Settings(2, MS << 16, 0)
    assert events(bench.machine.change_settings(changed, bench.now)) == ["settings_changed"]
    sent = [each.message for each in bench.pass_time(1) if isinstance(each, Gossip)]
    assert [each for each in sent if isinstance(each, Rumors) and each.settings == changed]
    assert bench.machine.change_settings(Settings(3, 5, 0), bench.now) == []


def test_a_joiner_is_answered_on_the_way_it_came() -> None:
    bench = Bench("a")
    bench.push_pull(row("x"), joining=True)
    effects = bench.push_pull(row("x"), joining=True)
    answers = [each for each in effects if isinstance(each, Answer)]
    assert [(each.route, each.request) for each in answers] == [(b"route", 8)]
    reply = answers[0].message
    assert isinstance(reply, PushPullReply)
    assert reply.members[0].name == "me"
    assert {member.name for member in reply.members} == {"me", "a", "x"}


def test_how_many_are_served_at_once_is_bounded() -> None:
    bench = Bench()
    served = [
        each
        for i in range(100)
        for each in bench.push_pull(row(f"x{i}"), joining=True)
        if isinstance(each, Answer)
    ]
    assert 0 < len(served) < 20


def test_push_pull_comes_soon_again_while_it_brings_news() -> None:
    bench = Bench("a", push_pull_interval_ns=1000 * SECOND)
    bench.pass_time(900)
    news = PushPullReply(members=(row("a", MS + 1), row("b")), settings=FOUNDED)
    bench.receive("a", news, request_plane=True)
    soon = [each for each in bench.pass_time(3.1) if isinstance(each, Tell)]
    assert [each for each in soon if isinstance(each.message, PushPull) and each.to != "a:1"]


def test_a_joiner_takes_the_cluster_s_settings_and_joins() -> None:
    bench = Bench(seeds=("s:1",))
    assert not bench.machine.joined
    ask = next(each for each in bench.first if isinstance(each, Tell))
    assert ask.to == "s:1"
    reply = PushPullReply(members=(row("s"),), settings=Settings(4, 1, 0))
    effects = bench.receive("s", reply, request_plane=True, request=ask.request)
    assert "joined" in events(effects)
    assert bench.machine.settings.replicas == 4


def test_a_seed_that_does_not_answer_is_reported_once() -> None:
    bench = Bench(seeds=("s:1",))
    assert events(bench.pass_time(60)).count("seed_unreachable") == 1
    assert not bench.machine.joined
