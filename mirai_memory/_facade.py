"""What both faces of the memory, ``MemoryManager`` and ``UserMemory``, offer in the same words.

Every method checks its input, opens one door and calls one service. ``_owner`` bounds what the door lets through:
None for the administrator's view, an owner for a ``UserMemory``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from mirai_memory import _checks
from mirai_memory._chat import openai_messages
from mirai_memory._time import Clock
from mirai_memory.config import MemorySettings
from mirai_memory.database import Database
from mirai_memory.entities import (
    Context,
    JsonObject,
    Knowledge,
    Message,
    OnConflict,
    Session,
    SourceKind,
    Task,
    TaskStatus,
)
from mirai_memory.errors import InvalidInput
from mirai_memory.forgetting import Erasure, Forgetter
from mirai_memory.learning import Extractor
from mirai_memory.reranking import RERANKED, Reranker, reranked
from mirai_memory.search import Query, QueryVector
from mirai_memory.services import knowledge as facts
from mirai_memory.services import message_values as entries
from mirai_memory.services import tasks
from mirai_memory.services.context import fit, newest_within
from mirai_memory.services.embeddings import fact_text
from mirai_memory.services.knowledge import Prepared as PreparedFact
from mirai_memory.summarizing import Summarizing
from mirai_memory.tokens import TokenCounter
from mirai_memory.unit_of_work import Store, UnitOfWork
from mirai_memory.vectorizing import Vectorizer

if TYPE_CHECKING:
    from mirai_memory.chroma_feeding import ChromaFeeder

T = TypeVar("T")
Item = TypeVar("Item", bound=Knowledge | Message)
RecallKind = Literal["knowledge", "messages"]
RECALL_KINDS: tuple[RecallKind, ...] = ("knowledge", "messages")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What a façade works with; ``UserMemory`` has those of the ``MemoryManager`` that made it."""

    database: Database
    store: Store
    settings: MemorySettings
    clock: Clock
    counter: TokenCounter
    vectorizer: Vectorizer | None
    chroma: ChromaFeeder | None
    reranker: Reranker | None
    summarizing: Summarizing
    extractor: Extractor | None


class Facade:
    """Methods whose arguments name no owner."""

    def __init__(self, tools: Tools, owner: str | None) -> None:
        self._tools = tools
        self._owner = owner
        self._database = tools.database
        self._store = tools.store
        self._settings = tools.settings
        self._clock = tools.clock
        self._counter = tools.counter
        self._vectorizer = tools.vectorizer
        self._reranker = tools.reranker

    def _read(self, fn: Callable[[UnitOfWork], T], owner: str | None = None) -> T:
        return self._store.read(fn, owner=owner if owner is not None else self._owner)

    def _write(self, fn: Callable[[UnitOfWork], T], owner: str | None = None) -> T:
        return self._store.write(fn, owner=owner if owner is not None else self._owner)

    def _forget(
        self, owner: str, *, dry_run: bool, compact: bool, progress: Callable[[int, int], object] | None
    ) -> Erasure:
        forgetter = Forgetter(self._database, self._store, self._settings.long_term, self._clock, self._tools.chroma)
        return forgetter.plan(owner) if dry_run else forgetter.forget(owner, compact=compact, progress=progress)

    def _write_texts(self, fn: Callable[[UnitOfWork], T]) -> T:
        """Write what wants vectors, which are made in the background."""
        result = self._write(fn)
        self._want_vectors()
        return result

    def _want_vectors(self) -> None:
        """What was written may want vectors."""
        for worker in (self._vectorizer, self._tools.chroma):
            if worker is not None:
                worker.notify()

    # Sessions

    def get_session(self, session_id: str) -> Session | None:
        """The session, or None."""
        return self._read(lambda uow: uow.sessions.get(session_id))

    def update_session(self, session_id: str, *, metadata: JsonObject) -> Session:
        """Replace the session's metadata. Raises NotFound."""
        return self._write(lambda uow: uow.sessions.update(session_id, metadata=metadata))

    def update_session_activity(self, session_id: str) -> Session:
        """Set the session's ``last_active`` to now. Raises NotFound."""
        return self._write(lambda uow: uow.sessions.touch(session_id))

    def clear_session(self, session_id: str) -> int:
        """Delete every message of the session, and its summary; how many messages. Raises NotFound."""
        return self._write(lambda uow: uow.sessions.clear(session_id))

    def delete_session(self, session_id: str) -> None:
        """Delete the session with its messages and tasks; facts learned from it stay. Raises NotFound."""
        self._write(lambda uow: uow.sessions.delete(session_id))

    # Messages

    def add_message(self, message: Message) -> int:
        """Append a message to its session; its id.

        A ``client_id`` that the session holds already stores nothing and returns the first id. Raises NotFound for
        an unknown session, Conflict for a known ``client_id`` with other content, InvalidInput.
        """
        prepared = entries.prepare(message, self._settings, self._clock)
        return self._write_texts(lambda uow: uow.messages.add_prepared([prepared]))[0]

    def add_messages(self, messages: Sequence[Message]) -> list[int]:
        """Append messages, each to its session, all or none; their ids in the same order. Raises as add_message."""
        given = _checks.items("messages", messages)
        prepared = [entries.prepare(message, self._settings, self._clock) for message in given]
        return self._write_texts(lambda uow: uow.messages.add_prepared(prepared)) if prepared else []

    def get_message(self, message_id: int) -> Message | None:
        """The message, or None."""
        return self._read(lambda uow: uow.messages.get(message_id))

    def update_message(self, message_id: int, content: str) -> Message:
        """Replace the text of a message; its ``parts`` and ``tokens``, which described the old text, go.

        Raises NotFound, InvalidInput.
        """
        return self._write_texts(lambda uow: uow.messages.update(message_id, content))

    def delete_message(self, message_id: int) -> None:
        """Delete one message; the places of the others stay. Raises NotFound."""
        self._write(lambda uow: uow.messages.delete(message_id))

    def pop_message(self, session_id: str) -> Message | None:
        """Take the newest message out of the session; None where it has none. Raises NotFound."""
        return self._write(lambda uow: uow.messages.pop(session_id))

    def get_recent_messages(self, session_id: str, limit: int | None = None) -> list[Message]:
        """The newest messages, oldest first: at most ``limit``, in whole groups, but the newest group always.

        A group is a message with tool calls and the results that answer it. ``limit`` None means
        ``memory.short_term.max_messages``. An unknown session has none.
        """
        count = _checks.limit("limit", limit, self._settings.short_term.max_messages)
        return self._read(lambda uow: uow.messages.recent(session_id, count))

    def get_messages(self, session_id: str, *, limit: int = 100, after: int | None = None) -> list[Message]:
        """One page of the session's messages in order; ``after`` is the id of the last one seen."""
        count = _checks.integer("limit", limit)
        return self._read(lambda uow: uow.messages.page(session_id, limit=count, after=after))

    def get_conversation_history(
        self, session_id: str, limit: int | None = None, *, max_tokens: int | None = None
    ) -> list[JsonObject]:
        """The newest chat messages as the OpenAI chat API accepts them, oldest first.

        ``limit`` as in ``get_recent_messages``; with ``max_tokens`` only as many of the newest groups as fit. Tool
        calls that lack a result, and results without their call, are left out: the API would refuse them.
        Raises InvalidInput for a ``max_tokens`` that cannot hold the newest group.
        """
        count = _checks.limit("limit", limit, self._settings.short_term.max_messages)
        budget = _checks.optional_integer("max_tokens", max_tokens)
        groups, _ = self._read(lambda uow: uow.messages.newest_groups(session_id, count))
        return openai_messages(newest_within(groups, budget, self._counter))

    # Tasks

    def add_task(self, task: Task) -> int:
        """Store a task; its id. Raises NotFound for an unknown session, Conflict, InvalidInput."""
        checked = tasks.checked(task, self._settings)
        return self._write(lambda uow: uow.tasks.add(checked))

    def get_task(self, task_id: int) -> Task | None:
        """The task, or None."""
        return self._read(lambda uow: uow.tasks.get(task_id))

    def update_task_status(self, task_id: int, status: TaskStatus, result: str | None = None) -> Task:
        """Set the status, and the result where one is given; ``completed_at`` follows. Raises NotFound."""
        return self._write(lambda uow: uow.tasks.set_status(task_id, status, result))

    def delete_task(self, task_id: int) -> None:
        """Delete one task. Raises NotFound."""
        self._write(lambda uow: uow.tasks.delete(task_id))

    # Knowledge: the owner of a new fact is the fact's own field

    def add_knowledge(self, knowledge: Knowledge, *, on_conflict: OnConflict | None = None) -> int:
        """Store a fact; the id of the row that holds the key's current value.

        The same value again refreshes the row. Another value supersedes it ("replace"), does so only if it is at
        least as sure ("keep_higher_confidence"), or is a Conflict ("reject"); None means the setting
        ``memory.long_term.on_conflict`` for the category. A fact with ``valid_to`` is closed and stands beside.
        Raises NotFound for an unknown ``message_id``, InvalidInput.
        """
        [prepared] = self._with_vectors([facts.prepare(knowledge, self._settings)])
        return self._write_texts(lambda uow: uow.knowledge.add_prepared(prepared, on_conflict))

    def add_knowledge_many(self, items: Sequence[Knowledge], *, on_conflict: OnConflict | None = None) -> list[int]:
        """Store facts, all or none; as ``add_knowledge`` for each, in order."""
        given = [facts.prepare(item, self._settings) for item in _checks.items("items", items)]
        prepared = self._with_vectors(given)
        return self._write_texts(lambda uow: uow.knowledge.add_all_prepared(prepared, on_conflict))

    def _with_vectors(self, prepared: list[PreparedFact]) -> list[PreparedFact]:
        """Facts with vectors made before the transaction, which waits for nobody; without, while the embedder fails."""
        vectorizer = self._vectorizer
        if vectorizer is None or not self._settings.long_term.enabled:
            return prepared
        bare = [item for item in prepared if item.vector is None and item.values["valid_to"] is None]
        made = iter(vectorizer.documents([item.text for item in bare]) or [])
        return [
            item.with_vector(vectorizer.model, vector)
            if item.vector is None and item.values["valid_to"] is None and (vector := next(made, None)) is not None
            else item
            for item in prepared
        ]

    # Across

    def run(self, fn: Callable[[UnitOfWork], T]) -> T:
        """Run ``fn(uow)`` in one transaction and return what it returns; all it did is kept, or nothing.

        On PostgreSQL ``fn`` may run several times (a serialisation failure, a deadlock): it must have no effects
        outside the database. Inside, use ``uow``, not the memory.
        """
        return self._write_texts(fn)

    @contextmanager
    def unit_of_work(self) -> Iterator[UnitOfWork]:
        """One transaction as a context manager: committed at its end, rolled back on an exception, never retried."""
        with self._store.transaction(self._owner, write=True) as uow:
            yield uow
        self._want_vectors()

    def build_context(self, session_id: str, query: str | None = None, *, max_tokens: int | None = None) -> Context:
        """What the model should have for the session's next turn, within ``max_tokens`` (None: no limit).

        Preferences, summary, the window, open tasks, and the facts and messages found for ``query`` (None: the newest
        user message). What does not fit is cut in the order recalled, knowledge, older history, tasks, summary, and
        stands in ``omitted``. Tokens are counted by the ``token_counter`` that the memory was opened with.
        Raises NotFound; InvalidInput for a budget that cannot hold preferences and the newest group.
        """
        budget = _checks.optional_integer("max_tokens", max_tokens)
        if query is not None:
            _check_query(query)
        if self._vectorizer is None:
            gathered = self._read(lambda uow: uow.contexts.gather(session_id, query))
        else:
            about = self._read(lambda uow: uow.contexts.subject(session_id, query))
            gathered = self._search(about.query, about.owner, lambda uow, asked: uow.contexts.gather(session_id, asked))
        # Counting may take long: it is done when the transaction has ended.
        return fit(gathered, budget, self._counter)

    def _recall(
        self, query: str, user_id: str, limit: int, kinds: Sequence[RecallKind], explain: bool
    ) -> list[Knowledge | Message]:
        count = _checks.integer("limit", limit)
        if isinstance(kinds, str) or not all(kind in RECALL_KINDS for kind in _checks.items("kinds", kinds)):
            raise InvalidInput("kinds", f"must hold only {' and '.join(RECALL_KINDS)}")
        owner = _checks.owner(user_id)
        wanted = self._wanted(count)

        def find(uow: UnitOfWork, asked: Query) -> list[Knowledge | Message]:
            results: list[Knowledge | Message] = []
            if "knowledge" in kinds:
                results += uow.knowledge.search(asked, limit=wanted, explain=explain)
            if "messages" in kinds:
                results += uow.messages.search(asked, limit=wanted, explain=explain)
            return sorted(results, key=lambda item: -(item.score or 0.0))[:wanted]

        return self._reranked(query, self._search(query, owner, find))[:count]

    def _search_messages(
        self,
        query: str,
        owner: str | None,
        *,
        session_id: str | None,
        limit: int,
        since: datetime | None,
        until: datetime | None,
        explain: bool,
    ) -> list[Message]:
        count = _checks.integer("limit", limit)
        wanted = self._wanted(count)

        def find(uow: UnitOfWork, asked: Query) -> list[Message]:
            return uow.messages.search(
                asked, session_id=session_id, limit=wanted, since=since, until=until, explain=explain
            )

        return self._reranked(query, self._search(query, owner or self._owner, find))[:count]

    def _search_knowledge(
        self,
        query: str,
        owner: str | None,
        *,
        limit: int,
        category: str | None,
        source_kind: SourceKind | None,
        min_confidence: float,
        embedding: Sequence[float] | None,
        embedding_model: str | None,
        explain: bool,
    ) -> list[Knowledge]:
        count = _checks.integer("limit", limit)
        wanted = self._wanted(count)

        def find(uow: UnitOfWork, asked: Query) -> list[Knowledge]:
            return uow.knowledge.search(
                asked,
                limit=wanted,
                category=category,
                source_kind=source_kind,
                min_confidence=min_confidence,
                explain=explain,
            )

        if embedding is None:
            found = self._search(query, owner or self._owner or "", find)
        else:
            asked = self._asked_with(query, embedding, embedding_model, owner or self._owner)
            found = self._read(lambda uow: find(uow, asked), owner)
        return self._reranked(query, found)[:count]

    def _search(self, query: str, owner: str | None, find: Callable[[UnitOfWork, Query], T]) -> T:
        """What is found for the query and its vector, once the vectors that the owner waits for are made.

        These are made as far as the budget of a search goes. That there are none to make, as nearly always, is seen by
        the transaction that searches: one of its own for that would cost two round trips.
        """
        _check_query(query)
        vectorizer = self._vectorizer
        if vectorizer is None or owner is None:  # over everybody, words and context have to do
            return self._read(lambda uow: find(uow, Query(query)), owner)
        asked = Query(query, vectorizer.query(query))

        def find_unless_behind(uow: UnitOfWork) -> tuple[T] | None:
            return None if vectorizer.is_behind(uow) else (find(uow, asked),)

        found = self._read(find_unless_behind, owner or None)
        if found is not None:
            return found[0]
        vectorizer.catch_up(owner)
        return self._read(lambda uow: find(uow, asked), owner or None)

    def _asked_with(
        self, query: str, embedding: Sequence[float], embedding_model: str | None, owner: str | None
    ) -> Query:
        """The query with a vector of the caller's own."""
        _check_query(query)
        numbers = _checks.vector("embedding", embedding)
        if embedding_model is not None:
            model = _checks.name("embedding_model", embedding_model)
        elif self._vectorizer is not None:
            model = self._vectorizer.model
        else:
            models = self._store.read(lambda uow: uow.vectors.models("knowledge", owner, dim=len(numbers)))
            if len(models) > 1:
                raise InvalidInput("embedding_model", "is needed: facts have vectors of several models")
            if not models:
                return Query(query)
            model = models[0]
        return Query(query, QueryVector.of(model, numbers))

    def _wanted(self, count: int) -> int:
        """How many results are asked for: a reranker is given more than are wanted in the end."""
        return count if self._reranker is None or not count else max(count, RERANKED)

    def _reranked(self, query: str, found: list[Item]) -> list[Item]:
        if self._reranker is None or len(found) < 2:
            return found
        best = reranked(self._reranker, query, found[:RERANKED], _text_of)
        return best + found[RERANKED:]


def _text_of(item: Knowledge | Message) -> str:
    return item.content if isinstance(item, Message) else fact_text(item.key or "", item.value)


def _check_query(query: Any) -> None:
    if not isinstance(query, str):
        raise InvalidInput("query", f"must be a string, not {type(query).__name__}")
