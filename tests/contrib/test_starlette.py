"""The cache of responses: what is kept, for whom, and what it is answered with."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from dcc import LocalCluster

pytestmark = pytest.mark.process

starlette = pytest.importorskip("dcc.contrib.starlette")
pytest.importorskip("httpx")


@pytest.fixture
def site(url: str) -> Iterator[Callable[..., Any]]:
    """Ask an application that counts how often it had to answer: the body is that number."""
    yield from served(url, ttl=60)


def served(url: str, **options: Any) -> Iterator[Callable[..., Any]]:
    applications = pytest.importorskip("starlette.applications")
    responses = pytest.importorskip("starlette.responses")
    routing = pytest.importorskip("starlette.routing")
    testing = pytest.importorskip("starlette.testclient")
    count = itertools.count(1)

    async def page(request: Any) -> Any:
        headers = dict(request.query_params)
        status = int(headers.pop("status", 200))
        if headers.pop("stream", ""):
            parts = iter([b"a", str(next(count)).encode()])
            return responses.StreamingResponse(parts, headers=headers)
        return responses.PlainTextResponse(str(next(count)), status, headers)

    app = applications.Starlette(
        routes=[routing.Route("/{name}", page, methods=["GET", "POST"])],
        lifespan=starlette.lifespan(url),
    )
    app.add_middleware(starlette.ResponseCache, **options)
    with testing.TestClient(app) as client:
        client.portal.call(app.state.dcc.clear)

        def ask(path: str = "/a", method: str = "GET", **headers: str) -> Any:
            client.cookies.clear()
            named = {name.replace("_", "-"): text for name, text in headers.items()}
            return client.request(method, path, headers=named)

        yield ask


def test_a_response_is_kept_and_says_so(site: Callable[..., Any]) -> None:
    first, second = site(), site()
    assert (first.text, second.text) == ("1", "1")
    assert second.headers["cache-status"] == "dcc; hit"
    assert int(second.headers["age"]) >= 0
    assert second.headers["content-type"] == first.headers["content-type"]
    assert site(method="HEAD").headers["content-length"] == "1"
    assert site(method="HEAD").text == ""
    assert site("/b").text == "2"
    assert site("/a?x=1").text == "3"
    assert site(host="other.example").text == "4"


def test_who_has_it_already_gets_304(site: Callable[..., Any]) -> None:
    etag = site().headers["etag"]
    for _ in range(2):
        again = site(if_none_match=f'"other", W/{etag}')
        assert (again.status_code, again.text, again.headers["etag"]) == (304, "", etag)
    assert site("/new", if_none_match=etag).status_code == 200


@pytest.mark.parametrize(
    "query",
    [
        "?set-cookie=a%3Db", "?cache-control=private", "?cache-control=no-store", "?status=404",
        "?cache-control=max-age%3D0", "?vary=*", "?stream=yes",
    ],
)  # fmt: skip
def test_what_is_not_for_everybody_is_not_kept(site: Callable[..., Any], query: str) -> None:
    assert site(f"/a{query}").text != site(f"/a{query}").text


@pytest.mark.parametrize(
    "headers",
    [{"authorization": "Bearer x"}, {"cookie": "user=1"}, {"cache_control": "no-cache"}],
)
def test_who_asks_for_himself_is_answered_by_the_application(
    site: Callable[..., Any], headers: dict[str, str]
) -> None:
    assert site().text == "1"
    assert site(**headers).text == "2"
    assert site(**headers).text == "3"
    assert site().text == "1"
    assert site("/a", "POST").text == "4"


def test_vary_keeps_a_response_for_each(site: Callable[..., Any]) -> None:
    path = "/a?vary=Accept-Language"
    assert site(path, accept_language="de").text == "1"
    assert site(path, accept_language="fr").text == "2"
    assert site(path, accept_language="de").text == "1"
    assert site(path, accept_language="fr").text == "2"


def test_without_a_ttl_only_what_says_so_is_kept(url: str) -> None:
    for ask in served(url):
        assert ask("/c").text != ask("/c").text
        path = "/c?cache-control=max-age%3D60"
        assert ask(path).text == ask(path).text


def test_large_responses_pass_by(url: str) -> None:
    for ask in served(url, ttl=60, body_bytes_max=0):
        assert ask("/d").text != ask("/d").text


def test_without_a_cluster_the_application_answers(silent: str) -> None:
    for ask in served(f"dcc://{silent}/gone?timeout=0.1", ttl=60):
        assert [ask().text for _ in range(3)] == ["1", "2", "3"]


def test_a_lifespan_of_ones_own_runs_within(cluster: LocalCluster) -> None:
    applications = pytest.importorskip("starlette.applications")
    testing = pytest.importorskip("starlette.testclient")
    seen: list[str] = []

    @asynccontextmanager
    async def mine(app: Any) -> AsyncIterator[Any]:
        seen.append(app.state.dcc.namespace)
        yield {}
        seen.append("end")

    app = applications.Starlette(lifespan=starlette.lifespan("dcc://a/shop", around=mine))
    with testing.TestClient(app):
        assert seen == ["shop"]
    assert seen == ["shop", "end"]
