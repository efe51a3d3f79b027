"""The tests of `dcc.gossip`."""
