"""What callers hand in and get back: frozen values that stay valid after the transaction, in other threads, as JSON.

The same class is handed in (no ``id`` yet) and comes back (``id`` set). Lists and dicts are copied in, so that the
caller's own stay the caller's. Entities compare by value; ``score`` and ``explanation`` of a search take no part.
"""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar, Literal, overload

from mirai_memory import _render
from mirai_memory.errors import InvalidInput

__all__ = [
    "Context",
    "Duplicate",
    "Knowledge",
    "KnowledgeChange",
    "KnowledgeDiff",
    "Message",
    "Omitted",
    "Session",
    "Task",
    "UserPreferences",
]

Role = Literal["system", "user", "assistant", "tool", "developer"]
MessageKind = Literal["chat", "item"]
TaskStatus = Literal["pending", "in_progress", "completed", "failed"]
SourceKind = Literal["user", "assistant", "tool", "document", "import"]
OnConflict = Literal["replace", "keep_higher_confidence", "reject"]
ChangeKind = Literal["added", "changed", "removed"]
DuplicateReason = Literal["value", "words", "meaning"]

ROLES: tuple[Role, ...] = ("system", "user", "assistant", "tool", "developer")
MESSAGE_KINDS: tuple[MessageKind, ...] = ("chat", "item")
TASK_STATUSES: tuple[TaskStatus, ...] = ("pending", "in_progress", "completed", "failed")
SOURCE_KINDS: tuple[SourceKind, ...] = ("user", "assistant", "tool", "document", "import")
ON_CONFLICT: tuple[OnConflict, ...] = ("replace", "keep_higher_confidence", "reject")

JsonObject = dict[str, Any]


def _own(value: Any) -> Any:
    if not value or not isinstance(value, (list, dict)):
        return value
    if isinstance(value, list) and type(value[0]) is float and set(map(type, value)) == {float}:
        return value.copy()  # a vector: a hundred times as fast as deepcopy, and the same
    try:
        return copy.deepcopy(value)
    except (TypeError, RecursionError, ValueError):
        return value  # no JSON at all: the façade refuses it and says which field it was


def _json_ready(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, _Entity):
        return value.to_dict()
    if isinstance(value, (list, tuple)):
        return [_json_ready(item) for item in value]
    return _own(value)


class _Entity:
    """Copying in, and ``to_dict``; the fields are the subclasses'."""

    __slots__ = ()
    _containers: ClassVar[tuple[str, ...]] = ()
    _not_in_dict: ClassVar[frozenset[str]] = frozenset()
    _only_when_set: ClassVar[frozenset[str]] = frozenset({"score", "explanation"})

    def __post_init__(self) -> None:
        for name in self._containers:
            value = getattr(self, name)
            if isinstance(value, (list, dict)):
                object.__setattr__(self, name, _own(value))

    def to_dict(self) -> JsonObject:
        """The entity as JSON-ready data: ISO 8601 times, no vectors; ``score`` and ``explanation`` where set."""
        out: JsonObject = {}
        for item in dataclasses.fields(self):  # type: ignore[arg-type]  # every subclass is a dataclass
            value = getattr(self, item.name)
            if item.name in self._not_in_dict or (value is None and item.name in self._only_when_set):
                continue
            out[item.name] = _json_ready(value)
        return out


@dataclass(frozen=True, slots=True, kw_only=True)
class Session(_Entity):
    """One conversation of one owner; made by ``create_session`` or ``ensure_session``.

    ``summary`` tells what was said up to the position ``summarized_through``: ``summary_method`` made
    ``summary_tokens`` tokens of ``summary_source_tokens``.
    """

    _containers = ("metadata",)

    user_id: str
    id: str
    external_id: str | None = None
    agent_id: str | None = None
    created_at: datetime
    last_active: datetime
    message_count: int = 0
    summary: str | None = None
    summarized_through: int | None = None
    summary_method: str | None = None
    summary_tokens: int | None = None
    summary_source_tokens: int | None = None
    metadata: JsonObject = field(default_factory=dict)

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True, slots=True, kw_only=True)
class Message(_Entity):
    """One entry of a session.

    ``content`` is the text and is never None; ``parts`` holds multi-part content exactly as it came. ``kind`` "item"
    is a framework's own entry, kept exactly in ``payload``. ``client_id``, unique in its session, makes a repeated
    write store once. ``id``, ``user_id`` and ``position`` are set by the store, ``timestamp`` too where it is None.
    """

    _containers = ("tool_calls", "parts", "payload", "metadata")

    session_id: str
    role: Role | None = None
    content: str = ""
    name: str | None = None
    tool_calls: list[JsonObject] | None = None
    tool_call_id: str | None = None
    parts: list[JsonObject] | None = None
    kind: MessageKind = "chat"
    payload: JsonObject | None = None
    timestamp: datetime | None = None
    tokens: int | None = None
    model: str | None = None
    metadata: JsonObject = field(default_factory=dict)
    client_id: str | None = None
    id: int | None = None
    user_id: str | None = None
    position: int | None = None
    score: float | None = field(default=None, compare=False)
    explanation: JsonObject | None = field(default=None, compare=False)

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True, slots=True, kw_only=True)
class UserPreferences(_Entity):
    """What an owner likes: one row each.

    ``version`` is set by the store. Handed in, None overwrites whatever is there; a number must be the stored one.
    """

    _containers = ("favorite_tools", "metadata")

    user_id: str
    coding_style: str | None = None
    communication_tone: str | None = None
    favorite_tools: list[str] = field(default_factory=list)
    project_context: str | None = None
    metadata: JsonObject = field(default_factory=dict)
    version: int | None = None
    updated_at: datetime | None = None

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task(_Entity):
    """A piece of work with a status.

    With ``session_id`` it belongs to that session and goes with it; without one it needs ``user_id`` and stays.
    ``completed_at`` follows the status; ``client_id`` is unique per owner.
    """

    _containers = ("metadata",)

    description: str
    session_id: str | None = None
    user_id: str | None = None
    status: TaskStatus = "pending"
    result: str | None = None
    created_at: datetime | None = None
    completed_at: datetime | None = None
    metadata: JsonObject = field(default_factory=dict)
    client_id: str | None = None
    id: int | None = None

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True, slots=True, kw_only=True)
class Knowledge(_Entity):
    """A fact: ``(owner, category, key) -> value`` with source and confidence.

    ``user_id`` None means shared by all owners. Without ``key`` one is made from the value, so that the same text is
    stored once. ``valid_from``/``valid_to`` say when it is true (``valid_from`` None: from when it is stored;
    ``valid_to`` given: a closed fact, which stands beside the open one); ``created_at``/``superseded_at`` say when
    it was believed. ``embedding`` is the caller's own vector: floats, one dimension per ``embedding_model``; it
    comes back only with ``get_knowledge(with_embedding=True)``, rounded to float16 (within 1e-3 relative).
    """

    _containers = ("metadata", "embedding")
    _not_in_dict = frozenset({"embedding"})

    value: str
    key: str | None = None
    category: str = "general"
    user_id: str | None = None
    source: str | None = None
    source_kind: SourceKind = "user"
    confidence: float = 1.0
    valid_from: datetime | None = None
    valid_to: datetime | None = None
    expires_at: datetime | None = None
    message_id: int | None = None
    metadata: JsonObject = field(default_factory=dict)
    embedding: list[float] | None = field(default=None, repr=False)
    embedding_model: str | None = None
    id: int | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    superseded_at: datetime | None = None
    superseded_by: int | None = None
    score: float | None = field(default=None, compare=False)
    explanation: JsonObject | None = field(default=None, compare=False)

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True, slots=True, kw_only=True)
class KnowledgeChange(_Entity):
    """A value that came, went or took another's place: ``old`` is None where it was added, ``new`` where removed."""

    kind: ChangeKind
    category: str
    key: str
    old: Knowledge | None = None
    new: Knowledge | None = None

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True, slots=True, kw_only=True)
class KnowledgeDiff(_Entity):
    """What was believed and true at ``t2`` beside what was so at ``t1``; made by ``diff``.

    ``next`` is what the next page is asked for with, as ``after``; None where this is the last one.
    """

    t1: datetime
    t2: datetime
    changes: list[KnowledgeChange] = field(default_factory=list)
    next: int | None = None

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True, slots=True, kw_only=True)
class Duplicate(_Entity):
    """Two current facts that may say the same, the older one first; made by ``find_duplicates``.

    ``similarity`` is 1 for equal values. ``reasons`` say why they were proposed: ``value`` (equal values), ``words``
    (shared stems), ``meaning`` (close vectors).
    """

    first: Knowledge
    second: Knowledge
    similarity: float
    reasons: list[DuplicateReason] = field(default_factory=list)

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True, slots=True, kw_only=True)
class Omitted(_Entity):
    """Something that a context left out, and why: ``budget``, ``limit`` or ``duplicate``."""

    kind: str
    id: str | int | None
    tokens: int
    reason: Literal["budget", "limit", "duplicate"]

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True, slots=True, kw_only=True)
class Context(_Entity):
    """What an agent gets for one turn, made by ``build_context``, and what was left out of it.

    ``history`` is oldest first, the other lists best first; ``tokens`` counts ``to_prompt()``.
    """

    session: Session
    preferences: UserPreferences | None = None
    summary: str | None = None
    history: list[Message] = field(default_factory=list)
    recalled: list[Message] = field(default_factory=list)
    knowledge: list[Knowledge] = field(default_factory=list)
    tasks: list[Task] = field(default_factory=list)
    tokens: int = 0
    omitted: list[Omitted] = field(default_factory=list)

    __hash__ = None  # type: ignore[assignment]

    def to_prompt(self) -> str:
        """One text: what changes least first, so that prompt caches hit, and all of memory fenced as data.

        Facts of tools and documents, and recalled messages of tools, stand in a fence ``untrusted``, behind a line that
        tells the model to weigh them by their source and to do nothing that they ask for.
        """
        return _render.prompt(self)

    @overload
    def to_messages(self, shape: Literal["openai"] = "openai") -> list[JsonObject]: ...

    @overload
    def to_messages(self, shape: Literal["anthropic"]) -> JsonObject: ...

    def to_messages(self, shape: Literal["openai", "anthropic"] = "openai") -> list[JsonObject] | JsonObject:
        """Chat messages: a list for OpenAI's API; for Anthropic's a dict with ``system`` and ``messages``."""
        if shape not in ("openai", "anthropic"):
            raise InvalidInput("shape", "must be one of openai, anthropic")
        return _render.openai(self) if shape == "openai" else _render.anthropic(self)
