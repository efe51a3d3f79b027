"""The ordinary `get`, write and `get_many` without a detour: one round of the call's machine.

For the case that all is well: the topology is known, the primaries are connected and answer in time
with hits, authoritative misses or what became of the write. At the first surprise the machine takes
over where this stands.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

import zmq

from dcc.client.fastpath import plain_groups
from dcc.client.link import NOBLOCK, read_clocks
from dcc.errors import NodeUnavailable
from dcc.limits import INLINE_VALUE_BYTES_MAX
from dcc.ring.hashing import slot_of
from dcc.sending import send
from dcc.types import Now, Stamp
from dcc.units import MILLISECOND
from dcc.wire.messages import Get, GetMany, GetReply, Status, Write, WriteReply

if TYPE_CHECKING:
    from dcc.client.channel import Channel
    from dcc.client.link import Link
    from dcc.client.routing import View

Arrived = list[tuple[str, list[bytes]]]
"Messages that are not so plain, with the address of their sender."


def get(channel: Channel, key: bytes, now: Now) -> bytes | None:
    """Return the value of `key`, None if it is absent."""
    core, mono = channel.core, now.mono
    spread = key in core.hot.keys
    core.hot.spread += spread
    way = _way_to_owner(channel, key, mono) if spread else _way_to(channel, key, mono)
    if way is None:
        return _read(channel, key, now, spread)
    view, address, link = way
    request, epoch, known = core.next_request(), view.epoch, core.outlived.known(key)
    at = core.time_ms(mono + core.timeout_ns)
    channel.at_rest = False
    try:
        send(link.socket, channel.fast.question(key, epoch, request, at, spread), NOBLOCK)
    except zmq.Again:
        return _read(channel, key, now, spread)
    channel.poll(link.poll_list, core.hedging.wait_ms)
    frames: list[bytes] | None = None
    try:
        frame = link.socket.recv(NOBLOCK)
    except zmq.Again:
        pass
    else:
        answer = channel.fast.answer(frame, request, epoch)
        if answer is not None and (answer.stamp >= known or answer.value is None):
            channel.at_rest = True
            core.lost = False
            core.heard_at[address] = mono
            heard_at = time.monotonic_ns()
            core.hedging.answered(heard_at - mono)
            core.learn_clock(channel.fast.at, mono, heard_at)
            if answer.stamp > known:
                core.outlived.note(key, answer.stamp)
                core.saw(answer.stamp)
            if answer.hot:
                core.hot.note((key,), mono)
            return answer.value
        frames = link.rest([frame])
    return _go_on(channel, key, address, request, frames, now, known, spread)


def _way_to(channel: Channel, key: bytes, mono: int) -> tuple[View, str, Link] | None:
    """Return the ring, the key's primary and the link to it; None if anything is out of order."""
    core = channel.core
    view = core.view
    if view is None or mono >= core.chores.due_at or channel.owed:
        return None
    slot = slot_of(key)
    address = view.primaries[slot] or view.primary(slot)
    if address is None or address in core.health.sick:
        return None
    return _linked(channel, view, address)


def _way_to_owner(channel: Channel, key: bytes, mono: int) -> tuple[View, str, Link] | None:
    """Return the same with the owner of a hot key whose turn it is."""
    core = channel.core
    view = core.view
    if view is None or mono >= core.chores.due_at or channel.owed:
        return None
    address = core.hot.owner(key, view, core.health.sick, mono)
    return _linked(channel, view, address) if address is not None else _way_to(channel, key, mono)


def _linked(channel: Channel, view: View, address: str) -> tuple[View, str, Link] | None:
    link = channel.links.get(address)
    if link is None or not link.connected or link.queue:
        return None
    return view, address, link


def _read(channel: Channel, key: bytes, now: Now, spread: bool) -> bytes | None:
    get = Get(key=key, direct=spread)
    return _value_of(channel.run(channel.core.begin(get, now, codec=channel.codec), now))


def _go_on(
    channel: Channel,
    key: bytes,
    address: str,
    request: int,
    frames: list[bytes] | None,
    sent: Now,
    known: Stamp,
    spread: bool,
) -> bytes | None:
    """Hand a get that was sent, and what came back if anything did, to an ordinary call."""
    under_way = [(address, request, [key])]
    call = channel.core.resume(
        Get(key=key), under_way, sent, channel.codec, known=known, direct=spread
    )
    arrived = [] if frames is None else [(address, frames)]
    return _value_of(channel.resume(call, [address], arrived, read_clocks()))


def _value_of(reply: GetReply) -> bytes | None:
    return reply.value if reply.status is Status.HIT else None


def change(channel: Channel, write: Write, now: Now) -> WriteReply:
    """Return what became of `write`."""
    # Others than the primary may take their time; what is large is sent in a frame of its own.
    if write.w != 1 or len(write.value) >= INLINE_VALUE_BYTES_MAX:
        return _change(channel, write, now)
    core, mono = channel.core, now.mono
    way = _way_to(channel, write.key, mono)
    if way is None or core.is_quiet(way[1], mono):
        return _change(channel, write, now)
    view, address, link = way
    request, epoch, seen = core.next_request(), view.epoch, core.seen
    at = core.time_ms(mono + core.timeout_ns)
    channel.at_rest = False
    try:
        send(link.socket, channel.fast.change(write, seen, epoch, request, at), NOBLOCK)
    except zmq.Again:
        return _change(channel, write, now)
    channel.poll(link.poll_list, core.attempt_ms)
    arrived: Arrived = []
    try:
        frame = link.socket.recv(NOBLOCK)
    except zmq.Again:
        pass
    else:
        written = channel.fast.written(frame, request, epoch)
        if written is not None:
            channel.at_rest = True
            core.lost = False
            core.heard_at[address] = mono
            core.learn_clock(channel.fast.at, mono, time.monotonic_ns())
            if written.version[0] > core.seen:
                core.saw(written.version[0])
            core.outlived.note(write.key, written.version[0])
            return written
        arrived.append((address, link.rest([frame])))
    # By the view of the sending: the node at that address may be another life of it by now.
    boot = view.boot_of(address)
    call = core.resume_write(write, address, request, boot, seen, now, channel.codec)
    result: WriteReply = channel.resume(call, [address], arrived, read_clocks())
    return result


def _change(channel: Channel, write: Write, now: Now) -> WriteReply:
    call = channel.core.begin(write, now, codec=channel.codec)
    result: WriteReply = channel.run(call, now)
    return result


def get_many(channel: Channel, keys: Iterable[bytes], now: Now) -> dict[bytes, bytes]:
    """Return the hits among `keys`."""
    core = channel.core
    view = core.view
    keys = list(dict.fromkeys(keys))
    if view is None or now.mono >= core.chores.due_at or channel.owed:
        return _read_many(channel, keys, now)
    groups = plain_groups(view, core.health.sick, keys)
    holders: frozenset[str] = frozenset()
    if groups is not None and core.hot.keys:
        groups, holders = core.hot.regrouped(groups, view, core.health.sick, now.mono)
    if groups is None or not all(map(channel.is_ready, groups)):
        return _read_many(channel, keys, now)
    at = core.time_ms(now.mono + core.timeout_ns)
    asked: dict[str, tuple[int, list[bytes]]] = {}
    channel.at_rest = False
    for address, group in groups.items():
        request = core.next_request()
        direct = address in holders
        question = channel.fast.question_many(group, view.epoch, request, at, direct)
        if not channel.links[address].send([question]):
            break  # The ordinary path finds another way for what was not sent.
        asked[address] = (request, group)
    found, settled, arrived = _gather(channel, asked, view.epoch, now.mono)
    if len(settled) == len(groups):
        channel.at_rest = True
        return found
    rest = [key for one, group in groups.items() if one not in settled for key in group]
    under_way = [(one, *asked[one]) for one in asked if one not in settled]
    call = core.resume(GetMany(keys=tuple(rest)), under_way, now, channel.codec)
    waited_for = [one for one, _, _ in under_way]
    try:
        found.update(channel.resume(call, waited_for, arrived, read_clocks()))
    except NodeUnavailable as error:
        if isinstance(error.partial, dict):
            error.partial.update(found)
        raise
    return found


def _gather(
    channel: Channel, asked: dict[str, tuple[int, list[bytes]]], epoch: int, sent_at: int
) -> tuple[dict[bytes, bytes], set[str], Arrived]:
    """Return the hits, who has answered plainly, and what is not so plain.

    Waits for one attempt's time, or until the first odd message.
    """
    core, links = channel.core, channel.links
    found: dict[bytes, bytes] = {}
    settled: set[str] = set()
    arrived: Arrived = []
    wait_ms = core.attempt_ms
    while len(settled) < len(asked) and not arrived:
        waiting = [one for one in asked if one not in settled]
        if not channel.poll([(links[one].socket, zmq.POLLIN) for one in waiting], wait_ms):
            break
        for address in waiting:
            link = links[address]
            try:
                frame = link.socket.recv(NOBLOCK)
            except zmq.Again:
                continue
            request, keys = asked[address]
            hits = channel.fast.answer_many(frame, keys, request, epoch)
            if hits is None or not core.outlived.admits(hits.keys, hits.stamps):
                arrived.append((address, link.rest([frame])))
            else:
                found.update(zip(hits.keys, hits.values, strict=True))
                core.saw(max(hits.stamps, default=0))
                if hits.hot:
                    core.hot.note(hits.hot, sent_at)
                settled.add(address)
                core.heard_at[address] = sent_at
                core.learn_clock(channel.fast.at, sent_at, time.monotonic_ns())
        passed_ms = (time.monotonic_ns() - sent_at) // MILLISECOND
        wait_ms = max(0, core.attempt_ms - passed_ms)
    if settled:
        core.lost = False
    return found, settled, arrived


def _read_many(channel: Channel, keys: Iterable[bytes], now: Now) -> dict[bytes, bytes]:
    call = channel.core.begin(GetMany(keys=tuple(keys)), now, codec=channel.codec)
    found: dict[bytes, bytes] = channel.run(call, now)
    return found
