"""What a caller may pass: each argument is checked and converted here, before anything is sent.

A wrong type is a TypeError, a wrong value a ValueError (or the typed error that is one), so that
no mistake of the caller is ever mistaken for a fault of the cluster.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from datetime import timedelta
from enum import Enum
from typing import Literal, NoReturn

from dcc.errors import InvalidKey, ValueTooLarge
from dcc.limits import ADDRESS_BYTES_MAX, KEY_BYTES_MAX, REPLICAS_MAX, VALUE_BYTES_MAX
from dcc.units import SECOND

DEFAULT_NODE = "127.0.0.1:6740"
TIMEOUT_MAX_SECONDS = 3600.0
TTL_MAX_MS = 1 << 46
"Over 2,000 years; a sum of now and a ttl still fits the wire's 47 bits."
QUORUM, ALL = 0, 255
"As `r` and `w` travel."
I64_MIN, I64_MAX = -(1 << 63), (1 << 63) - 1


class Unset(Enum):
    """The type of `UNSET`: the argument was not given, which differs from None."""

    UNSET = "unset"


UNSET = Unset.UNSET

Value = bytes | bytearray | memoryview
"What the type checker accepts as a value; anything with a buffer works."

Ttl = float | timedelta | None

Quorum = int | Literal["quorum", "all"]
"Owners that take part in a call: a count, a majority of the copies, all of them."

ReadPolicy = Literal["auto", "primary", "any"]
"Whom reads are asked of: the primary, but all owners for hot keys; the primary; all owners."

_ADDRESS = re.compile(r"(\[[0-9a-fA-F:.%]+\]|[^\s:/,\[\]]+):([0-9]{1,5})")


def node_addresses(nodes: str | Iterable[str] | None, environment: str | None) -> tuple[str, ...]:
    """Return host:port addresses of `nodes`, else of `environment`, else the default one.

    >>> node_addresses("a:1, b:2", None)
    ('a:1', 'b:2')
    >>> node_addresses(None, None)
    ('127.0.0.1:6740',)
    """
    if nodes is None:
        nodes = environment or DEFAULT_NODE
    parts = [nodes] if isinstance(nodes, str) else list(nodes)
    addresses: list[str] = []
    for part in parts:
        if not isinstance(part, str):
            raise TypeError(f"nodes: host:port as str, got {type(part).__name__}")
        addresses += [_address(one.strip()) for one in part.split(",") if one.strip()]
    if not addresses:
        raise ValueError("nodes: at least one host:port")
    return tuple(dict.fromkeys(addresses))


def _address(text: str) -> str:
    match = _ADDRESS.fullmatch(text)
    if match is None or not 0 < int(match[2]) < 65536 or len(text) > ADDRESS_BYTES_MAX:
        raise ValueError(f"nodes: host:port with a port of 1..65535, got {text!r}")
    return text


def refuse_pickling(addresses: Iterable[str]) -> NoReturn:
    """Raise TypeError for a client that is to be pickled or copied, saying what to do."""
    raise TypeError(
        "a client has connections and cannot be pickled or copied: pass the addresses"
        f" ({','.join(addresses)}) and make a client in each process"
    )


def key_bytes(key: str) -> bytes:
    """Return `key` as the 1..512 UTF-8 bytes that travel; TypeError or InvalidKey otherwise."""
    if not isinstance(key, str):
        raise TypeError(f"key: str, got {type(key).__name__}")
    try:
        raw = key.encode()
    except UnicodeEncodeError as error:
        raise InvalidKey("key: not encodable as UTF-8") from error
    if not 0 < len(raw) <= KEY_BYTES_MAX:
        raise InvalidKey(f"key: 1..{KEY_BYTES_MAX} bytes as UTF-8, got {len(raw)}")
    return raw


def keys_bytes(keys: Iterable[str]) -> tuple[list[str], list[bytes]]:
    """Return `keys` and what `key_bytes` makes of each; several times faster for many."""
    names = list(keys)
    try:
        # TypeError for anything that is no str; a str of the caller's own class is fine.
        raws = list(map(str.encode, names))
    except (TypeError, UnicodeEncodeError):
        raws = []
    if raws and min(map(len, raws)) > 0 and max(map(len, raws)) <= KEY_BYTES_MAX:
        return names, raws
    return names, [key_bytes(name) for name in names]


def prefix_bytes(prefix: str) -> bytes:
    """Return the prefix of a scan as 0..512 UTF-8 bytes."""
    return key_bytes(prefix) if prefix != "" else b""


def value_bytes(value: object) -> bytes:
    """Return `value` as bytes; a bytes object is not copied. TypeError or ValueTooLarge."""
    if type(value) is not bytes:
        # Not bytes(value): bytes(5) is five zeros and bytes([1]) one byte, both surprises here.
        try:
            value = memoryview(value).tobytes()  # type: ignore[arg-type]  # TypeError is the test
        except TypeError:
            raise TypeError(f"value: bytes-like, got {type(value).__name__}") from None
    if len(value) > VALUE_BYTES_MAX:
        raise ValueTooLarge(f"value: at most {VALUE_BYTES_MAX} bytes, got {len(value)}")
    return value


def ttl_ms(ttl: Ttl, name: str = "ttl") -> int:
    """Return `ttl` in whole milliseconds, rounded up; 0 for None, which is never.

    >>> ttl_ms(0.0001), ttl_ms(None), ttl_ms(timedelta(minutes=1))
    (1, 0, 60000)
    """
    if ttl is None:
        return 0
    if isinstance(ttl, timedelta):
        ttl = ttl.total_seconds()
    seconds = _number(name, ttl)
    if not 0 < seconds * 1000 <= TTL_MAX_MS:
        most = TTL_MAX_MS // 1000
        raise ValueError(f"{name}: above 0 seconds, at most {most}, or None; got {ttl}")
    return math.ceil(seconds * 1000)


def timeout_ns(timeout: float) -> int:
    """Return a time-out of seconds in nanoseconds."""
    seconds = _number("timeout", timeout)
    if not 0 < seconds <= TIMEOUT_MAX_SECONDS:
        raise ValueError(f"timeout: above 0, at most {TIMEOUT_MAX_SECONDS} seconds; got {timeout}")
    return max(1, round(seconds * SECOND))


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name}: seconds as a number, got {type(value).__name__}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if math.isnan(number):
        raise ValueError(f"{name}: not a number of seconds")
    return number


def quorum(name: str, count: int | str) -> int:
    """Return `r` or `w` as it travels: a count, 0 for "quorum", 255 for "all"."""
    if isinstance(count, bool) or not isinstance(count, int | str):
        raise TypeError(f'{name}: an int, "quorum" or "all", got {type(count).__name__}')
    if count == "quorum":
        return QUORUM
    if count == "all":
        return ALL
    if isinstance(count, str) or not 1 <= count <= REPLICAS_MAX + 1:
        raise ValueError(f'{name}: 1..{REPLICAS_MAX + 1}, "quorum" or "all", got {count!r}')
    return count


def replica_count(n: int) -> int:
    """Return `n` if it may be a number of copies beyond the primary."""
    if isinstance(n, bool) or not isinstance(n, int):
        raise TypeError(f"replicas: int, got {type(n).__name__}")
    if not 0 <= n <= REPLICAS_MAX:
        raise ValueError(f"replicas: 0..{REPLICAS_MAX}, got {n}")
    return n


def signed_64(name: str, number: int) -> int:
    """Return `number` if it is an int of 64 bits with a sign; TypeError or ValueError."""
    if isinstance(number, bool) or not isinstance(number, int):
        raise TypeError(f"{name}: int, got {type(number).__name__}")
    if not I64_MIN <= number <= I64_MAX:
        raise ValueError(f"{name}: -2**63..2**63-1, got {number}")
    return number
