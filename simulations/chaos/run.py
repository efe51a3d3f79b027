"""One run: start, load and faults, memory pressure, rest, judgement, figures.

warm-up     nodes start, clients begin
chaos       what the plan says, one after the other
rest        faults and calls end: the cluster must converge, and every key is read once more
pressure    many more bytes than the memory limit are written, and nodes stop and die meanwhile:
            values are evicted, so only the nodes are judged, which keep to their limit
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from dcc.types import NO_VERSION
from dcc.units import MIB, SECOND
from simulations import faults as f
from simulations.chaos import cluster as processes
from simulations.chaos import plan
from simulations.chaos.cluster import Cluster
from simulations.chaos.history import answer, parse_version, read_histories
from simulations.chaos.judging import Judge, Seen
from simulations.chaos.net import Links
from simulations.history import End, Entry, History, Violation

SAMPLE_SECONDS = 2.0
BESIDE_BYTES = 96 * MIB
"What a node's process takes beside its limit: the interpreter, libzmq's buffers, fragments."
DESCRIPTORS_MAX = 250
"Of a node; a dozen processes connect to it, some of them anew after each fault."
REST_SECONDS = 90.0
"Until the cluster must have converged once all faults are over."
PRESSURE_SHARE, PRESSURE_SECONDS_MIN = 0.1, 8.0


@dataclass
class Sample:
    """What one life of one node used at one moment."""

    node: str
    age_s: float
    resident: int
    descriptors: int
    pressed: bool
    "Behind the beginning of the memory pressure."


@dataclass
class Result:
    """What became of a run."""

    seed: int
    seconds: float
    events: Sequence[plan.Event]
    history: History
    violations: list[Violation]
    samples: list[Sample]
    limit_bytes: int
    calm_share: float
    sharpness: float
    "Share of hits that would have been noticed, had they been sure misses."
    pressed: dict[str, int]
    "How the calls of the memory pressure ended."
    logged: Counter[str] = field(default_factory=Counter)
    "Log lines of all nodes, by event."


class Watch:
    """What the watching client tells, line by line."""

    def __init__(self, cluster: Cluster) -> None:
        self.agreed: list[int] = []
        self.converged: list[int] = []
        self._cluster = cluster
        self._popen = cluster.run("c0", "watch", "--began", str(cluster.began_ns), log="watch.log")
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self._popen.stdout is not None
        for line in self._popen.stdout:
            seen = json.loads(line)
            running = sorted(node.name for node in self._cluster.living())
            if seen["alive"] == running:
                self.agreed.append(seen["at"])
                if seen["converged"]:
                    self.converged.append(seen["at"])

    def close(self) -> None:
        """Look no more."""
        self._popen.kill()
        self._popen.wait()
        self._thread.join(5)


class Run:
    """One run of so many seconds; `close` ends all that it started."""

    def __init__(self, seed: int, seconds: float, folder: Path, *, memory_mib: int) -> None:
        self._seed, self._seconds, self._folder = seed, seconds, folder
        self._limit_bytes = memory_mib * MIB
        self._net = Links(plan.NODES + plan.SPARE + plan.CLIENTS)
        options = ("--max-memory", f"{memory_mib}MiB", "--insecure")
        self._cluster = Cluster(self._net, folder, options, seed)
        self._events = plan.draw(seed, int(seconds * SECOND))
        self._samples: list[Sample] = []
        self._pressed = False
        self._violations: list[Violation] = []
        self._epoch_ns = time.time_ns() - self._cluster.now_ns()

    def close(self) -> None:
        """End everything. Idempotent."""
        self._cluster.close()
        self._net.close()

    def play(self, say: Any = lambda _text: None) -> Result:
        """Run all phases."""
        cluster = self._cluster
        for name in plan.node_names():
            cluster.start(name)
        watch = Watch(cluster)
        self._wait(lambda: bool(watch.converged), 60, "the nodes did not form one cluster")
        for name in plan.client_names():
            cluster.start_client(name)
        offset_ns = cluster.now_ns()
        events = self._carry_out(offset_ns, say)
        self._rest(watch, "the last fault")
        cluster.stop_clients()
        history = read_histories(self._folder)
        history += self._read_all(history)
        say(f"{cluster.now_ns() / SECOND:7.1f} s  memory pressure")
        pressed = self._press()
        self._rest(watch, "memory pressure")
        self._sample()
        watch.close()
        return self._judge(events, watch, history, pressed)

    def _rest(self, watch: Watch, what: str) -> None:
        resting = self._cluster.now_ns()
        self._wait(
            lambda: bool(watch.converged) and watch.converged[-1] > resting, REST_SECONDS,
            f"not converged {REST_SECONDS:.0f} s behind {what}",
        )  # fmt: skip

    # -------------------------------------------------------------- phases

    def _carry_out(self, offset_ns: int, say: Any) -> list[plan.Event]:
        """Let all events begin and end in time; return them as they were, by the run's clock."""
        due: list[tuple[int, int, plan.Event | None]] = []
        for event in self._events:
            due += [(event.at_ns, 0, event), (event.at_ns + event.lasts_ns, 1, event)]
        due.append((int(self._seconds * SECOND), 2, None))
        began: dict[int, int] = {}
        done: list[plan.Event] = []
        for at_ns, what, one in sorted(due, key=lambda one: one[:2]):
            self._sleep_until(offset_ns + at_ns)
            now_ns = self._cluster.now_ns()
            if one is None:
                break
            event = one
            if what == 0:
                say(f"{now_ns / SECOND:7.1f} s  {event}")
                began[id(event)] = now_ns
                self._cluster.begin(event)
            else:
                self._cluster.end(event)
                at, lasts = began[id(event)], self._cluster.now_ns() - began[id(event)]
                done.append(_moved(event, at, lasts))
        return done

    def _press(self) -> dict[str, int]:
        """Write more than the nodes may hold; one of them dies and one stands still meanwhile."""
        cluster, began_ns, self._pressed = self._cluster, self._cluster.now_ns(), True
        lasts_ns = int(max(PRESSURE_SECONDS_MIN, PRESSURE_SHARE * self._seconds) * SECOND)
        hog = cluster.run("c1", "hog", "--seconds", str(lasts_ns / SECOND), log="hog.log")
        first, second = plan.node_names()[:2]
        pause = f.Pause(at_ns=0, lasts_ns=2 * SECOND, node=second)
        restart = f.Restart(at_ns=lasts_ns // 2, lasts_ns=SECOND, node=first)
        self._sleep_until(began_ns + lasts_ns // 4)
        for event in (pause, restart):
            cluster.begin(event)
            self._sleep_until(cluster.now_ns() + event.lasts_ns)
            cluster.end(event)
        self._sleep_until(began_ns + lasts_ns)
        told: dict[str, int] = json.loads(hog.communicate(timeout=60)[0] or "{}")
        return told

    def _sleep_until(self, at_ns: int) -> None:
        while (left_s := (at_ns - self._cluster.now_ns()) / SECOND) > 0:
            time.sleep(min(left_s, SAMPLE_SECONDS))
            self._sample()

    def _sample(self) -> None:
        for node in self._cluster.living():
            resident, descriptors = node.usage()
            if resident:
                age_s = time.monotonic() - node.born
                self._samples.append(Sample(node.name, age_s, resident, descriptors, self._pressed))

    def _wait(self, holds: Any, seconds: float, text: str) -> None:
        until = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > until:
                self._violations.append(Violation("the cluster converges", text))
                return
            self._sleep_until(self._cluster.now_ns() + SECOND // 2)

    # -------------------------------------------------------------- the end

    def _read_all(self, history: History) -> History:
        """Read every key that was written once more; all owners must hold the same."""
        keys = sorted({entry.key.decode() for entry in history if entry.writes})
        file = self._folder / "keys"
        file.write_text("\n".join(keys))
        reader = self._cluster.run(
            "c0", "watch", "--began", str(self._cluster.began_ns), "--keys", str(file),
            log="watch.log",
        )  # fmt: skip
        assert reader.stdout is not None
        found = []
        for line in reader.stdout:
            seen = json.loads(line)
            if "error" in seen or seen["status"] == "unsure":
                text = f"{seen['key']}: {seen.get('error', 'unsure')}"
                self._violations.append(Violation("at rest every read is sure", text))
                continue
            if len(set(seen["held"].values())) > 1 and seen["key"][0] in "kpnb":
                text = f"{seen['key']}: {seen['held']}"
                self._violations.append(Violation("at rest all owners agree", text))
            found.append(_last_read(seen))
        reader.wait()
        return found

    def _judge(
        self, events: list[plan.Event], watch: Watch, history: History, pressed: dict[str, int]
    ) -> Result:
        cluster = self._cluster
        lines = processes.log_lines(cluster.all_nodes())
        stands = [one for name, line in lines for one in self._standstills(name, line)]
        seen = Seen(
            events=[*events, *stands], losses=cluster.losses, agreed=watch.agreed,
            converged=watch.converged, epoch_ns=self._epoch_ns, end_ns=cluster.now_ns(),
        )  # fmt: skip
        judge = Judge(history, seen)
        violations = self._violations + judge.violations() + self._judge_nodes(lines)
        calm = [judge.calm(one.invoked_ns, one.ended_ns) for one in history]
        return Result(
            self._seed, self._seconds, events, history, violations, self._samples,
            self._limit_bytes, sum(calm) / max(1, len(calm)), judge.sharpness(self._seed), pressed,
            Counter(str(line.get("event")) for _, line in lines),
        )  # fmt: skip

    def _judge_nodes(self, lines: Sequence[tuple[str, dict[str, Any]]]) -> list[Violation]:
        found = [Violation("no node ends by itself", text) for text in self._cluster.died()]
        found += [
            Violation("no core ever raises", f"{name}: {line}") for name, line in lines
            if line.get("event") in ("bug", "no JSON")
        ]  # fmt: skip
        resident_max = self._limit_bytes + BESIDE_BYTES
        for one in self._samples:
            if one.resident > resident_max or one.descriptors > DESCRIPTORS_MAX:
                found.append(Violation("limits hold", str(one)))
                break
        return found

    def _standstills(self, name: str, line: dict[str, Any]) -> list[plan.Event]:
        """Return what the machine did to a node: it had no processor, or was thought dead."""
        if line.get("event") not in ("standstill", "member_suspect"):
            return []
        seconds = float(line.get("seconds", 5.0))
        at_ns = int(datetime.fromisoformat(line["timestamp"]).timestamp() * SECOND) - self._epoch_ns
        began_ns = at_ns - int(seconds * SECOND)
        return [f.Pause(at_ns=began_ns, lasts_ns=int(seconds * SECOND), node=name)]


def _moved(event: plan.Event, at_ns: int, lasts_ns: int) -> plan.Event:
    """Return an event at the time at which it was done."""
    return replace(event, at_ns=at_ns, lasts_ns=lasts_ns)


def _last_read(seen: dict[str, Any]) -> Entry:
    value = seen["found"]
    entry = Entry(
        client="reader", verb="get", key=seen["key"].encode(), invoked_ns=seen["at"],
        ended_ns=seen["ended"], deadline_ns=seen["ended"], end=End.OK, status=seen["status"],
        found=value.encode() if value is not None else None,
        version=parse_version(seen["version"]),
    )  # fmt: skip
    if entry.version != NO_VERSION:
        entry.answer = answer(entry, seen["node"], leads=True)
    return entry
