"""How a value of a program becomes bytes and back: serializers, whole numbers, compression.

What is stored is one of three things:

- the digits of a whole number of 64 bits, so that `incr` works on what was put;
- what the serializer made;
- the byte 0xC1, which begins no JSON, no msgpack and no pickle, one letter that says how the rest
  is packed, and the rest: `z` zlib, `s` zstd, `r` as it is. The latter protects what would be
  mistaken for one of the others.
"""

from __future__ import annotations

import json
import pickle
import re
from typing import Any, Protocol

import msgpack

from dcc.client.arguments import I64_MAX, I64_MIN
from dcc.client.compression import compressed, compression_of, uncompressed

PACKED, AS_IT_IS = b"\xc1", b"\xc1r"

_NUMBER = re.compile(rb"-?[0-9]{1,19}")


class Serializer(Protocol):
    """Anything with `dumps` and `loads`, such as the modules json, pickle and marshal."""

    def dumps(self, value: Any, /) -> Any:
        """Return `value` as bytes or text."""

    def loads(self, data: bytes, /) -> Any:
        """Return what `dumps` was given."""


class Json:
    """JSON without spaces: what any language reads."""

    def dumps(self, value: Any) -> bytes:
        """Return `value` as UTF-8."""
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()

    def loads(self, data: bytes) -> Any:
        """Return what was stored; tuples have become lists, keys texts."""
        return json.loads(data)


class Msgpack:
    """Msgpack: as JSON, smaller and faster, and bytes stay bytes."""

    def dumps(self, value: Any) -> bytes:
        """Return `value` as msgpack."""
        packed: bytes = msgpack.packb(value)
        return packed

    def loads(self, data: bytes) -> Any:
        """Return what was stored; tuples have become lists."""
        return msgpack.unpackb(data, strict_map_key=False)


class Pickle:
    """Pickle: any Python value. Who can write to the cluster can run code where it is read."""

    def dumps(self, value: Any) -> bytes:
        """Return `value` pickled by the newest protocol."""
        return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)

    def loads(self, data: bytes) -> Any:
        """Return what was stored."""
        return pickle.loads(data)


SERIALIZERS: dict[str, Serializer] = {"json": Json(), "msgpack": Msgpack(), "pickle": Pickle()}


def serializer_of(choice: str | Serializer | None) -> Serializer | None:
    """Return the serializer of that name, or the object given; None: values are bytes.

    >>> serializer_of("yaml")
    Traceback (most recent call last):
    ValueError: serializer: json, msgpack, pickle, None or an object; got 'yaml'
    """
    if isinstance(choice, str):
        if choice not in SERIALIZERS:
            known = ", ".join(SERIALIZERS)
            raise ValueError(f"serializer: {known}, None or an object; got {choice!r}")
        return SERIALIZERS[choice]
    if choice is not None and not (hasattr(choice, "dumps") and hasattr(choice, "loads")):
        raise TypeError(f"serializer: dumps and loads, got {type(choice).__name__}")
    return choice


class Values:
    """Dumps and loads with one serializer and one threshold of compression.

    >>> values = Values("json")
    >>> values.dump(7), values.dump("7"), values.dump([1, None])
    (b'7', b'"7"', b'[1,null]')
    >>> values.load(b"7"), values.load(b"[1,null]")
    (7, [1, None])
    """

    def __init__(
        self, serializer: str | Serializer | None = None, compress: int | str | None = None
    ) -> None:
        """Take a serializer (see `serializer_of`) and a compression (see `compression_of`)."""
        self.serializer: Serializer | None = serializer_of(serializer)
        self.compress: int | str | None = compress
        self._compression = compression_of(compress)

    @property
    def plain(self) -> bool:
        """Values are bytes and stored as they are."""
        return self.serializer is None and self.compress is None

    def dump(self, value: Any) -> Any:
        """Return `value` as it is stored; what cannot be serialized raises the serializer's error.

        Without a serializer the value is handed on, and the client refuses what is not bytes.
        """
        if self.plain:
            return value
        if type(value) is int and self.serializer is not None and I64_MIN <= value <= I64_MAX:
            return b"%d" % value
        data = bytes(memoryview(value)) if self.serializer is None else self._serialized(value)
        how = self._compression
        if how is not None and len(data) >= how.from_bytes:
            packed = PACKED + how.letter + compressed(how.letter, data)
            if len(packed) < len(data):
                return packed
        ambiguous = self.serializer is not None and _NUMBER.fullmatch(data)
        return AS_IT_IS + data if ambiguous or data.startswith(PACKED) else data

    def load(self, data: bytes) -> Any:
        """Return the value stored as `data`.

        Raises whatever the serializer does, which is anything, where it is none of its own.
        """
        if self.plain:
            return data
        if data.startswith(PACKED):
            data = _unpacked(data)
        elif self.serializer is not None and _NUMBER.fullmatch(data):
            return int(data)
        return data if self.serializer is None else self.serializer.loads(data)

    def _serialized(self, value: Any) -> bytes:
        assert self.serializer is not None
        data = self.serializer.dumps(value)
        return data.encode() if isinstance(data, str) else bytes(data)


def _unpacked(data: bytes) -> bytes:
    kind, rest = data[:2], data[2:]
    return rest if kind == AS_IT_IS else uncompressed(kind[1:], rest)
