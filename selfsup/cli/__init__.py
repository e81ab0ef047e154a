"""The command line: parse, call, print."""

from selfsup.cli.app import main, run

__all__ = ["main", "run"]
