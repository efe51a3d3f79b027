"""`python -m simulations`: ask the simulator what a cluster would do."""

from __future__ import annotations

import sys

from simulations.commands import main

if __name__ == "__main__":
    sys.exit(main())
