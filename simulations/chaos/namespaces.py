"""A network of namespaces between real processes that can be cut in any direction, as in life.

Every place is a network namespace with one cable (a veth pair) to a router, itself a namespace. A
cut is a routing rule there: packets from one address to another vanish, without a reset or an ICMP
message, so a connection that exists stays open on both sides and simply falls silent. Each
direction is cut by itself.

    place 0: 10.77.0.1 --- 10.77.0.254 router 10.77.1.254 --- 10.77.1.1 :place 1

Nothing is reachable from outside and nothing outlives the tests: no namespace has a name, each is
held open by a `cat` that ends with its standard input, thus with this process however it ends, and
what runs in a place is killed with its parent. Needs Linux, iproute2 and util-linux; root, or
the permission to create user namespaces. `why_not` says what is missing.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable, Sequence
from functools import cache

TOOLS = ("ip", "unshare", "nsenter", "setpriv", "cat", "sh")
USER_NAMESPACE = ("-U", "-r")
STEP_SECONDS = 20.0


class NotPermitted(Exception):
    """This machine does not let us build such a network."""


class Namespace:
    """A network namespace, alive as long as the process that holds it open."""

    def __init__(self, argv: Sequence[str], enter: Sequence[str] = ()) -> None:
        self._holder = subprocess.Popen(
            [*argv, "cat"], bufsize=0, start_new_session=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        self.pid = self._holder.pid
        self._enter = [*enter, "-n"]
        assert self._holder.stdin is not None
        assert self._holder.stdout is not None
        try:
            self._holder.stdin.write(b"here\n")
        except BrokenPipeError:
            pass
        if self._holder.stdout.readline() != b"here\n":
            said = self._holder.communicate()[1].decode(errors="replace").strip()
            raise NotPermitted(f"{' '.join(argv)}: {said}")

    @property
    def inside(self) -> list[str]:
        """What an argv is prefixed with to run in here; it becomes that process itself."""
        return ["nsenter", "-t", str(self.pid), *self._enter]

    def run(self, *commands: str) -> None:
        """Run shell commands in here.

        Raises:
            NotPermitted: one of them failed.
        """
        done = subprocess.run(
            [*self.inside, "sh", "-ec", "\n".join(commands)],
            capture_output=True, text=True, timeout=STEP_SECONDS,
        )  # fmt: skip
        if done.returncode:
            raise NotPermitted(f"{'; '.join(commands)}: {done.stderr.strip()}")

    def close(self) -> None:
        """Let the namespace go; it vanishes when nothing runs in it any more."""
        self._holder.communicate()


class Net:
    """A router and so many places around it; all connected until `cut`."""

    def __init__(self, places: int) -> None:
        self._spaces: list[Namespace] = []
        self._cuts: list[str] = []
        try:
            self._router = self._open_router()
            self.places = [self._open_place(i) for i in range(places)]
        except BaseException:
            self.close()
            raise

    @staticmethod
    def address(place: int) -> str:
        """Return the address of a place."""
        return f"10.77.{place}.1"

    def inside(self, place: int) -> list[str]:
        """Return what an argv is prefixed with to run in a place, and to die with this thread."""
        return [*self.places[place].inside, "setpriv", "--pdeathsig", "KILL"]

    def cut(self, senders: Iterable[int], receivers: Iterable[int]) -> None:
        """From now on nothing that `senders` send arrives at `receivers`."""
        pairs = [(a, b) for a in senders for b in receivers]
        rules = [f"from {self.address(a)} to {self.address(b)} blackhole" for a, b in pairs]
        self._router.run(*(f"ip rule add {rule}" for rule in rules))
        self._cuts += rules

    def heal(self) -> None:
        """Undo all cuts."""
        rules, self._cuts = self._cuts, []
        if rules:
            self._router.run(*(f"ip rule del {rule}" for rule in rules))

    def close(self) -> None:
        """Let all namespaces go. Idempotent."""
        while self._spaces:
            self._spaces.pop().close()

    def _open_router(self) -> Namespace:
        """Open the router: in a user namespace of its own, or else as root without one."""
        try:
            router = Namespace(["unshare", *USER_NAMESPACE, "-n"], ["-U", "--preserve-credentials"])
        except NotPermitted as error:
            try:
                router = Namespace(["unshare", "-n"])
            except NotPermitted:
                raise error from None
        self._spaces.append(router)
        router.run("echo 1 > /proc/sys/net/ipv4/ip_forward", "ip link set lo up")
        return router

    def _open_place(self, place: int) -> Namespace:
        router = self._router
        space = Namespace([*router.inside, "unshare", "-n"], router._enter[:-1])
        self._spaces.append(space)
        near, far = self.address(place), f"10.77.{place}.254"
        router.run(
            f"ip link add p{place} type veth peer name cable netns {space.pid}",
            f"ip addr add {far}/24 dev p{place}",
            f"ip link set p{place} up",
        )
        space.run(
            "ip link set lo up",
            f"ip addr add {near}/24 dev cable",
            "ip link set cable up",
            f"ip route add default via {far}",
        )
        return space


@cache
def why_not() -> str:
    """Return why this machine cannot have such a network; empty when it can."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        return f"there is no {', '.join(missing)} here"
    try:
        net = Net(2)
    except (NotPermitted, subprocess.TimeoutExpired) as error:
        return str(error)
    try:
        net.cut([0], [1])
        net.heal()
    except NotPermitted as error:
        return str(error)
    finally:
        net.close()
    return ""
