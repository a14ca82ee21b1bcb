"""The trainer process: `python -m hpsearch.train COMMANDS EVENTS`, two file descriptors of its worker's."""

from __future__ import annotations

import gc
import os
import signal
import sys
import warnings


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the worker's to handle; it will ask for a checkpoint
    warnings.filterwarnings("ignore", category=FutureWarning)  # the libraries' own business with each other
    commands, events = (int(number) for number in sys.argv[1:3])
    gc.disable()  # a fifth of the time that the libraries take to load, and none of their objects are garbage
    from hpsearch.train.channel import Channel
    from hpsearch.train.serve import serve

    gc.enable()
    serve(Channel(os.fdopen(commands, "rb"), os.fdopen(events, "wb")))


if __name__ == "__main__":
    main()
