"""Key files: who a process is, whom it lets in, and which servers it trusts.

Keys are CURVE's (Curve25519, written as Z85, 40 characters). One directory holds them, and each
machine gets the part of it that it needs:

    server.secret        the pair that all nodes of the cluster serve with     nodes
    servers/NAME.pub     public keys that a server may have                    everybody
    secrets/NAME.secret  the pair by which the node or client NAME is known    NAME alone
    nodes/NAME.pub       who may connect as the node NAME                      nodes
    clients/NAME.pub     who may connect as the client NAME, with its rights   nodes
    admins/NAME.pub      who may connect as the administrator NAME             nodes

A public file may hold several keys, all of them valid: that is how keys change while all runs.
Files are written whole or not at all. Private ones must be their owner's alone, and nothing may be
everybody's to write.
"""

from __future__ import annotations

import json
import os
import re
import stat
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import zmq

from dcc.errors import ConfigError
from dcc.types import Identity, Role, node_key
from dcc.units import KIB, MILLISECOND

FILE_BYTES_MAX = 64 * KIB
FILES_MAX = 10_000
"In one of the directories."
KEYS_MAX = 8
"In one public file: two while a key changes, and some more."
PREFIXES_MAX = 64
LOOK_NS = 200 * MILLISECOND
"How long what was read counts before the files are looked at again."
NAME = re.compile(r"[A-Za-z0-9_\[][A-Za-z0-9_.:\[\]-]{0,127}")
KEY = re.compile(r"[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}")
TOKEN = re.compile(rb"[!-~]{16,256}")
DIRECTORIES = {Role.NODE: "nodes", Role.CLIENT: "clients", Role.ADMIN: "admins"}
SUBDIRECTORIES = ("servers", "secrets", *DIRECTORIES.values())
SERVER = "server"
"The name under which the cluster's own key is handled by the commands."

Signature = tuple[tuple[str, int, int, int], ...]
"Path, inode, size and time of change of each file that counts."


class Pair(NamedTuple):
    """A key pair, as Z85."""

    public: bytes
    secret: bytes


class Credentials(NamedTuple):
    """What the connecting side needs: who it is, and the servers that it trusts."""

    own: Pair
    servers: tuple[bytes, ...]
    "Public keys, the one that was added last first."


Keys = Callable[[], Credentials | None]
"Tells the newest credentials, or that none are used."


def no_keys() -> None:
    """Say that no keys are used."""


def client_keys(
    path: str | os.PathLike[str] | None, environment: str | None, name: str | None
) -> Keys:
    """Return what tells a client's credentials: those of `name` in a directory, if there is one.

    Raises ConfigError: a file is missing or wrong, or others may read a private one.
    """
    place = path or environment
    if not place:
        return no_keys
    return Keyring(place, name or "", (Role.CLIENT, Role.ADMIN)).credentials


def present(socket: zmq.Socket[bytes], credentials: Credentials | None, turn: int) -> None:
    """Let what `socket` connects to next see these keys, and be the server of that turn."""
    if credentials is not None:
        socket.setsockopt(zmq.CURVE_PUBLICKEY, credentials.own.public)
        socket.setsockopt(zmq.CURVE_SECRETKEY, credentials.own.secret)
        servers = credentials.servers
        socket.setsockopt(zmq.CURVE_SERVERKEY, servers[turn % len(servers)])


class Public(NamedTuple):
    """What a public file says."""

    keys: tuple[str, ...]
    read_only: bool = False
    prefixes: tuple[str, ...] = ()


class Directory:
    """The files under one path. Every method reads them anew; ConfigError names the bad file."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path: Path = Path(path)

    # -------------------------------------------------------------- one file

    def own(self, name: str, roles: Sequence[Role]) -> tuple[str, Pair]:
        """Return the name and the pair of `name`; without a name, of the only one of `roles`."""
        if not name:
            name = self._only_name(roles)
        path = self.path / "secrets" / f"{checked_name(name)}.secret"
        _check_place(self.path)
        pair, role = read_pair(path)
        if role not in roles:
            raise ConfigError(f"keys: {path} is for a {_word(role)}, not for a {_words(roles)}")
        return name, pair

    def _only_name(self, roles: Sequence[Role]) -> str:
        paths = [one for one in self._files("secrets", ".secret") if read_pair(one)[1] in roles]
        if len(paths) != 1:
            count, whose = len(paths), _words(roles)
            raise ConfigError(
                f"keys: {self.path / 'secrets'} has {count} private keys of a {whose}; say whose"
                " by a name"
            )
        return paths[0].name.removesuffix(".secret")

    def server(self) -> Pair:
        """Return the pair that this cluster's nodes serve with."""
        _check_place(self.path)
        return read_pair(self.path / "server.secret")[0]

    def servers(self) -> tuple[bytes, ...]:
        """Return the public keys that a server may have, the newest first."""
        keys = [key for path in self._files("servers", ".pub") for key in read_public(path).keys]
        if not keys:
            raise ConfigError(f"keys: {self.path / 'servers'} has no public key of a server")
        return tuple(key.encode() for key in reversed(keys))

    def allowed(self, *, whole: bool = True) -> dict[str, Identity]:
        """Return who may connect, by public key.

        `whole`: a directory without a node's key is an error, and does not mean that nobody may.
        """
        found: dict[str, Identity] = {}
        for role, directory in DIRECTORIES.items():
            paths = self._files(directory, ".pub")
            if whole and role is Role.NODE and not paths:
                raise ConfigError(f"keys: {self.path / directory} has no public key of a node")
            for path in paths:
                name, public = checked_name(path.name.removesuffix(".pub")), read_public(path)
                who = Identity(
                    role, name, node_key(name) if role is Role.NODE else 0, public.read_only,
                    tuple(prefix.encode() for prefix in public.prefixes),
                )  # fmt: skip
                for key in public.keys:
                    if key in found:
                        raise ConfigError(f"keys: {path}: the key is {found[key].name}'s already")
                    found[key] = who
        return found

    def glance(self) -> tuple[tuple[int, int], ...]:
        """Return what changes whenever a file comes, goes or takes another's place; constant time.

        Not when one is written in place: what tells that too is `signature`.
        """
        return tuple([_changed_at(self.path / name) for name in ("", *SUBDIRECTORIES)])

    def signature(self, *, whole: bool) -> Signature:
        """Return what changes whenever a file does; if not `whole`, one of the connecting side."""
        suffixes = {"servers": ".pub", "secrets": ".secret"}
        if whole:
            suffixes |= {"": ".secret"} | dict.fromkeys(DIRECTORIES.values(), ".pub")
        lines = []
        for directory, suffix in suffixes.items():
            for entry in self._entries(directory, suffix):
                try:
                    found = entry.stat()
                except OSError:
                    continue
                lines.append((entry.path, found.st_ino, found.st_size, found.st_mtime_ns))
        return tuple(lines)

    def _files(self, directory: str, suffix: str) -> list[Path]:
        _check_place(self.path)
        return [Path(entry.path) for entry in self._entries(directory, suffix)]

    def _entries(self, directory: str, suffix: str) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(self.path / directory) as listed:
                found = list(islice(listed, FILES_MAX + 1))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise ConfigError(f"keys: {self.path / directory}: {error.strerror}") from error
        if len(found) > FILES_MAX:
            raise ConfigError(f"keys: {self.path / directory}: more than {FILES_MAX} files")
        named = [e for e in found if e.name.endswith(suffix) and not e.name.startswith(".")]
        return sorted(named, key=attrgetter("name"))


class Keyring:
    """One side's own keys, read again when the files change. Safe to share between threads."""

    def __init__(self, path: str | os.PathLike[str], name: str, roles: Sequence[Role]) -> None:
        """Read the keys of `name`, or of the only one of `roles`; ConfigError says why not."""
        self._directory, self._roles = Directory(path), roles
        self._looked_at = 0
        self._signature: Signature = ()
        self.name, self._credentials = self._read(name)

    def credentials(self) -> Credentials:
        """Return the newest keys; those that were read before if the files cannot be read now."""
        now = time.monotonic_ns()
        if now - self._looked_at < LOOK_NS:
            return self._credentials
        self._looked_at = now
        try:
            if self._directory.signature(whole=False) != self._signature:
                self._credentials = self._read(self.name)[1]
        except ConfigError:  # Half of a change: the other half comes.
            pass
        return self._credentials

    def _read(self, name: str) -> tuple[str, Credentials]:
        signature = self._directory.signature(whole=False)
        name, own = self._directory.own(name, self._roles)
        credentials = Credentials(own, self._directory.servers())
        self._signature, self._looked_at = signature, time.monotonic_ns()
        return name, credentials


# ------------------------------------------------------------------ files


def read_pair(path: Path) -> tuple[Pair, Role | None]:
    """Return the pair in a private file, and its role; None for the servers' pair.

    Raises:
        ConfigError: it is unreadable, no such file, or others than its owner may read it.
    """
    table = _read(path, private=True)
    pair = [table.get("public"), table.get("secret")]
    if not all(isinstance(key, str) and KEY.fullmatch(key) for key in pair):
        raise ConfigError(f"keys: {path}: 'public' and 'secret' are not keys of 40 characters")
    public, secret = (str(key).encode() for key in pair)
    if zmq.curve_public(secret) != public:
        raise ConfigError(f"keys: {path}: 'public' and 'secret' are no pair")
    role = table.get("role")
    if role == SERVER:
        return Pair(public, secret), None
    if not isinstance(role, str) or role.upper() not in Role.__members__:
        raise ConfigError(f"keys: {path}: the role {role!r} is unknown")
    return Pair(public, secret), Role[role.upper()]


def read_public(path: Path) -> Public:
    """Return what a public file says; ConfigError if it is unreadable or no such file."""
    table = _read(path, private=False)
    unknown = set(table) - {"public", "read_only", "prefixes"}
    if unknown:  # It may be a right that is meant to be taken away.
        raise ConfigError(f"keys: {path}: '{min(unknown)}' is unknown")
    keys, read_only = table.get("public", []), table.get("read_only", False)
    prefixes = table.get("prefixes", [])
    if not _texts(keys, KEYS_MAX) or not all(map(KEY.fullmatch, keys)):
        raise ConfigError(f"keys: {path}: 'public' is no list of 1..{KEYS_MAX} keys")
    if not isinstance(read_only, bool):
        raise ConfigError(f"keys: {path}: 'read_only' is neither true nor false")
    if "prefixes" in table and not _texts(prefixes, PREFIXES_MAX):
        raise ConfigError(f"keys: {path}: 'prefixes' is no list of 1..{PREFIXES_MAX} texts")
    return Public(tuple(keys), read_only, tuple(prefixes))


def read_token(path: Path) -> bytes:
    """Return the text that a private file has, without the space around it.

    Raises:
        ConfigError: it is unreadable, others than its owner may read it, or it is no token: 16 to
            256 printable ASCII characters without a space.
    """
    try:
        token = _read_bytes(path, private=True).strip()
    except ConfigError as error:
        raise ConfigError(str(error).replace("keys:", "http-token:", 1)) from error
    if not TOKEN.fullmatch(token):
        raise ConfigError(f"http-token: {path}: 16 to 256 characters of ASCII, no space")
    return token


def _texts(value: object, count: int) -> bool:
    """Return whether `value` is a list of 1..count texts, none of them empty."""
    if not isinstance(value, list) or not 0 < len(value) <= count:
        return False
    return all(isinstance(one, str) and one for one in value)


def _read(path: Path, *, private: bool) -> Mapping[str, Any]:
    try:
        return tomllib.loads(_read_bytes(path, private=private).decode())
    except (ValueError, RecursionError) as error:  # No TOML, no text, too large a number, too deep.
        raise ConfigError(f"keys: {path} is no key file: {error}") from error


def _read_bytes(path: Path, *, private: bool) -> bytes:
    try:
        # Without O_NONBLOCK a pipe would keep its reader waiting.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise ConfigError(f"keys: {path} is no regular file")
            text = file.read(FILE_BYTES_MAX + 1)
        _check_mode(path, found, private=private)
        if len(text) > FILE_BYTES_MAX:  # What is cut off may be a right that is taken away.
            raise ConfigError(f"keys: {path} has more than {FILE_BYTES_MAX} bytes")
        return text
    except OSError as error:
        raise ConfigError(f"keys: cannot read {path}: {error.strerror}") from error


def _check_mode(path: Path, found: os.stat_result, *, private: bool) -> None:
    """Raise ConfigError if others may read what is private, or everybody may write.

    Root may share a private file with a group, which whoever reads it is in: a Kubernetes secret
    that is mounted for another user looks so.
    """
    mode = found.st_mode
    shared = 0 if found.st_uid or not os.geteuid() else stat.S_IRGRP
    if private and mode & (stat.S_IRWXG | stat.S_IRWXO) & ~shared:
        raise ConfigError(
            f"keys: {path} is private, but others than its owner may use it (mode"
            f" {stat.S_IMODE(mode):04o}); chmod 600 it"
        )
    # Of `server.secret` this is the whole directory, which `_check_place` looks at.
    inside = path.name != f"{SERVER}.secret" and os.stat(path.parent).st_mode & stat.S_IWOTH
    if (mode & stat.S_IWOTH or inside) and not _is_read_only(path):
        raise ConfigError(f"keys: everybody may write {path}; whoever does lets anybody in")


def _check_place(root: Path) -> None:
    """Raise ConfigError if everybody may put a directory of their own in place of one in `root`.

    Where only owners may replace what is theirs (the sticky bit, as where Kubernetes mounts
    secrets), all that counts must be root's, this process's user's or the owner's of the whole.
    """
    try:
        found = os.stat(root)
    except OSError:
        return  # What is read from it will say so.
    if not found.st_mode & stat.S_IWOTH or _is_read_only(root):
        return
    trusted = {0, os.geteuid(), found.st_uid}
    sticky = found.st_mode & stat.S_ISVTX
    if not sticky or not _owners(root) <= trusted:
        raise ConfigError(f"keys: everybody may write {root}; whoever does lets anybody in")


def _owners(root: Path) -> set[int]:
    """Return whose the directories of keys are, and the links that lead to them."""
    found = set()
    for name in (*SUBDIRECTORIES, f"{SERVER}.secret"):
        for follow in (True, False):
            try:
                found.add(os.stat(root / name, follow_symlinks=follow).st_uid)
            except OSError:
                continue
    return found


def _is_read_only(path: Path) -> bool:
    """Return whether nobody may write there, whatever the modes say."""
    return bool(os.statvfs(path).f_flag & os.ST_RDONLY)


def _changed_at(path: Path) -> tuple[int, int]:
    """Return which file this is, and when it was changed; zeros if it is away."""
    try:
        found = os.stat(path)
    except OSError:
        return 0, 0
    return found.st_ino, found.st_mtime_ns


def checked_name(name: str) -> str:
    """Return `name` if it may be that of a key; ConfigError otherwise."""
    if not NAME.fullmatch(name):
        raise ConfigError(
            f"keys: {name!r} is no name: letters, digits and _ . : [ ] - within 128 characters"
        )
    return name


# ------------------------------------------------------------------ making them


def make_pair() -> Pair:
    """Return a new pair."""
    return Pair(*zmq.curve_keypair())


def new_key(root: Path, name: str, role: Role, rights: Public | None = None) -> tuple[Path, Path]:
    """Write a new pair of `name`, and the nodes' own with the first node; what is there is lost.

    `rights`: of a client; its keys are left out. Returns the private and the public file.
    """
    shared = root / f"{SERVER}.secret"
    if role is Role.NODE and not shared.exists():
        pair = make_pair()
        write_public(root / "servers" / f"{SERVER}.pub", Public((pair.public.decode(),)))
        write_pair(shared, pair, None)
    pair = make_pair()
    secret, public = root / "secrets" / f"{name}.secret", root / DIRECTORIES[role] / f"{name}.pub"
    write_pair(secret, pair, role)
    write_public(public, (rights or Public(()))._replace(keys=(pair.public.decode(),)))
    return secret, public


def write_pair(path: Path, pair: Pair, role: Role | None) -> None:
    """Write a private file, readable by its owner alone."""
    lines = [
        "# Private: whoever has this file can act in its name.",
        f'role = "{_word(role)}"',
        f'public = "{pair.public.decode()}"',
        f'secret = "{pair.secret.decode()}"',
    ]
    _write(path, "\n".join(lines) + "\n", 0o600)


def write_public(path: Path, public: Public) -> None:
    """Write a public file."""
    lines = [f"public = [{_quoted(public.keys)}]"]
    if public.read_only:
        lines.append("read_only = true")
    if public.prefixes:
        lines.append(f"prefixes = [{_quoted(public.prefixes)}]")
    _write(path, "\n".join(lines) + "\n", 0o644)


def _quoted(texts: Sequence[str]) -> str:
    # JSON's strings are TOML's, but for one character.
    return ", ".join(
        json.dumps(one, ensure_ascii=False).replace("\x7f", "\\u007f") for one in texts
    )


def _word(role: Role | None) -> str:
    return SERVER if role is None else role.name.lower()


def _words(roles: Sequence[Role]) -> str:
    return " or ".join(map(_word, roles))


def _write(path: Path, text: str, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700 if mode == 0o600 else 0o755)
    made = path.with_name(f".{path.name}.{os.getpid()}")
    made.unlink(missing_ok=True)
    fd = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with open(fd, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(made, path)
    except BaseException:
        made.unlink(missing_ok=True)
        raise
