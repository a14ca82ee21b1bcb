"""The command line: one thin file per verb. Parse, call, print. Heavy imports wait until a verb needs them."""

from hpsearch.cli.app import main

__all__ = ["main"]
