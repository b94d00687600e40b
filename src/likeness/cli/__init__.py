"""The command line: each command parses its options, makes one library call and prints the result.

Everything but typer is imported inside the commands, so that `likeness --help` is fast. A module of this package with a
`register(app)` function adds commands; list it in `FAMILIES`. `console` holds what commands share.

Exit codes: 0 done, 2 usage or settings, 3 input rejected, 4 something missing (weights, checkpoint, memory, room on
a disk), 130 interrupted by Ctrl-C, 143 by SIGTERM.
"""

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from likeness import __version__
from likeness.cli.console.terminal import echo, error_stream_without_bidi_controls, install_warning_handler
from likeness.errors import LikenessError, ResourceError

FAMILIES = (
    "generate",
    "story",
    "character",
    "demo",
    "compare",
    "puppets",
    "doctor",
    "models",
    "data",
    "train",
    "eval",
    "study",
    "bench",
)
"""Modules of this package, in the order of their commands in the help."""

INTERRUPTED, PIPE_CLOSED = 130, 141
"""Exit codes of a process that the signals SIGINT and SIGPIPE end."""

app = typer.Typer(
    name="likeness",
    help="Videos of a person from a photograph of their face and a sentence.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"likeness {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Videos of a person from a photograph of their face and a sentence."""
    del version, debug  # `--version` acts in its callback; `main` accepts `--debug` in any position.


for _family in FAMILIES:
    importlib.import_module(f"{__name__}.{_family}").register(app)


def _describe(error: OSError) -> str:
    """The message of an error of the system that no command handles."""
    about = f"{error.filename}: " if error.filename else ""
    return (
        f"{about}{error.strerror or error}. The system refused a file or a device; check that it is there, may be "
        "used, and that the disk has room. `--debug` shows where it happened."
    )


def _is_interrupt(error: BaseException | None) -> bool:
    """Whether Ctrl-C caused an error: a module in C that it stops while it is imported raises an ImportError."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. An error that a user can fix is printed without a traceback."""
    words = list(sys.argv[1:] if argv is None else argv)
    is_debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    install_warning_handler()
    try:
        with error_stream_without_bidi_controls():
            app(words, prog_name="likeness", standalone_mode=True)
    except LikenessError as error:
        if is_debug:
            raise
        echo(f"likeness: {error}", stream=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        # The reader of the output has closed it, as `head` does. Nothing may be written, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    except OSError as error:
        if is_debug:
            raise
        echo(f"likeness: {_describe(error)}", stream=sys.stderr)
        return ResourceError.exit_code
    except (KeyboardInterrupt, ImportError, SystemError) as error:
        if not _is_interrupt(error):
            raise
        echo("likeness: interrupted.", stream=sys.stderr)
        return INTERRUPTED
    except SystemExit as leave:
        if leave.code == INTERRUPTED:  # Of typer, which says nothing.
            echo("likeness: interrupted.", stream=sys.stderr)
        return leave.code if isinstance(leave.code, int) else int(leave.code is not None)
    return 0
