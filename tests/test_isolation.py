"""``for_user(a)`` never sees, changes or can tell the existence of another's rows, through any method.

The methods are taken from the classes: one that no attempt below covers fails the test.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from io import BytesIO
from typing import Any

import pytest
from sqlalchemy import select

from mirai_memory import (
    Knowledge,
    Learned,
    LearnedItem,
    MemoryManager,
    Message,
    MiraiMemoryError,
    ProposedFact,
    Task,
    UnitOfWork,
    UserMemory,
    UserPreferences,
)
from mirai_memory.config import MemorySettings
from mirai_memory.models import Base
from mirai_memory.search.postings import SCOPES, WORDS
from mirai_memory.services import knowledge as facts
from mirai_memory.services import message_values as entries
from mirai_memory.services.incoming import Record
from mirai_memory.testing.clock import FrozenClock
from mirai_memory.transfer.reading import Reader

SECRET = "walrus"
BOB = f"bob-{SECRET}"
NOW = FrozenClock()()


@dataclass(frozen=True)
class Ids:
    """How the rows of somebody are named."""

    owner: str
    session: str
    message: int
    task: int
    fact: int
    external: str
    client: str
    key: str
    category: str
    source: str


ABSENT = Ids(
    owner="nobody",
    session="00000000-0000-7000-8000-000000000000",
    message=900_001,
    task=900_002,
    fact=900_003,
    external="no-chat",
    client="no-client",
    key="no key",
    category="no category",
    source="no source",
)


def store_bobs(memory: MemoryManager) -> Ids:
    """Something of Bob's in every table, his word in every field."""
    label = {SECRET: [SECRET]}
    session = memory.ensure_session(BOB, f"chat-{SECRET}", agent_id=SECRET, metadata=label).id
    message = Message(
        session_id=session,
        role="assistant",
        content=SECRET,
        name=SECRET,
        model=SECRET,
        tool_calls=[{"id": SECRET}],
        parts=[label],
        metadata=label,
        client_id=f"message-{SECRET}",
    )
    first, *_ = memory.add_messages(
        [
            message,
            Message(session_id=session, role="tool", tool_call_id=SECRET, content=SECRET),
            Message(session_id=session, kind="item", payload=label),
            Message(session_id=session, role="user", content=SECRET),
        ]
    )
    memory.save_user_preferences(UserPreferences(user_id=BOB, coding_style=SECRET, favorite_tools=[SECRET]))
    task = memory.add_task(Task(session_id=session, description=SECRET, client_id=f"message-{SECRET}", metadata=label))
    fact = Knowledge(
        user_id=BOB,
        value=SECRET,
        key=f"key {SECRET}",
        category=SECRET,
        source=SECRET,
        message_id=first,
        embedding=[1.0],
        embedding_model=SECRET,
        metadata=label,
    )
    memory.add_knowledge(fact)
    second = memory.add_knowledge(replace(fact, value=f"{SECRET} again"))
    memory.add_knowledge(Knowledge(value="common", key="shared", message_id=first))
    return Ids(
        owner=BOB,
        session=session,
        message=first,
        task=task,
        fact=second,
        external=f"chat-{SECRET}",
        client=f"message-{SECRET}",
        key=f"key {SECRET}",
        category=SECRET,
        source=SECRET,
    )


def rows_of_others(memory: MemoryManager) -> dict[str, Any]:
    """Every row but Alice's, the word index included."""

    def read(uow: UnitOfWork) -> dict[str, Any]:
        held = {table.name: uow.db.execute(select(table)).mappings().all() for table in Base.metadata.sorted_tables}
        scopes = uow.db.execute(select(SCOPES)).mappings().all()
        own = tuple(f" @{scope['id']} " for scope in scopes if scope["user_id"] == "alice")
        rows: dict[str, Any] = {
            name: [dict(row) for row in found if row.get("user_id") != "alice"] for name, found in held.items()
        }
        rows["scopes"] = [dict(scope) for scope in scopes if scope["user_id"] != "alice"]
        for kind, words in WORDS.items():
            indexed = uow.db.execute(select(words.c.rowid, words.c.terms).order_by(words.c.rowid)).all()
            rows[f"words of {kind}"] = [tuple(row) for row in indexed if not row.terms.startswith(own or "nobody's")]
        return rows

    return memory.run(read)


# --- the attempts -----------------------------------------------------------------------------------------------------

Attempt = Callable[[UserMemory, Ids], Any]
UowAttempt = Callable[[UnitOfWork, Ids], Any]


def _said(ids: Ids, **fields: Any) -> Message:
    return Message(**{"session_id": ids.session, "role": "user", "content": "x", **fields})


def _shown(context: Any) -> str:
    """What a context is made of, but for the session, which both attempts share."""
    return repr(replace(context, session=None))


def _exported(alice: UserMemory) -> bytes:
    file = BytesIO()
    alice.export_user(file)
    return file.getvalue()


def _file(owner: str, ids: Ids) -> BytesIO:
    """An export of the owner whose rows are called as those of somebody are."""
    now = NOW.isoformat()
    session = {"id": ids.session, "external_id": ids.external, "created_at": now, "last_active": now}
    message = {"session": ids.session, "position": 1, "role": "user", "content": "x", "timestamp": now}
    task = {"session": ids.session, "description": "x", "status": "pending", "created_at": now}
    fact = {"id": ids.fact, "key": ids.key, "value": "x", "created_at": now, "updated_at": now, "valid_from": now}
    lines = [
        {"type": "header", "format": "mirai-memory", "version": 1, "user_id": owner, "exported_at": now},
        {"type": "session", **session, "next_position": 2},
        {"type": "message", **message, "client_id": ids.client},
        {"type": "task", **task, "client_id": ids.client},
        {"type": "fact", **fact, "message": {"session": ids.session, "position": 1}},
    ]
    written = "".join(f"{json.dumps(line)}\n" for line in lines)
    counts = {"preferences": 0, "sessions": 1, "messages": 1, "tasks": 1, "facts": 1}
    end = {"type": "end", **counts, "sha256": hashlib.sha256(written.encode()).hexdigest()}
    return BytesIO(f"{written}{json.dumps(end)}\n".encode())


def _proposals(session_id: str, ids: Ids) -> Learned:
    """What somebody's message is said to teach."""
    fact = ProposedFact(category=ids.category, key=ids.key, value="x", message_ids=[ids.message])
    items = [LearnedItem(proposal=fact, outcome="proposed")]
    return Learned(session_id=session_id, extractor="x", after=0, through=1, items=items)


def _taught(alice: UserMemory, ids: Ids) -> list[LearnedItem]:
    """What becomes of proposals for a session of Alice's that name somebody's message."""
    own = alice.create_session().id
    alice.add_message(_said(replace(ids, session=own)))
    return alice.learn(own, proposals=_proposals(own, ids)).items


def _records(ids: Ids) -> list[Record]:
    return list(Reader(_file("alice", ids), MemorySettings()).records())


def _iterated(uow_attempt: Callable[[UnitOfWork], Any]) -> Callable[[UserMemory], Any]:
    def work(alice: UserMemory) -> Any:
        with alice.unit_of_work() as uow:
            return uow_attempt(uow)

    return work


ATTEMPTS: dict[str, tuple[Attempt, ...]] = {
    "user_id": (lambda a, i: a.user_id,),
    "create_session": (lambda a, i: a.create_session(agent_id="x").user_id,),
    "ensure_session": (lambda a, i: replace(a.ensure_session(i.external), id="", external_id=""),),
    "get_session": (lambda a, i: a.get_session(i.session),),
    "update_session": (lambda a, i: a.update_session(i.session, metadata={"x": 1}),),
    "update_session_activity": (lambda a, i: a.update_session_activity(i.session),),
    "get_active_sessions": (lambda a, i: a.get_active_sessions(), lambda a, i: a.get_active_sessions(1e9)),
    "list_sessions": (lambda a, i: a.list_sessions(), lambda a, i: a.list_sessions(after=i.session)),
    "clear_session": (lambda a, i: a.clear_session(i.session),),
    "delete_session": (lambda a, i: a.delete_session(i.session),),
    "add_message": (
        lambda a, i: a.add_message(_said(i)),
        lambda a, i: a.add_message(_said(i, user_id=i.owner)),
        lambda a, i: a.add_message(_said(i, client_id=i.client)),
        lambda a, i: a.add_message(_said(i, kind="item", role=None, payload={"type": "function_call_output"})),
    ),
    "add_messages": (
        lambda a, i: a.add_messages([_said(i), _said(i)]),
        lambda a, i: a.add_messages([Message(session_id=a.list_sessions()[0].id, role="user"), _said(i)]),
    ),
    "get_message": (lambda a, i: a.get_message(i.message),),
    "update_message": (lambda a, i: a.update_message(i.message, "x"),),
    "delete_message": (lambda a, i: a.delete_message(i.message),),
    "pop_message": (lambda a, i: a.pop_message(i.session),),
    "get_recent_messages": (
        lambda a, i: a.get_recent_messages(i.session),
        lambda a, i: a.get_recent_messages(i.session, 1),
    ),
    "get_messages": (
        lambda a, i: a.get_messages(i.session),
        lambda a, i: a.get_messages(i.session, after=i.message),
        lambda a, i: a.get_messages(a.list_sessions()[0].id, after=i.message - 1)[:0],
    ),
    "get_conversation_history": (lambda a, i: a.get_conversation_history(i.session),),
    "trim_old_messages": (lambda a, i: a.trim_old_messages(i.session, 0), lambda a, i: a.trim_old_messages(i.session)),
    "search_messages": (
        lambda a, i: a.search_messages(SECRET),
        lambda a, i: a.search_messages(f"{SECRET} mine", limit=1_000),
        lambda a, i: a.search_messages(f"{SECRET} mine", session_id=i.session),
    ),
    "save_user_preferences": (
        lambda a, i: a.save_user_preferences(UserPreferences(user_id=i.owner)),
        lambda a, i: a.save_user_preferences(UserPreferences(user_id=i.owner, version=1)),
    ),
    "get_user_preferences": (lambda a, i: a.get_user_preferences(),),
    "update_user_preferences": (
        lambda a, i: a.update_user_preferences(coding_style="x").user_id,
        lambda a, i: a.update_user_preferences(user_id=i.owner),
    ),
    "delete_user_preferences": (
        lambda a, i: bool(a.update_user_preferences(coding_style="x")) and a.delete_user_preferences(),
        lambda a, i: a.delete_user_preferences(),
    ),
    "add_task": (
        lambda a, i: a.add_task(Task(session_id=i.session, description="x")),
        lambda a, i: a.add_task(Task(user_id=i.owner, description="x")),
        lambda a, i: a.add_task(Task(session_id=i.session, description=SECRET, client_id=i.client)),
        lambda a, i: bool(a.add_task(Task(description="x", client_id=i.client))),
    ),
    "get_task": (lambda a, i: a.get_task(i.task),),
    "update_task_status": (lambda a, i: a.update_task_status(i.task, "failed", "x"),),
    "get_tasks": (
        lambda a, i: a.get_tasks(),
        lambda a, i: a.get_tasks(i.session),
        lambda a, i: a.get_tasks(status="pending"),
    ),
    "delete_task": (lambda a, i: a.delete_task(i.task),),
    "add_knowledge": (
        lambda a, i: a.add_knowledge(Knowledge(user_id=i.owner, value="x", key=i.key)),
        lambda a, i: a.add_knowledge(Knowledge(value="x", message_id=i.message)),
        lambda a, i: bool(a.add_knowledge(Knowledge(value="x", key=i.key, category=i.category), on_conflict="reject")),
        lambda a, i: bool(a.add_knowledge(Knowledge(value="x", key="shared"), on_conflict="reject")),
        lambda a, i: bool(a.add_knowledge(Knowledge(value="common", key="shared"))),
    ),
    "add_knowledge_many": (
        lambda a, i: a.add_knowledge_many([Knowledge(value="x"), Knowledge(value="y", message_id=i.message)]),
        lambda a, i: len(a.add_knowledge_many([Knowledge(value="x", key=i.key, category=i.category)])),
    ),
    "get_knowledge": (
        lambda a, i: a.get_knowledge(with_embedding=True),
        lambda a, i: a.get_knowledge(i.category),
        lambda a, i: a.get_knowledge(key=i.key),
        lambda a, i: a.get_knowledge(as_of=NOW, known_at=NOW),
        lambda a, i: a.get_knowledge(known_at=NOW + timedelta(days=1)),
    ),
    "search_knowledge": (
        lambda a, i: a.search_knowledge(SECRET),
        lambda a, i: a.search_knowledge(f"{SECRET} common mine", 1_000),
        lambda a, i: a.search_knowledge(f"{SECRET} common", category=i.category),
    ),
    "knowledge_history": (
        lambda a, i: a.knowledge_history(i.key, category=i.category),
        lambda a, i: a.knowledge_history("shared"),
    ),
    "diff": (lambda a, i: a.diff(NOW - timedelta(days=1), NOW + timedelta(days=1)),),
    "find_duplicates": (
        lambda a, i: a.find_duplicates(threshold=0.0),
        lambda a, i: bool(a.add_knowledge(Knowledge(value=SECRET, key="x"))) and a.find_duplicates(threshold=0.0),
    ),
    "merge_knowledge": (
        lambda a, i: a.merge_knowledge(i.fact, 1_000_000),
        lambda a, i: a.merge_knowledge(a.add_knowledge(Knowledge(value="x")), i.fact),
        lambda a, i: a.merge_knowledge(i.fact, a.add_knowledge(Knowledge(value="x"))),
    ),
    "delete_knowledge": (
        lambda a, i: a.delete_knowledge(i.fact),
        lambda a, i: a.delete_knowledge(i.fact, dry_run=True),
        lambda a, i: a.delete_knowledge(i.fact, key=i.key),
        lambda a, i: a.delete_knowledge(key=i.key),
        lambda a, i: a.delete_knowledge(category=i.category),
        lambda a, i: a.delete_knowledge(source=i.source),
        lambda a, i: a.delete_knowledge(key="shared"),
        lambda a, i: a.delete_knowledge(source_kind="user", dry_run=True),
    ),
    "recall": (lambda a, i: a.recall(SECRET), lambda a, i: a.recall(f"{SECRET} common mine", limit=1_000)),
    "build_context": (
        lambda a, i: a.build_context(i.session),
        lambda a, i: a.build_context(i.session, SECRET, max_tokens=1),
        lambda a, i: _shown(a.build_context(a.ensure_session("own").id, f"{SECRET} common mine")),
    ),
    "export_user": (lambda a, i: _exported(a),),
    "forget_user": (lambda a, i: a.forget_user() and a.forget_user().rows,),
    "import_user": (
        lambda a, i: a.import_user(_file(i.owner, i)),
        lambda a, i: a.import_user(_file("alice", i)),
        lambda a, i: a.import_user(_file("alice", i), dry_run=True) and a.import_user(_file("alice", i)),
    ),
    "summarize": (lambda a, i: a.summarize(i.session),),
    "learn": (
        lambda a, i: a.learn(i.session),
        lambda a, i: a.learn(i.session, proposals=_proposals(i.session, i)),
        lambda a, i: _taught(a, i),
    ),
    "run": (lambda a, i: a.run(lambda uow: uow.messages.page(i.session, limit=9)),),
    "unit_of_work": (lambda a, i: _iterated(lambda uow: uow.messages.page(i.session, limit=9))(a),),
}

UOW_ATTEMPTS: dict[str, tuple[UowAttempt, ...]] = {
    "sessions.create": (
        lambda u, i: u.sessions.create(i.owner),
        lambda u, i: u.sessions.create(session_id=i.session).user_id,
    ),
    "sessions.ensure": (
        lambda u, i: u.sessions.ensure(i.external, i.owner),
        lambda u, i: replace(u.sessions.ensure(i.external), id="", external_id=""),
    ),
    "sessions.get": (lambda u, i: u.sessions.get(i.session),),
    "sessions.update": (lambda u, i: u.sessions.update(i.session, metadata={}),),
    "sessions.touch": (lambda u, i: u.sessions.touch(i.session),),
    "sessions.active": (lambda u, i: u.sessions.active(NOW - timedelta(days=9)),),
    "sessions.page": (lambda u, i: u.sessions.page(limit=99), lambda u, i: u.sessions.page(limit=99, after=i.session)),
    "sessions.clear": (lambda u, i: u.sessions.clear(i.session),),
    "sessions.delete": (lambda u, i: u.sessions.delete(i.session),),
    "messages.add": (lambda u, i: u.messages.add(_said(i)),),
    "messages.add_many": (lambda u, i: u.messages.add_many([_said(i, client_id=i.client)]),),
    "messages.add_prepared": (
        lambda u, i: u.messages.add_prepared(
            [entries.prepare(_said(i), MemoryManager().settings.memory, FrozenClock())]
        ),
    ),
    "messages.get": (lambda u, i: u.messages.get(i.message),),
    "messages.update": (lambda u, i: u.messages.update(i.message, "x"),),
    "messages.delete": (lambda u, i: u.messages.delete(i.message),),
    "messages.pop": (lambda u, i: u.messages.pop(i.session),),
    "messages.trim": (lambda u, i: u.messages.trim(i.session, 0),),
    "messages.newest_groups": (lambda u, i: u.messages.newest_groups(i.session, 9),),
    "messages.recent": (lambda u, i: u.messages.recent(i.session, 9),),
    "messages.page": (lambda u, i: u.messages.page(i.session, limit=9),),
    "messages.search": (lambda u, i: u.messages.search(SECRET, limit=9),),
    "preferences.get": (lambda u, i: u.preferences.get(i.owner), lambda u, i: u.preferences.get()),
    "preferences.save": (lambda u, i: u.preferences.save(UserPreferences(user_id=i.owner)),),
    "preferences.change": (lambda u, i: u.preferences.change(i.owner, {"coding_style": "x"}),),
    "preferences.delete": (lambda u, i: u.preferences.delete(i.owner),),
    "tasks.add": (lambda u, i: u.tasks.add(Task(session_id=i.session, description="x")),),
    "tasks.get": (lambda u, i: u.tasks.get(i.task),),
    "tasks.set_status": (lambda u, i: u.tasks.set_status(i.task, "failed"),),
    "tasks.page": (lambda u, i: u.tasks.page(i.session, None, limit=9), lambda u, i: u.tasks.page(None, None, limit=9)),
    "tasks.delete": (lambda u, i: u.tasks.delete(i.task),),
    "knowledge.add": (
        lambda u, i: u.knowledge.add(Knowledge(user_id=i.owner, value="x")),
        lambda u, i: bool(u.knowledge.add(Knowledge(value="x", key="shared"))),
    ),
    "knowledge.add_many": (lambda u, i: u.knowledge.add_many([Knowledge(value="x", message_id=i.message)]),),
    "knowledge.add_prepared": (
        lambda u, i: u.knowledge.add_prepared(
            facts.prepare(Knowledge(user_id=i.owner, value="x"), MemoryManager().settings.memory)
        ),
    ),
    "knowledge.add_all_prepared": (
        lambda u, i: u.knowledge.add_all_prepared(
            [facts.prepare(Knowledge(value=SECRET, user_id=i.owner), MemoryManager().settings.memory)]
        ),
    ),
    "knowledge.page": (
        lambda u, i: u.knowledge.page(limit=99, with_embedding=True),
        lambda u, i: u.knowledge.page(user_id=i.owner, limit=99),
        lambda u, i: u.knowledge.page(user_id="", limit=99),
    ),
    "knowledge.newest": (lambda u, i: u.knowledge.newest(99),),
    "knowledge.history": (
        lambda u, i: u.knowledge.history(i.key, category=i.category),
        lambda u, i: u.knowledge.history(i.key, category=i.category, user_id=i.owner),
    ),
    "knowledge.search": (
        lambda u, i: u.knowledge.search(SECRET, limit=9),
        lambda u, i: u.knowledge.search(SECRET, limit=9, user_id=i.owner),
    ),
    "knowledge.diff": (
        lambda u, i: u.knowledge.diff(NOW - timedelta(days=1), NOW + timedelta(days=1), limit=99),
        lambda u, i: u.knowledge.diff(NOW - timedelta(days=1), NOW, user_id=i.owner, limit=99),
    ),
    "knowledge.compared": (
        lambda u, i: u.knowledge.compared(),
        lambda u, i: bool(u.knowledge.add(Knowledge(value=SECRET, key="x"))) and u.knowledge.compared().values,
    ),
    "knowledge.still_current": (lambda u, i: u.knowledge.still_current([i.fact]),),
    "knowledge.merge": (lambda u, i: u.knowledge.merge(u.knowledge.add(Knowledge(value="x")), i.fact),),
    "knowledge.delete": (
        lambda u, i: u.knowledge.delete(i.fact),
        lambda u, i: u.knowledge.delete(key=i.key, user_id=i.owner),
        lambda u, i: u.knowledge.delete(key="shared"),
    ),
    "summaries.due": (lambda u, i: u.summaries.due(i.session), lambda u, i: u.summaries.due(i.session, 0)),
    "summaries.left": (lambda u, i: u.summaries.left(i.session, 9),),
    "summaries.next": (lambda u, i: u.summaries.next(i.session, 9),),
    "summaries.store": (
        lambda u, i: u.summaries.store(replace(u.sessions.ensure("own"), id=i.session), 1, {"summary": "x"}, "x"),
    ),
    "leases.take": (lambda u, i: u.leases.take(i.session, "x", 9),),
    "leases.holds": (lambda u, i: u.leases.holds(i.session, "x"),),
    "leases.release": (lambda u, i: u.leases.release(i.session, "x"),),
    "leases.message_changed": (lambda u, i: u.leases.message_changed(i.session, 1),),
    "messages.rest_begins": (lambda u, i: u.messages.rest_begins(i.session, 1),),
    "learning.unlearned": (lambda u, i: u.learning.unlearned(i.session, limit=9),),
    "learning.known": (lambda u, i: u.learning.known(i.session, SECRET),),
    "learning.sources": (
        lambda u, i: u.learning.sources(i.session, [i.message], after=0, through=9),
        lambda u, i: u.learning.sources(u.sessions.ensure("own").id, [i.message], after=0, through=9),
    ),
    "learning.outlook": (lambda u, i: u.learning.outlook(i.session, []),),
    "learning.store": (lambda u, i: u.learning.store(i.session, [], after=0, through=1),),
    "exports.counts": (lambda u, i: u.exports.counts(i.owner), lambda u, i: u.exports.counts()),
    "exports.preferences": (lambda u, i: u.exports.preferences(i.owner), lambda u, i: u.exports.preferences()),
    "exports.sessions": (lambda u, i: list(u.exports.sessions(i.owner)), lambda u, i: list(u.exports.sessions())),
    "exports.messages": (lambda u, i: list(u.exports.messages(i.session)),),
    "exports.tasks": (lambda u, i: list(u.exports.tasks(i.owner)), lambda u, i: list(u.exports.tasks())),
    "exports.facts": (lambda u, i: list(u.exports.facts(i.owner)), lambda u, i: list(u.exports.facts())),
    "imports.store": (
        lambda u, i: u.imports.store(i.owner, iter([]), lambda: iter([]), lambda moment: False),
        lambda u, i: u.imports.store("alice", iter(_records(i)), lambda: iter([]), lambda moment: False),
    ),
    "contexts.gather": (
        lambda u, i: u.contexts.gather(i.session, None),
        lambda u, i: u.contexts.gather(i.session, SECRET),
        lambda u, i: _shown(u.contexts.gather(u.sessions.ensure("own").id, f"{SECRET} common mine")),
    ),
    "contexts.subject": (lambda u, i: u.contexts.subject(i.session, None),),
    # These know no owner: one owner's unit of work must not offer them, or must not let them look.
    "maintenance.counts": (lambda u, i: u.maintenance.counts() == {},),  # and see the test below
    "maintenance.copies": (lambda u, i: u.maintenance.copies.counts(),),
    "maintenance.erasing": (lambda u, i: u.maintenance.erasing.erase(i.owner, rows=9),),
    "maintenance.mending": (lambda u, i: u.maintenance.mending.mend_postings("message"),),
    "maintenance.merge_index": (lambda u, i: u.maintenance.merge_index("message", begin=True),),
    "maintenance.verification": (lambda u, i: u.maintenance.verification.owners(),),
    "maintenance.index_is_current": (lambda u, i: u.maintenance.index_is_current(),),
    "maintenance.rebuild_index": (lambda u, i: u.maintenance.rebuild_index(),),
    "retention.due": (lambda u, i: u.retention.due(NOW + timedelta(days=1)),),
    "retention.sweep_sessions": (lambda u, i: u.retention.sweep_sessions(NOW + timedelta(days=1), rows=99),),
    "retention.sweep_facts": (lambda u, i: u.retention.sweep_facts(rows=99),),
    "pending.exist": (lambda u, i: u.pending.exist(),),
    "vectors.count": (lambda u, i: u.vectors.count("ready"),),
    "vectors.give_up": (lambda u, i: u.vectors.give_up([]),),
    "vectors.known": (lambda u, i: u.vectors.known("model", ["hash"], 3),),
    "vectors.models": (lambda u, i: u.vectors.models("message", i.owner, dim=3),),
    "vectors.pending": (lambda u, i: u.vectors.pending("model", limit=9),),
    "vectors.put": (lambda u, i: u.vectors.put("knowledge", []),),
    "vectors.replace": (lambda u, i: u.vectors.replace({}),),
    "vectors.retire": (lambda u, i: u.vectors.retire("model", limit=9),),
    "vectors.store": (lambda u, i: u.vectors.store("model", 3, []),),
    "vectors.want": (lambda u, i: u.vectors.want("message", []),),
    "vectors.want_again": (lambda u, i: u.vectors.want_again("model", 3),),
    "vectors.want_missing": (lambda u, i: u.vectors.want_missing("model", "message", after=0, limit=9),),
    "db": (lambda u, i: [tuple(row) for row in u.db.execute(select(Base.metadata.tables["messages"].c.content))],),
}


def _public(kind: type) -> list[str]:
    return [name for name, _ in inspect.getmembers(kind) if not name.startswith("_")]


def _services() -> Iterator[str]:
    """``sessions.create`` and so on; what is no service stands for itself."""
    for name in _public(UnitOfWork):
        service = inspect.get_annotations(getattr(UnitOfWork, name).fget, eval_str=True)["return"]
        yield from (f"{name}.{method}" for method in _public(service)) if "services" in service.__module__ else [name]


METHODS = _public(UserMemory)
UOW_METHODS = list(_services())


def _outcome(attempt: Callable[[], Any]) -> Any:
    """What a caller gets to see; the id that was asked for, which an error repeats, is blotted out."""
    try:
        return attempt()
    except (MiraiMemoryError, TypeError, AttributeError) as error:
        said = str(error)
        asked = getattr(error, "id", None)
        return type(error), said if asked is None else said.replace(repr(asked), "the id")


def _check(memory: MemoryManager, bobs: Ids, attempt: Callable[[UserMemory, Ids], Any]) -> None:
    before = rows_of_others(memory)
    alice = memory.for_user("alice")
    absent = _outcome(lambda: attempt(alice, ABSENT))
    present = _outcome(lambda: attempt(alice, bobs))
    assert rows_of_others(memory) == before
    assert SECRET not in repr(present)
    assert present == absent


@pytest.fixture
def bobs(memory: MemoryManager) -> Ids:
    """Bob's rows beside a few of Alice's."""
    ids = store_bobs(memory)
    session = memory.create_session("alice").id
    memory.add_message(Message(session_id=session, role="user", content="mine"))
    memory.save_user_preferences(UserPreferences(user_id="alice", coding_style="mine"))
    memory.add_task(Task(user_id="alice", description="mine"))
    memory.add_knowledge(Knowledge(user_id="alice", value="mine"))
    return ids


def test_no_public_method_is_without_an_attempt() -> None:
    assert sorted(ATTEMPTS) == sorted(METHODS)
    assert sorted(UOW_ATTEMPTS) == sorted(UOW_METHODS)


@pytest.mark.parametrize("method", METHODS)
def test_another_s_rows_are_neither_seen_nor_changed_nor_noticed(memory: MemoryManager, bobs: Ids, method: str) -> None:
    for attempt in ATTEMPTS[method]:
        _check(memory, bobs, attempt)


def _bound(attempt: UowAttempt) -> Attempt:
    return lambda alice, ids: alice.run(lambda uow: attempt(uow, ids))


@pytest.mark.parametrize("method", UOW_METHODS)
def test_nor_through_a_unit_of_work(memory: MemoryManager, method: str) -> None:
    ids = store_bobs(memory)
    for attempt in UOW_ATTEMPTS[method]:
        _check(memory, ids, _bound(attempt))


def test_what_others_have_changes_no_count_that_is_seen(memory: MemoryManager) -> None:
    def seen() -> Any:
        return _outcome(lambda: memory.for_user("alice").run(lambda uow: uow.maintenance.counts()))

    before = seen()
    store_bobs(memory)
    assert seen() == before


def test_the_whole_memory_does_see_and_change_what_the_attempts_try(memory: MemoryManager, bobs: Ids) -> None:
    """Without this, attempts that name nothing of Bob's would prove nothing."""
    assert memory.get_session(bobs.session) is not None
    assert memory.get_message(bobs.message) is not None
    assert memory.get_task(bobs.task) is not None
    assert len(memory.search_messages(SECRET, user_id=BOB)) == 3
    assert len(memory.knowledge_history(bobs.key, category=bobs.category, user_id=BOB)) == 2
    assert memory.delete_knowledge(bobs.fact, key=bobs.key, category=bobs.category, source=bobs.source) == 1
    assert memory.get_tasks(bobs.session)[0].client_id == bobs.client
    assert memory.ensure_session(BOB, bobs.external).id == bobs.session
    assert sum(len(rows) for rows in rows_of_others(memory).values()) > 10
