"""What a cache with values, namespaces and long keys asks of a client, step by step.

Each plan is a generator: it yields the calls that it wants made, is sent their results, and
returns the outcome. So the blocking and the asyncio cache share every decision.

**Namespaces.** The keys of a namespace carry a stamp, `namespace:stamp:key`, and the stamp is a
value of the cluster itself, `namespace:generation`. To clear is to write another stamp: one write,
however many keys there are; the old entries are never read again and go as memory is needed.
Stamps are random, so a stamp that was lost (evicted, or all its owners crashed) makes the
namespace empty and never brings old values back. A process asks for the stamp anew when the one
it knows is older than `clear_age` seconds: so long may others see what was there before a clear.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from typing import Any, NamedTuple, TypeVar

from dcc.client.arguments import Ttl, Unset
from dcc.client.memo import bounded
from dcc.client.values import Values
from dcc.errors import ValueTooLarge
from dcc.types import Version

CLEAR_AGE_SECONDS = 0.1
"Ten small reads a second for each process; nobody waits longer for a clear than for a page."

NAMESPACE_BYTES_MAX = 128
UNREADABLE = object()
"In place of a value that could not be read back."

T = TypeVar("T")


class Ask(NamedTuple):
    """One call of the client: the name of the method, and its arguments."""

    method: str
    args: tuple[Any, ...]
    options: Mapping[str, Any] = {}


Plan = Generator[Ask, Any, T]


class Space:
    """A namespace as one process knows it; shared by all caches that use it.

    >>> space = Space("shop", clear_age=0.1)
    >>> space.learn("x7", now=5.0)
    >>> space.learn("older", now=4.9)
    >>> space.stamp(5.05), space.stamp(5.2)
    ('x7', None)
    """

    def __init__(self, name: str, *, clear_age: float = CLEAR_AGE_SECONDS) -> None:
        if not isinstance(name, str):
            raise TypeError(f"namespace: str or None, got {type(name).__name__}")
        if not 0 < len(name.encode()) <= NAMESPACE_BYTES_MAX or ":" in name:
            raise ValueError(f"namespace: 1..{NAMESPACE_BYTES_MAX} bytes without ':'; got {name!r}")
        if not 0 <= clear_age < float("inf"):
            raise ValueError(f"clear_age: seconds from 0, got {clear_age}")
        self.name = name
        self.clear_age = clear_age
        self._learned = "", float("-inf")

    @property
    def key(self) -> str:
        """The key under which the cluster holds the stamp."""
        return f"{self.name}:generation"

    def learn(self, stamp: str, now: float) -> None:
        """Take `stamp` as what was valid at `now`, in seconds; nothing if newer is known.

        So an answer that was under way while this process cleared the namespace changes nothing.
        """
        if now >= self._learned[1]:
            self._learned = stamp, now

    def forget(self) -> None:
        """Let the stamp be asked for anew."""
        self._learned = "", float("-inf")

    def stamp(self, now: float) -> str | None:
        """Return the stamp, or None if it has to be asked for."""
        stamp, learned_at = self._learned
        return stamp if now - learned_at <= self.clear_age else None


class Plans:
    """Every call of a cache, as plans."""

    def __init__(
        self,
        values: Values,
        space: Space | None,
        *,
        clock: Callable[[], float],
        new_stamp: Callable[[], str],
        fail_open: bool,
    ) -> None:
        self.values: Values = values
        self.space: Space | None = space
        self.unreadable: int = 0
        "Values that could not be read back; each was deleted."
        self._clock, self._new_stamp = clock, new_stamp
        self._fail_open = fail_open

    # -------------------------------------------------------------- one key

    def get(self, key: str, default: Any) -> Plan[Any]:
        """Return the value of `key`, or `default`."""
        name = yield from self._name(key)
        data = yield Ask("get", (name,))
        if data is None:
            return default
        value = self.loaded(data)
        if value is UNREADABLE:
            yield Ask("delete", (name,))
            return default
        return value

    def versioned(self, key: str) -> Plan[tuple[Any, Version] | None]:
        """Return the value of `key` and its version; None if it is absent."""
        name = yield from self._name(key)
        entry = yield Ask("entry", (name,))
        value = UNREADABLE if entry is None else self.loaded(entry.value)
        return None if value is UNREADABLE else (value, entry.version)

    def put(self, key: str, value: Any, ttl: Ttl | Unset) -> Plan[bool]:
        """Store `value`; True, unless the client raises."""
        data = self.values.dump(value)
        name = yield from self._name(key)
        yield from self._replacing(Ask("put", (name, data), {"ttl": ttl}), [name])
        return True

    def add(self, key: str, value: Any, ttl: Ttl | Unset) -> Plan[bool]:
        """Store `value` if `key` is absent; return whether it was stored."""
        data = self.values.dump(value)
        name = yield from self._name(key)
        done: bool = yield Ask("add", (name, data), {"ttl": ttl})
        return done

    def replace(
        self, key: str, value: Any, version: Version | None, ttl: Ttl | Unset
    ) -> Plan[bool]:
        """Store `value` if `key` is present, and still at `version` if one is given."""
        data = self.values.dump(value)
        name = yield from self._name(key)
        new: Version | None = yield Ask("replace", (name, data), {"version": version, "ttl": ttl})
        return new is not None

    def delete(self, key: str, version: Version | None = None) -> Plan[bool]:
        """Delete `key` if it is present, and still at `version` if one is given."""
        name = yield from self._name(key)
        done: bool = yield Ask("delete", (name,), {"version": version})
        return done

    def touch(self, key: str, ttl: Ttl) -> Plan[bool]:
        """Let `key` expire in `ttl` seconds; return whether it is present."""
        name = yield from self._name(key)
        done: bool = yield Ask("touch", (name, ttl))
        return done

    def contains(self, key: str) -> Plan[bool]:
        """Return whether `key` has a value."""
        name = yield from self._name(key)
        found: bool = yield Ask("contains", (name,))
        return found

    def incr(self, key: str, delta: int, initial: int | None, ttl: Ttl | Unset) -> Plan[int | None]:
        """Add `delta` and return the sum; None if the key is absent and `initial` is None."""
        name = yield from self._name(key)
        total: int | None = yield Ask("incr", (name, delta), {"initial": initial, "ttl": ttl})
        return total

    def making(
        self, verb: str, key: str, factory: Callable[[], Any], options: Mapping[str, Any]
    ) -> Plan[bytes]:
        """Return what is stored of `key`, which a `get_or_put` or `refresh` may make."""
        name = yield from self._name(key)
        data: bytes = yield Ask(verb, (name, factory), options)
        return data

    def invalidate(self, key: str) -> Plan[bool]:
        """Delete `key`, and keep out what is being made of it; return whether it was present."""
        name = yield from self._name(key)
        done: bool = yield Ask("invalidate", (name,))
        return done

    # -------------------------------------------------------------- many keys

    def get_many(self, keys: Iterable[str]) -> Plan[dict[str, Any]]:
        """Return the values of those keys that are present."""
        names = yield from self._names(keys)
        found: dict[str, bytes] = yield Ask("get_many", (list(names),))
        values, broken = {}, []
        for name, data in found.items():
            value = self.loaded(data)
            if value is UNREADABLE:
                broken.append(name)
            else:
                values[names[name]] = value
        if broken:
            yield Ask("delete_many", (broken,))
        return values

    def put_many(self, mapping: Mapping[str, Any], ttl: Ttl | Unset) -> Plan[list[str]]:
        """Store all of `mapping`; return the keys that failed."""
        data = [self.values.dump(value) for value in mapping.values()]
        names = yield from self._names(mapping)
        by_name = dict(zip(names, data, strict=True))
        ask = Ask("put_many", (by_name,), {"ttl": ttl})
        failed: list[str] = yield from self._replacing(ask, list(by_name))
        return [names[name] for name in failed]

    def delete_many(self, keys: Iterable[str]) -> Plan[int]:
        """Delete all of `keys`; return how many were present."""
        names = yield from self._names(keys)
        count: int = yield Ask("delete_many", (list(names),))
        return count

    def delete_prefix(self, prefix: str) -> Plan[int]:
        """Delete the keys that begin with `prefix`, one by one; return how many there were.

        Keys that were too long are found by what is left of their beginning.
        """
        start = yield from self._prefix()
        names: list[str] = yield Ask("scan", (start + prefix,))
        count: int = yield Ask("delete_many", (names,))
        return count

    def clear(self) -> Plan[bool]:
        """Make everything in the namespace absent; without one, everything in the cluster."""
        if self.space is None:
            yield Ask("clear", ())
            return True
        stamp = self._new_stamp()
        yield Ask("put", (self.space.key, stamp.encode()), {"ttl": None})
        self.space.learn(stamp, self._clock())
        return True

    def _replacing(self, ask: Ask, names: list[str]) -> Plan[Any]:
        """Return what `ask` returns, which gives other values to `names`."""
        try:
            return (yield ask)
        except ValueTooLarge:
            if self._fail_open:
                # Nobody is told, so what was to be replaced must not be read any more.
                yield Ask("delete_many", (names,))
            raise

    def loaded(self, data: bytes) -> Any:
        """Return the value stored as `data`; UNREADABLE, counted, if it is none."""
        try:
            return self.values.load(data)
        except Exception:  # a serializer is foreign code, and data may be anything
            self.unreadable += 1
            return UNREADABLE

    # -------------------------------------------------------------- names

    def _name(self, key: str) -> Plan[str]:
        if not isinstance(key, str):
            raise TypeError(f"key: str, got {type(key).__name__}")
        return bounded((yield from self._prefix()) + key)

    def _names(self, keys: Iterable[str]) -> Plan[dict[str, str]]:
        """Return name in the cluster -> key."""
        if isinstance(keys, str):
            raise TypeError("keys: an iterable of keys, got one str")
        prefix, listed = (yield from self._prefix()), list(keys)
        for key in listed:
            if not isinstance(key, str):
                raise TypeError(f"key: str, got {type(key).__name__}")
        return {bounded(prefix + key): key for key in listed}

    def _prefix(self) -> Plan[str]:
        space = self.space
        if space is None:
            return ""
        stamp = space.stamp(self._clock())
        if stamp is None:
            asked_at = self._clock()
            stamp = yield from self._asked_stamp(space)
            space.learn(stamp, asked_at)
        return f"{space.name}:{stamp}:"

    def _asked_stamp(self, space: Space) -> Plan[str]:
        # Not `get`: that of a hot key may lag behind, and a clear is to be seen in `clear_age`.
        found = yield Ask("entry", (space.key,))
        if found is None:
            mine = self._new_stamp()
            if (yield Ask("add", (space.key, mine.encode()), {"ttl": None})):
                return mine
            found = yield Ask("entry", (space.key,))
        return mine if found is None else found.value.decode("ascii", "replace")
