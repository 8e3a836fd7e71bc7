"""How typed code uses the package; checked by tests/test_consumer.py with ``mypy --strict``, and never run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mirai_memory import (
    AsyncMemoryManager,
    AsyncUserMemory,
    Busy,
    Conflict,
    Context,
    InvalidInput,
    Knowledge,
    MemoryManager,
    Message,
    MiraiMemoryError,
    NotFound,
    Omitted,
    Session,
    Settings,
    Task,
    TokenCounter,
    UnitOfWork,
    UserMemory,
    UserPreferences,
    __version__,
    get_memory_manager,
    load_settings,
)
from mirai_memory.testing import FrozenClock, KnowledgeFactory, MessageFactory, SessionFactory, TaskFactory


class Words:
    """A counter of one's own: the protocol is met by its shape."""

    name = "words"

    def count(self, text: str) -> int:
        return len(text.split())


def open_memory(path: Path) -> MemoryManager:
    settings: Settings = load_settings(memory={"short_term": {"max_messages": 20}})
    counter: TokenCounter = Words()
    clock: Callable[[], datetime] = FrozenClock()
    shared: MemoryManager = get_memory_manager("postgresql+psycopg://host/name")
    shared.close()
    version: str = __version__
    return MemoryManager(path / version, settings=settings, token_counter=counter, clock=clock, read_only=True)


def sessions(memory: MemoryManager, alice: UserMemory) -> Session | None:
    made: Session = memory.create_session("alice", agent_id="planner", metadata={"title": "x"})
    named: Session = memory.ensure_session("alice", "support-17")
    own: list[Session] = alice.list_sessions(limit=10, after=made.id)
    latest: list[Session] = [*memory.get_active_sessions(1.5, user_id="alice"), *own, alice.ensure_session("x")]
    title: Any = latest[0].metadata["title"]
    when: datetime = named.last_active
    memory.update_session(made.id, metadata={"title": title, "when": when.isoformat()})
    memory.update_session_activity(made.id)
    gone: int = memory.clear_session(named.id)
    memory.delete_session(named.id)
    return alice.get_session(made.id) if gone else None


def messages(memory: MemoryManager, session: Session) -> list[Message]:
    id: int = memory.add_message(Message(session_id=session.id, role="user", content="hi", client_id="req-1"))
    ids: list[int] = memory.add_messages((Message(session_id=session.id, role="assistant", tool_calls=[{"id": "c"}]),))
    stored: Message | None = memory.get_message(id)
    place: int | None = stored.position if stored else None
    changed: Message = memory.update_message(ids[0], f"new {place}")
    popped: Message | None = memory.pop_message(session.id)
    chat: list[dict[str, Any]] = memory.get_conversation_history(session.id, 20, max_tokens=100)
    trimmed: int = memory.trim_old_messages(session.id, keep=len(chat))
    found = memory.search_messages("tea", user_id="alice", since=datetime(2026, 1, 1, tzinfo=UTC), limit=trimmed)
    score: float | None = found[0].score
    memory.delete_message(id)
    return [changed, *([popped] if popped and score else []), *memory.get_messages(session.id, after=id)]


def facts(memory: MemoryManager, alice: UserMemory) -> list[Knowledge]:
    fact = Knowledge(value="Kazan", key="city", confidence=0.9, source_kind="document", embedding=[0.5])
    id: int = memory.add_knowledge(fact, on_conflict="keep_higher_confidence")
    ids: list[int] = alice.add_knowledge_many([fact], on_conflict="reject")
    history: list[Knowledge] = alice.knowledge_history("city", category="profile")
    count: int = memory.delete_knowledge(source="page", user_id="alice", dry_run=True)
    alice.delete_knowledge(id + count)
    known = memory.get_knowledge("profile", as_of=datetime(2026, 1, 1, tzinfo=UTC), with_embedding=bool(ids))
    return [*history, *known, *alice.search_knowledge("tea", 3, min_confidence=0.5)]


def work(memory: MemoryManager, alice: UserMemory, session: Session) -> Task | None:
    id: int = memory.add_task(Task(description="x", session_id=session.id))
    done: Task = alice.update_task_status(id, "completed", "fine")
    tasks: list[Task] = memory.get_tasks(status=done.status, user_id="alice")
    likes: UserPreferences = memory.update_user_preferences("alice", favorite_tools=["uv"])
    saved: UserPreferences = alice.save_user_preferences(likes)
    mine: UserPreferences | None = alice.get_user_preferences() if saved.version else None
    memory.delete_user_preferences("alice")
    alice.delete_task(id)
    return tasks[0] if mine else memory.get_task(id)


def across(memory: MemoryManager, alice: UserMemory, session: Session) -> str:
    items: list[Knowledge | Message] = memory.recall("tea", user_id="alice", kinds=("messages",))
    texts: list[str] = [
        item.content if isinstance(item, Message) else item.value for item in (*items, *alice.recall("x"))
    ]
    context: Context = alice.build_context(session.id, "tea", max_tokens=500)
    left: list[Omitted] = context.omitted
    for_openai: list[dict[str, Any]] = context.to_messages()
    for_anthropic: dict[str, Any] = context.to_messages("anthropic")
    stats: dict[str, Any] = memory.get_stats()
    cleaned: int = memory.cleanup_old_sessions(30, dry_run=True)

    def move(uow: UnitOfWork) -> int:
        uow.preferences.change("alice", {"project_context": "x"})
        return uow.knowledge.add(Knowledge(user_id="alice", value="x"))

    id: int = memory.run(move)
    with memory.unit_of_work() as uow:
        uow.tasks.set_status(id + cleaned, "in_progress")
    return context.to_prompt() + str((texts, left, for_openai, for_anthropic, stats))


async def in_a_loop(path: Path, lent: MemoryManager) -> list[Message]:
    async with AsyncMemoryManager(path, token_counter=Words(), read_only=False) as memory:
        alice: AsyncUserMemory = memory.for_user("alice")
        session: Session = await alice.ensure_session("support-17", metadata={"title": "x"})
        id: int = await alice.add_message(Message(session_id=session.id, role="user", content="hi", client_id="r1"))
        done: Task = await memory.update_task_status(id, "completed")
        found: list[Knowledge | Message] = await alice.recall("tea", kinds=("messages",))
        context: Context = await alice.build_context(session.id, max_tokens=500)
        stats: dict[str, Any] = await memory.get_stats()
        kept: int = await memory.run(lambda uow: uow.messages.add(Message(session_id=session.id, role="user")))
        await alice.delete_task(kept)
        pages: AsyncIterator[Session] = memory.iterate_sessions("alice", page_size=50)
        titles: list[Any] = [other.metadata["title"] async for other in pages]
        facts: list[str] = [fact.value async for fact in alice.iterate_knowledge("profile")]
        tasks: set[str] = {task.status async for task in alice.iterate_tasks(status=done.status)}
        late: AsyncMemoryManager = await AsyncMemoryManager.of(lent).open()
        await late.close()
        where: str = memory.url + str((found, context.tokens, stats, titles, facts, tasks))
        return [message async for message in alice.iterate_messages(session.id or where)]


async def wrong_in_a_loop(memory: AsyncMemoryManager, alice: AsyncUserMemory, session: Session) -> None:
    owner: str = memory.get_session(session.id).user_id  # type: ignore[attr-defined]
    memory.create_session(owner)  # type: ignore[unused-coroutine]
    await alice.create_session("bob")  # type: ignore[call-arg]
    await alice.get_knowledge(user_id="bob")  # type: ignore[call-arg]
    await alice.get_stats()  # type: ignore[attr-defined]
    await memory.for_user("bob")  # type: ignore[misc]
    memory.unit_of_work()  # type: ignore[attr-defined]


def errors(memory: MemoryManager) -> str:
    try:
        memory.delete_session("missing")
    except NotFound as error:
        return f"{error.kind} {error.id}"
    except InvalidInput as error:
        return error.field + error.rule
    except Conflict as error:
        return error.reason
    except (Busy, MiraiMemoryError):
        return ""
    return memory.url


def made_for_tests(memory: MemoryManager, alice: UserMemory) -> list[Message]:
    session: Session = SessionFactory.create(memory=alice)
    task: Task = TaskFactory.build(description="x")
    fact: Knowledge = KnowledgeFactory.create(memory=memory, value=task.description)
    return MessageFactory.create_batch(5, session_id=session.id, memory=memory, content=fact.value)


def wrong(memory: MemoryManager, alice: UserMemory, session: Session, message: Message) -> None:
    Message(session_id=session.id, role="robot")  # type: ignore[arg-type]
    Message("session", "user")  # type: ignore[call-arg]
    message.content = "frozen"  # type: ignore[misc]
    memory.create_session()  # type: ignore[call-arg]
    alice.create_session("bob")  # type: ignore[call-arg]
    alice.get_knowledge(user_id="bob")  # type: ignore[call-arg]
    alice.get_stats()  # type: ignore[attr-defined]
    memory.update_task_status(1, "forgotten")  # type: ignore[arg-type]
    memory.add_knowledge("likes tea")  # type: ignore[arg-type]
    owner: str = memory.get_session(session.id).user_id  # type: ignore[union-attr]
    memory.search_messages("tea", "alice")  # type: ignore[call-arg]
    memory.recall("tea")  # type: ignore[call-arg]
    listed: list[Any] = memory.build_context(owner).to_messages("anthropic")  # type: ignore[assignment]
    MessageFactory.create(content=listed[0])  # type: ignore[call-arg]
