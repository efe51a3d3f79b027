"""`dcc keys`: make keys, change them while all runs, take them away. See docs/security.md."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path

from dcc import output
from dcc.cli import tables
from dcc.errors import ConfigError
from dcc.keys import (
    DIRECTORIES,
    KEYS_MAX,
    SERVER,
    Directory,
    Public,
    checked_name,
    make_pair,
    new_key,
    read_pair,
    read_public,
    write_pair,
    write_public,
)
from dcc.types import Role

OK = 0
ROLES = [role.name.lower() for role in (Role.NODE, Role.CLIENT, Role.ADMIN)]


def add(keys: output.Parser) -> None:
    """Add the command's parts."""
    parts = keys.add_subparsers(metavar="PART", required=True, parser_class=type(keys))

    def part(name: str, run: Callable[[Path, argparse.Namespace], None], text: str) -> None:
        one = parts.add_parser(name, help=text, description=text)
        one.add_argument("--keys", metavar="DIR", default=os.environ.get("DCC_KEYS", "keys"),
                         help="default: $DCC_KEYS, else ./keys")  # fmt: skip
        one.set_defaults(part=run)
        if name == "list":
            return
        one.add_argument("name", metavar="NAME", help=f"'{SERVER}': the key that all nodes share")
        if name == "export":
            one.add_argument("to", metavar="TO", help="a directory, to be made")
        if name == "new":
            one.add_argument("--role", choices=ROLES, required=True)
            one.add_argument("--read-only", action="store_true", help="a client that only reads")
            one.add_argument("--prefix", action="append", default=[], metavar="TEXT",
                             help="only keys that begin so; may be repeated")  # fmt: skip

    part("new", _new, "make a pair: one private file, one public file")
    part("export", _export, "copy what NAME needs, and nothing else, to a directory of its own")
    part("rotate", _rotate, "make the next pair of NAME; both are valid from now on")
    part("use", _use, "let NAME be known by its next pair")
    part("retire", _retire, "let only the pair of NAME that is in use be valid")
    part("revoke", _revoke, "let no key of NAME be valid any more")
    part("list", _list, "who is allowed")


def run(options: argparse.Namespace) -> int:
    """Carry out `dcc keys PART`; ConfigError if the files do not allow it."""
    options.part(Path(options.keys), options)
    return OK


def _new(path: Path, options: argparse.Namespace) -> None:
    role, name = Role[options.role.upper()], checked_name(options.name)
    if name == SERVER:
        raise ConfigError(f"keys: '{SERVER}' is the name of the key that all nodes share")
    if role is not Role.CLIENT and (options.read_only or options.prefix):
        raise ConfigError("keys: --read-only and --prefix are for clients")
    secret, public = _secret(path, name), path / DIRECTORIES[role] / f"{name}.pub"
    if held := _publics(path, name):
        raise ConfigError(f"keys: {held[0][1]} is there already; `dcc keys rotate` changes a key")
    for file in (secret, _next(path, name)):
        if file.exists():  # It may be all that is left of a key that somebody uses.
            raise ConfigError(
                f"keys: {file} is there already, as after `dcc keys revoke`; delete it first"
            )
    if role is Role.NODE and not _secret(path, SERVER).exists():
        tables.show(f"{_secret(path, SERVER)}: private, for nodes: the key that they share")
    new_key(path, name, role, Public((), options.read_only, tuple(options.prefix)))
    tables.show(f"{secret}: private, for {name} alone\n{public}: for every node")


def _export(path: Path, options: argparse.Namespace) -> None:
    role, _ = _public(path, options.name)
    to = Path(options.to)
    if role is None or to.exists():
        what = f"{to} is there already" if role else f"'{SERVER}' is part of every node's"
        raise ConfigError(f"keys: {what}")
    pair, _ = read_pair(_secret(path, options.name))
    write_pair(_secret(to, options.name), pair, role)
    directories = ["servers"]
    if role is Role.NODE:
        write_pair(_secret(to, SERVER), read_pair(_secret(path, SERVER))[0], None)
        directories += DIRECTORIES.values()
    for directory in directories:
        for file in sorted((path / directory).glob("*.pub")):
            write_public(to / directory / file.name, read_public(file))
    tables.show(f"{to}: all that {options.name} needs")


def _rotate(path: Path, options: argparse.Namespace) -> None:
    name, pair = options.name, make_pair()
    role, file = _public(path, name)
    held, following = read_public(file), _next(path, name)
    if following.exists():
        raise ConfigError(f"keys: {following} is there already; `dcc keys use` comes next")
    if len(held.keys) >= KEYS_MAX:
        raise ConfigError(f"keys: {file} has {KEYS_MAX} keys; `dcc keys retire` comes first")
    write_pair(following, pair, role)
    write_public(file, held._replace(keys=(*held.keys, pair.public.decode())))
    tables.show(f"{file}: has the next key, too; copy it to whoever has the file")


def _use(path: Path, options: argparse.Namespace) -> None:
    following, secret = _next(path, options.name), _secret(path, options.name)
    public = read_pair(following)[0].public.decode()
    _, file = _public(path, options.name)
    if public not in read_public(file).keys:
        raise ConfigError(
            f"keys: {file} lacks the key in {following}; delete that and `dcc keys rotate` again"
        )
    os.replace(following, secret)
    tables.show(f"{secret}: is the next one; copy it to whoever has the file")


def _retire(path: Path, options: argparse.Namespace) -> None:
    _, file = _public(path, options.name)
    following = _next(path, options.name)
    if following.exists():
        raise ConfigError(f"keys: {following} is not in use yet; `dcc keys use` comes first")
    held, pair = read_public(file), read_pair(_secret(path, options.name))[0]
    public = pair.public.decode()
    if public not in held.keys:
        raise ConfigError(f"keys: {file} lacks the key that is in use")
    write_public(file, held._replace(keys=(public,)))
    tables.show(f"{file}: {len(held.keys) - 1} taken away; copy it to whoever has the file")


def _revoke(path: Path, options: argparse.Namespace) -> None:
    if options.name == SERVER:
        raise ConfigError("keys: without a server's key there is no cluster; rotate it")
    _public(path, options.name)
    for _, file in _publics(path, options.name):
        file.unlink()
        tables.show(f"{file}: taken away; take it away from every node")


def _list(path: Path, _options: argparse.Namespace) -> None:
    rows: list[tuple[str, ...]] = [("NAME", "ROLE", "RIGHTS", "PUBLIC KEY")]
    for key, who in Directory(path).allowed(whole=False).items():
        rights = ["read only"] * who.read_only + [prefix.decode() for prefix in who.prefixes]
        rows.append((who.name, who.role.name.lower(), ", ".join(rights) or "all", key))
    rows += [(SERVER, "", "", key.decode()) for key in Directory(path).servers()]
    tables.show(tables.table(rows, left=4, width=200))


def _secret(path: Path, name: str) -> Path:
    if name == SERVER:
        return path / "server.secret"
    return path / "secrets" / f"{checked_name(name)}.secret"


def _next(path: Path, name: str) -> Path:
    return _secret(path, name).with_suffix(".next")


def _public(path: Path, name: str) -> tuple[Role | None, Path]:
    """Return the role of `name` and its public file."""
    if name == SERVER:
        return None, path / "servers" / f"{SERVER}.pub"
    for found in _publics(path, name):
        return found
    raise ConfigError(f"keys: there is no public file of '{name}' in {path}")


def _publics(path: Path, name: str) -> list[tuple[Role, Path]]:
    """Return each role that `name` has, and its public file."""
    file = f"{checked_name(name)}.pub"
    places = [(role, path / directory / file) for role, directory in DIRECTORIES.items()]
    return [(role, place) for role, place in places if place.exists()]
