"""The node command's options: three sources, one precedence, one clear line for every mistake."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcc.errors import ConfigError
from dcc.node.options import (
    OPTIONS,
    Address,
    Options,
    describe,
    gather,
    parse,
    parse_size,
)
from dcc.units import SECOND


def parsed(*argv: str, **environ: str) -> Options:
    return parse(gather(argv, environ)[0])


def refusal(*argv: str, **environ: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parsed(*argv, **environ)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_the_defaults_are_those_of_the_interface_note() -> None:
    options = parsed()
    assert options.bind == Address("127.0.0.1", 6740)
    assert options.gossip_bind == Address("127.0.0.1", 6741)
    assert options.advertise is None
    assert options.seed == ()
    assert (options.replicas, options.max_memory, options.cluster) == (1, 256 << 20, "dcc")
    assert (options.leave_timeout, options.rebalance_delay, options.weight) == (30.0, 60.0, 1.0)
    assert options.http is None
    assert (options.log_format, options.log_level) == ("console", "info")
    assert options.insecure is False


def test_an_option_beats_the_environment_beats_the_file_beats_the_default(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text('replicas = 4\nzone = "file"\nweight = 2.5\n')
    options = parsed(
        "--config", str(file), "--replicas", "2", DCC_REPLICAS="3", DCC_ZONE="environment"
    )
    assert (options.replicas, options.zone, options.weight) == (2, "environment", 2.5)
    assert options.eviction == "lru"


def test_show_config_names_the_origin_of_every_value(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text("weight = 2.5\n")
    found, show = gather(
        ["--show-config", "--config", str(file), "--replicas", "2"], {"DCC_ZONE": "a"}
    )
    assert show
    origins = {
        line.split()[0]: line.split()[1:] for line in describe(found, parse(found)).split("\n")[:-1]
    }
    assert set(origins) == {option.name for option in OPTIONS}
    assert origins["replicas"] == ["2", "option"]
    assert origins["zone"] == ["a", "environment"]
    assert origins["weight"] == ["2.5", "file", str(file)]
    assert origins["gossip-bind"] == ["127.0.0.1:6741", "default"]
    assert origins["name"] == ["127.0.0.1:6740", "default"]


def test_the_config_file_can_be_named_by_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text('seed = ["10.0.0.1:1", "10.0.0.2:2"]\ninsecure = true\nmax_memory = "1GiB"\n')
    options = parsed(DCC_CONFIG=str(file))
    assert options.seed == (Address("10.0.0.1", 1), Address("10.0.0.2", 2))
    assert options.insecure
    assert options.max_memory == 1 << 30


def test_seeds_may_be_repeated_and_comma_separated_and_lose_duplicates() -> None:
    options = parsed("--seed", "a:1,b:2", "--seed", "[::1]:3", "--seed", "a:1")
    assert [str(seed) for seed in options.seed] == ["a:1", "b:2", "[::1]:3"]


@pytest.mark.parametrize(
    ("argv", "part"),
    [
        (["--no-such-option"], "--no-such-option"),
        (["--replica", "1"], "--replica"),
        (["stray"], "stray"),
        (["--replicas"], "--replicas"),
        (["--replicas", "10"], "0..9"),
        (["--replicas", "-1"], "--replicas"),
        (["--replicas", "1.5"], "--replicas"),
        (["--bind", "nowhere"], "HOST:PORT"),
        (["--bind", "127.0.0.1:65536"], "65535"),
        (["--bind", "127.0.0.1:-1"], "--bind"),
        (["--bind", "::1:6740"], "brackets"),
        (["--bind", ":6740"], "host"),
        (["--bind", "127.0.0.1:65535"], "--gossip-bind"),
        (["--bind", "127.0.0.1:5", "--gossip-bind", "127.0.0.1:5"], "same address"),
        (["--bind", ""], "--bind"),
        (["--seed", "host:0"], "--seed"),
        (["--seed", "0.0.0.0:1"], "--seed"),
        (["--advertise", "0.0.0.0:1"], "--advertise"),
        (["--max-memory", "12 parsecs"], "SIZE"),
        (["--max-memory", "1KiB"], "max-memory"),
        (["--max-memory", "-1"], "SIZE"),
        (["--eviction", "fifo"], "lru"),
        (["--weight", "0"], "--weight"),
        (["--weight", "nan"], "--weight"),
        (["--weight", "inf"], "--weight"),
        (["--leave-timeout", "-1"], "--leave-timeout"),
        (["--leave-timeout", "soon"], "--leave-timeout"),
        (["--rebalance-delay", "1e300"], "--rebalance-delay"),
        (["--move-share", "0"], "--move-share"),
        (["--move-share", "101"], "--move-share"),
        (["--move-share", "ten"], "--move-share"),
        (["--name-served", "4097"], "--name-served"),
        (["--name-served", "-1"], "--name-served"),
        (["--move-rate", "1KiB"], "move-rate"),
        (["--cluster", "x" * 129], "cluster"),
        (["--cluster", ""], "cluster"),
        (["--name", "y" * 129], "name"),
        (["--name", "a\nb"], "control"),
        (["--log-format", "xml"], "json"),
        (["--log-level", "loud"], "debug"),
        (["--http", "8080"], "--http"),
        (["--config", "/nonexistent/file.toml"], "no such file"),
        (["--config", "/"], "cannot read"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_that_names_it(argv: list[str], part: str) -> None:
    assert part.lower() in refusal(*argv).lower()


def test_a_mistake_in_the_environment_says_that_it_is_there() -> None:
    assert "environment" in refusal(DCC_REPLICAS="many")


def test_unknown_variables_are_ignored() -> None:
    assert parsed(DCC_NO_SUCH_THING="1", DCC_NODES="elsewhere:1") == parsed()


@pytest.mark.parametrize(
    "text", ["no_such_key = 1", "replicas = {}", "= broken", 'seed = [1, 2]', "\xff\xfe"]
)  # fmt: skip
def test_a_bad_file_is_one_line_that_names_it(tmp_path: Path, text: str) -> None:
    file = tmp_path / "node.toml"
    file.write_bytes(text.encode("latin-1"))
    assert str(file) in refusal("--config", str(file))


@pytest.mark.parametrize("host", ["192.0.2.1", "0.0.0.0", "[::]", "[2001:db8::1]", "example", "*"])
def test_an_address_others_can_reach_needs_insecure(host: str) -> None:
    assert "--insecure" in refusal("--bind", f"{host}:6740", "--advertise", "192.0.2.1:6740")
    options = parsed("--bind", f"{host}:6740", "--advertise", "192.0.2.1:6740", "--insecure")
    assert options.insecure


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "[::1]", "localhost"])
def test_a_loopback_address_needs_nothing(host: str) -> None:
    assert parsed("--bind", f"{host}:6740").bind.loopback


def test_a_gossip_address_others_can_reach_needs_insecure_too() -> None:
    assert "--insecure" in refusal("--gossip-bind", "192.0.2.1:6741")


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "*"])
def test_every_interface_needs_an_advertised_address(host: str) -> None:
    assert "--advertise" in refusal("--bind", f"{host}:6740", "--insecure")
    assert "advertise" in refusal("--gossip-bind", f"{host}:6741", "--insecure")


def test_what_others_are_told_follows_from_what_was_bound() -> None:
    request, gossip = Address("127.0.0.1", 5000), Address("127.0.0.1", 5005)
    config = parsed("--bind", "127.0.0.1:0").node_config(request, gossip, ())
    assert (config.name, config.request, config.gossip) == (
        "127.0.0.1:5000", "127.0.0.1:5000", "127.0.0.1:5005",
    )  # fmt: skip
    options = parsed("--bind", "127.0.0.1:0", "--advertise", "cache-1:0", "--name", "one")
    config = options.node_config(request, gossip, ("s:1",))
    assert (config.name, config.request, config.gossip) == ("one", "cache-1:5000", "cache-1:5005")
    assert config.seeds == ("s:1",)
    options = parsed("--advertise", "cache-1:7", "--gossip-advertise", "cache-2:8")
    config = options.node_config(request, gossip, ())
    assert (config.request, config.gossip) == ("cache-1:7", "cache-2:8")


def test_the_pace_of_moves_is_set_by_bytes_and_by_time() -> None:
    here = Address("127.0.0.1", 1)
    config = parsed("--move-rate", "2MiB", "--move-share", "35").node_config(here, here, ())
    assert (config.move_bytes_per_second, config.move_share_percent) == (2 << 20, 35)


def test_how_many_served_keys_are_named_is_set_and_may_be_none() -> None:
    here = Address("127.0.0.1", 1)
    assert parsed().node_config(here, here, ()).named_keys_per_second == 1_000
    none = parsed("--name-served", "0").node_config(here, here, ())
    assert none.named_keys_per_second == 0


def test_durations_become_nanoseconds_and_may_be_zero() -> None:
    options = parsed("--rebalance-delay", "0.25", "--leave-timeout", "0")
    here = Address("127.0.0.1", 1)
    config = options.node_config(here, here, ())
    assert (config.rebalance_delay_ns, config.leave_timeout_ns) == (SECOND // 4, 0)


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("17", 17), ("17B", 17), ("2KB", 2000), ("2 MB", 2_000_000), ("1gb", 10**9),
     ("3KiB", 3072), ("256MiB", 256 << 20), ("2GiB", 2 << 30)],
)  # fmt: skip
def test_sizes_have_decimal_and_binary_units(text: str, size: int) -> None:
    assert parse_size(text) == size


@given(st.text(max_size=20))
def test_any_text_is_a_size_or_a_value_error(text: str) -> None:
    try:
        assert parse_size(text) >= 0
    except ValueError:
        pass


@given(st.text(max_size=40) | st.from_regex(r"[\[\]a-z0-9.:*-]{1,20}:[0-9]{1,6}", fullmatch=True))
def test_any_text_is_an_address_that_prints_and_parses_back_or_a_value_error(text: str) -> None:
    try:
        address = Address.parse(text)
    except ValueError:
        return
    assert Address.parse(str(address)) == address
    assert 0 <= address.port <= 65_535


def test_an_ipv6_address_is_written_in_brackets_one_way() -> None:
    assert str(Address.parse("[0:0:0:0:0:0:0:1]:5")) == "[::1]:5"


def test_keys_let_a_node_bind_what_others_can_reach(tmp_path: Path) -> None:
    words = ("--bind", "192.0.2.1:6740")
    assert "--keys" in refusal(*words)
    assert parsed(*words, "--keys", str(tmp_path)).security == "keys"
    assert parsed(*words, "--insecure").security == "insecure"
    assert parsed("--insecure").security == "open", "nobody else can reach it"
