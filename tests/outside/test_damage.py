"""Files that are damaged: by whole pages, by what stands in a row, in the log. Our own errors, and no text in them."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from work import STEPS, FrozenClock, do, faults, opened, rows

from mirai_memory import Knowledge, MemoryManager, Message, MiraiMemoryError, StorageError, UserPreferences

PAGE = 4096


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed file with rows of every kind."""
    file, clock = tmp_path_factory.mktemp("filled") / "memory.db", FrozenClock()
    with opened(file, clock) as memory:
        for number in range(list(STEPS).index("trim_old_messages")):
            do(memory, clock, number)
    return file


def _say(content: str) -> Message:
    return Message(session_id="both", role="user", content=content)


CALLS: dict[str, Callable[[MemoryManager], Any]] = {
    "get_session": lambda m: m.get_session("talk"),
    "list_sessions": lambda m: m.list_sessions(),
    "get_messages": lambda m: m.get_messages("talk"),
    "get_recent_messages": lambda m: m.get_recent_messages("both"),
    "get_conversation_history": lambda m: m.get_conversation_history("talk"),
    "search_messages": lambda m: m.search_messages("walrus talk line", user_id="bob"),
    "search of all": lambda m: m.search_messages("walrus talk line"),
    "get_user_preferences": lambda m: m.get_user_preferences("alice"),
    "get_tasks": lambda m: m.get_tasks(),
    "get_knowledge": lambda m: m.get_knowledge(user_id="bob", with_embedding=True),
    "search_knowledge": lambda m: m.search_knowledge("value number", user_id="bob"),
    "knowledge_history": lambda m: m.knowledge_history("city", user_id="alice"),
    "recall": lambda m: m.recall("talk", user_id="bob"),
    "build_context": lambda m: m.build_context("both", "talk"),
    "get_stats": lambda m: m.get_stats(),
    "health": lambda m: m.health(),
    "reindex": lambda m: m.reindex(),
    "add_message": lambda m: m.add_message(_say("words " * 500)),
    "add_knowledge": lambda m: m.add_knowledge(Knowledge(user_id="bob", key="k1", value="another")),
    "update_message": lambda m: m.update_message(2, "another"),
    "trim_old_messages": lambda m: m.trim_old_messages("both", 2),
    "update_user_preferences": lambda m: m.update_user_preferences("alice", metadata={"a": 1}),
    "clear_session": lambda m: m.clear_session("talk"),
    "delete_session": lambda m: m.delete_session("both"),
}


def _use(file: Path) -> list[MiraiMemoryError]:
    """What every call says of the file; anything but our own errors fails the test."""
    said: list[MiraiMemoryError] = []
    try:
        with opened(file) as memory:
            for call in CALLS.values():
                try:
                    call(memory)
                except MiraiMemoryError as error:
                    said.append(error)
    except MiraiMemoryError as error:
        said.append(error)
    return said


def _damaged_copy(filled: Path, folder: Path, change: Callable[[bytearray], None]) -> Path:
    folder.mkdir()
    content = bytearray(filled.read_bytes())
    change(content)
    file = folder / "memory.db"
    file.write_bytes(content)
    return file


DAMAGES: dict[str, Callable[[bytearray, int], None]] = {
    "zeros": lambda content, at: content.__setitem__(slice(at, at + PAGE), bytes(PAGE)),
    "ones": lambda content, at: content.__setitem__(slice(at, at + PAGE), b"\xff" * PAGE),
    "another page": lambda content, at: content.__setitem__(slice(at, at + PAGE), content[PAGE : 2 * PAGE]),
    "cut off": lambda content, at: content.__delitem__(slice(at, None)),
    "cut in the middle": lambda content, at: content.__delitem__(slice(at + 1000, None)),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_page_is_our_own_error_and_never_a_strangers(filled: Path, tmp_path: Path, damage: str) -> None:
    pages = range(1, len(filled.read_bytes()) // PAGE, 2)
    noticed = 0
    for page in pages:
        file = _damaged_copy(filled, tmp_path / str(page), lambda content, at=page * PAGE: DAMAGES[damage](content, at))
        noticed += any(isinstance(error, StorageError) for error in _use(file))
        shutil.rmtree(file.parent)
    assert noticed > len(pages) / 2


def _spoil(file: Path, statement: str) -> None:
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        changed = connection.execute(statement).rowcount
        connection.commit()
    assert changed > 0


SECRET = "purple walrus"
SPOILED = {
    "JSON": (f"""UPDATE sessions SET metadata = '{{"title": "{SECRET}'""", "get_session"),
    "JSON of messages": (f"UPDATE messages SET metadata = '[{SECRET}'", "get_messages"),
    "JSON read in a hurry": (f"UPDATE messages SET metadata = '[{SECRET}'", "get_recent_messages"),
    "JSON of calls": (f"UPDATE messages SET tool_calls = '{SECRET}' WHERE tool_calls IS NOT NULL", "get_messages"),
    "JSON of preferences": (f"UPDATE user_preferences SET favorite_tools = '{SECRET}'", "get_user_preferences"),
    "JSON before a change": (f"UPDATE user_preferences SET metadata = '{SECRET}'", "update_user_preferences"),
    "JSON of tasks": (f"UPDATE tasks SET metadata = '{SECRET}'", "get_tasks"),
    "a number for JSON": ("UPDATE tasks SET metadata = x'ff00'", "get_tasks"),
    "a time": (f"UPDATE messages SET timestamp = '{SECRET}'", "get_messages"),
    "a time read in a hurry": (f"UPDATE messages SET timestamp = '{SECRET}'", "get_recent_messages"),
    "a number for a time": ("UPDATE tasks SET created_at = 17", "get_tasks"),
    "bytes that are no text": ("UPDATE messages SET content = CAST(x'fffe' AS TEXT)", "get_messages"),
    "the scope of a text": ("UPDATE word_messages SET terms = ' @x words@x '", "delete_session"),
    "no scope of a text": ("UPDATE word_messages SET terms = ''", "delete_session"),
}


@pytest.mark.parametrize(("statement", "name"), SPOILED.values(), ids=SPOILED)
def test_a_value_that_cannot_be_read_is_our_own_error(filled: Path, tmp_path: Path, statement: str, name: str) -> None:
    file = shutil.copy(filled, tmp_path / "memory.db")
    with opened(file) as memory:
        _spoil(file, statement)
        with pytest.raises(StorageError) as raised:
            CALLS[name](memory)
        assert SECRET not in _words_of(raised.value)
        memory.save_user_preferences(UserPreferences(user_id="carol", coding_style="terse"))
        assert memory.get_user_preferences("carol")


def _words_of(error: BaseException | None) -> str:
    if error is None:
        return ""
    return f"{error} {error!r} {vars(error)} {_words_of(error.__cause__)} {_words_of(error.__context__)}"


def test_damage_in_the_log_costs_what_comes_after_it_and_no_more(filled: Path, tmp_path: Path) -> None:
    """Frames of the log have checksums: what is whole before a damaged one is there, the rest was never committed."""
    live, clock = tmp_path / "live.db", FrozenClock()
    shutil.copy(filled, live)
    states = [rows(live)]
    with opened(live, clock) as memory:
        for number in range(4):
            memory.add_message(_say(f"message {number}"))
            states.append(rows(live))
        log = live.with_name("live.db-wal").read_bytes()
    seen = set()
    for at in range(100, len(log), 1_537):
        folder = tmp_path / str(at)
        folder.mkdir()
        copy = shutil.copy(filled, folder / "memory.db")
        damaged = bytearray(log)
        damaged[at] ^= 0x55
        Path(f"{copy}-wal").write_bytes(damaged)
        with opened(copy):
            pass
        assert faults(copy) == []
        seen.add(states.index(rows(copy)))
        shutil.rmtree(folder)
    assert seen >= {0, 1, 2, 3}


@pytest.mark.parametrize(
    "content", [bytes(range(256)) * 64, b"no log at all\n" * 900, b""], ids=["noise", "text", "empty"]
)
def test_what_is_no_log_is_passed_over(filled: Path, tmp_path: Path, content: bytes) -> None:
    file = shutil.copy(filled, tmp_path / "memory.db")
    before = rows(file)
    Path(f"{file}-wal").write_bytes(content)
    with opened(file):
        pass
    assert rows(file) == before
