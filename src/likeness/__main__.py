"""The `likeness` command, and `python -m likeness`.

Ctrl-C and SIGTERM end every command with one line, without a traceback, and with 128 and the number of the signal as
exit code: 130 and 143. An exception in the middle of an import would be lost, become another error or end in a
segmentation fault (of torch, once in eight times), so that the signal waits until the import is done, or for 2 s; then
the process ends as by SIGKILL, which every command survives.
"""

import _thread
import os
import signal
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

_INTERRUPTED = "likeness: interrupted.\n"
_WAIT_S = 0.02
"""Time between two looks whether an import is done."""
_LONGEST_WAIT_S = 2.0


def run() -> NoReturn:
    """Run one command and exit with its code."""
    received: list[int] = []
    until_s = 0.0

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal until_s
        if not received:
            until_s = time.monotonic() + _LONGEST_WAIT_S
        received.append(number)
        if not _is_importing(frame):
            raise KeyboardInterrupt
        if time.monotonic() > until_s:
            end_at_once(number, frame)
        _send_again(number)

    def raise_again(unraisable: "sys.UnraisableHookArgs") -> None:
        """An exception in a destructor is lost, so the signal is sent once more, after it.

        Objects whose constructor a signal has stopped fail in other ways, of which a traceback would say nothing.
        """
        if not received:
            sys.__unraisablehook__(unraisable)
        elif issubclass(unraisable.exc_type, KeyboardInterrupt):
            _send_again(received[0])

    handle_signals(end_at_once)
    from likeness.cli import INTERRUPTED, main

    sys.unraisablehook = raise_again
    try:
        handle_signals(stop)
        code = main()
        handle_signals(end_at_once)
    except BaseException:  # A library in C may have made any error of it, of which a traceback would say nothing.
        handle_signals(end_at_once)
        if not received:
            raise
        sys.stderr.write(_INTERRUPTED)
        code = INTERRUPTED
    sys.exit(128 + received[0] if received and code == INTERRUPTED else code)


def handle_signals(handler: Callable[[int, FrameType | None], None]) -> None:
    """Set the handler of Ctrl-C and SIGTERM, except where they are ignored, as by a shell's background jobs."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


def end_at_once(number: int, frame: FrameType | None) -> None:
    """Before and after a command there is nothing to clean up."""
    del frame
    os.write(2, _INTERRUPTED.encode())
    os._exit(128 + number)


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None and frame.f_code.co_filename != "<frozen importlib._bootstrap>":
        frame = frame.f_back
    return frame is not None


def _send_again(number: int) -> None:
    """Send a signal to this thread, the main one, a moment later."""
    thread = _thread.get_ident()

    def send() -> None:
        time.sleep(_WAIT_S)
        if hasattr(signal, "pthread_kill"):
            signal.pthread_kill(thread, number)  # Unlike `interrupt_main` it also ends waiting in the system.
        else:
            _thread.interrupt_main(signal.Signals(number))

    _thread.start_new_thread(send, ())


if __name__ == "__main__":
    run()
