"""The tests of `dcc.cli`."""
