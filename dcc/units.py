"""Units of time and size as plain integers.

Durations and instants of the monotonic clock are nanoseconds; cluster time, expiry and
version stamps count milliseconds, because they travel and are compared between machines.
"""

MICROSECOND = 1_000
MILLISECOND = 1_000_000
SECOND = 1_000_000_000

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

NEVER = (1 << 63) - 1
"An instant that no clock reaches: the answer of `wake_at()` when nothing is due."
