"""How values are compressed: by zlib, which every Python has, or zstd, where this one has it.

A compression is named `zlib` or `zstd`, or `zstd:4096` with the size in bytes from which values
are compressed; a size alone means zlib. What was compressed says by a letter how.
"""

from __future__ import annotations

import io
import zlib
from functools import cache
from importlib import import_module
from typing import Any, NamedTuple, Protocol

from dcc.errors import ConfigError

ZLIB, ZSTD = b"z", b"s"
NAMES = {"zlib": ZLIB, "zstd": ZSTD}

THRESHOLD_BYTES = 1_024
"Below, there is little to be saved."

UNPACKED_BYTES_MAX = 256 << 20
"A small value that unpacks to more than this was made to hurt."

_ZLIB_LEVEL = 1
"The fastest: a cache that saves half of the bytes in a tenth of the time has it right."
_ZSTD_LEVEL = 3
"Its own default: as fast as zlib's fastest, and smaller."
_WINDOW_LOG_MAX = 23
"8 MiB, which every reader of zstd must be able to hold; a header may ask for gigabytes."
_STEP_BYTES = 1 << 20

TOO_LARGE = "compressed data is cut off or too large"


class Compression(NamedTuple):
    """What is compressed, and how."""

    letter: bytes
    "ZLIB or ZSTD."
    from_bytes: int
    "Smaller values are left alone."


class _Zstd(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...
    def decompress(self, data: bytes, /) -> bytes: ...


def compression_of(choice: int | str | None) -> Compression | None:
    """Return the compression that `choice` names; None: none.

    Raises TypeError or ValueError for what names none, and ConfigError where this Python has no
    zstd.

    >>> compression_of("zlib:100")
    Compression(letter=b'z', from_bytes=100)
    >>> compression_of(-1)
    Traceback (most recent call last):
    ValueError: compress: bytes, 0 or more; got -1
    """
    if choice is None:
        return None
    if isinstance(choice, bool) or not isinstance(choice, int | str):
        raise TypeError(f"compress: bytes, a name or None; got {type(choice).__name__}")
    name, size = ("zlib", choice) if isinstance(choice, int) else _named(choice)
    if size < 0:
        raise ValueError(f"compress: bytes, 0 or more; got {size}")
    letter = NAMES[name]
    if letter == ZSTD:
        _zstd()
    return Compression(letter, size)


def _named(text: str) -> tuple[str, int]:
    name, colon, size = text.partition(":")
    if name.isdecimal() and not colon:
        return "zlib", int(name)
    if name not in NAMES or not (size.isdecimal() if colon else True):
        raise ValueError(f"compress: bytes, zlib or zstd, zstd:4096 with a size; got {text!r}")
    return name, int(size) if colon else THRESHOLD_BYTES


def compressed(letter: bytes, data: bytes) -> bytes:
    """Return `data` as the compression of that letter makes it."""
    return zlib.compress(data, _ZLIB_LEVEL) if letter == ZLIB else _zstd().compress(data)


def uncompressed(letter: bytes, data: bytes) -> bytes:
    """Return what `compressed` was given; an exception of any kind if it was not."""
    if letter == ZLIB:
        machine = zlib.decompressobj()
        found = machine.decompress(data, UNPACKED_BYTES_MAX)
        if not machine.eof:
            raise ValueError(TOO_LARGE)
        return found
    if letter == ZSTD:
        return _zstd().decompress(data)
    raise ValueError(f"packed in an unknown way: {letter!r}")


@cache
def _zstd() -> _Zstd:
    """Return zstd of the standard library (from Python 3.14 on), or of the package zstandard."""
    for name, kind in (("compression.zstd", _Standard), ("zstandard", _Extra)):
        try:
            return kind(import_module(name))
        except ImportError:
            continue
    raise ConfigError(
        "compress: zstd needs Python 3.14 or the package zstandard (pip install 'dcc-cache[zstd]')"
    )


class _Standard:
    def __init__(self, module: Any) -> None:
        self._zstd = module

    def compress(self, data: bytes) -> bytes:
        packed: bytes = self._zstd.compress(data, _ZSTD_LEVEL)
        return packed

    def decompress(self, data: bytes) -> bytes:
        limits = {self._zstd.DecompressionParameter.window_log_max: _WINDOW_LOG_MAX}
        machine = self._zstd.ZstdDecompressor(options=limits)
        found: bytes = machine.decompress(data, UNPACKED_BYTES_MAX)
        if not machine.eof:
            raise ValueError(TOO_LARGE)
        return found


class _Extra:
    def __init__(self, module: Any) -> None:
        self._zstd = module

    def compress(self, data: bytes) -> bytes:
        # One for each value: they may not be shared between threads.
        packed: bytes = self._zstd.ZstdCompressor(level=_ZSTD_LEVEL).compress(data)
        return packed

    def decompress(self, data: bytes) -> bytes:
        size = self._zstd.frame_content_size(data)
        if not 0 <= size <= UNPACKED_BYTES_MAX:
            raise ValueError(TOO_LARGE)
        machine = self._zstd.ZstdDecompressor(max_window_size=1 << _WINDOW_LOG_MAX)
        if size <= _STEP_BYTES:
            found: bytes = machine.decompress(data, allow_extra_data=False)
            return found
        # What a header says of the size is no reason to allocate as much.
        reader = machine.stream_reader(io.BytesIO(data), read_across_frames=False)
        parts: list[bytes] = []
        length = 0
        while part := reader.read(_STEP_BYTES):
            length += len(part)
            parts.append(part)
        if length != size:
            raise ValueError(TOO_LARGE)
        return b"".join(parts)
