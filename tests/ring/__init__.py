"""The tests of `dcc.ring`."""
