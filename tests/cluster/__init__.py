"""Whole cores on virtual time: one file for each situation that a cluster gets into."""
