"""Fuzzing of what a node takes from anybody: the codec, the core, and real sockets."""
