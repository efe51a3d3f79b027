"""What each write operation makes of the value it meets."""

from __future__ import annotations

import pytest

from dcc.replication.decide import Decision, Refusal, decide
from dcc.store.entry import Entry
from dcc.store.store import Store
from dcc.types import NO_VERSION, Kind, Record, Version
from dcc.wire.messages import Code, Op, Outcome, Write

KEY = b"key"
VERSION = Version(100, 1, 1)


def entry_of(value: bytes, expires_at_ms: int = 0) -> Entry:
    store = Store(memory_limit_bytes=1 << 20)
    store.apply(0, Record(KEY, Kind.VALUE, value, VERSION, expires_at_ms, 0), 1)
    entry = store.peek(0, KEY)
    assert entry is not None
    return entry


def decided(write: Write, entry: Entry | None = None, *, sure: bool = True) -> Decision:
    decision = decide(write, entry, authoritative=sure, now_ms=1_000)
    assert isinstance(decision, Decision)
    return decision


def test_put_stores_whatever_was_there_and_makes_the_expiry_absolute() -> None:
    decision = decided(Write(op=Op.PUT, key=KEY, value=b"new", ttl_ms=500), entry_of(b"old"))
    assert decision.outcome is Outcome.DONE
    assert decision.record is not None
    assert (decision.record.value, decision.record.expires_at_ms) == (b"new", 1_500)


def test_add_stores_only_where_nothing_is() -> None:
    write = Write(op=Op.ADD, key=KEY, value=b"new")
    assert decided(write, entry_of(b"old")) == Decision(Outcome.NOT_DONE, None)
    assert decided(write).outcome is Outcome.DONE


def test_replace_needs_a_value_and_the_expected_version() -> None:
    write = Write(op=Op.REPLACE, key=KEY, value=b"new")
    assert decided(write).record is None
    assert decided(write, entry_of(b"old")).outcome is Outcome.DONE
    other = Write(op=Op.REPLACE, key=KEY, value=b"new", expected=Version(99, 1, 1))
    assert decided(other, entry_of(b"old")).record is None
    same = Write(op=Op.REPLACE, key=KEY, value=b"new", expected=VERSION)
    assert decided(same, entry_of(b"old")).outcome is Outcome.DONE


def test_delete_of_a_named_version_leaves_every_other_alone() -> None:
    other = Write(op=Op.DELETE, key=KEY, expected=Version(99, 1, 1))
    assert decided(other, entry_of(b"old")) == Decision(Outcome.NOT_DONE, None)
    same = Write(op=Op.DELETE, key=KEY, expected=VERSION)
    assert decided(same, entry_of(b"old")).outcome is Outcome.DONE
    assert decided(same, sure=False) == Decision(Outcome.NOT_DONE, None)


def test_incr_of_an_absent_key_makes_none_if_it_has_to_be_there() -> None:
    write = Write(op=Op.INCR, key=KEY, delta=5, initial=10, if_present=True)
    assert decided(write) == decided(write, sure=False) == Decision(Outcome.NOT_DONE, None)
    assert decided(write, entry_of(b"3")).number == 8


def test_delete_of_a_certain_absence_writes_nothing() -> None:
    assert decided(Write(op=Op.DELETE, key=KEY)).record is None


def test_delete_of_an_uncertain_absence_writes_a_tombstone_but_says_not_done() -> None:
    decision = decided(Write(op=Op.DELETE, key=KEY), sure=False)
    assert decision.outcome is Outcome.NOT_DONE
    assert decision.record is not None
    assert decision.record.kind is Kind.TOMBSTONE


def test_delete_of_a_value_writes_a_tombstone() -> None:
    decision = decided(Write(op=Op.DELETE, key=KEY), entry_of(b"old"))
    assert decision.outcome is Outcome.DONE
    assert decision.record is not None
    assert (decision.record.kind, decision.record.version) == (Kind.TOMBSTONE, NO_VERSION)


def test_touch_keeps_the_value_and_changes_the_expiry() -> None:
    decision = decided(Write(op=Op.TOUCH, key=KEY, ttl_ms=10), entry_of(b"old", 5_000))
    assert decision.record is not None
    assert (decision.record.value, decision.record.expires_at_ms) == (b"old", 1_010)
    assert decided(Write(op=Op.TOUCH, key=KEY, ttl_ms=10)).record is None


def test_incr_of_an_absent_key_adds_delta_to_the_initial_number() -> None:
    decision = decided(Write(op=Op.INCR, key=KEY, delta=5, initial=10, ttl_ms=100))
    assert (decision.number, decision.record and decision.record.value) == (15, b"15")
    assert decision.record is not None
    assert decision.record.expires_at_ms == 1_100


def test_incr_of_a_counter_keeps_its_expiry() -> None:
    decision = decided(Write(op=Op.INCR, key=KEY, delta=-3, ttl_ms=9), entry_of(b"-4", 7_000))
    assert decision.record is not None
    assert (decision.number, decision.record.expires_at_ms) == (-7, 7_000)


@pytest.mark.parametrize("value", [b"", b"one", b"1.0", b" 1", b"1_0", b"--1", b"9" * 20, b"\xb2"])
def test_incr_of_anything_else_is_refused(value: bytes) -> None:
    refusal = decide(
        Write(op=Op.INCR, key=KEY, delta=1), entry_of(value), authoritative=True, now_ms=1
    )
    assert isinstance(refusal, Refusal)
    assert refusal.code is Code.NOT_A_NUMBER


def test_incr_beyond_64_bits_is_refused() -> None:
    full = entry_of(b"%d" % ((1 << 63) - 1))
    refusal = decide(Write(op=Op.INCR, key=KEY, delta=1), full, authoritative=True, now_ms=1)
    assert isinstance(refusal, Refusal)
