"""The tests of `dcc.node`."""
