"""A client process that writes large values under ever new keys, as fast as it is let.

    python -m simulations.chaos.hog NODES --seconds 20

Prints how its calls ended: `{"ok": …, "MaybeStored": …}`; an error that is no `DccError` ends it.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter

import dcc
from dcc.units import KIB

VALUE_BYTES = 96 * KIB


def main() -> None:
    """Write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("nodes")
    parser.add_argument("--seconds", type=float, required=True)
    options = parser.parse_args()
    ends = time.monotonic() + options.seconds
    counts: Counter[str] = Counter()
    number = 0
    with dcc.Client(options.nodes, timeout=1) as client:
        while time.monotonic() < ends:
            number += 1
            try:
                client.put(f"hog-{number}", bytes(VALUE_BYTES))
                counts["ok"] += 1
            except dcc.DccError as error:
                counts[type(error).__name__] += 1
    print(json.dumps(counts))


if __name__ == "__main__":
    main()
