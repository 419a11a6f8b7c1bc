"""`python -m localcloud.provider ENGINE_ADDRESS`: what the engine runs as `pulumi-resource-aws`."""

from __future__ import annotations

import sys

from localcloud.provider.server import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
