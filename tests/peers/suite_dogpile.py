"""dogpile.cache's tests of a back end, of a serializing one and of its mutex, on dcc."""

from __future__ import annotations

from dogpile.testing.fixtures import (
    _GenericBackendTestSuite,
    _GenericMutexTestSuite,
    _GenericSerializerTestSuite,
)

import dcc.contrib.dogpile  # noqa: F401


class TestDcc(_GenericBackendTestSuite):
    backend = "dcc"
    config_args = {"arguments": {"namespace": "dogpile-suite", "on_error": "raise"}}  # noqa: RUF012


class TestDccSerializer(_GenericSerializerTestSuite, TestDcc):
    pass


class TestDccMutex(_GenericMutexTestSuite):
    backend = "dcc"
    config_args = {  # noqa: RUF012
        "arguments": {"namespace": "dogpile-suite", "on_error": "raise", "distributed_lock": True}
    }
