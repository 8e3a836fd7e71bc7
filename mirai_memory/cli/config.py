"""``config`` and ``init``: the settings looked at, checked, and written down to start from."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mirai_memory.cli.failures import CONFIGURATION, FAILED, say
from mirai_memory.cli.options import DEFAULT_USER, Config, Db, Json, User, examples
from mirai_memory.cli.output import print_json, print_table
from mirai_memory.errors import ConfigurationError

if TYPE_CHECKING:
    from pydantic import SecretStr

    from mirai_memory import Settings

app = typer.Typer(no_args_is_help=True, help="Look at the settings and check them.")

_FILE = "mirai.yaml"
_HIDDEN = "**********"


@app.command(epilog=examples("config show", "config show --json"))
def show(user: User = DEFAULT_USER, db: Db = None, config: Config = None, as_json: Json = False) -> None:
    """Print every setting with its value and where it is from. Passwords are hidden."""
    rows = list(_rows(db, config))
    if as_json:
        print_json([{"key": key, "value": value, "from": source} for key, source, value in rows])
    else:
        print_table(["key", "from", "value"], [(key, source, _text(value)) for key, source, value in rows])


def _rows(db: str | None, config: Path | None) -> Iterator[tuple[str, str, Any]]:
    """Key, place and value of each leaf."""
    from mirai_memory._settings_tree import leaves
    from mirai_memory.config import Settings, load_with_layers

    settings, layers = load_with_layers(config, **_arguments(db))
    tree = settings.model_dump(by_alias=True)
    for leaf in leaves(Settings):
        value: Any = tree
        for name in leaf.path:
            value = value[name]
        places = [layer.name for layer in layers if layer.holds(leaf.path)]
        # The names of a mapping may come from several places.
        source = ", ".join(places if leaf.takes_names else places[:1]) or "default"
        yield leaf.key, source, _shown(value)


def _arguments(db: str | None) -> dict[str, Any]:
    return {"memory": {"url": db}} if db is not None else {}


def _shown(value: Any) -> Any:
    from pydantic import SecretStr

    from mirai_memory._redaction import redact
    from mirai_memory._settings_tree import without_userinfo

    if isinstance(value, SecretStr):
        return _shown_url(value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)  # as people write it
    return redact(without_userinfo(value)) if isinstance(value, str) else value


def _shown_url(secret: SecretStr) -> str:
    from mirai_memory.database import resolve_url
    from mirai_memory.database.urls import display

    try:
        return display(resolve_url(secret.get_secret_value()))
    except ConfigurationError:
        return _HIDDEN  # who knows where the password stands in it


def _text(value: Any) -> str:
    import json

    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


@app.command(epilog=examples("config check", "config check --json"))
def check(user: User = DEFAULT_USER, db: Db = None, config: Config = None, as_json: Json = False) -> None:
    """Print every fault of the settings, each on a line of its own; the exit code is then 3.

    Also looked at, without making anything: the form of the database's URL, the file of the API keys, and whether the
    database, the log and the backups can be written where they are to be.
    """
    faults = _faults(db, config)
    if as_json:
        print_json(faults)
    for fault in faults if not as_json else ():
        say(f"error: {fault}")
    if faults:
        raise typer.Exit(CONFIGURATION)
    if not as_json:
        print("no faults")


def _faults(db: str | None, config: Path | None) -> list[str]:
    from mirai_memory import load_settings

    try:
        settings = load_settings(config, **_arguments(db))
    except ConfigurationError as error:
        return list(error.problems)
    return [*_faults_of_keys(settings), *_faults_of_paths(settings)]


def _faults_of_keys(settings: Settings) -> Iterator[str]:
    try:
        settings.security.api_keys.locate()
    except ConfigurationError as error:
        yield from (f"security.api_keys: {problem}" for problem in error.problems)


def _faults_of_paths(settings: Settings) -> Iterator[str]:
    from mirai_memory.database import resolve_url
    from mirai_memory.database.urls import sqlite_path

    paths = {"monitoring.logs.path": settings.monitoring.logs.path}
    try:
        database = sqlite_path(resolve_url(None, settings))
        # One that is there may be open for reading only.
        if database and settings.memory.enabled and not database.exists():
            paths["memory.db_path" if settings.memory.url is None else "memory.url"] = database
    except ConfigurationError as error:
        yield f"{'memory.db_path' if settings.memory.url is None else 'memory.url'}: {error}"
    if settings.memory.long_term.backup_enabled and settings.memory.long_term.backup_dir:
        # Some file in it.
        paths["memory.long_term.backup_dir"] = settings.memory.long_term.backup_dir / "backup"
    for key, path in paths.items():
        fault = _unwritable(Path(os.path.abspath(path)))
        if fault:
            yield f"{key}: {fault}"


def _unwritable(path: Path) -> str | None:
    """Why no file can be written there, with folders made on the way; None where it can."""
    there = next(place for place in (path, *path.parents) if os.path.exists(place) or place == place.parent)
    if there == path:
        if path.is_dir():
            return f"{path} is a folder"
        return None if os.access(path, os.W_OK) else f"{path} is not writable"
    if not there.is_dir():
        return f"{there} is no folder"
    return None if os.access(there, os.W_OK | os.X_OK) else f"the folder {there} is not writable"


def init(
    path: Annotated[str, typer.Argument(metavar="PATH", help="The file, or a folder for a mirai.yaml in it.")] = _FILE,
    user: User = DEFAULT_USER,
    db: Db = None,
    config: Config = None,
) -> None:
    """Write a mirai.yaml with every setting, its default, and what it does. A file that is there stays as it is."""
    from mirai_memory._settings_template import template
    from mirai_memory.config import Settings

    file = Path(path, _FILE) if os.path.isdir(path) or path.endswith(("/", os.sep)) else Path(path)
    try:
        _write_new(file, template(Settings))
    except FileExistsError:
        say(f"error: {file} is there already, and was not changed; name another file")
        raise typer.Exit(FAILED) from None
    except (OSError, ValueError) as error:
        say(f"error: {file}: {getattr(error, 'strerror', None) or 'is no name of a file'}")
        raise typer.Exit(FAILED) from None
    say(f"{file} is written; 'mirai-memory config check' reads it")


def _write_new(file: Path, text: str) -> None:
    new = file.open("x", encoding="utf-8", newline="\n")  # O_EXCL: of two at once one wins, and no link is followed
    try:
        with new:
            new.write(text)
    except OSError:
        file.unlink()  # half a file would be read as settings
        raise
