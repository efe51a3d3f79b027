"""Django's sessions in a cluster: `SESSION_ENGINE = "dcc.contrib.django_sessions"`.

Django's own engine for caches answers 500 where a cache loses writes (it tries ten thousand keys),
and 400 where a session that was read is gone. This one goes on: while the cluster is away a session
is empty and what is written to it is lost; the cookie stays, so afterwards the visitor is who he
was.
"""

from __future__ import annotations

from typing import Any

from django.contrib.sessions.backends.cache import SessionStore as PlainStore

from dcc import DccError
from dcc.contrib.django import DccCache


class SessionStore(PlainStore):
    """A session in the cache that SESSION_CACHE_ALIAS names, which must be dcc's."""

    _cache: Any

    def __init__(self, session_key: str | None = None) -> None:
        super().__init__(session_key)
        if not isinstance(self._cache, DccCache):
            raise TypeError("SESSION_CACHE_ALIAS: names no cache of dcc.contrib.django")
        self._plain: DccCache = self._cache
        # Whatever that cache makes of an outage, here it must be told from an absent session.
        self._cache = self._cache.strict()
        self._unread = False
        "The cluster could not be asked, so what it holds must not be written over."

    def load(self) -> dict[str, Any]:
        """Return what is kept; nothing, if it cannot be read."""
        try:
            data = self._cache.get(self.cache_key)
        except Exception as error:
            return self._not_loaded(error)
        return self._loaded(data)

    async def aload(self) -> dict[str, Any]:
        """As `load`."""
        try:
            data = await self._cache.aget(await self.acache_key())
        except Exception as error:
            return self._not_loaded(error)
        return self._loaded(data)

    def save(self, must_create: bool = False) -> None:
        """Write what is to be kept."""
        if self._may_be_written(must_create):
            try:
                super().save(must_create)
            except DccError as error:
                self._pass_over(error)

    async def asave(self, must_create: bool = False) -> None:
        """As `save`."""
        if self._may_be_written(must_create):
            try:
                await super().asave(must_create)
            except DccError as error:
                self._pass_over(error)

    def exists(self, session_key: str) -> bool:
        """Return whether there is such a session."""
        try:
            return bool(super().exists(session_key))
        except DccError as error:
            self._pass_over(error)
            return False

    async def aexists(self, session_key: str) -> bool:
        """As `exists`."""
        try:
            return bool(await super().aexists(session_key))
        except DccError as error:
            self._pass_over(error)
            return False

    def delete(self, session_key: str | None = None) -> None:
        """Forget the session."""
        try:
            super().delete(session_key)
        except DccError as error:
            self._pass_over(error)

    async def adelete(self, session_key: str | None = None) -> None:
        """As `delete`."""
        try:
            await super().adelete(session_key)
        except DccError as error:
            self._pass_over(error)

    def _loaded(self, data: Any) -> dict[str, Any]:
        self._unread = False
        if isinstance(data, dict):
            return data
        self._session_key = None
        return {}

    def _not_loaded(self, error: Exception) -> dict[str, Any]:
        if isinstance(error, DccError):
            self._pass_over(error)
            self._unread = True
        else:  # a key that is none, as Django's engine has it
            self._session_key = None
        return {}

    def _may_be_written(self, must_create: bool) -> bool:
        if must_create or self.session_key is None:
            self._unread = False
        return not self._unread

    def _pass_over(self, error: DccError) -> None:
        if not self._plain.cache.settings.fail_open:
            raise error
        self._plain.cache.health.passed_over(error)
