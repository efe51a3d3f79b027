"""`python -m simulations.chaos`: real nodes under drawn faults for some minutes, and a report.

Exit codes: 0 no promise broke, 1 one did, 2 this machine does not permit such a network.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from simulations.chaos.namespaces import why_not
from simulations.chaos.report import report
from simulations.chaos.run import Run


def main() -> int:
    """Play a run."""
    parser = argparse.ArgumentParser(prog="python -m simulations.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--memory", type=int, default=64, help="MiB of each node (default 64)")
    parser.add_argument("--folder", type=Path, help="where logs and histories stay")
    options = parser.parse_args()
    if why_not():
        print(f"no network namespaces here: {why_not()}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as own:
        folder = options.folder or Path(own)
        folder.mkdir(parents=True, exist_ok=True)
        run = Run(options.seed, options.minutes * 60, folder, memory_mib=options.memory)
        try:
            result = run.play(lambda text: print(text, flush=True))
        finally:
            run.close()
    for line in report(result):
        print(line)
    print(f"again: python -m simulations.chaos --seed {options.seed} --minutes {options.minutes}")
    return 1 if result.violations else 0


if __name__ == "__main__":
    sys.exit(main())
