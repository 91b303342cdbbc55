"""What ``passk-guard`` does on the command line: one module per command, each with ``add``."""
