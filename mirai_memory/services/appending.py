"""One message stored, counted and indexed by one statement, on an engine that has such statements.

A server is asked once instead of five times, and keeps the rows that others wait for (the session's, the owner's part
of the index) for that much less.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from sqlalchemy import CTE, BigInteger, Select, bindparam, insert, literal, literal_column, select

from mirai_memory.models import EmbeddingRow, MessageRow, SessionRow
from mirai_memory.search import SearchIndex
from mirai_memory.services.base import Service
from mirai_memory.services.embeddings import content_hash, message_text
from mirai_memory.services.message_values import Prepared
from mirai_memory.services.places import TAKE_PLACES

_MESSAGES = MessageRow.table()
_SESSIONS = SessionRow.table()
_EMBEDDINGS = EmbeddingRow.table()
_TAKEN = ("id", "session_id", "user_id", "position", "group_start")
_GIVEN = [column.name for column in _MESSAGES.c if column.name not in _TAKEN]
# By whether an owner is asked for, and whether a vector is wanted. Put together once, and the same for every database.
_statements: dict[tuple[bool, bool], Select[Any]] = {}


class Appended(NamedTuple):
    id: int
    position: int


class Appending(Service):
    def append(self, item: Prepared) -> Appended | None:
        """Store the message at the end of its session; None, and nothing done, where that takes more statements."""
        values, owner = item.values, self._owner
        if item.terms is None or item.place is None or values["client_id"] or values["tool_call_id"]:
            return None
        if values["user_id"] is not None:
            if owner not in (None, values["user_id"]):
                return None
            owner = values["user_id"]
        indexed = self._index.append_values(item.terms, item.place)
        if indexed is None:
            return None
        wants_vector = self._work.model is not None
        variant = (owner is not None, wants_vector)
        if variant not in _statements:
            _statements[variant] = _statement(self._index, owned=variant[0], wants_vector=wants_vector)
        given: dict[str, Any] = {f"new_{name}": values[name] for name in _GIVEN}
        given |= {"session": values["session_id"], "places": 1, "now": self._now(), "owner": owner} | indexed
        if wants_vector:
            text = message_text(values["content"], values["name"])
            given |= {"wanted_model": self._work.model, "wanted_hash": content_hash(text)}
        row = self._db.execute(_statements[variant], given).first()
        return None if row is None else Appended(row.id, row.position)


def _statement(index: SearchIndex, *, owned: bool, wants_vector: bool) -> Select[Any]:
    take = TAKE_PLACES.where(_SESSIONS.c.user_id == bindparam("owner")) if owned else TAKE_PLACES
    taken = take.cte("taken")
    position = taken.c.next_position - literal_column("1", BigInteger)
    given = [bindparam(f"new_{name}", type_=_MESSAGES.c[name].type) for name in _GIVEN]
    session: Any = bindparam("session", type_=_SESSIONS.c.id.type)
    row = select(session, taken.c.user_id, position, position, *given)
    names = ["session_id", "user_id", "position", "group_start", *_GIVEN]
    columns = (_MESSAGES.c.id, _MESSAGES.c.user_id, _MESSAGES.c.position)
    stored = insert(_MESSAGES).from_select(names, row).returning(*columns).cte("stored")
    wanted = [_wanted(stored)] if wants_vector else []
    return select(stored.c.id, stored.c.position).add_cte(*index.append_parts(stored), *wanted)


def _wanted(stored: CTE) -> CTE:
    """The row that asks for the message's vector."""
    values: Mapping[str, Any] = {
        "kind": literal("message"),
        "item_id": stored.c.id,
        "user_id": stored.c.user_id,
        "model": bindparam("wanted_model", type_=_EMBEDDINGS.c.model.type),
        "dim": literal(0, BigInteger),
        "content_hash": bindparam("wanted_hash", type_=_EMBEDDINGS.c.content_hash.type),
        "status": literal("pending"),
    }
    return insert(_EMBEDDINGS).from_select(list(values), select(*values.values())).cte("wanted")
