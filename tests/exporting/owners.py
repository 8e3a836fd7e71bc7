"""One owner's memory: filled with something of everything, looked at row by row, and as the lines of a file."""

from __future__ import annotations

import hashlib
import json
from io import BytesIO
from typing import Any

from sqlalchemy import select, update

from mirai_memory import Knowledge, MemoryManager, Message, Task, UnitOfWork, UserPreferences
from mirai_memory.models import Base, SessionRow
from mirai_memory.search.postings import PLACES, SCOPES, WORDS
from mirai_memory.testing.clock import FrozenClock

Line = dict[str, Any]
TABLES = Base.metadata.tables


def fill(memory: MemoryManager, clock: FrozenClock, owner: str = "alice") -> None:
    """Something of everything that an owner can have."""
    first = memory.ensure_session(owner, "chat", agent_id="agent", metadata={"a": [1, 2.5, None, {"ё": "🦭"}]}).id
    clock.advance(minutes=1)
    ids = memory.add_messages([_said(first, f"walrus {number}") for number in range(4)])
    memory.delete_message(ids[1])
    called = [{"id": "call-1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    memory.add_messages(
        [
            Message(session_id=first, role="assistant", tool_calls=called, model="m", tokens=7, name="Bot"),
            Message(session_id=first, role="tool", tool_call_id="call-1", content="result"),
            Message(session_id=first, kind="item", payload={}),
            Message(session_id=first, kind="item", payload={"type": "reasoning", "x": 2**70}),
            Message(session_id=first, role="user", content="\u2028 Ещё\r\n", parts=[{"type": "text"}], client_id="c-1"),
        ]
    )
    last = memory.add_message(_said(first, "gone at the end"))
    memory.delete_message(last)
    clock.advance(minutes=1)
    memory.create_session(owner)
    memory.save_user_preferences(UserPreferences(user_id=owner, coding_style="terse", favorite_tools=["vim", ""]))
    memory.update_user_preferences(owner, metadata={"x": {}})
    memory.add_task(Task(session_id=first, description="in a session", metadata={"t": 1}))
    done = memory.add_task(Task(user_id=owner, description="alone", client_id="task-1"))
    memory.update_task_status(done, "completed", "well")
    for _ in range(2):
        memory.add_task(Task(user_id=owner, description="twice the same"))
    learn(memory, clock, owner, ids[2])
    _summarize(memory, first)


def _said(session: str, content: str) -> Message:
    return Message(session_id=session, role="user", content=content)


def learn(memory: MemoryManager, clock: FrozenClock, owner: str, message: int) -> None:
    """Facts of every kind: superseded, closed, expiring, true only later, learned from a message, with vectors."""
    given: dict[str, Any] = {"embedding": [0.5, -1.0, 2.0], "embedding_model": "given"}
    memory.add_knowledge(Knowledge(user_id=owner, key="city", value="Perm", message_id=message, **given))
    memory.add_knowledge(Knowledge(user_id=owner, key="drink", value="tea", confidence=0.25, source="chat"))
    clock.advance(hours=1)
    memory.add_knowledge(Knowledge(user_id=owner, key="city", value="Ufa", source_kind="document"))
    clock.advance(hours=1)
    memory.add_knowledge(Knowledge(user_id=owner, key="city", value="Omsk", **given))
    now = clock()
    past, future = now.replace(year=2020), now.replace(year=2030)
    memory.add_knowledge(Knowledge(user_id=owner, key="city", value="Kazan", valid_from=past, valid_to=now))
    memory.add_knowledge(Knowledge(user_id=owner, value="no key of its own", category="c", expires_at=future))
    memory.add_knowledge(Knowledge(user_id=owner, key="job", value="cook", metadata={"m": 1}))
    memory.add_knowledge(Knowledge(user_id=owner, key="job", value="pilot", valid_from=future))
    memory.add_knowledge(Knowledge(value="shared", key="shared", message_id=message))


def _summarize(memory: MemoryManager, session: str) -> None:
    """Nothing writes summaries yet; their columns are there, and an export has them."""
    values = {
        "summary": "of walruses",
        "summarized_through": 2,
        "summary_method": "m",
        "summary_tokens": 3,
        "summary_source_tokens": 30,
        "learned_through": 4,
    }
    table = SessionRow.table()
    memory.run(lambda uow: uow.db.execute(update(table).where(table.c.id == session).values(values)))


def rows(memory: MemoryManager, owner: str = "alice") -> dict[str, Any]:
    """Every row of the owner, the word index and given vectors among them; ids as numbers of their order."""
    return memory._store.read(lambda uow: _rows(uow, owner))


def _rows(uow: UnitOfWork, owner: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, order in (
        ("sessions", ("created_at", "id")),
        ("messages", ("session_id", "position")),
        ("user_preferences", ("user_id",)),
        ("tasks", ("id",)),
        ("knowledge", ("id",)),
        ("embeddings", ("kind", "item_id", "model")),
    ):
        table = TABLES[name]
        statement = select(table).where(table.c.user_id == owner).order_by(*(table.c[key] for key in order))
        found[name] = [dict(row._mapping) for row in uow.db.execute(statement)]
    numbers = {
        name: {row["id"]: number for number, row in enumerate(found[name])}
        for name in ("messages", "tasks", "knowledge")
    }
    of_kind = {"message": numbers["messages"], "knowledge": numbers["knowledge"]}
    for row in found["knowledge"]:
        row["superseded_by"] = numbers["knowledge"].get(row["superseded_by"])
        row["message_id"] = numbers["messages"].get(row["message_id"])
    for row in found["embeddings"]:
        row["item_id"] = of_kind[row["kind"]][row["item_id"]]
    for name in ("messages", "tasks", "knowledge", "embeddings"):
        for row in found[name]:
            del row["id"]
    return {**found, **_index(uow, owner, of_kind)}


def _index(uow: UnitOfWork, owner: str, numbers: dict[str, dict[int, int]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for scope in uow.db.execute(select(SCOPES).where(SCOPES.c.user_id == owner).order_by(SCOPES.c.kind)):
        words, number = WORDS[scope.kind], numbers[scope.kind]
        found[f"counts of {scope.kind}"] = (scope.item_count, scope.term_count)
        indexed = uow.db.execute(select(words.c.rowid, words.c.terms)).all()
        found[f"words of {scope.kind}"] = sorted(
            (number[row.rowid], row.terms.replace(f"@{scope.id} ", "@ "))
            for row in indexed
            if row.terms.startswith(f" @{scope.id} ")
        )
        placed = uow.db.execute(select(PLACES).where(PLACES.c.scope == scope.id))
        if scope.kind == "message":
            placed = uow.db.execute(select(PLACES).where(PLACES.c.scope == scope.id))
            found["places"] = sorted((number[row.id], *row[2:]) for row in placed)
    # A scope that nothing is left of is as good as none.
    return {name: value for name, value in found.items() if value not in ([], (0, 0))}


def exported(memory: MemoryManager, owner: str = "alice") -> bytes:
    file = BytesIO()
    memory.export_user(owner, file)
    return file.getvalue()


def lines(written: bytes) -> list[Line]:
    """All but the end line."""
    return [json.loads(line) for line in written.split(b"\n")[:-2]]


def sealed(records: list[Line], **end: Any) -> bytes:
    """A file of these lines, with the end line that belongs to them, but for what is given of it."""
    written = "".join(f"{json.dumps(record)}\n" for record in records).encode()
    kinds = [record.get("type") for record in records]
    names = {
        "preferences": "preferences",
        "session": "sessions",
        "message": "messages",
        "task": "tasks",
        "fact": "facts",
    }
    counts = {name: kinds.count(kind) for kind, name in names.items()}
    last = {"type": "end", **counts, "sha256": hashlib.sha256(written).hexdigest(), **end}
    return written + json.dumps(last).encode() + b"\n"
