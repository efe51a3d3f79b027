"""The settings that Django's own tests are run with."""

from __future__ import annotations

DCC = {
    "BACKEND": "dcc.contrib.django.DccCache",
    "OPTIONS": {"on_error": "raise", "namespace": "suite"},
}

ALLOWED_HOSTS = ["*"]
CACHES = {"default": DCC}
DATABASES = {
    name: {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
    for name in ("default", "other")
}
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "django.contrib.sessions",
    "cache",
    "sessions_tests",
]
LANGUAGES = [("en", "English"), ("es", "Spanish")]
MIDDLEWARE = ["django.contrib.sessions.middleware.SessionMiddleware"]
ROOT_URLCONF = "urls"
SECRET_KEY = "suite"
USE_TZ = False
