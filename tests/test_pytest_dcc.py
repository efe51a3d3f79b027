"""The pytest plugin: a cluster for a session and a process, emptied for each test."""

from __future__ import annotations

import re

import pytest

from tests.support.paths import ROOT

pytest_plugins = ["pytester"]

ONE_NODE = """
import pytest

@pytest.fixture(scope="session")
def dcc_cluster_options():
    return {"count": 1}
"""

DOCUMENT = (ROOT / "docs/testing.md").read_text("utf-8")
(EXAMPLE,) = re.findall(r"^```python\n(.*?)^```$", DOCUMENT, re.M | re.S)


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    """A project whose tests have a cluster of one node, which starts soonest."""
    pytester.makeconftest(ONE_NODE)
    return pytester


def test_who_uses_no_fixture_does_not_import_dcc(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import sys

        def test_nothing_is_imported(pytestconfig):
            assert pytestconfig.pluginmanager.has_plugin("dcc")
            assert sys.modules.keys().isdisjoint({"dcc", "zmq", "msgpack"})
        """
    )
    pytester.runpytest_subprocess("-W", "error").assert_outcomes(passed=1)


@pytest.mark.process
def test_the_example_of_the_document_runs(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(EXAMPLE)
    pytester.runpytest_subprocess("-W", "error").assert_outcomes(passed=2)


@pytest.mark.process
def test_each_test_begins_with_an_empty_cluster(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        import dcc
        import pytest

        @pytest.mark.parametrize("turn", range(20))
        def test_nothing_is_left(dcc_cluster, dcc_cache, turn):
            shop = dcc.Cache(dcc_cluster.url, namespace="shop", clear_age=60)
            assert dcc_cache.get("key") is None
            assert shop.get("key") is None
            dcc_cache.put("key", b"mine")
            shop.put("key", b"mine")
            assert list(dcc_cache.scan("key")) == ["key"]

        def test_what_a_namespace_takes_right_after_a_clear_stays(dcc_cluster, dcc_cache):
            shop = dcc.Cache(dcc_cluster.url, namespace="shop", clear_age=60)
            shop.put("key", b"mine")
            elsewhere = dcc.Cache(dcc_cluster.url, namespace="shop", clear_age=0)
            assert elsewhere.get("key") == b"mine"

        def test_a_client_that_was_closed_harms_no_other_test(dcc_cache):
            dcc_cache.close()

        def test_another_test_goes_on(dcc_cache):
            dcc_cache.put("key", b"mine")
        """
    )
    project.runpytest_subprocess("-W", "error").assert_outcomes(passed=23)


@pytest.mark.process
def test_processes_of_xdist_share_no_cluster(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        import os
        import time
        import pytest

        @pytest.mark.parametrize("turn", range(10))
        def test_nobody_else_writes_here(dcc_cluster, dcc_cache, turn):
            mine = b"%d" % os.getpid()
            assert dcc_cluster.client().topology().nodes[0].name == dcc_cluster.nodes[0].name
            dcc_cache.put("process", mine)
            end = time.monotonic() + 0.05
            while time.monotonic() < end:
                assert list(dcc_cache.scan()) == ["process"]
                assert dcc_cache.get("process") == mine
        """
    )
    result = project.runpytest_subprocess("-n", "2", "-W", "error", "-v")
    result.assert_outcomes(passed=10)
    assert set(re.findall(r"\[(gw\d)\]", str(result.stdout))) == {"gw0", "gw1"}
