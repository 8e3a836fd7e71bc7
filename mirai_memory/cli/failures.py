"""What a failed command looks like: one line to stderr, and an exit code that a script can tell apart."""

from __future__ import annotations

import sys
from typing import Any

import typer
from typer.core import TyperGroup

from mirai_memory.cli import PROGRAM
from mirai_memory.errors import Busy, ConfigurationError, MiraiMemoryError, SchemaError, StorageError

FAILED, USAGE, CONFIGURATION, UNAVAILABLE, INTERRUPTED = 1, 2, 3, 4, 130
_BY_KIND: tuple[tuple[tuple[type[MiraiMemoryError], ...], int], ...] = (
    ((ConfigurationError,), CONFIGURATION),
    ((StorageError, Busy, SchemaError), UNAVAILABLE),
)


class Group(TyperGroup):
    """The root of all commands, where every error ends."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort, typer.TyperException, BrokenPipeError):
            raise  # typer's own ways out
        except MiraiMemoryError as error:
            say(f"error: {error}")
            raise typer.Exit(exit_code(error)) from None
        except KeyboardInterrupt:
            say("interrupted")
            raise typer.Exit(INTERRUPTED) from None
        except OSError as error:
            say(f"error: {error.strerror or error}")
            raise typer.Exit(FAILED) from None
        except Exception as error:
            say(f"error: {type(error).__name__}: {error}")
            raise typer.Exit(FAILED) from None


def exit_code(error: MiraiMemoryError) -> int:
    return next((code for kinds, code in _BY_KIND if isinstance(error, kinds)), FAILED)


def say(words: str) -> None:
    """One line to stderr."""
    line = " ".join(words.split())
    print(f"{PROGRAM}: {''.join(c if c.isprintable() else '?' for c in line)}", file=sys.stderr, flush=True)
