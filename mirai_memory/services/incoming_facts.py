"""Facts on their way in: a key with all the values it has had comes whole, or stays as it is here."""

from __future__ import annotations

import hashlib
import json
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Any

from sqlalchemy import RowMapping, bindparam, select, tuple_, update

from mirai_memory.database.chunks import chunks
from mirai_memory.database.hot import BulkInsert
from mirai_memory.errors import ConfigurationError
from mirai_memory.models import KnowledgeRow, MessageRow
from mirai_memory.search import Entry
from mirai_memory.search.terms import knowledge_terms
from mirai_memory.services.embeddings import Embeddings, Wanted, fact_text
from mirai_memory.services.incoming import Batch, Incoming, Record
from mirai_memory.services.incoming_sessions import IncomingSessions

KNOWLEDGE = KnowledgeRow.table()
MESSAGES = MessageRow.table()

_INSERT = BulkInsert(KNOWLEDGE)
_HELD = 500
_PLACES = 400  # messages that are looked up at once
_REFERENCES = ("id", "user_id", "superseded_by", "message_id", "metadata")
_COMPARED = [column.name for column in KNOWLEDGE.c if column.name not in _REFERENCES]
_COLUMNS = [column.name for column in KNOWLEDGE.c if column.name != "id"]
_NEXT = update(KNOWLEDGE).where(KNOWLEDGE.c.id == bindparam("fact")).values(superseded_by=bindparam("next"))
_ENDED = update(KNOWLEDGE).where(KNOWLEDGE.c.id == bindparam("fact")).values(valid_to=bindparam("until"))

Values = Mapping[str, Any] | RowMapping
Again = Callable[[], Iterator[Record]]


class IncomingFacts(Incoming):
    def __init__(self, sessions: IncomingSessions, again: Again, *arguments: Any) -> None:
        """``again`` reads all facts of the file once more: whether a key is here just so, its last value tells."""
        super().__init__(*arguments)
        self._sessions, self._again = sessions, again
        self._new = Batch()
        self._told: set[bytes] = set()
        # Numbers of the file, which grow, beside the ids here; and of each fact with a successor its id and that one's
        # number. Sixteen bytes for each, since there may be many.
        self._numbers, self._ids = array("q"), array("q")
        self._superseded, self._successors = array("q"), array("q")

    def take(self, record: Record) -> None:
        if not self._settings.long_term.enabled:
            raise ConfigurationError("memory.long_term.enabled is false: facts are not kept")
        if self._is_old(record.values["created_at"]):
            return self._count("erased")
        key = _key(record.values)
        alike = self._here.get(key)
        if alike is None:
            if self._new.add(record):
                self._insert()
            return None
        if alike:
            return self._count("facts_there")
        if key not in self._told:
            self._told.add(key)
            return self._tally.conflict(record.line, "fact", "its key has other values here, which stay")
        return self._count("not_imported")

    @cached_property
    def _here(self) -> dict[bytes, bool]:
        """The owner's keys that were here before, and whether they have just the values that the file has."""
        here: dict[bytes, bytes] = {}
        own = select(KNOWLEDGE).where(KNOWLEDGE.c.user_id == self._whose).order_by(KNOWLEDGE.c.id)
        for row in self._db.execute(own, execution_options={"yield_per": _HELD}):
            key = _key(row._mapping)
            here[key] = _chained(here.get(key, b""), row._mapping)
        given: dict[bytes, bytes] = {}
        for record in self._again() if here else ():
            key = _key(record.values)
            if key in here and not self._is_old(record.values["created_at"]):
                given[key] = _chained(given.get(key, b""), record.values)
        return {key: value == given.get(key) for key, value in here.items()}

    def finish(self) -> None:
        self._insert()
        self._link()

    def _insert(self) -> None:
        records = self._new.take()
        if not records:
            return
        self._count("facts_added", len(records))
        messages = self._messages(records)
        rows = [{**record.values, "superseded_by": None, "message_id": messages.get(record.line)} for record in records]
        ids = _INSERT.ids(self._db, [{name: row[name] for name in _COLUMNS} for row in rows])
        for id, record in zip(ids, records, strict=True):
            self._numbers.append(record.values["id"])
            self._ids.append(id)
            if record.values["superseded_by"] is not None:
                self._superseded.append(id)
                self._successors.append(record.values["superseded_by"])
        self._make_found(dict(zip(ids, rows, strict=True)))

    def _make_found(self, stored: Mapping[int, Values]) -> None:
        """Index rows of what is open, and the vectors that were given with anything."""
        is_open = {id: row for id, row in stored.items() if row["superseded_at"] is None and row["valid_to"] is None}
        self._index_facts(is_open)
        vectors = [
            {**vector, "item_id": id, "user_id": self._whose} for id, row in stored.items() for vector in row["vectors"]
        ]
        if vectors:
            Embeddings(self._work).put("knowledge", vectors)
        wanted = [
            Wanted(id, self._whose, fact_text(row["key"], row["value"]))
            for id, row in is_open.items()
            if self._work.model not in {vector["model"] for vector in row["vectors"]}
        ]
        Embeddings(self._work).want("knowledge", wanted)

    def _index_facts(self, facts: Mapping[int, Values]) -> None:
        entries = [Entry(id, self._whose, knowledge_terms(row["key"], row["value"])) for id, row in facts.items()]
        if entries:
            self._index.add(self._db, "knowledge", entries)

    def _messages(self, records: list[Record]) -> dict[int, int]:
        """The messages that these facts were learned from, by line; those that are here."""
        places: dict[int, tuple[str, int]] = {}
        for record in records:
            if record.values["message"] is not None:
                session, position = record.values["message"]
                here = self._sessions.ids[session]
                if here is not None and session not in self._sessions.unlike:
                    places[record.line] = here, position
        found: dict[tuple[str, int], int] = {}
        place = tuple_(MESSAGES.c.session_id, MESSAGES.c.position)
        columns = (MESSAGES.c.id, MESSAGES.c.session_id, MESSAGES.c.position)
        for chunk in chunks(list(set(places.values())), _PLACES):
            for row in self._db.execute(select(*columns).where(place.in_(chunk))):
                found[row.session_id, row.position] = row.id
        linked = {line: found[place] for line, place in places.items() if place in found}
        self._count("links_lost", sum(record.values["message"] is not None for record in records) - len(linked))
        return linked

    def _link(self) -> None:
        """Each fact to its successor. One whose successor stayed out was true until then, and is not believed again."""
        next, ended = [], []
        for fact, number in zip(self._superseded, self._successors, strict=True):
            place = bisect_left(self._numbers, number)
            if place < len(self._numbers) and self._numbers[place] == number:
                next.append({"fact": fact, "next": self._ids[place]})
            else:
                ended.append(fact)
        for chunk in chunks(next):
            self._db.execute(_NEXT, chunk)
        self._end(ended)
        self._index_still_true(next)

    def _end(self, facts: list[int]) -> None:
        for chunk in chunks(facts):
            columns = (KNOWLEDGE.c.id, KNOWLEDGE.c.valid_from, KNOWLEDGE.c.superseded_at)
            rows = self._db.execute(select(*columns).where(KNOWLEDGE.c.id.in_(chunk), KNOWLEDGE.c.valid_to.is_(None)))
            until = [{"fact": row.id, "until": max(row.valid_from, row.superseded_at)} for row in rows]
            if until:
                self._db.execute(_ENDED, until)

    def _index_still_true(self, superseded: list[dict[str, int]]) -> None:
        """What has a successor that is true only later is true, and found, until then; by its words, which will do."""
        later = KNOWLEDGE.alias("later")
        still = select(KNOWLEDGE).join(later, later.c.id == KNOWLEDGE.c.superseded_by)
        still = still.where(later.c.valid_from > self._now(), KNOWLEDGE.c.valid_to.is_(None))
        for chunk in chunks([item["fact"] for item in superseded]):
            rows = self._db.execute(still.where(KNOWLEDGE.c.id.in_(chunk))).all()
            self._index_facts({row.id: row._mapping for row in rows})


def _key(values: Values) -> bytes:
    return hashlib.blake2b(f"{values['category']}\0{values['key']}".encode(), digest_size=16).digest()


def _chained(before: bytes, values: Values) -> bytes:
    """A digest of all values that a key has had so far, in order; of links only what they mean."""
    said = [before.hex(), *(str(values[name]) for name in _COMPARED), json.dumps(values["metadata"], sort_keys=True)]
    return hashlib.blake2b("\0".join(said).encode(), digest_size=16).digest()
