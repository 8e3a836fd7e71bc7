"""One owner, deleted with everything that is theirs, a batch at a time; any batch may be the last of a process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from sqlalchemy import delete, func, insert, select, update

from mirai_memory.database.chunks import chunks
from mirai_memory.models import EmbeddingRow, KnowledgeRow, MessageRow, PreferencesRow, SessionRow, StateRow, TaskRow
from mirai_memory.services.retention import Retention, Room

EMBEDDINGS = EmbeddingRow.table()
KNOWLEDGE = KnowledgeRow.table()
MESSAGES = MessageRow.table()
PREFERENCES = PreferencesRow.table()
SESSIONS = SessionRow.table()
STATE = StateRow.table()
TASKS = TaskRow.table()

_CHARACTERS = 1 << 19  # of one batch
# In ``memory_state`` from the first row that goes until the engine has let go of what it had of it: a process that is
# killed in between leaves it to the next.
_MARK = "leftovers"


class Erasing(Retention):
    def counts(self, user_id: str) -> Counter[str]:
        """How many rows of each kind are the owner's."""
        sessions = SESSIONS.c.user_id == user_id
        own = {"tasks": TASKS, "knowledge": KNOWLEDGE, "preferences": PREFERENCES, "embeddings": EMBEDDINGS}
        counted = Counter(
            {
                name: self._number(select(func.count()).select_from(table).where(table.c.user_id == user_id))
                for name, table in own.items()
            }
        )
        messages = select(func.coalesce(func.sum(SESSIONS.c.message_count), 0)).where(sessions)
        summaries = select(func.count(SESSIONS.c.summary)).where(sessions)
        counted["sessions"] = self._number(select(func.count()).select_from(SESSIONS).where(sessions))
        counted["messages"], counted["summaries"] = self._number(messages), self._number(summaries)
        counted["unlinked_facts"] = len(self.linked_facts(user_id))
        return counted

    def linked_facts(self, user_id: str) -> list[int]:
        """Facts of all, and of others, that were learned from the owner's messages."""
        # From the facts, which are few, to the messages: a join may be read the other way round.
        source = select(MESSAGES.c.user_id).where(MESSAGES.c.id == KNOWLEDGE.c.message_id).scalar_subquery()
        linked = KNOWLEDGE.c.message_id.is_not(None) & (KNOWLEDGE.c.user_id != user_id)
        return list(self._db.execute(select(KNOWLEDGE.c.id).where(linked, source == user_id)).scalars())

    def stray_messages(self, user_id: str, *, rows: int) -> list[int]:
        """Messages of the owner's in sessions that are not: there are none, unless the file was damaged.

        No index finds them; every row is read.
        """
        return list(self._db.execute(select(MESSAGES.c.id).where(MESSAGES.c.user_id == user_id).limit(rows)).scalars())

    def unlink(self, facts: Sequence[int]) -> Counter[str]:
        """The facts no longer name the message they were learned from; how many they were."""
        gone = 0
        for chunk in chunks(facts):
            linked = update(KNOWLEDGE).where(KNOWLEDGE.c.id.in_(chunk), KNOWLEDGE.c.message_id.is_not(None))
            gone += self._db.execute(linked.values(message_id=None)).rowcount
        return self._marked(Counter(unlinked_facts=gone))

    def erase_messages(self, ids: Sequence[int]) -> Counter[str]:
        """Delete messages by id, whoever's session they are in."""
        gone = Counter(embeddings=self._forget_all("message", ids))
        for chunk in chunks(ids):
            whose = delete(MESSAGES).where(MESSAGES.c.id.in_(chunk)).returning(MESSAGES.c.session_id)
            for session_id, count in Counter(self._db.execute(whose).scalars()).items():
                fewer = {"message_count": SESSIONS.c.message_count - count}
                self._db.execute(update(SESSIONS).where(SESSIONS.c.id == session_id).values(fewer))
                gone["messages"] += count
        return self._marked(gone)

    def erase(self, user_id: str, *, rows: int) -> Counter[str]:
        """Delete about so many of the owner's rows; how many of each kind. Nothing is left where nothing went."""
        for step in (self._sessions, self._tasks, self._facts, self._rest):
            gone = +step(user_id, rows)
            if gone:
                return self._marked(gone)
        return Counter()

    def _sessions(self, user_id: str, rows: int) -> Counter[str]:
        """Messages, tasks, summaries: a session goes with the last of its own."""
        own = select(SESSIONS.c.id, SESSIONS.c.summary.is_not(None).label("summarized"))
        held = own.where(SESSIONS.c.user_id == user_id).order_by(SESSIONS.c.id).limit(rows).with_for_update()
        gone: Counter[str] = Counter()
        room = Room(rows, _CHARACTERS)
        for session in self._db.execute(held).all():
            swept = self._sweep_session(session.id, room)
            gone += swept
            gone["summaries"] += bool(swept["sessions"] and session.summarized)
            if room.is_full or not swept["sessions"]:
                break
        return gone

    def _tasks(self, user_id: str, rows: int) -> Counter[str]:
        own = select(TASKS.c.id).where(TASKS.c.user_id == user_id).limit(rows)
        return Counter(tasks=self._delete(TASKS, list(self._db.execute(own).scalars())))

    def _facts(self, user_id: str, rows: int) -> Counter[str]:
        """The oldest first: what is left at any moment still names only what is there."""
        self._index.hold(self._db, "knowledge", {user_id})
        own = select(KNOWLEDGE.c.id).where(KNOWLEDGE.c.user_id == user_id).order_by(KNOWLEDGE.c.id).limit(rows)
        ids = list(self._db.execute(own.with_for_update()).scalars())
        vectors = self._forget_all("knowledge", ids)
        return Counter(embeddings=vectors, knowledge=self._delete(KNOWLEDGE, ids))

    def _rest(self, user_id: str, rows: int) -> Counter[str]:
        """What one has once, and what belongs to no row any more."""
        own = delete(PREFERENCES).where(PREFERENCES.c.user_id == user_id)
        vectors = select(EMBEDDINGS.c.id).where(EMBEDDINGS.c.user_id == user_id).limit(rows)
        return Counter(
            preferences=self._db.execute(own).rowcount,
            embeddings=self._delete(EMBEDDINGS, list(self._db.execute(vectors).scalars())),
            index_rows=self._index.forget(self._db, user_id, limit=rows),
        )

    def _marked(self, gone: Counter[str]) -> Counter[str]:
        if gone.total() and not self.has_leftovers():
            self._db.execute(insert(STATE).values(name=_MARK, value="1"))
        return gone

    def has_leftovers(self) -> bool:
        """Whether the engine may still have bytes of what was deleted."""
        return self._db.execute(select(STATE.c.value).where(STATE.c.name == _MARK)).first() is not None

    def no_leftovers(self) -> None:
        self._db.execute(delete(STATE).where(STATE.c.name == _MARK))
