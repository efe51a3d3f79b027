"""Django's tests of every cache and of sessions in a cache, on dcc; see `run.py`."""

from __future__ import annotations

from cache.tests import BaseCacheTests, caches_setting_for_tests
from django.contrib.sessions.backends.cache import SessionStore as PlainStore
from django.test import TestCase, override_settings
from sessions_tests.tests import SessionTestsMixin
from settings_django import DCC

from dcc.contrib.django_sessions import SessionStore


@override_settings(
    CACHES=caches_setting_for_tests(base=DCC, exclude={"cull", "zero_cull"}),
)
class DccCacheTests(BaseCacheTests, TestCase):
    """All that Django asks of a cache."""

    incr_decr_type_error = TypeError


class PlainSessionTests(SessionTestsMixin, TestCase):
    """Django's own session engine, over dcc."""

    backend = PlainStore


class SessionTests(SessionTestsMixin, TestCase):
    """The session engine of dcc."""

    backend = SessionStore
