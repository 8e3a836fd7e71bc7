"""What is exported and imported again is the same, row by row: within an engine, across engines, whatever is stored."""

from __future__ import annotations

import itertools
import json
import stat
import threading
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from owners import exported, fill, lines, rows

from mirai_memory import (
    AsyncMemoryManager,
    InvalidInput,
    Knowledge,
    MemoryManager,
    Message,
    ReadOnly,
    StorageError,
    Task,
    UserPreferences,
    load_settings,
)
from mirai_memory.testing.clock import FrozenClock
from mirai_memory.testing.embedders import FakeEmbedder

GUARD = 60.0


@pytest.fixture
def other(url: str, request: pytest.FixtureRequest, tmp_path: Path, clock: FrozenClock) -> Iterator[MemoryManager]:
    """An empty memory of the engine that ``memory`` is not of."""
    place = str(tmp_path / "other.db") if url.startswith("postgresql") else request.getfixturevalue("postgres_url")
    with MemoryManager(place, clock=clock) as memory:
        yield memory


def test_a_memory_comes_back_equal_across_engines_and_back(
    memory: MemoryManager, other: MemoryManager, clock: FrozenClock, tmp_path: Path
) -> None:
    fill(memory, clock)
    memory.create_session("bob")
    before = rows(memory)
    done = memory.export_user("alice", tmp_path / "alice.jsonl")
    taken = other.import_user(tmp_path / "alice.jsonl")
    assert rows(other) == before
    assert (taken.sessions_added, taken.messages_added, taken.tasks_added, taken.facts_added) == (2, 8, 4, 8)
    assert (done.sessions, done.messages, done.tasks, done.facts, done.preferences) == (2, 8, 4, 8, 1)
    assert (taken.conflict_count, taken.links_lost, taken.erased) == (0, 0, 0)
    with MemoryManager(":memory:", clock=clock) as third:
        third.import_user(BytesIO(exported(other)))
        assert rows(third) == before
        assert _without_numbers(third) == _without_numbers(memory)


def _without_numbers(memory: MemoryManager) -> list[dict[str, Any]]:
    """Facts are numbered by their ids, which are others in every memory."""
    numbers = ("id", "superseded_by")
    return [{name: value for name, value in line.items() if name not in numbers} for line in lines(exported(memory))]


def test_what_comes_back_is_found_and_goes_on(memory: MemoryManager, other: MemoryManager, clock: FrozenClock) -> None:
    fill(memory, clock)
    other.import_user(BytesIO(exported(memory)))
    alice = other.for_user("alice")
    assert {found.content for found in alice.search_messages("walruses")} >= {"walrus 0", "walrus 2", "walrus 3"}
    assert [fact.value for fact in alice.get_knowledge(key="city")] == ["Omsk"]
    assert [fact.value for fact in alice.search_knowledge("which job")] == ["cook"], "true until its successor is"
    session = alice.ensure_session("chat")
    assert (
        alice.get_message(alice.add_message(Message(session_id=session.id, role="user", content="on"))).position == 11
    )  # type: ignore[union-attr]
    assert [m.position for m in alice.get_recent_messages(session.id, 4)] == [7, 8, 9, 11]
    assert [fact.value for fact in alice.get_knowledge(key="city", with_embedding=True) if fact.embedding] == ["Omsk"]
    assert other.search_knowledge("", embedding=[0.5, -1.0, 2.0], user_id="alice")[0].value == "Omsk"


def test_vectors_are_made_of_what_came_in(url: str, clock: FrozenClock) -> None:
    with MemoryManager(":memory:", clock=clock) as source:
        fill(source, clock)
        file = exported(source)
    kept = load_settings(memory={"rag": {"background": False}})
    with MemoryManager(url, embedder=FakeEmbedder(), clock=clock, settings=kept) as memory:
        memory.import_user(BytesIO(file))
        wanted = memory._store.read(lambda uow: uow.vectors.count("pending"))
        assert wanted == 6 + 4  # chat messages, and facts that are open
        assert memory.reindex() > 0
        assert memory.recall("walrus", user_id="alice")


def test_one_owner_alone_exports_and_imports_their_own(memory: MemoryManager, clock: FrozenClock) -> None:
    fill(memory, clock)
    file, same = BytesIO(), exported(memory)
    done = memory.for_user("alice").export_user(file)
    assert file.getvalue() == same
    assert done.user_id == "alice"
    before = rows(memory)
    file.seek(0)
    there = memory.for_user("alice").import_user(file)
    assert (there.sessions_there, there.messages_there, there.tasks_there, there.facts_there) == (2, 8, 4, 8)
    assert rows(memory) == before


def test_sessions_of_one_owner_alone_get_ids_that_tell_nothing(tmp_path: Path, url: str) -> None:
    with MemoryManager(":memory:") as source:
        taken = source.create_session("alice", session_id="chat-1").id
        free = source.create_session("alice", session_id="chat-2").id
        file = exported(source)
    with MemoryManager(url) as memory:
        memory.create_session("bob", session_id="chat-1")
        alice = memory.for_user("alice")
        assert alice.import_user(BytesIO(file)).sessions_added == 2
        ids = [session.id for session in alice.list_sessions()]
        assert len({id.partition("~")[2] for id in ids} - {""}) == 2
        assert not {taken, free} & set(ids)
        assert alice.import_user(BytesIO(file)).sessions_there == 2
        assert memory.import_user(BytesIO(file)).sessions_there == 2
        assert memory.import_user(BytesIO(exported(memory))).sessions_there == 2
    with MemoryManager(tmp_path / "c.db") as memory:
        memory.create_session("bob", session_id="chat-1")
        memory.import_user(BytesIO(file))
        assert free in [session.id for session in memory.list_sessions("alice")]
        assert memory.list_sessions("bob")[0].id == taken


@pytest.mark.parametrize("owner", ["nobody", "ё/'\u2028\"%_"])
def test_an_owner_of_whom_there_is_nothing(memory: MemoryManager, owner: str) -> None:
    file = exported(memory, owner)
    assert len(lines(file)) == 1
    assert memory.import_user(BytesIO(file)).user_id == owner


# --- whatever is stored -----------------------------------------------------------------------------------------------

TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=30)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
OBJECT = st.dictionaries(TEXT, JSON, max_size=3)
CALLS = st.sampled_from("abc")
MESSAGES = st.one_of(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "system", "developer"]), "content": TEXT},
        optional={
            "name": TEXT,
            "metadata": OBJECT,
            "parts": st.lists(OBJECT, max_size=2),
            "tokens": st.integers(0, 2**63 - 1),
        },
    ),
    st.fixed_dictionaries(
        {
            "role": st.just("assistant"),
            "tool_calls": st.lists(CALLS, max_size=2, unique=True).map(lambda ids: [{"id": id} for id in ids]),
        },
        optional={"model": TEXT, "content": TEXT},
    ),
    st.fixed_dictionaries({"role": st.just("tool"), "tool_call_id": CALLS, "content": TEXT}),
    st.fixed_dictionaries({"kind": st.just("item"), "payload": OBJECT}, optional={"content": TEXT}),
)
FACTS = st.fixed_dictionaries(
    {"key": st.sampled_from(["k1", "k2", "k3"]), "value": st.sampled_from(["v1", "v2"]) | TEXT},
    optional={
        "confidence": st.floats(0, 1),
        "metadata": OBJECT,
        "source": TEXT,
        "embedding": st.lists(st.floats(-100, 100, width=16), min_size=1, max_size=3),
    },
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("session"), OBJECT),
        st.tuples(st.just("message"), MESSAGES),
        st.tuples(st.just("delete message"), st.integers(0, 5)),
        st.tuples(st.just("trim"), st.integers(0, 3)),
        st.tuples(st.just("task"), TEXT),
        st.tuples(st.just("finish"), TEXT),
        st.tuples(st.just("fact"), FACTS),
        st.tuples(st.just("learned"), FACTS),
        st.tuples(st.just("closed"), FACTS),
        st.tuples(st.just("later"), FACTS),
        st.tuples(st.just("delete fact"), st.sampled_from(["k1", "k2"])),
        st.tuples(st.just("likes"), OBJECT),
        st.tuples(st.just("wait"), st.none()),
    ),
    max_size=25,
)


class _Owner:
    """Does the steps through the memory."""

    def __init__(self, memory: MemoryManager, clock: FrozenClock, owner: str) -> None:
        self._memory, self._clock, self._owner = memory, clock, owner
        self._sessions, self._messages, self._tasks = [memory.create_session(owner).id], list[int](), list[int]()

    def do(self, step: str, value: Any) -> None:
        getattr(self, "_" + step.replace(" ", "_"))(value)

    def _session(self, metadata: Any) -> None:
        self._clock.advance(seconds=1)  # sessions of one moment are in the order of their ids
        self._sessions.append(self._memory.create_session(self._owner, metadata=metadata).id)

    def _message(self, fields: Any) -> None:
        self._messages.append(self._memory.add_message(Message(session_id=self._sessions[-1], **fields)))

    def _delete_message(self, place: int) -> None:
        if place < len(self._messages):
            self._memory.delete_message(self._messages.pop(place))

    def _trim(self, keep: int) -> None:
        self._memory.trim_old_messages(self._sessions[-1], keep)
        self._messages = [id for id in self._messages if self._memory.get_message(id)]

    def _task(self, text: str) -> None:
        task = Task(user_id=self._owner, session_id=self._sessions[0] if text else None, description=f"x{text}")
        self._tasks.append(self._memory.add_task(task))

    def _finish(self, text: str) -> None:
        if self._tasks:
            self._memory.update_task_status(self._tasks[-1], "failed", text)

    def _fact(self, fields: Any, **more: Any) -> None:
        model = {"embedding_model": "m"} if "embedding" in fields else {}
        self._memory.add_knowledge(Knowledge(user_id=self._owner, **fields, **model, **more))

    def _learned(self, fields: Any) -> None:
        self._fact(fields, message_id=self._messages[-1] if self._messages else None)

    def _closed(self, fields: Any) -> None:
        self._fact(fields, valid_to=self._clock())

    def _later(self, fields: Any) -> None:
        self._fact(fields, valid_from=self._clock().replace(year=2040), expires_at=self._clock().replace(year=2050))

    def _delete_fact(self, key: str) -> None:
        self._memory.delete_knowledge(key=key, user_id=self._owner)

    def _likes(self, metadata: Any) -> None:
        self._memory.save_user_preferences(UserPreferences(user_id=self._owner, metadata=metadata))

    def _wait(self, _: None) -> None:
        self._clock.advance(hours=1)


_numbers = itertools.count()


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(steps=STEPS)
def test_whatever_is_stored_comes_back_equal(
    memory: MemoryManager, other: MemoryManager, clock: FrozenClock, steps: list[tuple[str, Any]]
) -> None:
    name = f"owner-{next(_numbers)}"
    owner = _Owner(memory, clock, name)
    for step, value in steps:
        owner.do(step, value)
    before, file = rows(memory, name), exported(memory, name)
    other.import_user(BytesIO(file))
    # repr, since 1 == 1.0 == True, and 0.0 == -0.0
    assert repr(rows(other, name)) == repr(before)
    again = other.import_user(BytesIO(file))
    assert (again.conflict_count, again.messages_added, again.tasks_added, again.facts_added) == (0, 0, 0, 0)
    assert repr(rows(other, name)) == repr(before)
    assert memory.import_user(BytesIO(exported(other, name))).conflict_count == 0
    assert repr(rows(memory, name)) == repr(before)


# --- one moment -------------------------------------------------------------------------------------------------------


def test_an_export_is_of_one_moment_while_others_write(memory: MemoryManager) -> None:
    session = memory.create_session("alice").id
    memory.add_messages([Message(session_id=session, role="user", content=f"{n}") for n in range(1_200)])
    seen: list[int] = []

    def write_meanwhile(done: int, total: int) -> None:
        seen.append(done)
        with ThreadPoolExecutor(1) as pool:
            new = pool.submit(memory.create_session, "alice").result(GUARD)
            pool.submit(memory.add_message, Message(session_id=session, role="user", content="late")).result(GUARD)
            pool.submit(memory.add_task, Task(session_id=new.id, description="late")).result(GUARD)
            pool.submit(memory.delete_message, 1).result(GUARD) if done == 1_000 else None

    file = BytesIO()
    done = memory.export_user("alice", file, progress=write_meanwhile)
    assert seen == [1_000, 1_201]
    assert (done.sessions, done.messages, done.tasks) == (1, 1_200, 0)
    with MemoryManager(":memory:") as copy:
        assert copy.import_user(BytesIO(file.getvalue())).messages_added == 1_200


def test_writers_do_not_wait_for_an_export(memory: MemoryManager) -> None:
    session = memory.create_session("alice").id
    memory.add_message(Message(session_id=session, role="user", content="x"))
    going, done = threading.Event(), threading.Event()

    class Slow(BytesIO):
        def write(self, data: Any) -> int:
            going.set()
            assert done.wait(GUARD)
            return super().write(data)

    with ThreadPoolExecutor(1) as pool:
        export = pool.submit(memory.export_user, "alice", Slow())
        assert going.wait(GUARD)
        memory.add_message(Message(session_id=session, role="user", content="meanwhile"))
        done.set()
        assert export.result(GUARD).messages == 1


# --- the file ---------------------------------------------------------------------------------------------------------


def test_a_file_is_whole_private_and_never_written_over(sqlite_memory: MemoryManager, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    path = folder / "alice.jsonl"
    sqlite_memory.add_knowledge(Knowledge(user_id="alice", value="x"))
    done = sqlite_memory.export_user("alice", path)
    assert path.stat().st_size == done.bytes
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in folder.iterdir()] == ["alice.jsonl"]
    kept = path.read_bytes()
    link = folder / "link.jsonl"
    link.symlink_to(folder / "elsewhere.jsonl")
    for taken in (path, link, Path(sqlite_memory.url)):
        with pytest.raises(InvalidInput, match="there already"):
            sqlite_memory.export_user("alice", taken)
    assert path.read_bytes() == kept
    assert sorted(file.name for file in folder.iterdir()) == ["alice.jsonl", "link.jsonl"]


def test_an_export_that_fails_leaves_no_file(memory: MemoryManager, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    memory.create_session("alice")

    def fail(done: int, total: int) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        memory.export_user("alice", folder / "alice.jsonl", progress=fail)
    assert list(folder.iterdir()) == []
    with pytest.raises(StorageError, match="No such file"):
        memory.export_user("alice", folder / "missing" / "alice.jsonl")
    assert memory.export_user("alice", folder / "alice.jsonl").sessions == 1


@pytest.mark.parametrize("target", [None, 7, StringIO(), "a\0b", "\ud800"])
def test_what_is_no_target(sqlite_memory: MemoryManager, target: Any) -> None:
    with pytest.raises((InvalidInput, StorageError)):
        sqlite_memory.export_user("alice", target)


class _Trickle(BytesIO):
    """An unbuffered file, which takes a few bytes at a time."""

    def write(self, data: Any) -> int:
        return super().write(bytes(data[:7]))


class _Pipe(BytesIO):
    def seekable(self) -> bool:
        return False


def test_files_that_are_handed_in(memory: MemoryManager, clock: FrozenClock) -> None:
    fill(memory, clock)
    whole, little = exported(memory), _Trickle()
    memory.export_user("alice", little)
    assert little.getvalue() == whole
    with MemoryManager(":memory:") as other:
        assert other.import_user(_Pipe(whole)).sessions_added == 2
    with MemoryManager(":memory:") as other:
        behind = BytesIO(b"something before it\n" + whole)
        behind.readline()
        assert other.import_user(behind).sessions_added == 2
    with pytest.raises(InvalidInput, match="binary"):
        memory.import_user(StringIO())  # type: ignore[arg-type]


def test_a_full_disk_is_a_storage_error(memory: MemoryManager) -> None:
    class Full(BytesIO):
        def write(self, data: Any) -> int:
            raise OSError(28, "No space left on device")

    with pytest.raises(StorageError, match="no space"):
        memory.export_user("alice", Full())
    assert memory.export_user("alice", BytesIO()).sessions == 0


def test_the_lines_are_as_documented(memory: MemoryManager, clock: FrozenClock) -> None:
    """One line of JSON each, in order, text as itself; what is null is left out."""
    fill(memory, clock)
    written = exported(memory)
    kinds = [json.loads(line)["type"] for line in written.splitlines()]
    assert kinds[0] == "header"
    assert kinds[-1] == "end"
    assert [kind for kind, _ in itertools.groupby(kinds)] == [
        "header", "preferences", "session", "message", "session", "task", "fact", "end",
    ]  # fmt: skip
    assert "Ещё".encode() in written
    assert b"null" not in b"".join(line for line in written.splitlines() if b'"metadata"' not in line)


async def _async_round_trip(url: str, path: Path) -> tuple[int, int]:
    async with AsyncMemoryManager(url) as memory:
        session = await memory.create_session("alice")
        await memory.add_message(Message(session_id=session.id, role="user", content="x"))
        done = await memory.export_user("alice", path)
        there = await memory.for_user("alice").import_user(path)
        return done.messages, there.messages_there


def test_the_async_memory_has_them_too(url: str, tmp_path: Path) -> None:
    import asyncio

    assert asyncio.run(_async_round_trip(url, tmp_path / "a.jsonl")) == (1, 1)


@pytest.mark.long
def test_a_large_memory_goes_through_a_little_at_a_time(sqlite_memory: MemoryManager, tmp_path: Path) -> None:
    """Forty megabytes of text."""
    session = sqlite_memory.create_session("alice").id
    for number in range(40):
        said = [Message(session_id=session, role="user", content=f"{number} {n} " + "x" * 100_000) for n in range(10)]
        sqlite_memory.add_messages(said)
    with MemoryManager(tmp_path / "other.db") as other:
        tracemalloc.start()
        done = sqlite_memory.export_user("alice", tmp_path / "alice.jsonl")
        exporting = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        assert other.import_user(tmp_path / "alice.jsonl").messages_added == done.messages == 400
        importing = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert done.bytes > 40_000_000
    assert max(exporting, importing) < 20_000_000


def test_a_read_only_memory_exports_and_takes_nothing_in(memory: MemoryManager, clock: FrozenClock) -> None:
    fill(memory, clock)
    with ExitStack() as stack:
        reader = stack.enter_context(MemoryManager(memory.url, read_only=True, clock=clock))
        assert exported(reader) == exported(memory)
        with pytest.raises(ReadOnly):
            reader.import_user(BytesIO(exported(memory)))


def test_what_is_switched_off_is_exported_all_the_same(memory: MemoryManager, clock: FrozenClock) -> None:
    fill(memory, clock)
    off = load_settings(memory={"long_term": {"enabled": False}, "user_preferences": {"enabled": False}})
    with MemoryManager(memory.url, settings=off, clock=clock) as other:
        assert exported(other) == exported(memory)


def test_preferences_that_are_not_kept_do_not_come_in(url: str) -> None:
    liked = UserPreferences(user_id="alice", coding_style="terse", communication_tone="dry")
    with MemoryManager(":memory:") as source:
        saved = source.save_user_preferences(liked)
        file = exported(source)
    some = load_settings(memory={"user_preferences": {"remember": ["coding_style"]}})
    with MemoryManager(url, settings=some) as memory:
        memory.import_user(BytesIO(file))
        assert memory.get_user_preferences("alice") == replace(saved, communication_tone=None)
        assert memory.import_user(BytesIO(file)).preferences_there == 1
