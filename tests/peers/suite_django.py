"""Django's tests of every cache and of sessions in a cache, on dcc: `python suite_django.py`."""

from __future__ import annotations

import sys

import django
from django.conf import settings

DCC = {
    "BACKEND": "dcc.contrib.django.DccCache",
    "OPTIONS": {"on_error": "raise", "namespace": "suite"},
}

if not settings.configured:
    settings.configure(
        ALLOWED_HOSTS=["*"],
        CACHES={"default": DCC},
        DATABASES={
            name: {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
            for name in ("default", "other")
        },
        INSTALLED_APPS=[
            "django.contrib.contenttypes",
            "django.contrib.auth",
            "django.contrib.sessions",
            "cache",
            "sessions_tests",
        ],
        LANGUAGES=[("en", "English"), ("es", "Spanish")],
        MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware"],
        ROOT_URLCONF="urls",
        SECRET_KEY="suite",
        USE_TZ=False,
        DEFAULT_AUTO_FIELD="django.db.models.AutoField",
    )
    django.setup()

from cache.tests import BaseCacheTests, caches_setting_for_tests  # noqa: E402
from django.contrib.sessions.backends.cache import SessionStore as PlainStore  # noqa: E402
from django.test import TestCase, override_settings  # noqa: E402
from sessions_tests.tests import SessionTestsMixin  # noqa: E402

from dcc.contrib.django_sessions import SessionStore  # noqa: E402


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


if __name__ == "__main__":
    from django.test.runner import DiscoverRunner

    sys.exit(bool(DiscoverRunner(verbosity=1).run_tests(["suite_django"])))
