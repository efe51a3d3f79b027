"""Flask-Caching's tests of a back end, on dcc."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flask
import flask_caching
import pytest
from test_backend_cache import GenericCacheTests


class TestDccBackend(GenericCacheTests):
    """What Flask-Caching asks of a back end, made from an application's configuration."""

    _can_use_fast_sleep = False

    @pytest.fixture
    def make_cache(self) -> Callable[..., Any]:
        def made() -> Any:
            app = flask.Flask("suite")
            app.config["CACHE_TYPE"] = "dcc.contrib.flask.backend"
            app.config["CACHE_KEY_PREFIX"] = "flask-suite"
            cache = flask_caching.Cache(app)
            app.app_context().push()
            cache.clear()
            return cache.cache

        return made
