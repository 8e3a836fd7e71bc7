"""A disk that is full or fails, at every operation of every write: a typed error, nothing changed, well again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from disk import FULL, READ_FAILED, SYNC_FAILED, WRITE_FAILED, Disk, installed
from work import STEPS, FrozenClock, do, faults, made_anew, opened, rows, words_of

from mirai_memory import MemoryManager, Message, StorageError, StorageFull

REFUSALS = {
    "full": (FULL, ("write",), StorageFull),
    "write": (WRITE_FAILED, ("write",), StorageError),
    "sync": (SYNC_FAILED, ("sync",), StorageError),
}


@pytest.mark.parametrize("how", REFUSALS)
def test_every_write_survives_a_disk_that_fails_at_some_point(tmp_path: Path, how: str) -> None:
    _survives(tmp_path, how, stride=6)


@pytest.mark.long
@pytest.mark.parametrize("how", REFUSALS)
def test_every_write_survives_a_disk_that_fails_at_any_point(tmp_path: Path, how: str) -> None:
    _survives(tmp_path, how, stride=1)


def _survives(tmp_path: Path, how: str, *, stride: int) -> None:
    code, kinds, error = REFUSALS[how]
    file, clock = tmp_path / "memory.db", FrozenClock()
    refused = 0
    with installed(Disk()) as disk, opened(file, clock) as memory:
        for number, name in enumerate(STEPS):
            before = rows(file)
            at = 1
            while True:
                disk.break_at(at, code, *kinds)
                outcome = _outcome(lambda: do(memory, clock, number))  # noqa: B023 - called at once
                disk.well()
                if outcome is None:
                    break
                assert outcome is error, (name, at)
                assert rows(file) == before, (name, at)
                refused, at = refused + 1, at + stride
            assert at > 1 or name == "add_message again", f"{name} needed no disk"
    assert faults(file) == []
    assert made_anew(file) == words_of(rows(file))
    assert refused >= len(STEPS) - 1


def test_what_every_step_makes_does_not_depend_on_failures_before(tmp_path: Path) -> None:
    """Each step once in vain and once with success leaves what each step once leaves."""
    left = []
    for tries in (0, 1):
        file, clock = tmp_path / f"{tries}.db", FrozenClock()
        with installed(Disk()) as disk, opened(file, clock) as memory:
            for number, name in enumerate(STEPS):
                if tries and name != "add_message again":
                    disk.break_at(1, FULL, "write")
                    with pytest.raises(StorageFull):
                        do(memory, clock, number)
                    disk.well()
                do(memory, clock, number)
        left.append(rows(file))
    assert left[0] == left[1]


READS: dict[str, Callable[[MemoryManager], Any]] = {
    "get_session": lambda m: m.get_session("talk"),
    "get_messages": lambda m: m.get_messages("both", limit=1_000),
    "get_recent_messages": lambda m: m.get_recent_messages("both"),
    "search_messages": lambda m: m.search_messages("long talk", user_id="bob"),
    "get_user_preferences": lambda m: m.get_user_preferences("alice"),
    "get_tasks": lambda m: m.get_tasks(),
    "get_knowledge": lambda m: m.get_knowledge(user_id="bob", with_embedding=True),
    "search_knowledge": lambda m: m.search_knowledge("number", user_id="bob"),
    "knowledge_history": lambda m: m.knowledge_history("city", user_id="alice"),
    "recall": lambda m: m.recall("talk", user_id="bob"),
    "build_context": lambda m: m.build_context("both", "long talk"),
    "get_stats": lambda m: m.get_stats(),
}


@pytest.mark.parametrize("name", READS)
def test_a_disk_that_cannot_be_read_is_a_storage_error_and_well_again(tmp_path: Path, name: str) -> None:
    file, clock = tmp_path / "memory.db", FrozenClock()
    with opened(file, clock) as memory:
        for number in range(list(STEPS).index("trim_old_messages")):
            do(memory, clock, number)
        expected = READS[name](memory)
    with installed(Disk()) as disk, opened(file, clock) as memory:
        _forget_pages(memory)
        disk.break_at(1, READ_FAILED, "read")
        with pytest.raises(StorageError) as raised:
            READS[name](memory)
        assert type(raised.value) is StorageError
        disk.well()
        assert READS[name](memory) == expected


def _forget_pages(memory: MemoryManager) -> None:
    """SQLite reads from the disk again, not from its cache."""
    memory._store.read(lambda uow: uow.db.exec_driver_sql("PRAGMA shrink_memory"))


def test_a_search_on_a_full_disk_goes_on_without_the_vectors_it_could_not_store(tmp_path: Path) -> None:
    file, clock = tmp_path / "memory.db", FrozenClock()
    with installed(Disk()) as disk, opened(file, clock) as memory:
        memory.create_session("alice", session_id="talk")
        memory.add_message(Message(session_id="talk", role="user", content="the walrus likes green tea"))
        disk.break_at(1, FULL, "write")
        assert [m.content for m in memory.search_messages("walrus", user_id="alice")] == ["the walrus likes green tea"]
        with pytest.raises(StorageFull):
            memory.reindex()
        disk.well()
        assert memory.reindex() == 1
        assert memory.search_messages("walrus", user_id="alice")


@pytest.mark.parametrize(("code", "error"), [(FULL, StorageFull), (WRITE_FAILED, StorageError)])
def test_a_file_that_could_not_be_made_is_made_later(tmp_path: Path, code: int, error: type[StorageError]) -> None:
    """Now and then a write fails while a new file is made; each time the next opening starts where nothing was done."""
    file = tmp_path / "memory.db"
    outcomes = []
    with installed(Disk()) as disk:
        for at in range(1, 1_000, 7):
            disk.break_at(at, code, "write")
            outcomes.append(_outcome(lambda: _open_and_close(file)))
            if outcomes[-1] is None:
                break
        disk.well()
        with opened(file) as memory:
            memory.create_session("alice")
    assert len(outcomes) > 3
    assert outcomes == [*[error] * (len(outcomes) - 1), None]
    assert faults(file) == []


def _open_and_close(file: Path) -> None:
    with opened(file):
        pass


def _outcome(call: Callable[[], Any]) -> type[StorageError] | None:
    """How it was refused; None where it was not."""
    try:
        call()
    except StorageError as error:
        return type(error)
    return None
