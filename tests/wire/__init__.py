"""The tests of `dcc.wire`."""
