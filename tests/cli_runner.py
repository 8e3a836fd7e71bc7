"""The runner of commands, with their tree made once: for each command anew, that takes longer than most of them."""

from __future__ import annotations

import functools

import typer.testing
from typer.testing import CliRunner, Result

typer.testing._get_command = functools.cache(typer.testing._get_command)  # type: ignore[attr-defined]

__all__ = ["CliRunner", "Result"]
