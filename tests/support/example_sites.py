"""The examples of the documents as programs: taken from the page, on real nodes, as processes."""

from __future__ import annotations

import re
import socket
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass
from http.cookiejar import CookieJar
from pathlib import Path

from tests.support.paths import ROOT
from tests.support.processes import NodeProcess, Processes, Running, wait_until

WRITTEN = "127.0.0.1:6740"
"The node that the pages name."


def programs(page: str) -> dict[str, str]:
    """Return file name -> text of the Python blocks of a page that begin with their name."""
    text = (ROOT / "docs" / page).read_text("utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S)
    named = {re.match(r"# ([\w/]+\.py)\n", block): block for block in blocks}
    return {match[1]: block for match, block in named.items() if match}


def commands(page: str) -> list[str]:
    """Return the lines of the shell blocks of a page."""
    text = (ROOT / "docs" / page).read_text("utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```$", text, re.M | re.S)
    return [line for block in blocks for line in block.splitlines()]


def write_programs(page: str, folder: Path, nodes: list[NodeProcess]) -> None:
    """Put the programs of a page into `folder`, with the addresses of real nodes."""
    addresses = ",".join(node.address for node in nodes)
    for name, text in programs(page).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text.replace(WRITTEN, addresses))


def free_port() -> int:
    """Return a port that nobody uses now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@dataclass
class Site:
    """A program that answers HTTP, and one visitor with his cookies."""

    process: Running
    port: int

    def __post_init__(self) -> None:
        self._opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))

    def get(self, path: str = "/") -> str:
        """Return the body; urllib.error.HTTPError unless the status is 200."""
        with self._opener.open(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
            assert answer.status == 200
            body: str = answer.read().decode()
            return body

    def wait(self) -> None:
        """Wait until it answers anything."""

        def answers() -> bool:
            assert self.process.popen.poll() is None, self.process.text()
            try:
                self.get()
            except urllib.error.HTTPError:
                raise
            except OSError:
                return False
            return True

        wait_until(answers, 30, self.process.text)


def start_site(processes: Processes, folder: Path, command: str) -> Site:
    """Run a page's command that serves on port 8000, in `folder`, on a port of its own."""
    port = free_port()
    words = command.replace("8000", str(port)).split()
    site = Site(
        processes.run(
            sys.executable, "-c", RUN_IN, str(folder), *words, env={"PYTHONWARNINGS": "ignore"}
        ),
        port,
    )
    site.wait()
    return site


RUN_IN = """
import os, runpy, sys
folder, command, *rest = sys.argv[1:]
os.chdir(folder)
sys.path[:0] = [folder]
os.environ["PYTHONPATH"] = os.pathsep.join([folder, os.environ["PYTHONPATH"]])
if command == "python":
    os.execv(sys.executable, [sys.executable, *rest])
os.execv(sys.executable, [sys.executable, "-m", command, *rest])
"""
