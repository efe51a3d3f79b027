"""A node that joined inside a partition meets those who never heard of it."""

from __future__ import annotations

from dcc.effects import Publish, Reply, Send
from dcc.ring.hashing import slot_of
from dcc.types import node_key
from dcc.wire.messages import Get, GetReply, Status
from tests.support.wired_cores import Cores

KEYS = [b"key-%d" % i for i in range(150)]
LEFT, RIGHT = frozenset({"a", "b", "n"}), frozenset({"c", "d"})


class Split(Cores):
    """Nodes between which nothing passes while they are `apart`, on neither plane."""

    apart = False

    def _cut(self, one: str, other: str) -> bool:
        return self.apart and (one in LEFT) != (other in LEFT)

    def _publish(self, source: str, effect: Publish) -> None:
        away = {name for name in self.nodes if self._cut(source, name)} - self.stopped
        self.stopped |= away
        super()._publish(source, effect)
        self.stopped -= away

    def _send(self, source: str, send: Send) -> None:
        for name, core in self.nodes.items():
            if send.to in (core.key, core.config.request) and self._cut(source, name):
                return
        super()._send(source, send)

    def _reply(self, source: str, reply: Reply) -> None:
        if reply.route[:1] == b"\1" and self._cut(source, reply.route[1:].decode()):
            return
        super()._reply(source, reply)


def test_it_serves_no_hit_that_the_other_side_has_overwritten() -> None:
    cores = Split("a", "b", "c", "d", replicas=1)
    cores.settle()
    for key in KEYS:
        cores.put("a", key, b"old", w=2)
    cores.run(2)
    cores.apart = True
    cores.run(12)
    newcomer = cores.add("n")
    cores.run(8)
    assert not newcomer.membership.me.filling
    for key in KEYS:
        cores.put("c", key, b"new", w=2)
    cores.run(1)
    assert sum(cores.held("n", key) == b"old" for key in KEYS) > 10
    cores.apart = False
    asked = 0
    for _ in range(300):
        cores.step()
        one_view = all(len(core.held.view.alive) == 5 for core in cores.nodes.values())
        for key in KEYS if one_view else ():
            if not newcomer.held.view.is_primary(slot_of(key)):
                continue
            asked += 1
            before = len(cores.replies)
            cores.ask("n", Get(key=key))
            for _name, reply in cores.replies[before:]:
                assert isinstance(reply, GetReply)
                assert (reply.status, reply.value) != (Status.HIT, b"old")
    assert asked > 1_000
    assert node_key("n") in cores["c"].held.view.boots
