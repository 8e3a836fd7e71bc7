"""Where the API keys of model providers are: the environment, ``.env``, a JSON file.

A key is read when it is asked for, and neither kept nor logged; no message and no chained error has it or the text
around it.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from mirai_memory._dotenv import DOTENV, read_dotenv
from mirai_memory.errors import ConfigurationError, InvalidInput

_MAX_BYTES = 1_000_000
_PROVIDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_OPENAI = "openai"


class Places(Protocol):
    """The part of ``security.api_keys`` that is asked here."""

    @property
    def source(self) -> str: ...
    @property
    def env_var(self) -> str: ...
    @property
    def fallback_file(self) -> Path: ...


@dataclass(frozen=True, slots=True)
class Found:
    """A key, which no ``repr`` shows, and where it was."""

    key: str = field(repr=False)
    place: str
    exposed: Path | None = None


def get_key(places: Places, provider: str) -> str:
    """The key. Raises ConfigurationError where there is none; warns of a file that others can read."""
    found = find_key(places, provider)
    if found is None:
        raise ConfigurationError(_missing(places, provider))
    if found.exposed:
        from mirai_memory.logging import logger  # loguru, for those who are to be warned

        logger.warning("{} holds API keys, and others can read it: chmod 600", found.exposed)
    return found.key


def find_key(places: Places, provider: Any) -> Found | None:
    """The first key of the provider in the places that ``source`` names, in their order."""
    if not isinstance(provider, str) or not _PROVIDER.fullmatch(provider):
        raise InvalidInput("provider", "is a name such as openai: letters, digits, dots, hyphens, underscores")
    return next(_found(places, provider.lower()), None)


def _found(places: Places, provider: str) -> Iterator[Found]:
    variable = _variable(places, provider)
    if places.source == "env":
        # The second is not read where the first has the key.
        yield from _in_variable(os.environ.get(variable), f"the environment variable {variable}")
        yield from _in_variable(read_dotenv().variables.get(variable), f"{variable} in {DOTENV}")
    yield from _in_file(places.fallback_file, (provider, variable))


def _in_variable(text: str | None, place: str) -> Iterator[Found]:
    key = (text or "").strip()
    if key:
        yield Found(_checked(key, place), place)


def _variable(places: Places, provider: str) -> str:
    """The setting names the variable of OpenAI, or of what speaks its protocol; others follow the custom."""
    if provider == _OPENAI:
        return places.env_var
    return re.sub(r"[^A-Z0-9]+", "_", provider.upper()) + "_API_KEY"


def _in_file(path: Path, names: tuple[str, str]) -> Iterator[Found]:
    text, is_open = _read(path)
    if text is None:
        return
    keys = _parsed(text, path)
    name = next((name for name in names if name in keys), None)
    if name is None:
        return
    place = f"{name} in {path}"
    key = keys[name].strip() if isinstance(keys[name], str) else ""
    if not key:
        raise ConfigurationError(f"{path}: {name}: must be a key, a text that is not empty")
    warning = ", which others can read too: chmod 600" if is_open else ""
    yield Found(_checked(key, place), place + warning, path if is_open else None)


def _checked(key: str, place: str) -> str:
    # An HTTP client would refuse it with a message that repeats it.
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigurationError(f"{place}: holds spaces or letters that no key has")
    return key


def _read(path: Path) -> tuple[str | None, bool]:
    """The text of the file, None where there is none, and whether others than its owner can read or change it."""
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            data, is_open = _content(file, path)
        return data.decode("utf-8-sig"), is_open
    except FileNotFoundError:
        return None, False
    except OSError as error:
        problem = f"cannot be read ({error.strerror or type(error).__name__})"
    except UnicodeDecodeError as error:
        problem = f"is not UTF-8 (byte {error.start})"
    raise ConfigurationError(f"{path}: {problem}")


def _without_waiting(path: str, flags: int) -> int:
    """Opened at once, even where it is a pipe that nobody writes into."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _content(file: BinaryIO, path: Path) -> tuple[bytes, bool]:
    state = os.fstat(file.fileno())
    if not stat.S_ISREG(state.st_mode):
        raise ConfigurationError(f"{path}: is no plain file")
    data = file.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise ConfigurationError(f"{path}: is larger than {_MAX_BYTES} bytes")
    return data, os.name == "posix" and bool(state.st_mode & (stat.S_IRWXG | stat.S_IRWXO))


def _parsed(text: str, path: Path) -> dict[str, Any]:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        values = None  # raised below: a chained error would hold the whole text
    if not isinstance(values, dict):
        raise ConfigurationError(f'{path}: must be a JSON object such as {{"openai": "the key"}}')
    return values


def _missing(places: Places, provider: str) -> str:
    name, variable = provider.lower(), _variable(places, provider.lower())
    in_file = f'"{name}" in the JSON object of {places.fallback_file}'
    if places.source == "file":
        return f"no API key of {name}: security.api_keys.source is file, and there is no {in_file}"
    return f"no API key of {name}: set the environment variable {variable}, or {variable} in {DOTENV}, or put {in_file}"
