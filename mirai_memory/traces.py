"""What is left of somebody who was forgotten: looked for in the raw bytes of files, or in the rows of a server."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import text

from mirai_memory import _byte_search
from mirai_memory.config import Settings
from mirai_memory.database import Database, Db, sqlite_path
from mirai_memory.errors import InvalidInput, StorageError
from mirai_memory.search.analyzer import analyze
from mirai_memory.unit_of_work import Store, UnitOfWork

_MOST_WORDS = 1_000
_TIMEOUT = 3_600.0


@dataclass(frozen=True, slots=True)
class Trace:
    """A file, or a table of a server, in which something was found: how often the words, how often the owner's id."""

    place: str
    words: int
    user_id: int


@dataclass(frozen=True, slots=True)
class Traces:
    """Where something was found, and what was searched. No content is in it."""

    found: tuple[Trace, ...]
    searched: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.found

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"ok": self.ok, "found": [asdict(trace) for trace in self.found], "searched": list(self.searched)}


def search_traces(database: Database, store: Store, settings: Settings, user_id: str, words: Sequence[str]) -> Traces:
    """Look for the owner's id and the words wherever this memory writes, its backups apart."""
    needles = [user_id, *dict.fromkeys(form for word in words for form in _forms(word))]
    files = [*_of_database(database), *_logs(settings)]
    found = dict(zip((file.name for file in files), _counted(files, needles), strict=True))
    if database.url.get_backend_name() == "postgresql":
        found |= store.read(lambda uow: _in_rows(uow, needles))
    traces = [Trace(place, sum(counts[1:]), counts[0]) for place, counts in found.items() if counts and any(counts)]
    return Traces(tuple(traces), tuple(place for place, counts in found.items() if counts is not None))


def checked_words(words: Any) -> list[str]:
    """The words, if they are some. Raises InvalidInput."""
    if isinstance(words, str) or not isinstance(words, Sequence) or len(words) > _MOST_WORDS:
        raise InvalidInput("words", f"must be a list of at most {_MOST_WORDS} words")
    if not all(isinstance(word, str) and word.strip() for word in words):
        raise InvalidInput("words", "must be strings that are not empty")
    return list(words)


def _forms(word: str) -> list[str]:
    """The word as it was written and as the index has it."""
    terms = analyze(word)
    return list(dict.fromkeys([word, word.lower(), *(terms if len(terms) == 1 else ())]))


def _of_database(database: Database) -> list[Path]:
    path = sqlite_path(database.url)
    if path is None:
        return []
    # Whatever SQLite and we have put beside it: -wal, -shm, -journal, lock files, the erasures.
    beside = sorted(other for other in path.parent.glob("*") if other.name.startswith(f"{path.name}") and other != path)
    of_chroma = sorted(path.with_name(f"{path.name}.chroma").rglob("*"))
    return [path, *(other for other in (*beside, *of_chroma) if other.is_file() and not other.is_symlink())]


def _logs(settings: Settings) -> list[Path]:
    path = settings.monitoring.logs.path
    rotated = sorted(path.parent.glob(f"{path.name}.*")) if path.parent.is_dir() else []
    return [file for file in (path, *rotated) if file.is_file() and not file.is_symlink()]


def _counted(files: Sequence[Path], needles: Sequence[str]) -> list[list[int] | None]:
    """In a process of its own: closing a file drops every lock that SQLite has on it in the process that closes."""
    if not files:
        return []
    asked = {"files": [str(file.absolute()) for file in files], "needles": [word.encode().hex() for word in needles]}
    try:
        child = subprocess.run(
            [sys.executable, "-I", str(Path(_byte_search.__file__))],
            input=json.dumps(asked),
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise StorageError(f"the files could not be searched: {type(error).__name__}") from None
    answer: list[list[int] | None] = json.loads(child.stdout)
    return answer


def _in_rows(uow: UnitOfWork, needles: Sequence[str]) -> dict[str, list[int] | None]:
    """In how many rows of each of our tables each needle stands, as the server writes a row as text."""
    db: Db = uow.db
    schema = db.get_execution_options()["schema_translate_map"][None]
    quote = db.dialect.identifier_preparer.quote
    tables = text("SELECT tablename FROM pg_tables WHERE schemaname = :schema ORDER BY tablename")
    found: dict[str, list[int] | None] = {}
    for name in db.execute(tables, {"schema": schema}).scalars().all():
        place = f"{quote(schema)}.{quote(name)}"
        count = text(f"SELECT count(*) FROM {place} AS t WHERE strpos(t::text, :needle) > 0")  # noqa: S608 - our tables
        found[f"{schema}.{name}"] = [int(db.execute(count, {"needle": needle}).scalar_one()) for needle in needles]
    return found
