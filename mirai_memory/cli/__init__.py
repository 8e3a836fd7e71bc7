"""The command line: each command parses, calls the façade once and prints. Data to stdout, words to stderr."""

from __future__ import annotations

import os
import sys

PROGRAM = "mirai-memory"


def main() -> None:
    """The entry point of ``mirai-memory``; leaves by SystemExit."""
    from mirai_memory.cli.app import app  # typer is for the command line only

    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a letter gets its escape instead of an error.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # the real streams have it
    code: int | str | None = 0
    try:
        app(prog_name=PROGRAM)
    except SystemExit as exit:
        code = exit.code
    except OSError as error:  # typer's own output
        code = _unwritten(error, silent=False)
    try:
        sys.stdout.flush()
    except OSError as error:
        code = _unwritten(error, silent=bool(code))
    sys.exit(code)


def _unwritten(error: OSError, *, silent: bool) -> int:
    """Output that could not be written. A reader that left early (``| head``) is no reason for words."""
    # The interpreter flushes once more at its end, and would complain.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if not silent and not isinstance(error, BrokenPipeError):
        print(f"{PROGRAM}: error: {error.strerror} while writing the output", file=sys.stderr)
    return 1
