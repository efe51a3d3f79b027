"""The demonstration: its pages, its judgement, its screen, and the whole story once."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcc import Entry, Version
from dcc.demo import __main__ as story
from dcc.demo import pages, screen
from dcc.demo.cluster import Broken, Child, Cluster, environment
from dcc.demo.copies import Watch, whole
from dcc.demo.report import Phase, Result, broken_promises, report
from dcc.demo.tally import Tally, quantile
from dcc.demo.worker import TTL_SECONDS_MIN, ttl_of
from dcc.local import LocalCluster

# ------------------------------------------------------------------ pages


def test_there_are_enough_pages_and_none_that_harms() -> None:
    names = pages.catalogue()
    assert len(names) > 200
    assert {"json", "os", "email.message", "xml.dom.minidom"} <= set(names)
    harmful = {"antigravity", "this", "tkinter", "idlelib", "test", "turtle"}
    assert not [name for name in names if name.split(".")[0] in harmful]
    assert not [name for name in names if "__main__" in name]
    assert len(names) == len(set(names))


def test_listing_the_pages_imports_none_of_them() -> None:
    code = (
        "import sys; from dcc.demo.pages import catalogue; before = set(sys.modules);"
        "catalogue(); print(sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_page_is_what_pydoc_says() -> None:
    page = pages.render("textwrap")
    assert page.name == "textwrap"
    assert page.cost_us > 0
    assert b"TextWrapper" in page.text
    assert b"\b" not in page.text  # no overstrikes


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path / "demo_page_under_test.py"
    sys.modules.pop("demo_page_under_test", None)


@pytest.mark.parametrize(
    "code", ["import no_such_module_anywhere", "raise SystemExit(3)", "1 / 0", "not python"]
)
def test_a_module_that_does_not_import_has_no_page(module: Path, code: str) -> None:
    module.write_text(code)
    with pytest.raises(pages.NoPage, match="demo_page_under_test"):
        pages.render(module.stem)


def test_a_module_that_takes_too_long_has_no_page_though_it_swallows_errors(
    module: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "IMPORT_SECONDS_MAX", 0.05)
    module.write_text(
        "import time\nfor _ in range(3):\n    try:\n        time.sleep(60)\n    except: pass\n"
        "time.sleep(60)\n"
    )
    began = time.monotonic()
    with pytest.raises(pages.NoPage, match="too long"):
        pages.render(module.stem)
    assert time.monotonic() - began < 10
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_what_a_module_prints_goes_nowhere(
    module: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module.write_text(
        "import sys, warnings\nprint('noise')\nprint('noise', file=sys.stderr)\n"
        "warnings.warn('noise')\n"
    )
    assert b"demo_page_under_test" in pages.render(module.stem).text
    assert capsys.readouterr() == ("", "")


@given(st.binary(max_size=200), st.integers(0, 10**9))
def test_a_sealed_page_opens(text: bytes, cost_us: int) -> None:
    page = pages.Page("os.path", cost_us, text)
    assert pages.unseal("os.path", pages.seal(page)) == page


@given(st.data())
def test_a_sealed_page_with_any_byte_changed_does_not(data: st.DataObject) -> None:
    value = bytearray(pages.seal(pages.Page("abc", 17, b"Help on module abc")))
    place = data.draw(st.integers(0, len(value) - 1))
    value[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(pages.WrongBytes):
        pages.unseal("abc", bytes(value))


@pytest.mark.parametrize("value", [b"", b"short", pages.seal(pages.Page("ast", 1, b"x"))[:-1]])
def test_a_page_cut_short_does_not_open(value: bytes) -> None:
    with pytest.raises(pages.WrongBytes):
        pages.unseal("ast", value)


def test_another_pages_value_does_not_open() -> None:
    with pytest.raises(pages.WrongBytes, match="got the page of ast"):
        pages.unseal("abc", pages.seal(pages.Page("ast", 1, b"whole")))


@given(st.text("abc.", min_size=1), st.floats(0, 1e6), st.floats(0, 30))
def test_a_later_put_never_ends_before_an_earlier_one(
    name: str, first: float, later: float
) -> None:
    """Else a client would miss a page early that another client put anew, for a shorter time."""
    due = [now + ttl_of(name, 20.0, now) for now in (first, first + later)]
    assert due[0] <= due[1] + 1e-6
    assert TTL_SECONDS_MIN - 1e-6 <= ttl_of(name, 20.0, first) <= 20.0 + TTL_SECONDS_MIN


# ------------------------------------------------------------------ judgement


def told() -> Result:
    """A story in which every promise held."""
    tally = Tally()
    tally.hit("abc", 300, 12_000)
    tally.miss("ast", 200, 30_000)
    result = Result(phases=[Phase("steady", tally, 1.0)], killed_at=100.0)
    result.total.add(tally)
    result.restored_seconds, result.ready_seconds, result.filled_seconds = 8.0, 1.0, 2.0
    result.newcomer_items = 7
    return result


def test_a_story_in_which_all_went_well_breaks_no_promise() -> None:
    assert list(broken_promises(told())) == []
    text = report(told())
    assert "Every promise held." in text
    assert "BROKEN" not in text
    assert "40 times" in text


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda result: setattr(result.total, "failed", 1), "failed"),
        (lambda result: setattr(result.total, "wrong", 1), "bytes"),
        (lambda result: setattr(result, "restored_seconds", None), "restored"),
        (lambda result: setattr(result, "filled_seconds", None), "newcomer"),
        (lambda result: setattr(result, "newcomer_items", 0), "newcomer"),
        (lambda result: result.total.early.append(("abc", 98.0, 101.0)), "missed"),
        (lambda result: result.total.early.append(("abc", 99.9, 99.95)), "missed"),
        (lambda result: result.total.early.append(("abc", 100.5, 101.0)), "missed"),
        (lambda result: setattr(result, "total", Tally()), "no page"),
    ],
)
def test_each_broken_promise_is_told(change: object, says: str) -> None:
    result = told()
    assert callable(change)
    change(result)
    (broken,) = broken_promises(result)
    assert says in broken
    assert f"BROKEN: {broken}" in report(result)


def test_a_page_put_just_before_the_kill_may_go_with_the_node() -> None:
    result = told()
    result.total.early.append(("abc", 99.5, 100.2))
    assert result.early() == (0, 1)
    assert list(broken_promises(result)) == []
    assert "lost with the killed node" in report(result)


def test_a_put_that_may_be_stored_is_shown_and_breaks_nothing() -> None:
    result = told()
    result.total.maybe = 3
    assert list(broken_promises(result)) == []
    assert re.search(r"may or may not be stored +3\b", report(result))


@given(st.lists(st.integers(0, 1000), min_size=1), st.floats(0.01, 1))
def test_a_quantile_has_its_share_of_the_sample_at_or_below(
    sample: list[int], share: float
) -> None:
    value = quantile(sample, share)
    assert value in sample
    assert sum(one <= value for one in sample) >= share * len(sample) - 1e-9
    assert sum(one < value for one in sample) <= share * len(sample) + 1e-9


def test_a_tally_survives_its_line_and_adds_up() -> None:
    tally = told().total
    tally.early.append(("abc", 1.0, 2.0))
    tally.left_out["nis"] = "no such module"
    tally.note("get abc: late")
    arrived = Tally.from_line(json.dumps(tally.as_json()))
    assert arrived == tally
    both = Tally()
    both.add(tally)
    both.add(arrived)
    assert (both.served, both.hit_ratio, both.names) == (4, 0.5, ["abc", "ast"])
    assert both.early == [("abc", 1.0, 2.0)] * 2


def entry(version: Version) -> Entry:
    return Entry(b"", version, None, 0.0, "node", confirmed=True)


@pytest.mark.parametrize(
    ("held", "expected"),
    [
        ({"a": entry(Version(2, 1, 1)), "b": entry(Version(2, 1, 1))}, True),
        ({"a": entry(Version(2, 1, 1)), "b": entry(Version(1, 1, 1))}, False),
        ({"a": entry(Version(2, 1, 1)), "b": None}, False),
        ({"a": entry(Version(2, 1, 1)), "b": "unreachable"}, False),
        ({"a": entry(Version(2, 1, 1)), "b": "expired 1-1-1"}, False),
        ({"a": None, "b": None}, True),
        ({"a": None, "b": "no answer in time"}, False),
        ({"a": "expired 1-1-1", "b": None}, True),
    ],
)
def test_a_key_is_whole_when_all_its_owners_agree(
    held: dict[str, Entry | str | None], expected: bool
) -> None:
    assert whole(held) is expected


@pytest.mark.process
@pytest.mark.slow
def test_a_watch_sees_copies_go_and_come_back() -> None:
    keys = [f"page/{number}" for number in range(40)]
    with LocalCluster(3, replicas=1, rebalance_delay=0) as cluster:
        client = cluster.client()
        assert client.put_many(dict.fromkeys(keys, b"text")) == []
        before = watched(Watch(client, keys))
        assert before.complete_at is not None
        assert before.whole_share == 1

        cluster.nodes[0].kill()
        killed_at = time.monotonic()
        after = Watch(client, keys)
        after.step(0.2)
        assert after.complete_at is None
        assert 0 < after.whole_share < 1
        watched(after)
        assert after.complete_at is not None
        assert after.complete_at > killed_at


def watched(watch: Watch) -> Watch:
    deadline = time.monotonic() + 40
    while watch.complete_at is None and time.monotonic() < deadline:
        watch.step(0.05)
    return watch


# ------------------------------------------------------------------ screen


def picture(seconds: float) -> screen.Picture:
    total = told().total
    return screen.Picture(
        seconds=seconds, phase="steady", recent=total, recent_seconds=1.0, total=total,
        members={"node-1": "suspect", "node-2": "alive"}, whole_share=0.25,
    )  # fmt: skip


def test_a_pipe_gets_one_plain_line_a_second() -> None:
    out = io.StringIO()
    plain = screen.Screen(out, terminal=False)
    for tenth in range(25):
        plain.show(picture(tenth / 10))
    lines = out.getvalue().splitlines()
    assert len(lines) == 3
    assert "\x1b" not in out.getvalue()
    assert "2/s" in lines[0]
    assert "node-1 SUSPECT, node-2 alive" in lines[0]
    assert "copies 25%" in lines[0]


def test_a_terminal_keeps_what_happened_and_draws_over_the_rest() -> None:
    out = io.StringIO()
    live = screen.Screen(out, terminal=True)
    live.show(picture(0.0))
    height = out.getvalue().count("\n")
    live.announce(0.3, "kill -9")
    live.show(picture(0.4))
    wipe = f"\x1b[{height}A\x1b[J"
    assert out.getvalue().count(wipe) == 1
    assert f"{wipe}  0.3 s  kill -9\n" in out.getvalue()


def test_a_narrow_terminal_wraps_no_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrapped line would make the cursor go up too little and leave its rest behind."""
    monkeypatch.setenv("COLUMNS", "40")
    out = io.StringIO()
    screen.Screen(out, terminal=True).show(picture(0.0))
    assert max(map(len, out.getvalue().splitlines())) == 39


# ------------------------------------------------------------------ processes


def test_children_see_no_settings_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DCC_SEED", "10.0.0.1:6740")
    assert not [name for name in environment() if name.startswith("DCC_")]


@pytest.mark.process
def test_a_child_that_ends_by_itself_is_noticed_with_its_last_words() -> None:
    with Cluster() as cluster:
        cluster.workers.append(Child("client-1", "dcc.demo.worker", "--wrong"))
        deadline = time.monotonic() + 20
        while cluster.workers[0].running and time.monotonic() < deadline:
            time.sleep(0.01)
        with pytest.raises(Broken, match="ended by itself"):
            cluster.check()
    assert not cluster.workers[0].running


@pytest.mark.process
def test_a_child_that_was_told_to_end_or_has_ended_hears_nothing_more() -> None:
    with Cluster() as cluster:
        child = Child("client-1", "dcc.demo.worker", "--wrong")
        cluster.workers.append(child)
        child.say("abc")
        cluster.finish_workers()
        child.say("abc")
        cluster.check()


def test_wrong_usage_is_exit_code_64(capsys: pytest.CaptureFixture[str]) -> None:
    assert story.main(["--no-such-option"]) == 64
    assert "--no-such-option" in capsys.readouterr().err
    assert story.main(["--help"]) == 0


class Run:
    """A demonstration as a process; its lines are read as they come."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "dcc.demo", *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip
        self.text = ""

    def read_until(self, words: str) -> str:
        """Return the first line with `words`; fails when the output ends before."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.text += line
            if words in line:
                return line
        raise AssertionError(f"no '{words}' in:\n{self.text}")

    def rest(self) -> str:
        """Wait for the end and return all output."""
        assert self.process.stdout is not None
        self.text += self.process.stdout.read()
        self.process.wait(10)
        return self.text

    @property
    def pids(self) -> list[int]:
        """Process ids of the children it told of."""
        return [int(pid) for pid in re.findall(r"process (\d+)", self.text)]

    def left_behind(self) -> list[int]:
        """Children that still exist."""
        return [pid for pid in self.pids if exists(pid)]


def exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def run() -> Iterator[type[Run]]:
    runs: list[Run] = []

    class Tracked(Run):
        def __init__(self, *arguments: str) -> None:
            super().__init__(*arguments)
            runs.append(self)

    yield Tracked
    for one in runs:
        one.process.terminate()  # It ends its children, which a SIGKILL would leave behind.
        assert one.process.stdout is not None
        one.process.stdout.read()
        one.process.wait(20)
        one.process.stdout.close()


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.parametrize("keys", [(), ("--keys",)])
def test_the_whole_story_holds_its_promises_within_a_minute(
    run: type[Run], keys: tuple[str, ...]
) -> None:
    began = time.monotonic()
    demo = run("--steady", "2", *keys)
    text = demo.rest()
    assert demo.process.returncode == 0, text
    assert time.monotonic() - began < 60
    for told_of in ("kill -9", "all copies are restored", "node-4 is ready", "DEAD", "REMOVED"):
        assert told_of in text
    assert re.search(r"^failed requests +0$", text, re.M)
    assert re.search(r"^wrong bytes +0$", text, re.M)
    assert "Every promise held." in text
    different = re.search(r"pages served +(\d+) +(\d+) different", text)
    assert different is not None
    assert int(different[2]) >= 150
    assert len(demo.pids) == 7
    assert demo.left_behind() == []


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_and_all_its_processes(run: type[Run], number: signal.Signals) -> None:
    demo = run()
    demo.read_until("client-3 requests pages")
    demo.process.send_signal(number)
    text = demo.rest()
    assert demo.process.returncode == 128 + number, text
    assert len(demo.pids) == 6
    assert demo.left_behind() == []


@pytest.mark.process
@pytest.mark.slow
def test_a_node_that_dies_unasked_is_a_failure(run: type[Run]) -> None:
    demo = run()
    line = demo.read_until("node-2 is ready")
    os.kill(int(line.split()[-1]), signal.SIGKILL)
    text = demo.rest()
    assert demo.process.returncode == 2, text
    assert "BROKEN: node-2" in text
    assert "Traceback" not in text
    assert demo.left_behind() == []
