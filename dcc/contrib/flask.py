"""dcc for Flask: the back end of Flask-Caching, and sessions that are kept in the cluster.

Flask-Caching hands its configuration only to back ends whose dotted path does not contain
"cachelib"; `CACHE_TYPE = "dcc.contrib.flask.backend"` names a function, and so does this one.
"""

from __future__ import annotations

import secrets
from typing import Any, Unpack

from flask.sessions import SecureCookieSession, SessionInterface

from dcc import DccError
from dcc.client.keywords import CacheOptions
from dcc.contrib.cache import Cache
from dcc.contrib.cachelib import DccCache
from dcc.contrib.running import CALLERS_MISTAKES

_TOKEN_BYTES = 32
_TOKEN_LENGTHS = range(40, 50)
"Of what `secrets` makes of them; all else that a browser sends is no session of ours."


def backend(app: Any, config: dict[str, Any], args: list[Any], kwargs: dict[str, Any]) -> DccCache:
    """Return the cache that `config` describes, as Flask-Caching asks for it.

    CACHE_DCC_URL (else DCC_URL) names the cluster, CACHE_KEY_PREFIX the namespace where the URL
    does not; CACHE_OPTIONS takes all options of `DccCache`.
    """
    options = dict(kwargs)
    options.setdefault("key_prefix", config.get("CACHE_KEY_PREFIX"))
    url = options.pop("url", None) or config.get("CACHE_DCC_URL")
    return DccCache(url, *args, **options)


class Session(SecureCookieSession):
    """What is kept of one visitor, with the token in his cookie."""

    def __init__(self, token: str, initial: Any = None, *, known: bool) -> None:
        super().__init__(initial)
        self.token = token
        self.known = known
        "False: the cluster could not be asked, so what it holds must not be written over."


class DccSessionInterface(SessionInterface):
    """Sessions in the cluster, a random token in the cookie: `app.session_interface = …(url)`.

    While the cluster is away a session is empty and what is written to it is lost; the cookie
    stays, so afterwards the visitor is who he was. JSON unless told otherwise.
    """

    def __init__(self, url: str | None = None, **options: Unpack[CacheOptions]) -> None:
        """Take the options of `dcc.contrib.cache.Cache`."""
        usual = {"namespace": "sessions", "on_error": "miss", "serializer": "json"}
        self._cache = Cache(url, defaults=usual, **options)

    def open_session(self, app: Any, request: Any) -> Session:
        """Return the session of the request's cookie, or a new one."""
        token = request.cookies.get(self.get_cookie_name(app), "")
        if len(token) not in _TOKEN_LENGTHS:
            return Session(secrets.token_urlsafe(_TOKEN_BYTES), known=True)
        try:
            found = self._cache.strict().get(token)
        except CALLERS_MISTAKES:
            raise
        except DccError as error:
            self._pass_over(error)
            return Session(token, known=False)
        if isinstance(found, dict):
            return Session(token, found, known=True)
        # A token that is not ours is never taken over: who sent it may have given it to others.
        return Session(secrets.token_urlsafe(_TOKEN_BYTES), known=True)

    def save_session(self, app: Any, session: Any, response: Any) -> None:
        """Write the session if it has changed, and the cookie if it is due."""
        name, path = self.get_cookie_name(app), self.get_cookie_path(app)
        domain = self.get_cookie_domain(app)
        if session.accessed:
            response.vary.add("Cookie")
        if not session.known:
            return
        if not session:
            if session.modified:
                self._cache.delete(session.token)
                response.delete_cookie(name, domain=domain, path=path)
            return
        if not self.should_set_cookie(app, session):
            return
        self._cache.put(session.token, dict(session), ttl=app.permanent_session_lifetime)
        response.set_cookie(
            name,
            session.token,
            expires=self.get_expiration_time(app, session),
            httponly=self.get_cookie_httponly(app),
            domain=domain,
            path=path,
            secure=self.get_cookie_secure(app),
            samesite=self.get_cookie_samesite(app),
        )

    def _pass_over(self, error: DccError) -> None:
        if not self._cache.settings.fail_open:
            raise error
        self._cache.health.passed_over(error)
