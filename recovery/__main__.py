"""`python -m recovery`: the same door as the `recovery` command."""

from __future__ import annotations

from recovery.cli import main

if __name__ == "__main__":
    main()
