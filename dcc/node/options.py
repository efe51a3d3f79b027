"""The node command's options: from command line, environment and file to one checked value.

Every option is a row of `OPTIONS`; it can be given as `--name`, as `DCC_NAME`, or as a key of the
file named by `--config` (TOML), in this order of precedence, before the default. All three give
text (a TOML number is taken as its text), so there is one parser and one error for each option.
Whatever is wrong becomes a `ConfigError` of one line that names the option.
"""

from __future__ import annotations

import argparse
import math
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import Any, NamedTuple, NoReturn

from dcc import output
from dcc.config import EVICTION_POLICIES, NodeConfig
from dcc.errors import ConfigError
from dcc.limits import BATCH_KEYS_MAX, MEMBERS_MAX, REPLICAS_MAX
from dcc.types import CLIENTS, TOPIC_ALL, node_key, topic_of
from dcc.units import GIB, KIB, MIB, SECOND

CONFIG_FILE_BYTES_MAX = 1 * MIB
DURATION_SECONDS_MAX = 10 * 365 * 86_400
UNITS_BYTES = {
    "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": KIB, "MIB": MIB, "GIB": GIB,
}  # fmt: skip
WILDCARDS = ("0.0.0.0", "::", "*")
LOG_LEVELS = ("debug", "info", "warning", "error")


class Address(NamedTuple):
    """A host and a port; `str()` gives host:port, an IPv6 host in brackets.

    >>> str(Address.parse("[::1]:6740"))
    '[::1]:6740'
    """

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, text: str) -> Address:
        """Return the address written as HOST:PORT or [IPV6]:PORT; ValueError says what is wrong."""
        host, colon, port = text.strip().rpartition(":")
        if not colon or not port.isdecimal() or not port.isascii():
            raise ValueError(f"'{text}' is not HOST:PORT")
        if int(port) > 65_535:
            raise ValueError(f"port {port} is above 65535")
        return cls(_host(host, text), int(port))

    @property
    def wildcard(self) -> bool:
        """True for an address that means every interface."""
        return self.host in WILDCARDS

    @property
    def loopback(self) -> bool:
        """True if only this machine can reach it, as far as the text alone can tell."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host.lower() == "localhost"


def _host(host: str, text: str) -> str:
    if host.startswith("[") and host.endswith("]"):
        return str(IPv6Address(host[1:-1]))
    if host == "*" or re.fullmatch(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_.])?", host):
        return host
    if ":" in host:
        raise ValueError(f"'{text}': an IPv6 address needs brackets, like [::1]:6740")
    raise ValueError(f"'{text}' has no host that could be one")


def parse_size(text: str) -> int:
    """Return the bytes that SIZE means.

    >>> parse_size("256MiB"), parse_size("1 kb"), parse_size("17")
    (268435456, 1000, 17)
    """
    match = re.fullmatch(r"([0-9]{1,15})\s*([A-Za-z]*)", text.strip())
    unit = UNITS_BYTES.get(match[2].upper() or "B") if match else None
    if match is None or unit is None:
        raise ValueError(f"'{text}' is no SIZE: an integer and B, KB, MB, GB, KiB, MiB or GiB")
    return int(match[1]) * unit


def _seconds(text: str) -> float:
    seconds = _number(text)
    if not 0 <= seconds <= DURATION_SECONDS_MAX:
        raise ValueError(f"{text} seconds are not within 0..{DURATION_SECONDS_MAX}")
    return seconds


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"'{text}' is not a number")
    return number


def _replicas(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,4}", text.strip()) or int(text) > REPLICAS_MAX:
        raise ValueError(f"'{text}' is not a number within 0..{REPLICAS_MAX}")
    return int(text)


def _members(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text.strip()) or not 1 <= int(text) <= MEMBERS_MAX:
        raise ValueError(f"'{text}' is not a number within 1..{MEMBERS_MAX}")
    return int(text)


def _percent(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,3}", text.strip()) or not 1 <= int(text) <= 100:
        raise ValueError(f"'{text}' is not a number within 1..100")
    return int(text)


def _named(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,4}", text.strip()) or int(text) > BATCH_KEYS_MAX:
        raise ValueError(f"'{text}' is not a number within 0..{BATCH_KEYS_MAX}")
    return int(text)


def _weight(text: str) -> float:
    weight = _number(text)
    if not 0 < weight <= 1e6:
        raise ValueError(f"{text} is not above 0 and at most 1e6")
    return weight


def _seeds(text: str) -> tuple[Address, ...]:
    seeds = [Address.parse(part) for part in text.split(",") if part.strip()]
    for seed in seeds:
        if seed.port == 0 or seed.wildcard:
            raise ValueError(f"'{seed}' cannot be connected to")
    return tuple(dict.fromkeys(seeds))


def _reachable(text: str) -> Address:
    address = Address.parse(text)
    if address.wildcard:
        raise ValueError(f"'{text}' is no address that others could connect to")
    return address


def _choice(*choices: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError(f"'{text}' is none of {', '.join(choices)}")
        return text

    return parse


def _flag(text: str) -> bool:
    if text.lower() not in ("1", "true", "yes", "on", "0", "false", "no", "off", ""):
        raise ValueError(f"'{text}' is neither true nor false")
    return text.lower() in ("1", "true", "yes", "on")


def _text(text: str) -> str:
    if any(ord(char) < 32 for char in text):
        raise ValueError("control characters")
    return text


class Option(NamedTuple):
    """One option: how it is written, read and explained."""

    name: str
    metavar: str
    default: str
    "As text, empty for what follows from other options."
    parse: Callable[[str], Any]
    help: str

    @property
    def variable(self) -> str:
        """The environment variable."""
        return "DCC_" + self.name.upper().replace("-", "_")


OPTIONS = (
    Option("bind", "HOST:PORT", "127.0.0.1:6740", Address.parse,
           "request plane; port 0 picks one"),
    Option("gossip-bind", "HOST:PORT", "", Address.parse,
           "gossip plane; default: the bind host, port + 1 (0 with port 0)"),
    Option("advertise", "HOST:PORT", "", _reachable,
           "what others are told; default: the bind address"),
    Option("gossip-advertise", "HOST:PORT", "", _reachable,
           "the same for the gossip plane; default: the advertised host, the bound port"),
    Option("seed", "HOST:PORT[,…]", "", _seeds,
           "request address of any node of the cluster; repeatable; a DNS name may have many"),
    Option("expect", "N", "1", _members,
           "not ready before so many members, itself counted, have been there at once"),
    Option("name", "NAME", "", _text, "unique and stable; default: the advertised address"),
    Option("replicas", "N", "1", _replicas, "copies beyond the primary, if this node is the first"),
    Option("max-memory", "SIZE", "256MiB", parse_size, "bound of all that grows with use"),
    Option("eviction", "POLICY", "lru", _choice(*EVICTION_POLICIES), "lru or lfu"),
    Option("keys", "DIR", "", _text,
           "let in only whoever has one of these keys; see docs/security.md"),
    Option("insecure", "", "false", _flag,
           "allow to bind an address other machines can reach without keys"),
    Option("leave-timeout", "S", "30", _seconds, "seconds to hand data over when told to stop"),
    Option("zone", "NAME", "", _text, "copies go to different zones where there are"),
    Option("weight", "X", "1", _weight, "share of the data relative to other nodes"),
    Option("cluster", "NAME", "dcc", _text, "nodes and clients of another name are refused"),
    Option("rebalance-delay", "S", "60", _seconds,
           "seconds a node may be down before its data is rebuilt elsewhere"),
    Option("move-rate", "SIZE", "16MiB", parse_size,
           "bytes per second taken from other nodes at most while data moves"),
    Option("move-share", "PERCENT", "5", _percent,
           "of its time, spent on that at most while clients are served; more moves faster"),
    Option("name-served", "N", "1000", _named,
           "keys per second named to their other owners, which then keep what is read; 0 = none"),
    Option("http", "HOST:PORT", "", Address.parse,
           "serve /metrics, /livez, /readyz, /api/v1/status; off unless given"),
    Option("http-token", "FILE", "", _text,
           "who asks for more than /livez and /readyz must send its text as a bearer token"),
    Option("log-format", "FORMAT", "console", _choice("console", "json"), "console or json"),
    Option("log-level", "LEVEL", "info", _choice(*LOG_LEVELS), "|".join(LOG_LEVELS)),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command was told, checked; addresses are not resolved or bound yet."""

    bind: Address
    gossip_bind: Address
    advertise: Address | None
    gossip_advertise: Address | None
    seed: tuple[Address, ...]
    expect: int
    "Members."
    name: str
    "Empty: the advertised address."
    replicas: int
    max_memory: int
    "Bytes."
    eviction: str
    keys: str
    "Path of the key directory; empty: no keys."
    insecure: bool
    leave_timeout: float
    "Seconds."
    zone: str
    weight: float
    cluster: str
    rebalance_delay: float
    "Seconds."
    move_rate: int
    "Bytes per second."
    move_share: int
    "Percent."
    name_served: int
    "Keys per second; 0 = none."
    http: Address | None
    http_token: str
    "Path of the file; empty: no token."
    log_format: str
    log_level: str

    @property
    def security(self) -> str:
        """How others are kept out: by keys, not at all ("insecure"), or by the address alone."""
        if self.keys:
            return "keys"
        reachable = not (self.bind.loopback and self.gossip_bind.loopback)
        return "insecure" if reachable else "open"

    def node_config(
        self, request: Address, gossip: Address, seeds: Sequence[str], **tuning: Any
    ) -> NodeConfig:
        """Return the core's configuration for the bound addresses; ConfigError if impossible."""
        advertised = self.advertise or request
        if advertised.port == 0:
            advertised = advertised._replace(port=request.port)
        public = self.gossip_advertise or Address(advertised.host, gossip.port)
        if public.port == 0:
            public = public._replace(port=gossip.port)
        name = self.name or str(advertised)
        if topic_of(node_key(name)) in (TOPIC_ALL, topic_of(CLIENTS)):
            raise ConfigError(f"name: {name!r} hashes to a reserved key, choose another")
        settings: dict[str, Any] = {
            "name": name, "request": str(advertised), "gossip": str(public),
            "seeds": tuple(seeds), "expect": self.expect, "cluster": self.cluster,
            "zone": self.zone,
            "weight": self.weight, "replicas": self.replicas,
            "memory_limit_bytes": self.max_memory, "eviction": self.eviction,
            "rebalance_delay_ns": round(self.rebalance_delay * SECOND),
            "leave_timeout_ns": round(self.leave_timeout * SECOND),
            "move_bytes_per_second": self.move_rate,
            "move_share_percent": self.move_share,
            "named_keys_per_second": self.name_served,
        }  # fmt: skip
        return NodeConfig(**(settings | tuning))


class Given(NamedTuple):
    """The text of one option and who gave it."""

    text: str
    origin: str


class _Parser(output.Parser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(message)


def command_line() -> argparse.ArgumentParser:
    """Return the argparse parser of the node command; its errors are `ConfigError`s."""
    parser = _Parser(
        prog="python -m dcc.node",
        description="Run one node of a dcc cluster. Every option is also DCC_<NAME> in the "
        "environment and a key of the file given by --config.",
        allow_abbrev=False,
    )
    parser.add_argument("--config", metavar="FILE", help="TOML file with options")
    parser.add_argument(
        "--show-config", action="store_true", help="print values and where they come from"
    )
    for option in OPTIONS:
        text = f"{option.help} [{option.default}]" if option.default else option.help
        flag = f"--{option.name}"
        if option.parse is _flag:
            parser.add_argument(flag, action="store_const", const="true", help=text)
        elif option.parse is _seeds:
            parser.add_argument(flag, action="append", metavar=option.metavar, help=text)
        else:
            parser.add_argument(flag, metavar=option.metavar, help=text)
    return parser


def gather(argv: Sequence[str], environ: Mapping[str, str]) -> tuple[dict[str, Given], bool]:
    """Return the text and origin of every option, and whether --show-config was asked for.

    Raises:
        ConfigError: unknown options, an unreadable file. Values are not looked at yet.
    """
    words = vars(command_line().parse_args(argv))
    path = words["config"] if words["config"] is not None else environ.get("DCC_CONFIG")
    table = read_file(path) if path else {}
    given = {}
    for option in OPTIONS:
        word = words[option.name.replace("-", "_")]
        if word is not None:
            text = ",".join(word) if isinstance(word, list) else word
            given[option.name] = Given(text, "option")
        elif option.variable in environ:
            given[option.name] = Given(environ[option.variable], "environment")
        elif option.name in table:
            given[option.name] = Given(table[option.name], f"file {path}")
        else:
            given[option.name] = Given(option.default, "default")
    return given, words["show_config"]


def read_file(path: str) -> dict[str, str]:
    """Return option texts from a TOML file; ConfigError if it is unreadable or has unknown keys."""
    try:
        with open(path, "rb") as file:
            table = tomllib.loads(file.read(CONFIG_FILE_BYTES_MAX).decode())
    except (OSError, ValueError) as error:
        raise ConfigError(f"config: cannot read {path}: {_one_line(error)}") from error
    names = {option.name for option in OPTIONS}
    texts = {}
    for key, value in table.items():
        name = key.replace("_", "-")
        if name not in names:
            raise ConfigError(f"config: {path}: unknown option '{key}'")
        texts[name] = _file_text(path, key, value)
    return texts


def _file_text(path: str, key: str, value: object) -> str:
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return ",".join(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int | float):
        return str(value)
    raise ConfigError(f"config: {path}: '{key}' is neither text, number, boolean nor list of text")


def parse(given: Mapping[str, Given]) -> Options:
    """Return the checked options; ConfigError names the first that is wrong."""
    values: dict[str, Any] = {}
    for option in OPTIONS:
        text, origin = given[option.name]
        try:
            value = option.parse(text) if text or option.default else _absent(option)
        except ValueError as error:
            where = "" if origin == "option" else f" (from {origin})"
            raise ConfigError(f"--{option.name}: {_one_line(error)}{where}") from error
        values[option.name.replace("-", "_")] = value
    if values["gossip_bind"] is None:
        values["gossip_bind"] = _next_port(values["bind"])
    options = Options(**values)
    check(options)
    return options


def _absent(option: Option) -> object:
    """The value of an option that was not given and has no default of its own."""
    if option.parse is _seeds:
        return ()
    return "" if option.parse is _text else None


def _next_port(bind: Address) -> Address:
    if bind.port == 65_535:
        raise ConfigError("--gossip-bind: needed, since the port after --bind's does not exist")
    return Address(bind.host, bind.port + 1 if bind.port else 0)


def check(options: Options) -> None:
    """Raise ConfigError where options contradict each other."""
    planes = (("bind", options.bind), ("gossip-bind", options.gossip_bind))
    for name, address in planes:
        if not address.loopback and not options.insecure and not options.keys:
            raise ConfigError(
                f"--{name}: other machines can reach {address}, and nothing would authenticate "
                "them; give --keys, or --insecure if the network is trusted"
            )
    if options.bind.wildcard and options.advertise is None:
        raise ConfigError(f"--bind: {options.bind} is every interface; --advertise must name one")
    if options.gossip_bind.wildcard and (options.advertise or options.gossip_advertise) is None:
        raise ConfigError("--gossip-bind: every interface; --gossip-advertise must name one")
    if options.bind == options.gossip_bind and options.bind.port:
        raise ConfigError("--gossip-bind: the same address as --bind")
    sample = Address("127.0.0.1", 1)
    options.node_config(options.advertise or sample, options.gossip_advertise or sample, ())


def describe(given: Mapping[str, Given], options: Options) -> str:
    """Return what --show-config prints: a line for each option, its value and its origin."""
    advertised = options.advertise or options.bind
    public = options.gossip_advertise or Address(advertised.host, options.gossip_bind.port)
    follows = {
        "gossip-bind": str(options.gossip_bind), "advertise": str(advertised),
        "gossip-advertise": str(public), "name": str(advertised),
    }  # fmt: skip
    width = max(map(len, given))
    return "".join(
        f"{name:{width}}  {text or follows.get(name, '-'):24}  {origin}\n"
        for name, (text, origin) in given.items()
    )


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split())
