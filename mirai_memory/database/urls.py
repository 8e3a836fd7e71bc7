"""From what a user writes (a path, ``:memory:``, a URL, nothing) to one SQLAlchemy URL."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from mirai_memory.errors import ConfigurationError

if TYPE_CHECKING:
    from mirai_memory.config import Settings

MEMORY = ":memory:"
_POSTGRES = ("postgresql", "postgres", "postgresql+psycopg")


def resolve_url(value: str | os.PathLike[str] | URL | None, settings: Settings | None = None) -> URL:
    """The database that ``value`` names; None means the settings'. A relative path counts from the working folder.

    Raises ConfigurationError for what is no database that this package knows.
    """
    if value is None:
        return _from_settings(settings)
    if isinstance(value, URL):
        return _known(value)
    text = os.fspath(value)
    if text == MEMORY or "://" not in text:
        return _sqlite(text)
    url = _parsed(text)
    if url is None:
        raise ConfigurationError(
            "the database URL cannot be parsed; it has the form postgresql+psycopg://user@host/name"
        )
    return _known(url)


def _parsed(text: str) -> URL | None:
    try:
        return make_url(text)
    except (ArgumentError, ValueError):
        return None  # SQLAlchemy's message repeats the URL, with its password


def _from_settings(settings: Settings | None) -> URL:
    if settings is None:
        from mirai_memory.config import load_settings  # pydantic costs 0.1 s: only where settings are needed

        settings = load_settings()
    if settings.memory.url is not None:
        return resolve_url(settings.memory.url.get_secret_value())
    return _sqlite(os.fspath(settings.memory.db_path))


def _sqlite(text: str) -> URL:
    if not text or "\x00" in text:
        raise ConfigurationError("the path of the database is empty or has a NUL")
    try:
        path = text if text == MEMORY else str(Path(text).expanduser().absolute())
        path.encode()  # what the URL of the file is made of
    except (RuntimeError, UnicodeEncodeError):
        path = ""
    if not path:
        raise ConfigurationError("the path of the database names no home folder, or has a lone surrogate")
    # By URL.create, not by a string: "?", "#" and "%" in a path would open another file.
    return URL.create("sqlite", database=path)


def _known(url: URL) -> URL:
    if url.drivername in ("sqlite", "sqlite+pysqlite"):
        return _sqlite(url.database or MEMORY)
    if url.drivername in _POSTGRES:
        # Plain postgresql:// meant psycopg2 once; here it is psycopg 3 whatever SQLAlchemy's default may be.
        return url.set(drivername="postgresql+psycopg")
    raise ConfigurationError(f"{url.drivername}:// is not supported; use a path for SQLite, or postgresql+psycopg://")


def sqlite_path(url: URL) -> Path | None:
    """The file of a SQLite URL; None for ``:memory:`` and for other engines."""
    if url.get_backend_name() != "sqlite" or url.database in (None, MEMORY):
        return None
    return Path(str(url.database))


def display(url: URL) -> str:
    """A path for SQLite, else the URL with its password hidden."""
    if url.get_backend_name() == "sqlite":
        return str(url.database)
    secret = {name: "***" for name in url.query if "password" in name.lower()}
    return url.update_query_dict(secret).render_as_string(hide_password=True)
