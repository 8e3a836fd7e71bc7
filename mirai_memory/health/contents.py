"""What is in the database, and whether what is derived from it has kept up."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Select, Table, func, literal_column, select

from mirai_memory.database import Db
from mirai_memory.health import chroma
from mirai_memory.health.probe import Probe
from mirai_memory.health.report import Finding, counted, error, ok, warning
from mirai_memory.health.surroundings import embedder_name
from mirai_memory.models import EmbeddingRow, KnowledgeRow, MessageRow, SessionRow, StateRow, TaskRow
from mirai_memory.search import ItemKind
from mirai_memory.search.analyzer import ANALYZER
from mirai_memory.search.audit import MAY_BE_INDEXED
from mirai_memory.search.postings import WORDS

_MESSAGES, _KNOWLEDGE, _EMBEDDINGS = MessageRow.table(), KnowledgeRow.table(), EmbeddingRow.table()
# Which rows have their words in the index.
_INDEXED: dict[ItemKind, tuple[Table, ColumnElement[bool]]] = {
    "message": (_MESSAGES, _MESSAGES.c.kind == "chat"),
    "knowledge": (_KNOWLEDGE, _KNOWLEDGE.c.superseded_at.is_(None) & _KNOWLEDGE.c.valid_to.is_(None)),
}
_NOUNS: dict[ItemKind, str] = {"message": "message", "knowledge": "fact"}


def word_index(probe: Probe) -> Finding:
    """Whether each text that can be found by words is in the index once, and nothing else is."""
    anew = f"make it right: {probe.command('repair --yes')}, or repair()"
    with probe.begin() as db:
        probe.require_head(db)
        if not _is_current(db):
            advice = "the next opening makes it anew; until then nothing new is found"
            return warning("was made by another version's analyser", advice)
        faults, total = [], 0
        for kind in _INDEXED:
            total += _number(db, select(func.count()).select_from(WORDS[kind]))
            for count, fault in ((_missing(db, kind), "not in it"), (_surplus(db, kind), "gone but still in it")):
                if count:
                    faults.append(f"{counted(count, _NOUNS[kind])} {fault}")
    if faults:
        return error(", ".join(faults), anew)
    return ok(f"{counted(total, 'text')} in it")


def _is_current(db: Db) -> bool:
    state = StateRow.table()
    return db.execute(select(state.c.value).where(state.c.name == "analyzer_version")).scalar() == ANALYZER


def _missing(db: Db, kind: ItemKind) -> int:
    items, indexed = _INDEXED[kind]
    words = WORDS[kind]
    found = select(words.c.rowid).where(words.c.rowid == items.c.id).exists()
    return _number(db, select(func.count()).select_from(items).where(indexed, ~found))


def _surplus(db: Db, kind: ItemKind) -> int:
    items, _ = _INDEXED[kind]
    words = WORDS[kind]
    kept = select(items.c.id).where(items.c.id == words.c.rowid, MAY_BE_INDEXED[kind]).exists()
    return _number(db, select(func.count()).select_from(words).where(~kept))


def vectors(probe: Probe) -> Finding:
    with probe.begin() as db:
        probe.require_head(db)
        pending, failed = (
            # Spelled out: a partial index is used only where the engine reads its condition.
            _number(
                db, select(func.count()).select_from(_EMBEDDINGS).where(_EMBEDDINGS.c.status == literal_column(status))
            )
            for status in ("'pending'", "'failed'")
        )
    if failed:
        advice = "these texts are found by their words only; reindex() tries again, and the log says why it failed"
        return warning(f"{pending} pending, {failed} failed", advice)
    if pending and embedder_name(probe) == "none":
        return warning(f"{pending} pending, and no embedder to make them", "pip install 'mirai-memory[embeddings]'")
    words, trouble = chroma.state(probe)
    if trouble:
        advice = "searches compare every vector instead; once that is mended, reindex() gives Chroma all of them"
        return warning(f"{pending} pending, none failed; {trouble}", advice)
    return ok(", ".join(filter(None, (f"{pending} pending, none failed", words))))


def counts(probe: Probe) -> Finding:
    with probe.begin() as db:
        probe.require_head(db)
        facts = select(func.count()).select_from(_KNOWLEDGE).where(_KNOWLEDGE.c.superseded_at.is_(None))
        numbers = [
            counted(_number(db, statement), noun)
            for noun, statement in (
                ("session", select(func.count()).select_from(SessionRow.table())),
                ("message", select(func.count()).select_from(_MESSAGES)),
                ("fact", facts),
                ("task", select(func.count()).select_from(TaskRow.table())),
            )
        ]
    return ok(", ".join(numbers))


def _number(db: Db, statement: Select[Any]) -> int:
    return int(db.execute(statement).scalar_one())
