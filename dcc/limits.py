"""Every limit that two sides of a connection must agree on, in one place.

A limit is checked before the thing is decoded or stored; exceeding one is a typed error for a
caller and a counted drop for a peer.
"""

from dcc.units import KIB, MIB

SLOT_COUNT = 16_384
"Hash slots. Part of the protocol: every node and client must agree."

GROUP_COUNT = 128
"Groups of slots under the root of a Merkle tree; group g holds the slots g, g + 128, and so on."

KEY_BYTES_MAX = 512
"A key as UTF-8. Long enough for a URL path and a digest, short enough for a frame of many."

VALUE_BYTES_MAX = 16 * MIB
"Default bound of one value; memory for one is allocated at once, so it bounds the spike too."

INLINE_VALUE_BYTES_MAX = 4 * KIB
"Values below travel in the message's own frame, values from here on in a frame of their own."

FRAME_BYTES_MAX = 256 * KIB
"A message's first frame. Batches are cut at `BATCH_BYTES` and stay far below."

BATCH_BYTES = 64 * KIB
"Where replication batches, exchanges and replies of many are cut; one larger entry goes alone."

EXTRA_FRAMES_MAX = 256
"Value frames behind one message."

BATCH_KEYS_MAX = 4_096
"Keys in one request of many."

BATCH_WRITES_MAX = 1_024
"""Items in one request that writes many: some 25 µs each, so that a node does for no message what
takes others longer than 50 ms to wait for."""

GOSSIP_BYTES_MAX = 1_400
"A gossip message with its rumors: one Ethernet frame, as memberlist."

MEMBERS_MAX = 4_096
"Members in one view, those remembered as dead or left included."

REPLICAS_MAX = 9
"Copies beyond the primary."

NAME_BYTES_MAX = 128
ADDRESS_BYTES_MAX = 262
"Host names end at 253 bytes, a colon and a port."
