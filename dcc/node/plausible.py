"""Settings from the future: what a message claims of them is not believed.

The larger stamp of a setting wins for ever. One frame that a fault garbled (or that somebody
forged) with a `cleared` far ahead of cluster time would empty every node, and make each refuse all
writes until that time has come; a `replicas_stamp` there could never be overruled. So they are
held to the bound that records are held to, by everybody who would merge them; the rest of the
message counts.
"""

from __future__ import annotations

from dataclasses import replace

from dcc.clock import COUNTER_BITS
from dcc.types import Settings
from dcc.wire.messages import Message, PushPull, PushPullReply, Rumors, SettingsUpdate

CARRIERS = (Rumors, PushPull, PushPullReply, SettingsUpdate)


def plausible(message: Message, held: Settings, latest_ms: int) -> Message:
    """Return `message` without settings stamped after `latest_ms`; itself if it has none.

    A count of copies that is left out becomes the one `held`, a `cleared` becomes never: neither
    changes anything when merged.
    """
    if not isinstance(message, CARRIERS):
        return message
    settings = message.settings
    if settings.cleared >> COUNTER_BITS > latest_ms:
        settings = settings._replace(cleared=0)
    if settings.replicas_stamp >> COUNTER_BITS > latest_ms:
        settings = Settings(held.replicas, held.replicas_stamp, settings.cleared)
    return message if settings is message.settings else replace(message, settings=settings)
