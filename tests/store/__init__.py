"""The tests of `dcc.store`."""
