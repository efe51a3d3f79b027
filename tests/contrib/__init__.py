"""Tests of the adapters, and of the cache below them, on real nodes."""
