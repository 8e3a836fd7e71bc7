"""Sessions and their messages on their way in: a session that is here already goes on, or stays as it is."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, and_, insert, select, update

from mirai_memory.database.hot import BulkInsert
from mirai_memory.models import MessageRow, SessionRow
from mirai_memory.search import Entry
from mirai_memory.search.terms import message_place, message_terms
from mirai_memory.services.embeddings import Embeddings, Wanted, message_text
from mirai_memory.services.incoming import Batch, Incoming, Record

MESSAGES = MessageRow.table()
SESSIONS = SessionRow.table()

_INSERT = BulkInsert(MESSAGES)
_LONGEST_ID = 200  # of an id that is made longer
_MADE = re.compile(r"~[0-9a-f]{16}\Z")
_SAME_SESSION = ("external_id", "agent_id", "created_at", "metadata")
_OUTSIDE = frozenset({"id", "session_id", "user_id", "position", "group_start"})
_SAME_MESSAGE = [column.name for column in MESSAGES.c if column.name not in _OUTSIDE]


@dataclass(slots=True)
class _Session:
    """The session whose messages come now. ``stored`` is the one that was here; ``id`` None: not stored (yet)."""

    line: int
    values: dict[str, Any]
    stored: Row[Any] | None = None
    id: str | None = None
    added: int = 0
    differing: int = 0
    left_out: int = 0
    deleted: int = 0


class IncomingSessions(Incoming):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        # The ids here of the file's sessions; None where the session stayed out.
        self.ids: dict[str, str | None] = {}
        # Those of which a message differs: nothing of the file can be told to mean a message here.
        self.unlike: set[str] = set()
        self._now_open: _Session | None = None
        self._new, self._compared = Batch(), Batch()

    def take_session(self, record: Record) -> None:
        self._end()
        current = self._now_open = _Session(record.line, record.values, self._stored(record.values))
        if current.stored is not None:
            current.id = current.stored.id
            self._count("sessions_there")
            if any(current.stored._mapping[name] != record.values[name] for name in _SAME_SESSION):
                self._tally.conflict(record.line, "session", "is here with other values, which stay")
        elif self._is_old(record.values["created_at"]):
            self._count("erased")  # unless a message that is newer needs a session: then one that tells nothing
        else:
            self._make(current, record.values)
        self.ids[record.values["id"]] = current.id

    def take_message(self, record: Record) -> None:
        current = self._now_open
        assert current is not None
        if self._is_old(record.values["timestamp"]):
            return self._count("erased")
        if current.stored is not None:
            if self._compared.add(record):
                self._compare()
            return None
        if current.id is None:
            self._make_bare(current)
        return self._append(current, record)

    def finish(self) -> None:
        self._end()
        self._now_open = None
        self._insert()

    def _stored(self, values: dict[str, Any]) -> Row[Any] | None:
        """The owner's session that this one is, held: of its id, of an id that was made of it, or else of its name."""
        ids = [values["id"], self._made_id(values["id"]), _base(values["id"])]
        # Asked for by id alone: told whose it must be, too, the engine may read all sessions of the owner.
        alike = self._db.execute(select(SESSIONS).where(SESSIONS.c.id.in_(set(ids))).with_for_update())
        rows = {row.id: row for row in alike if row.user_id == self._whose}
        found = next((rows[id] for id in ids if id in rows), None)
        if found is not None or values["external_id"] is None:
            return found
        named = (SESSIONS.c.user_id == self._whose) & (SESSIONS.c.external_id == values["external_id"])
        return self._db.execute(select(SESSIONS).where(named).with_for_update()).first()

    def _made_id(self, id: str) -> str:
        base = _base(id)
        digest = hashlib.blake2b(f"{self._whose}\0{base}".encode(), digest_size=8).hexdigest()
        return f"{base[:_LONGEST_ID]}~{digest}"

    def _free_id(self, id: str) -> str:
        """The session's own id, if nobody has it. One owner is not told whether somebody has: theirs is made longer."""
        if self._owner is None and not self._db.execute(select(SESSIONS.c.id).where(SESSIONS.c.id == id)).first():
            return id
        return self._made_id(id)

    def _make(self, current: _Session, values: dict[str, Any]) -> None:
        current.id = self._free_id(values["id"])
        self._db.execute(insert(SESSIONS), {**values, "id": current.id, "message_count": 0})
        self._count("sessions_added")

    def _make_bare(self, current: _Session) -> None:
        """A session from before the erasure, for messages from after it: without its name and what it was about."""
        wanted = ("user_id", "created_at", "last_active", "next_position", "learned_through")
        bare = {name: current.values[name] for name in wanted}
        self._count("erased", -1)
        self._make(current, {**bare, "id": current.values["id"], "metadata": {}})
        self.ids[current.values["id"]] = current.id

    def _append(self, current: _Session, record: Record) -> None:
        current.added += 1
        placed = {**record.values, "session_id": current.id}
        if self._new.add(Record(record.line, record.kind, placed)):
            self._insert()

    def _insert(self) -> None:
        rows = [record.values for record in self._new.take()]
        if not rows:
            return
        self._count("messages_added", len(rows))
        ids = _INSERT.ids(self._db, rows)
        chat = [(id, row) for id, row in zip(ids, rows, strict=True) if row["kind"] == "chat"]
        self._index.add(self._db, "message", [_entry(id, row) for id, row in chat])
        wanted = [Wanted(id, row["user_id"], message_text(row["content"], row["name"])) for id, row in chat]
        Embeddings(self._work).want("message", wanted)

    def _compare(self) -> None:
        current, records = self._now_open, self._compared.take()
        if not records:
            return
        assert current is not None
        assert current.stored is not None
        first, last = records[0].values["position"], records[-1].values["position"]
        here = and_(MESSAGES.c.session_id == current.id, MESSAGES.c.position.between(first, last))
        stored = {row.position: row._mapping for row in self._db.execute(select(MESSAGES).where(here))}
        for record in records:
            row = stored.get(record.values["position"])
            if row is not None and all(row[name] == record.values[name] for name in _SAME_MESSAGE):
                self._count("messages_there")
            elif row is not None:
                current.differing += 1
            elif record.values["position"] < current.stored.next_position:
                current.deleted += 1
            elif current.differing:
                current.left_out += 1  # what was said here meanwhile stands in its place
            else:
                self._append(current, record)

    def _end(self) -> None:
        """All messages of the session have come."""
        self._compare()
        current = self._now_open
        if current is None:
            return
        if current.differing:
            self.unlike.add(current.values["id"])
            reason = f"{current.differing} of its messages are others here, which stay"
            lost = current.differing + current.left_out
            self._tally.conflict(current.line, "session", reason, not_imported=lost)
        if current.deleted:
            reason = f"{current.deleted} of its messages were deleted here, and stay deleted"
            self._tally.conflict(current.line, "session", reason, not_imported=current.deleted)
        if current.added:
            changes = {"message_count": SESSIONS.c.message_count + current.added, **_grown(current)}
            self._db.execute(update(SESSIONS).where(SESSIONS.c.id == current.id).values(changes))


def _grown(current: _Session) -> dict[str, Any]:
    if current.stored is None:
        return {}
    names = ("next_position", "last_active")
    return {name: max(current.stored._mapping[name], current.values[name]) for name in names}


def _base(id: str) -> str:
    """An id without what was added to it here or elsewhere."""
    return _MADE.sub("", id)


def _entry(id: int, row: dict[str, Any]) -> Entry:
    content, name, timestamp = row["content"], row["name"], row["timestamp"]
    place = message_place(content, name, row["role"], timestamp, row["session_id"], row["position"])
    return Entry(id, row["user_id"], message_terms(content, name, timestamp), place)
