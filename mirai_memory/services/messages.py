"""Entries of conversations: in one order that never moves, counted, indexed, grouped."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, bindparam, delete, insert, or_, select, update

from mirai_memory import _checks
from mirai_memory.database.chunks import chunks
from mirai_memory.database.hot import HotLookup, HotStatement
from mirai_memory.entities import Message
from mirai_memory.errors import Conflict, InvalidInput, NotFound
from mirai_memory.models import MessageRow, SessionRow
from mirai_memory.search import Entry, Hit, MessageFilter, Query, Scope
from mirai_memory.search.terms import message_place, message_terms, microseconds
from mirai_memory.services import windows
from mirai_memory.services.appending import Appending
from mirai_memory.services.base import Service, entity_maker, with_score
from mirai_memory.services.embeddings import Embeddings, Wanted, message_text
from mirai_memory.services.leases import Leases
from mirai_memory.services.message_values import Prepared, prepare
from mirai_memory.services.places import TAKE_PLACES

MESSAGES = MessageRow.table()
SESSIONS = SessionRow.table()

_COLUMNS = [column for column in MESSAGES.c if column.name != "group_start"]
_SELECT = select(*_COLUMNS)
_SOME = HotLookup(_SELECT, MESSAGES.c.id)
_SOME_OWN = HotLookup(_SELECT.where(MESSAGES.c.user_id == bindparam("owner")), MESSAGES.c.id)
_VALUES: dict[str, Any] = {column.name: bindparam(column.name) for column in MESSAGES.c if column.name != "id"}
_INSERT = HotStatement(insert(MESSAGES).values(_VALUES))
_RETURNING_ID = HotStatement(insert(MESSAGES).values(_VALUES).returning(MESSAGES.c.id))
_TAKE = HotStatement(TAKE_PLACES)
_TAKE_OWN = HotStatement(TAKE_PLACES.where(SESSIONS.c.user_id == bindparam("owner")))


def _newest_first(*columns: ColumnElement[Any]) -> dict[tuple[bool, bool], HotStatement]:
    """Columns of a session's rows from the newest back; by whether only chat and only one owner's are wanted."""
    position = MESSAGES.c.position
    rows = select(*columns).where(MESSAGES.c.session_id == bindparam("session"), position >= bindparam("first"))
    ordered = rows.order_by(position.desc()).limit(bindparam("most"))
    chat, own = MESSAGES.c.kind == "chat", MESSAGES.c.user_id == bindparam("owner")
    conditions = {(False, False): (), (True, False): (chat,), (False, True): (own,), (True, True): (chat, own)}
    return {wanted: HotStatement(ordered.where(*condition)) for wanted, condition in conditions.items()}


_NEWEST = _newest_first(*_COLUMNS, MESSAGES.c.group_start)
_PLACES = _newest_first(MESSAGES.c.position, MESSAGES.c.group_start)
# What makes two messages with one client_id the same; a repeat may come with another timestamp or label.
_CONTENT = ("kind", "role", "name", "content", "tool_calls", "tool_call_id", "parts", "payload")


class Messages(Service):
    def add(self, message: Message) -> int:
        return self.add_many([message])[0]

    def add_many(self, messages: Sequence[Message]) -> list[int]:
        return self.add_prepared([prepare(message, self._settings, self._work.clock) for message in messages])

    def add_prepared(self, prepared: Sequence[Prepared]) -> list[int]:
        """Store all of them, each at the end of its session; ids in the order given."""
        if len(prepared) == 1:
            appended = Appending(self._work).append(prepared[0])
            if appended is not None:
                self._note_growth(prepared[0].values["session_id"], appended.position, appended.position + 1)
                return [appended.id]
        by_session: dict[str, list[int]] = defaultdict(list)
        for index, item in enumerate(prepared):
            by_session[item.values["session_id"]].append(index)
        ids: dict[int, int] = {}
        entries: list[Entry] = []
        # Sessions in one order for everybody, and the index after all of them: two batches over the same sessions
        # cannot lock each other out.
        for session_id in sorted(by_session):
            indexes = by_session[session_id]
            ids.update(zip(indexes, self._add_to(session_id, [prepared[i] for i in indexes], entries), strict=True))
        if entries:
            self._index.add(self._db, "message", entries)
            self._want_vectors(entries, prepared, ids)
        return [ids[index] for index in range(len(prepared))]

    def _want_vectors(self, entries: list[Entry], prepared: Sequence[Prepared], ids: dict[int, int]) -> None:
        if self._work.model is None:
            return
        texts = {
            ids[index]: message_text(item.values["content"], item.values["name"]) for index, item in enumerate(prepared)
        }
        Embeddings(self._work).want("message", [Wanted(e.id, e.user_id, texts[e.id]) for e in entries])

    def _add_to(self, session_id: str, prepared: list[Prepared], entries: list[Entry]) -> list[int]:
        if not any(item.values["client_id"] for item in prepared):
            return self._append(session_id, prepared, entries)
        return self._add_named(session_id, prepared, entries)

    def _add_named(self, session_id: str, prepared: list[Prepared], entries: list[Entry]) -> list[int]:
        """Messages with a ``client_id`` of which some may be stored already, or come twice in one batch."""
        names = [item.values["client_id"] for item in prepared]
        known = self._known(session_id, [name for name in names if name is not None])
        stored = {name: values["id"] for name, values in known.items()}
        new: list[Prepared] = []
        for name, item in zip(names, prepared, strict=True):
            if name is not None and name in known:
                _check_repeat(item, known[name])
                continue
            new.append(item)
            if name is not None:
                known[name] = item.values
        added = iter(self._append(session_id, new, entries) if new else [])
        ids = []
        for name in names:
            if name is None or name not in stored:
                id = next(added)
                stored |= {} if name is None else {name: id}
            else:
                id = stored[name]
            ids.append(id)
        return ids

    def _known(self, session_id: str, client_ids: list[str]) -> dict[str, dict[str, Any]]:
        """Stored messages by client_id; the session's row is held, so that none is added meanwhile."""
        self._hold_session(session_id)
        columns = (MESSAGES.c.id, MESSAGES.c.client_id, *(MESSAGES.c[name] for name in _CONTENT))
        found: dict[str, dict[str, Any]] = {}
        for chunk in chunks(client_ids):
            condition = (MESSAGES.c.session_id == session_id) & MESSAGES.c.client_id.in_(chunk)
            for row in self._db.execute(select(*columns).where(condition)):
                found[row.client_id] = dict(row._mapping)
        return found

    def _append(self, session_id: str, prepared: list[Prepared], entries: list[Entry]) -> list[int]:
        next_position, owner = self._take_places(session_id, len(prepared))
        first = next_position - len(prepared)
        self._note_growth(session_id, first, next_position)
        rows = []
        for position, item in enumerate(prepared, first):
            if item.values["user_id"] not in (None, owner):
                raise InvalidInput("user_id", "is not the owner of the session; leave it out")
            rows.append({**item.values, "user_id": owner, "position": position, "group_start": position})
        self._open_groups(session_id, rows)
        ids = self._insert(session_id, rows, first)
        for position, (id, item) in enumerate(zip(ids, prepared, strict=True), first):
            entry = item.entry(id, owner, position)
            if entry is not None:
                entries.append(entry)
        return ids

    def _note_growth(self, session_id: str, first: int, next_position: int) -> None:
        """At every so many places that are taken, as many messages may have left the window."""
        step = self._settings.short_term.max_messages
        if (next_position - 1) // step > (first - 1) // step:
            self._work.grown.add(session_id)

    def _take_places(self, session_id: str, places: int) -> tuple[int, str]:
        values = {"session": session_id, "places": places, "now": self._now()}
        statement = _TAKE if self._owner is None else _TAKE_OWN
        for next_position, owner in statement.tuples(self._db, {**values, "owner": self._owner}):
            return next_position, owner
        raise NotFound("session", session_id)

    def _open_groups(self, session_id: str, rows: list[dict[str, Any]]) -> None:
        """Set ``group_start`` of results to the place of the call they answer, in this batch or stored before."""
        opened: dict[str, int] = {}
        for row in rows:
            answered = windows.answers(row["kind"], row["tool_call_id"], row["payload"])
            if answered is not None:
                place = opened[answered] if answered in opened else self._opener(session_id, answered)
                row["group_start"] = row["position"] if place is None else place
            for id in windows.calls(row["kind"], row["tool_calls"], row["payload"]):
                opened[id] = row["position"]

    def _opener(self, session_id: str, call_id: str) -> int | None:
        """The place of the latest stored message that makes this call; nearly always one of the newest."""
        makes_calls = or_(MESSAGES.c.tool_calls.is_not(None), MESSAGES.c.kind == "item")
        statement = (
            select(MESSAGES.c.position, MESSAGES.c.kind, MESSAGES.c.tool_calls, MESSAGES.c.payload)
            .where(MESSAGES.c.session_id == session_id, makes_calls)
            .order_by(MESSAGES.c.position.desc())
        )
        with self._db.execute(statement) as result:
            for row in result:
                if call_id in windows.calls(row.kind, row.tool_calls, row.payload):
                    return int(row.position)
        return None

    def _insert(self, session_id: str, rows: list[dict[str, Any]], first: int) -> list[int]:
        if len(rows) == 1:
            return [id for (id,) in _RETURNING_ID.tuples(self._db, rows[0])]
        _INSERT.many(self._db, rows)
        condition = (MESSAGES.c.session_id == session_id) & (MESSAGES.c.position >= first)
        return list(self._db.execute(select(MESSAGES.c.id).where(condition).order_by(MESSAGES.c.position)).scalars())

    def get(self, message_id: int) -> Message | None:
        row = self._row(message_id)
        return to_message(row) if row else None

    def _row(self, message_id: int) -> Row[Any] | None:
        id = _checks.row_id("message_id", message_id)
        return self._db.execute(self._own(_SELECT, MESSAGES.c.user_id).where(MESSAGES.c.id == id)).first()

    def _held_row(self, message_id: int) -> Row[Any]:
        """The message that is to be changed; the session first, as all do who change its messages. Raises NotFound."""
        seen = self._row(message_id)
        if seen is not None:
            with suppress(NotFound):  # it went, and the message with it
                self._hold_session(seen.session_id)
                row = self._row(message_id)
                if row is not None:
                    return row
        raise NotFound("message", message_id)

    def update(self, message_id: int, content: str) -> Message:
        """Replace the text; ``parts`` and ``tokens``, which described the old one, go."""
        values = {"content": _checks.text("content", content, limit=self._settings.max_content_chars)}
        row = self._held_row(message_id)
        if row.kind != "chat":
            raise InvalidInput("message_id", "names a message of kind 'item', which is kept exactly as it came")
        changed = update(MESSAGES).where(MESSAGES.c.id == row.id).values(**values, parts=None, tokens=None)
        self._db.execute(changed)
        Leases(self._work).message_changed(row.session_id, row.position)
        self._forget_projections("message", [row.id])
        terms = message_terms(content, row.name, row.timestamp)
        place = message_place(content, row.name, row.role, row.timestamp, row.session_id, row.position)
        self._index.add(self._db, "message", [Entry(row.id, row.user_id, terms, place)])
        Embeddings(self._work).want("message", [Wanted(row.id, row.user_id, message_text(content, row.name))])
        return replace(to_message(row), content=content, parts=None, tokens=None)

    def delete(self, message_id: int) -> None:
        row = self._held_row(message_id)
        self._delete(row.session_id, [row.id])
        Leases(self._work).message_changed(row.session_id, row.position)

    def pop(self, session_id: str) -> Message | None:
        """Take the newest message out; None from an empty session."""
        id = self._hold_session(session_id)
        newest = _SELECT.where(MESSAGES.c.session_id == id).order_by(MESSAGES.c.position.desc()).limit(1)
        row = self._db.execute(newest).first()
        if row is None:
            return None
        self._delete(id, [row.id])
        Leases(self._work).message_changed(id, row.position)
        return to_message(row)

    def trim(self, session_id: str, keep: int, *, summarized_only: bool = False) -> int:
        """Delete all but the newest ``keep`` in whole groups, or of these what the summary tells; how many went."""
        id = self._hold_session(session_id)
        here = MESSAGES.c.session_id == id
        statement = select(MESSAGES.c.id).where(here, MESSAGES.c.position < self.rest_begins(id, keep))
        if summarized_only:
            through = select(SESSIONS.c.summarized_through).where(SESSIONS.c.id == id).scalar_subquery()
            statement = statement.where(MESSAGES.c.position <= through)
        return self._delete(id, list(self._db.execute(statement).scalars()))

    def rest_begins(self, session_id: str, keep: int, *, chat: bool = False) -> int:
        """The position of the first message that is kept when ``keep`` are; behind all, where none is."""
        start = self._window_start(session_id, keep, chat=chat)
        if start is not None or keep:
            return start or 0
        return self._db.execute(select(SESSIONS.c.next_position).where(SESSIONS.c.id == session_id)).scalar() or 0

    def _delete(self, session_id: str, ids: list[int]) -> int:
        self._forget_projections("message", ids)
        gone = sum(self._db.execute(delete(MESSAGES).where(MESSAGES.c.id.in_(chunk))).rowcount for chunk in chunks(ids))
        if gone:
            fewer = update(SESSIONS).where(SESSIONS.c.id == session_id)
            self._db.execute(fewer.values(message_count=SESSIONS.c.message_count - gone))
        return gone

    def recent(self, session_id: str, limit: int) -> list[Message]:
        """The window: the newest messages in whole groups, oldest first."""
        rows, _ = self._window(session_id, limit, chat=False)
        return [to_message(row) for row in reversed(rows)]

    def newest_groups(self, session_id: str, limit: int) -> tuple[list[list[Message]], Message | None]:
        """The window of chat messages as groups, newest first, and the message before it, which the limit left out."""
        rows, older = self._window(session_id, limit, chat=True)
        groups, end = [], 0
        for size in windows.whole_groups([(row.position, row.group_start) for row in rows]):
            groups.append([to_message(row) for row in reversed(rows[end : end + size])])
            end += size
        return groups, to_message(older) if older else None

    def _window(self, session_id: str, limit: int, *, chat: bool) -> tuple[Sequence[Any], Any | None]:
        """The rows of the window, newest first, and the row before it."""
        id = _checks.name("session_id", session_id)
        rows = self._newest(_NEWEST, id, limit + 1, chat=chat)
        start = _start(rows, limit) if len(rows) <= limit else _start(rows[:-1], limit, rows[-1].position)
        if rows and start is None and limit:
            start = self._window_start(id, limit, chat=chat)
            size = len(self._newest(_PLACES, id, _checks.MAX_INTEGER, chat=chat, first=start or 0))
            rows = self._newest(_NEWEST, id, size + 1, chat=chat)
        inside = [row for row in rows if start is not None and row.position >= start]
        return inside, rows[len(inside)] if len(rows) > len(inside) else None

    def _newest(
        self,
        statements: dict[tuple[bool, bool], HotStatement],
        session_id: str,
        limit: int,
        *,
        chat: bool,
        first: int = 0,
    ) -> Sequence[Any]:
        values = {"session": session_id, "owner": self._owner, "most": limit, "first": first}
        return statements[chat, self._owner is not None].rows(self._db, values)

    def _window_start(self, session_id: str, limit: int, *, chat: bool = False) -> int | None:
        """The first position of the window, reading only as far back as its groups go."""
        if not limit:
            return None
        wanted = limit
        while True:
            rows = self._newest(_PLACES, session_id, wanted + 1, chat=chat)
            ended = len(rows) <= wanted
            start = _start(rows if ended else rows[:-1], limit, None if ended else rows[-1].position)
            if start is not None or ended:
                return start
            wanted *= 4

    def page(self, session_id: str, *, limit: int, after: int | None = None) -> list[Message]:
        """One page in order. Ids of a session grow with its positions, so that a deleted ``after`` still holds."""
        id = _checks.name("session_id", session_id)
        statement = self._own(_SELECT, MESSAGES.c.user_id).where(MESSAGES.c.session_id == id)
        if after is not None:
            statement = statement.where(MESSAGES.c.id > _checks.after(after))
        return [to_message(row) for row in self._db.execute(statement.order_by(MESSAGES.c.position).limit(limit))]

    def search(
        self,
        query: Query | str,
        *,
        limit: int,
        session_id: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        explain: bool = False,
    ) -> list[Message]:
        """The best matches, best first; of one session and of a span of time [since, until) where given."""
        only = MessageFilter(
            session_id=None if session_id is None else _checks.name("session_id", session_id),
            since=None if since is None else microseconds(_checks.moment("since", since)),
            until=None if until is None else microseconds(_checks.moment("until", until)),
        )
        scope = Scope.of(self._owner)
        hits = self._index.messages(
            self._db, Query.of(query), scope, limit=limit, only=only, shared=not self._work.writing
        )
        return self._found(hits, explain)

    def _found(self, hits: Sequence[Hit], explain: bool) -> list[Message]:
        """Ids of an index are joined with the owner's rows, whatever the index says."""
        ids = [hit.id for hit in hits]
        found = (_SOME if self._owner is None else _SOME_OWN).rows(self._db, ids, {"owner": self._owner})
        rows = {row.id: row for row in found}
        return [with_score(to_message(rows[hit.id]), hit, explain) for hit in hits if hit.id in rows]


def _start(rows: Sequence[Any], limit: int, older: int | None = None) -> int | None:
    return windows.window_start([(row.position, row.group_start) for row in rows], limit, older)


def _check_repeat(item: Prepared, stored: dict[str, Any]) -> None:
    if any(item.values[name] != stored[name] for name in _CONTENT):
        raise Conflict("message", item.values["client_id"], "this client_id is stored with other content")


to_message = entity_maker(Message, [column.name for column in _COLUMNS])
