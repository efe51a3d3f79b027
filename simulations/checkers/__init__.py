"""One file for each promise: pure functions from what was observed to violations.

A checker takes plain data (histories, records, times), never a world, so that its own tests can
hand it known good and known bad runs.
"""
