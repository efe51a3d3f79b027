"""The tests of `dcc.demo`."""
