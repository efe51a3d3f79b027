"""The tests of `dcc.replication`."""
