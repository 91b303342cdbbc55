"""``python -m passk_guard COMMAND``, where the script ``passk-guard`` is not on the path."""

import sys

from passk_guard.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
