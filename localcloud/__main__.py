"""Run the command line as `python -m localcloud`."""

from __future__ import annotations

from localcloud.cli import main

main()
