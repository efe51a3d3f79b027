"""What `memoize` makes of a function: the key of its arguments, and the decorated function.

A key that nobody chose is the function's name and its arguments, each as `repr` has it, so it may
be made of plain values only: text, bytes, numbers, None, and tuples, lists, sets and dicts of them.
Anything else might look alike where it differs, or differ where it is alike (an address in
memory); who decorates a method says by `key` what of `self` counts. A lambda, and a function made
within another one, share their name with others of the module, so they must be given one.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
from collections.abc import Callable
from typing import Any

from dcc.client.values import Values
from dcc.limits import KEY_BYTES_MAX

PLAIN = (str, bytes, int, float, complex, bool, type(None))
_HASH_BYTES = 20

Keep = Callable[[str, str, Callable[[], Any]], Any]
"Carries out a verb for a key, with a factory: the client behind a memo."


def bounded(name: str) -> str:
    """Return `name`, or a hash of it behind its beginning if it is too long for a key.

    >>> bounded("short"), len(bounded("x" * 600))
    ('short', 512)
    """
    if name.isascii() and len(name) <= KEY_BYTES_MAX:
        return name
    raw = name.encode("utf-8", "surrogatepass")
    # Half of a surrogate pair is no text that could travel.
    if len(raw) <= KEY_BYTES_MAX and raw.decode("utf-8", "ignore") == name:
        return name
    mark = "#" + hashlib.blake2b(raw, digest_size=_HASH_BYTES).hexdigest()
    return raw[: KEY_BYTES_MAX - len(mark)].decode("utf-8", "ignore") + mark


def plain(value: object) -> str:
    """Return a text that equal plain values share, and no others.

    >>> plain({"b": 2, "a": (1, None)})
    "{'a': (1, None), 'b': 2}"
    >>> plain(object())
    Traceback (most recent call last):
    TypeError: an object in the arguments is no plain value: say what counts by `key=`
    """
    kind = type(value)
    if kind in PLAIN:
        return repr(value)
    # By the very type, since a subclass may compare otherwise; and again for the type checker.
    if kind in (tuple, list) and isinstance(value, tuple | list):
        inner = ", ".join(map(plain, value))
        return f"({inner})" if kind is tuple else f"[{inner}]"
    if kind in (set, frozenset) and isinstance(value, set | frozenset):
        inner = ", ".join(sorted(map(plain, value)))
        return f"{kind.__name__}({{{inner}}})"  # Braces alone would be an empty dict's.
    if kind is dict and isinstance(value, dict):
        pairs = sorted((plain(key), plain(one)) for key, one in value.items())
        return "{" + ", ".join(f"{key}: {one}" for key, one in pairs) + "}"
    article = "an" if kind.__name__[:1].lower() in "aeiou" else "a"
    raise TypeError(
        f"{article} {kind.__name__} in the arguments is no plain value: say what counts by `key=`"
    )


class KeyOf:
    """The key of a call, by the function's own parameters: `f(1)` and `f(x=1)` are the same."""

    def __init__(
        self,
        function: Callable[..., Any],
        key: Callable[..., str] | None = None,
        name: str | None = None,
    ) -> None:
        if not callable(function):
            raise TypeError(f"memoize: a function, got {type(function).__name__}")
        if key is not None and not callable(key):
            raise TypeError(f"key: a function of the arguments, got {type(key).__name__}")
        self._key, self._signature = key, inspect.signature(function)
        if name is not None and not isinstance(name, str):
            raise TypeError(f"name: str, got {type(name).__name__}")
        own = f"{function.__module__}.{function.__qualname__}"
        if key is None and not name and ("<locals>" in own or "<lambda>" in own):
            raise ValueError(f"memoize: others may be called {own}, too; give `name=` or `key=`")
        self._name = name or own

    def __call__(self, *args: Any, **kwargs: Any) -> str:
        """Return the key; TypeError if the arguments do not fit or are no plain values."""
        if self._key is not None:
            return bounded(self._key(*args, **kwargs))
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        told = ", ".join(f"{name}={plain(value)}" for name, value in bound.arguments.items())
        return bounded(f"{self._name}({told})")


class Memo:
    """A function whose results are kept; also as a method, where it is bound like any other."""

    def __init__(
        self, function: Callable[..., Any], key_of: KeyOf, values: Values, keep: Keep
    ) -> None:
        functools.update_wrapper(self, function)
        self._function, self._key_of, self._values, self._keep = function, key_of, values, keep
        self._bound: tuple[Any, ...] = ()

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self
        one = type(self)(self._function, self._key_of, self._values, self._keep)
        one._bound = (instance,)
        return one

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return the kept result, or make it."""
        return self._do("get_or_put", args, kwargs)

    def refresh(self, *args: Any, **kwargs: Any) -> Any:
        """Make the result now, keep it and return it."""
        return self._do("refresh", args, kwargs)

    def invalidate(self, *args: Any, **kwargs: Any) -> Any:
        """Forget the result of these arguments, also one being made; true: there was one."""
        return self._keep("invalidate", self.key_for(*args, **kwargs), _nothing)

    def key_for(self, *args: Any, **kwargs: Any) -> str:
        """Return the key under which the result of these arguments is kept."""
        return self._key_of(*self._bound, *args, **kwargs)

    def _do(self, verb: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        def factory() -> Any:
            return self._values.dump(self._function(*self._bound, *args, **kwargs))

        return self._values.load(self._keep(verb, self.key_for(*args, **kwargs), factory))


class AsyncMemo(Memo):
    """The same for asyncio, of a function or a coroutine function."""

    async def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return the kept result, or make it."""
        return await self._do("get_or_put", args, kwargs)

    async def _do(self, verb: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        async def factory() -> Any:
            made = self._function(*self._bound, *args, **kwargs)
            return self._values.dump(await made if inspect.isawaitable(made) else made)

        return self._values.load(await self._keep(verb, self.key_for(*args, **kwargs), factory))


def _nothing() -> bytes:
    return b""
