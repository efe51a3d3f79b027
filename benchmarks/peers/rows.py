"""What is measured, and what dcc is held to."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.peers.worker import Work

SIZES = (100, 1_000, 100_000)
KEYS = 1_000
SYNC_NAMES = ("dcc", "redis-py", "pymemcache")
ASYNC_NAMES = ("dcc.AsyncClient", "redis.asyncio", "valkey-glide")
ECHO_NAME = "bare ZeroMQ"
KEYED_NAME = "dcc with keys"


@dataclass(frozen=True)
class Row:
    """One line of the report: the same work for several contestants."""

    name: str
    work: Work
    contestants: tuple[str, ...]
    mode: str = "pinned"
    targets: tuple[tuple[str, float], ...] = ()
    "dcc's time divided by this contestant's is to be at most this."


def rows(count: int) -> list[Row]:
    """Return all rows; a piece of work of single calls has `count` of them."""
    return [*_single(count), *_many(count), *_threads(count), *_flight(count)]


def fillings() -> list[Work]:
    """Return what is stored on every server before anything is read."""
    return [Work("fill", size, keys_of(size), 1, 1) for size in SIZES]


def keys_of(size: int) -> int:
    """Return how many keys there are with values of `size` bytes."""
    return KEYS if size < 10_000 else KEYS // 10


def _single(count: int) -> list[Row]:
    found: list[Row] = []
    for size in SIZES:
        calls = count if size < 10_000 else count // 3
        for kind in ("get", "put"):
            work = Work(kind, size, keys_of(size), 1, calls)
            names: tuple[str, ...] = (*SYNC_NAMES, KEYED_NAME)
            targets: tuple[tuple[str, float], ...] = ()
            if size == SIZES[0]:
                limit = 1.2 if kind == "get" else 1.6
                targets = (("redis-py", limit),)
                if kind == "get":
                    names, targets = (*names, ECHO_NAME), (*targets, (ECHO_NAME, limit))
            found.append(Row(f"{kind} {size:,} B", work, names, "pinned", targets))
    small = Work("get", SIZES[0], KEYS, 1, count)
    echoed = (*SYNC_NAMES, ECHO_NAME)
    found.append(Row("miss", small._replace(kind="miss"), SYNC_NAMES))
    found.append(Row("get, one core", small, echoed, "one core", ((ECHO_NAME, 2.0),)))
    found.append(Row("put, one core", small._replace(kind="put"), SYNC_NAMES, "one core"))
    found.append(Row("get, unpinned", small, echoed, "free"))
    found.append(Row("put, unpinned", small._replace(kind="put"), SYNC_NAMES, "free"))
    return found


def _many(count: int) -> list[Row]:
    limits = {10: 1.2, 100: 1.2, 1_000: 1.6}
    found = []
    for kind in ("get_many", "put_many"):
        for width, limit in limits.items():
            targets: tuple[tuple[str, float], ...] = ()
            if kind == "get_many":
                targets = (("redis-py", limit), ("pymemcache", 1.0))
            if (kind, width) == ("put_many", 1_000):
                targets = (("redis-py", 1 / 0.7),)
            calls = max(count // (2 * width), 20)
            work = Work(kind, SIZES[0], KEYS, width, calls)
            found.append(Row(f"{kind} {width:,}", work, SYNC_NAMES, "pinned", targets))
    return found


def _threads(count: int) -> list[Row]:
    return [
        Row(
            f"{width} threads, a get",
            Work("threads", SIZES[0], KEYS, width, 2 * count),
            SYNC_NAMES,
            "pinned",
            (("redis-py", 1 / 1.5),) if width == 8 else (),
        )
        for width in (8, 64)
    ]


def _flight(count: int) -> list[Row]:
    limits: dict[int, tuple[tuple[str, float], ...]] = {
        1: (("valkey-glide", 1 / 0.9),),
        16: (("valkey-glide", 1 / 2.0),),
        100: (("valkey-glide", 1 / 4.0), ("redis.asyncio", 1 / 8.0)),
    }
    return [
        Row(
            f"asyncio, {width} in flight, a get",
            Work("flight", SIZES[0], KEYS, width, (4 if width > 1 else 1) * count),
            ASYNC_NAMES,
            "pinned",
            limit,
        )
        for width, limit in limits.items()
    ]
