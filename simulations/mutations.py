"""Planted bugs: the production core with one thing wrong, to see that a checker notices."""

from __future__ import annotations

from dcc.node.core import NodeCore

MUTATIONS = {"": None}


def core_with(name):
    return NodeCore
