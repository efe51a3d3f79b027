"""Compression of values: what a name means, what comes back, and what was made to hurt."""

from __future__ import annotations

import random
import zlib
from importlib import import_module, util
from typing import Any

import pytest

from dcc import Cache, ConfigError
from dcc.client import compression
from dcc.client.compression import ZLIB, ZSTD, compression_of, uncompressed
from dcc.client.values import PACKED, Values

DATA = b"".join(b"%d," % number for number in range(3_000))
LARGE = random.Random(1).randbytes(700_000) * 3


@pytest.fixture(params=["compression.zstd", "zstandard"])
def zstd(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Each module that may do zstd's work, alone."""
    if util.find_spec(request.param.partition(".")[0]) is None:
        pytest.skip(f"this Python has no {request.param}")

    def only(name: str) -> Any:
        if name != request.param:
            raise ImportError(name)
        return import_module(name)

    monkeypatch.setattr(compression, "import_module", only)
    compression._zstd.cache_clear()
    yield import_module(request.param)
    compression._zstd.cache_clear()


@pytest.fixture
def without_zstd(monkeypatch: pytest.MonkeyPatch) -> Any:
    def none(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(compression, "import_module", none)
    compression._zstd.cache_clear()
    yield
    compression._zstd.cache_clear()


def test_a_size_alone_means_zlib_and_a_name_may_have_one() -> None:
    assert compression_of(None) is None
    assert compression_of(5) == compression_of("5") == compression_of("zlib:5") == (ZLIB, 5)
    assert compression_of("zlib") == (ZLIB, 1_024)


@pytest.mark.parametrize("choice", ["gzip", "zlib:", "zlib:-1", "zlib:many", "", "-1", -1])
def test_what_names_no_compression_is_refused(choice: int | str) -> None:
    with pytest.raises(ValueError, match="compress: bytes"):
        compression_of(choice)
    if isinstance(choice, str) and choice:
        with pytest.raises(ValueError, match="compress: bytes"):
            Cache(f"dcc://127.0.0.1:1/mine?compress={choice}")


@pytest.mark.parametrize("choice", [True, 1.5, b"zlib"])
def test_a_compression_of_another_type_is_a_type_error(choice: Any) -> None:
    with pytest.raises(TypeError, match="compress: bytes, a name or None"):
        compression_of(choice)


def test_what_is_compressed_comes_back_and_is_smaller(zstd: Any) -> None:
    assert compression_of("zstd:100") == (ZSTD, 100)
    values = Values(compress="zstd:100")
    for data in (b"", b"x" * 99, b"x" * 100, DATA, LARGE, PACKED + b"s" + DATA):
        packed = values.dump(data)
        assert values.load(packed) == data
        assert len(packed) <= len(data) + 2
    assert values.dump(b"x" * 99) == b"x" * 99
    assert values.dump(DATA)[:2] == PACKED + ZSTD
    assert len(values.dump(DATA)) < len(DATA) / 2


def test_every_cache_reads_what_another_one_has_compressed(zstd: Any) -> None:
    writers = [Values("json", how) for how in (None, 10, "zlib", "zstd", "zstd:10")]
    for reader in writers:
        for writer in writers:
            assert reader.load(writer.dump(["text"] * 1_000)) == ["text"] * 1_000


def test_what_is_no_whole_compressed_value_is_an_error(zstd: Any) -> None:
    for letter in (ZSTD, ZLIB):
        for data in (DATA, LARGE):
            whole = compression.compressed(letter, data)
            for broken in (b"", whole[:-1], whole[:20], whole[20:], b"garbage" + whole):
                with pytest.raises(Exception, match=r".") as caught:
                    uncompressed(letter, broken)
                assert not isinstance(caught.value, MemoryError)


def test_a_small_value_does_not_unpack_to_much(zstd: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = {
        ZSTD: compression.compressed(ZSTD, bytes(3 << 20)),
        ZLIB: zlib.compress(bytes(3 << 20)),
    }
    monkeypatch.setattr(compression, "UNPACKED_BYTES_MAX", 2 << 20)
    for letter, data in packed.items():
        assert len(data) < 10_000
        with pytest.raises(ValueError, match="cut off or too large"):
            uncompressed(letter, data)


def test_without_zstd_the_error_says_what_to_install(without_zstd: None) -> None:
    with pytest.raises(ConfigError, match=r"pip install 'dcc-cache\[zstd\]'"):
        Cache(nodes="127.0.0.1:1", compress="zstd")
    assert Values(compress="zlib").load(Values(compress="zlib").dump(DATA)) == DATA
    with pytest.raises(ConfigError):
        Values("json").load(PACKED + ZSTD + b"of a process that has it")
