"""What the pages of the adapters show is what happens."""

from __future__ import annotations

import re

import pytest

from dcc import LocalCluster
from dcc.client.url import CACHE_OPTIONS, CLIENT_OPTIONS
from tests.support.paths import ROOT

OTHER = (ROOT / "docs/other.md").read_text("utf-8")


@pytest.mark.process
def test_the_examples_of_other_programs_run(cluster: LocalCluster) -> None:
    addresses = ",".join(node.address for node in cluster.nodes)
    blocks = re.findall(r"^```python\n(.*?)^```$", OTHER, re.M | re.S)
    assert blocks
    for block in blocks:
        exec(compile(block.replace("127.0.0.1:6740", addresses), "docs/other.md", "exec"), {})


def test_the_table_of_options_has_all_of_them() -> None:
    table = OTHER[OTHER.index("| option |") : OTHER.index("**Values.**")]
    named = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| ([^|]+)\|", table, re.M))))
    assert named == CLIENT_OPTIONS.keys() | CACHE_OPTIONS.keys()
