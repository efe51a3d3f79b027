"""The network of a run: a place for each process, cuts and bad links between them."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from simulations.chaos.namespaces import Net, NotPermitted
from simulations.chaos.namespaces import why_not as why_not

TABLE = 77
RETURNED, BAD = 900, 1_000
"Order of the router's rules: cuts come first, and what has come back from `bad` goes on."


class Links(Net):
    """A network whose places may have bad links."""

    def __init__(self, places: int) -> None:
        super().__init__(places)
        self._bad: dict[str, dict[str, Any]] = {}
        self._program = subprocess.Popen(
            [*self._router.inside, "setpriv", "--pdeathsig", "KILL", sys.executable, "-m",
             "simulations.chaos.links"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        assert self._program.stdout is not None
        if self._program.stdout.readline() != "here\n":
            self.close()
            raise NotPermitted("no tun device for bad links")
        self._router.run(
            "ip link set bad up",
            "for file in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 > $file; done",
            f"ip route add default dev bad table {TABLE}",
            f"ip rule add iif bad pref {RETURNED} lookup main",
        )

    def set_link(self, place: int, **link: float) -> None:
        """Make the link of a place bad, in the words of `links.Link`; good again without any."""
        address = self.address(place)
        was = address in self._bad
        if link:
            self._bad[address] = link
        else:
            self._bad.pop(address, None)
        assert self._program.stdin is not None
        self._program.stdin.write(json.dumps(self._bad) + "\n")
        self._program.stdin.flush()
        if was != bool(link):
            verb = "add" if link else "del"
            self._router.run(
                *(f"ip rule {verb} {end} {address} pref {BAD} lookup {TABLE}"
                  for end in ("from", "to"))
            )  # fmt: skip

    def mend(self, senders: list[int], receivers: list[int]) -> None:
        """Undo a cut."""
        for a in senders:
            for b in receivers:
                rule = f"from {self.address(a)} to {self.address(b)} blackhole"
                if rule in self._cuts:
                    self._cuts.remove(rule)
                    self._router.run(f"ip rule del {rule}")

    def close(self) -> None:
        """Let all go. Idempotent."""
        program: subprocess.Popen[str] | None = getattr(self, "_program", None)
        if program is not None:
            program.kill()
            program.communicate()
        super().close()
