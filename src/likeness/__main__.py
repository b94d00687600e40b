"""The `likeness` command, and `python -m likeness`.

Ctrl-C while the command line is imported, or after a command has ended, ends the process by the signal: there is
nothing to clean up then, and Python would print a traceback.
"""

import signal
import sys
from typing import NoReturn


def run() -> NoReturn:
    """Run one command and exit with its code."""
    handler = signal.getsignal(signal.SIGINT)
    is_handled = handler is signal.default_int_handler  # A shell's background jobs ignore Ctrl-C.
    if is_handled:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from likeness.cli import INTERRUPTED, main

    try:
        if is_handled:
            signal.signal(signal.SIGINT, handler)
        code = main()
        if is_handled:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
    except KeyboardInterrupt:  # Before or after the part of `main` that reports it.
        code = INTERRUPTED
    sys.exit(code)


if __name__ == "__main__":
    run()
