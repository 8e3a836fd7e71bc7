"""Factories of entities. Needs the extra ``testing``.

``build`` makes an entity and stores nothing; ``create`` stores it through the memory it is given, a MemoryManager or a
UserMemory, so that ids, order, counters and index are real, and returns it as it is stored::

    MessageFactory.create_batch(5, session_id=session.id, memory=memory)
    assert [m.position for m in memory.get_recent_messages(session.id, limit=2)] == [4, 5]

A test states only what it is about: without ``user_id`` the owner is the UserMemory's, or "alice"; a message that is
created without ``session_id`` gets a session of its own. Texts follow from their number alone, so that each run makes
the same ones; ``reset`` starts the numbers anew, as the fixture ``memory`` of the plugin does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from mirai_memory import Knowledge, MemoryManager, Message, Session, Task, UserMemory, UserPreferences
from mirai_memory.errors import InvalidInput, MissingExtra
from mirai_memory.testing.clock import START

try:
    from factory.base import Factory
    from factory.declarations import Sequence
    from factory.enums import BUILD_STRATEGY
    from faker import Faker
except ImportError as error:
    raise MissingExtra("testing", "factory-boy") from error

__all__ = ["KnowledgeFactory", "MessageFactory", "PreferencesFactory", "SessionFactory", "TaskFactory", "reset"]

OWNER = "alice"
Memory = MemoryManager | UserMemory
T = TypeVar("T")

_faker = Faker("en_US")


def _numbered(make: Callable[[int], object]) -> Any:
    """A field made from the entity's number: 1, 2, 3..."""
    return Sequence(lambda n: make(n + 1))  # type: ignore[no-untyped-call]


def _text(kind: str) -> Any:
    """A numbered text with a sentence, the same for the same number, whatever else draws random numbers."""

    def make(number: int) -> str:
        _faker.seed_instance(number)
        return f"{kind} {number}: {_faker.sentence(nb_words=8)}"

    return _numbered(make)


def _owner(memory: Memory, fields: dict[str, Any]) -> str:
    """The owner that is named, else the memory's own."""
    wanted = fields.get("user_id")
    if not isinstance(memory, UserMemory):
        return OWNER if wanted is None else wanted
    if wanted not in (None, memory.user_id):
        raise InvalidInput("user_id", "is another owner than that of the UserMemory; leave it out")
    return memory.user_id


class _Factory(Factory[T]):
    """``create`` completes the fields with what depends on the memory, builds, and stores."""

    class Meta:
        abstract = True
        strategy = BUILD_STRATEGY

    @classmethod
    def create(cls, *, memory: Memory, **fields: Any) -> T:  # type: ignore[override]  # nowhere to store without one
        """Build an entity and store it; as it is stored."""
        return cls._store(memory, cls.build(**cls._completed(memory, fields)))

    @classmethod
    def _completed(cls, memory: Memory, fields: dict[str, Any]) -> dict[str, Any]:
        return {**fields, "user_id": _owner(memory, fields)}

    @classmethod
    def _store(cls, memory: Memory, built: T) -> T:
        raise NotImplementedError


class SessionFactory(_Factory[Session]):
    """Sessions. With ``external_id``, ``create`` returns the one that is there; an ``id`` needs a MemoryManager."""

    class Meta:
        model = Session

    user_id = OWNER
    id = _numbered(lambda n: f"session-{n}")
    created_at = START
    last_active = START
    metadata = _numbered(lambda n: {"title": f"Session {n}"})

    @classmethod
    def create(cls, *, memory: Memory, **fields: Any) -> Session:  # type: ignore[override]
        """A session of the memory: made, or found by its ``external_id``."""
        unknown = set(fields) - {"user_id", "id", "external_id", "agent_id", "metadata"}
        if unknown:
            raise InvalidInput(min(unknown), "is set by the store")
        owner = _owner(memory, fields)
        built = cls.build(**fields)
        labels: dict[str, Any] = {"agent_id": built.agent_id, "metadata": built.metadata}
        if isinstance(memory, UserMemory):
            if "id" in fields:
                raise InvalidInput("id", "is chosen by the store; only a MemoryManager takes one")
            return (
                memory.ensure_session(built.external_id, **labels)
                if built.external_id
                else memory.create_session(**labels)
            )
        if built.external_id:
            return memory.ensure_session(owner, built.external_id, **labels)
        return memory.create_session(owner, session_id=fields.get("id"), **labels)


class MessageFactory(_Factory[Message]):
    """Messages of the user's."""

    class Meta:
        model = Message

    session_id = "session-1"
    role = "user"
    content = _text("message")

    @classmethod
    def _completed(cls, memory: Memory, fields: dict[str, Any]) -> dict[str, Any]:
        if "session_id" in fields:
            return fields
        owner = {"user_id": fields["user_id"]} if "user_id" in fields else {}
        return {**fields, "session_id": SessionFactory.create(memory=memory, **owner).id}

    @classmethod
    def _store(cls, memory: Memory, built: Message) -> Message:
        stored = memory.get_message(memory.add_message(built))
        assert stored is not None
        return stored


class PreferencesFactory(_Factory[UserPreferences]):
    """The preferences of an owner, of whom there is one row."""

    class Meta:
        model = UserPreferences

    user_id = OWNER
    coding_style = "type hints on every function"
    communication_tone = "brief"
    favorite_tools = _numbered(lambda n: ["uv", "ruff"])
    project_context = _text("project")

    @classmethod
    def _store(cls, memory: Memory, built: UserPreferences) -> UserPreferences:
        return memory.save_user_preferences(built)


class TaskFactory(_Factory[Task]):
    """Tasks, pending, of no session."""

    class Meta:
        model = Task

    user_id = OWNER
    description = _text("task")

    @classmethod
    def _completed(cls, memory: Memory, fields: dict[str, Any]) -> dict[str, Any]:
        # A task of a session is its owner's.
        return {"user_id": None, **fields} if fields.get("session_id") else super()._completed(memory, fields)

    @classmethod
    def _store(cls, memory: Memory, built: Task) -> Task:
        stored = memory.get_task(memory.add_task(built))
        assert stored is not None
        return stored


class KnowledgeFactory(_Factory[Knowledge]):
    """Facts, each with a key of its own. ``user_id=None`` makes a fact that all share."""

    class Meta:
        model = Knowledge

    user_id = OWNER
    key = _numbered(lambda n: f"fact-{n}")
    value = _text("fact")

    @classmethod
    def _completed(cls, memory: Memory, fields: dict[str, Any]) -> dict[str, Any]:
        if isinstance(memory, MemoryManager) and fields.get("user_id", OWNER) is None:
            return fields
        return super()._completed(memory, fields)

    @classmethod
    def _store(cls, memory: Memory, built: Knowledge) -> Knowledge:
        id = memory.add_knowledge(built)
        owner: dict[str, Any] = {"user_id": built.user_id} if isinstance(memory, MemoryManager) else {}
        if built.key is None:
            return memory.get_knowledge(built.category, after=id - 1, limit=1, **owner)[0]
        values = memory.knowledge_history(built.key, category=built.category, **owner)
        return next(value for value in values if value.id == id)


def reset() -> None:
    """Number from the start again."""
    for each in (SessionFactory, MessageFactory, PreferencesFactory, TaskFactory, KnowledgeFactory):
        each.reset_sequence(0, force=True)  # type: ignore[no-untyped-call]
