"""`python -m dcc` is the `dcc` command."""

from __future__ import annotations

import sys

from dcc.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
