"""A node whose HTTP other machines can reach: what it tells whom."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.processes import NodeProcess, Processes

pytestmark = pytest.mark.process
TOKEN = "a-token-of-twenty-six-chars"


def status(node: NodeProcess, path: str, token: str = "") -> int:
    """Ask over loopback, which the address of all interfaces has as well."""
    port = str(node.ready["http"]).rpartition(":")[2]
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}")
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--http", "127.0.0.1:0"), 200),
        (("--http", "0.0.0.0:0"), 403),
        (("--http", "0.0.0.0:0", "--insecure"), 200),
    ],
)
def test_other_machines_get_probes_alone_unless_the_node_is_insecure(
    processes: Processes, options: Sequence[str], expected: int
) -> None:
    node = processes.node(*options)
    assert status(node, "/livez") == status(node, "/readyz") == 200
    assert status(node, "/metrics") == status(node, "/api/v1/status") == expected


def test_a_token_is_asked_for_wherever_it_binds(processes: Processes, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    file.chmod(0o600)
    node = processes.node("--http", "127.0.0.1:0", "--http-token", str(file))
    assert status(node, "/readyz") == 200
    assert status(node, "/metrics") == 401
    assert status(node, "/metrics", TOKEN[:-1]) == 401
    assert status(node, "/metrics", TOKEN) == 200


@pytest.mark.parametrize(
    ("text", "mode", "said"),
    [("short", 0o600, "16 to 256"), (TOKEN, 0o644, "chmod 600"), (None, 0, "cannot read")],
)
def test_a_file_that_is_no_secret_is_refused(
    processes: Processes, tmp_path: Path, text: str | None, mode: int, said: str
) -> None:
    file = tmp_path / "token"
    if text is not None:
        file.write_text(text)
        file.chmod(mode)
    node = processes.node("--http", "127.0.0.1:0", "--http-token", str(file))
    assert node.wait(30) == 2
    assert "http-token" in node.text()
    assert said in node.text()
