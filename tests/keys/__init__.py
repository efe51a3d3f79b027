"""Clusters with keys: who is let in, who may do what, and how keys change while all runs."""
