"""What happens when a database is opened: made, upgraded, or refused and left exactly as it was."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, make_url, text

from mirai_memory import (
    Busy,
    ConfigurationError,
    Corrupt,
    ForeignDatabase,
    Knowledge,
    MemoryManager,
    Message,
    MiraiMemoryError,
    ReadOnly,
    SchemaOutOfDate,
    SchemaTooNew,
    StorageError,
    Task,
    UserPreferences,
    schema,
)
from mirai_memory._locks import file_lock
from mirai_memory.database.migrating import Patience
from mirai_memory.testing.clock import FrozenClock

GUARD = 120.0
CANARY = "cAnArY-pAsSwOrD"
FIRST_VERSION = """
CREATE TABLE sessions (id TEXT PRIMARY KEY, user_id TEXT, created_at TEXT, last_active TEXT, summary TEXT,
                       message_count INTEGER);
CREATE TABLE messages (id INTEGER PRIMARY KEY, session_id TEXT, role TEXT, content TEXT, timestamp TEXT,
                       tokens INTEGER, model TEXT);
CREATE TABLE user_preferences (user_id TEXT PRIMARY KEY, coding_style TEXT);
CREATE TABLE tasks (id INTEGER PRIMARY KEY, session_id TEXT, description TEXT);
CREATE TABLE knowledge (id INTEGER PRIMARY KEY, category TEXT, key TEXT, value TEXT);
INSERT INTO sessions VALUES ('s', 'alice', '2024-01-01', '2024-01-01', NULL, 1);
INSERT INTO messages VALUES (1, 's', 'user', 'an old walrus', '2024-01-01', 3, 'm');
"""


def _script(path: Path, script: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)


def _say(memory: MemoryManager, content: str) -> int:
    session = memory.ensure_session("alice", "chat")
    return memory.add_message(Message(session_id=session.id, role="user", content=content))


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


# --- made and upgraded ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("umask", [0o022, 0o000])
def test_a_missing_file_is_made_with_its_folders_for_its_owner_only(tmp_path: Path, umask: int) -> None:
    file = tmp_path / "a" / "b" / "memory.db"
    before = os.umask(umask)
    try:
        with MemoryManager(file) as memory:
            _say(memory, "walrus")
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in file.parent.iterdir()}
    finally:
        os.umask(before)
    assert modes["memory.db"] == 0o600
    assert set(modes.values()) == {0o600}, modes
    assert schema.current(file) == schema.HEAD_REVISION
    with MemoryManager(file) as memory:
        assert len(memory.search_messages("walrus")) == 1


def test_the_default_is_a_file_in_the_working_folder(tmp_path: Path) -> None:
    with MemoryManager() as memory:
        assert memory.url == str(tmp_path / "data" / "mirai_memory.db")
    assert (tmp_path / "data" / "mirai_memory.db").is_file()


def test_a_file_of_zero_bytes_is_an_empty_database(tmp_path: Path) -> None:
    file = tmp_path / "empty.db"
    file.touch()
    with MemoryManager(file) as memory:
        _say(memory, "walrus")
    assert schema.current(file) == schema.HEAD_REVISION


@pytest.mark.parametrize("revision", [*[r.id for r in schema.history()][:-1], "base"])
def test_an_older_file_is_upgraded_when_it_is_opened(sqlite_url: str, revision: str) -> None:
    with MemoryManager(sqlite_url) as memory:
        id = _say(memory, "walrus")
        memory.add_knowledge(Knowledge(value="walrus", key="animal"))
    schema.downgrade(sqlite_url, revision=revision)
    assert schema.current(sqlite_url) == (None if revision == "base" else revision)
    with MemoryManager(sqlite_url) as memory:
        assert [m.id for m in memory.search_messages("walrus")] == [id]
        assert [k.key for k in memory.search_knowledge("walrus")] == ["animal"]
        assert _say(memory, "another") > id
    assert schema.current(sqlite_url) == schema.HEAD_REVISION
    assert schema.check(sqlite_url) == []


def test_a_current_file_is_opened_without_alembic(sqlite_url: str) -> None:
    with MemoryManager(sqlite_url):
        pass
    code = """
import sys
from mirai_memory import MemoryManager
with MemoryManager(sys.argv[1]) as memory:
    memory.create_session("alice")
print("alembic" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code, sqlite_url], capture_output=True, text=True, timeout=GUARD)
    assert (done.stdout, done.stderr) == ("False\n", "")


def test_upgrading_waits_for_the_lock_and_touches_nothing_before(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "_PATIENCE", Patience(lock_s=0.0))
    lock = Path(sqlite_url + ".lock")
    with file_lock(lock, wait=0), pytest.raises(Busy, match=lock.name):
        MemoryManager(sqlite_url)
    assert not Path(sqlite_url).exists()
    with MemoryManager(sqlite_url) as memory:
        _say(memory, "walrus")
    schema.downgrade(sqlite_url, revision="-1")
    before = Path(sqlite_url).read_bytes()
    with file_lock(lock, wait=0):
        with pytest.raises(Busy):
            MemoryManager(sqlite_url)
        with pytest.raises(Busy):
            schema.upgrade(sqlite_url, patience=Patience(lock_s=0.0))
    assert Path(sqlite_url).read_bytes() == before
    with MemoryManager(sqlite_url) as memory, file_lock(lock, wait=0), MemoryManager(sqlite_url) as another:
        assert len(another.search_messages("walrus")) == 1, "a current file is opened without the lock"


def test_the_version_is_read_again_once_the_lock_is_had(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[str] = []
    run = schema._run
    monkeypatch.setattr(schema, "_run", lambda command, *a, **k: (runs.append(command), run(command, *a, **k)))
    with ThreadPoolExecutor(1) as pool:
        with file_lock(Path(sqlite_url + ".lock"), wait=0):
            # It has seen no file, and waits; meanwhile another process, which this thread plays, makes the schema.
            waits = pool.submit(MemoryManager, sqlite_url)
            Path(sqlite_url).touch()
            run("upgrade", "head", url=make_url("sqlite://").set(database=sqlite_url))
        waits.result(GUARD).close()
    assert runs == []


# --- eight at once ----------------------------------------------------------------------------------------------------

OPENER = """
import sys
from mirai_memory import MemoryManager, Message
path, adds = sys.argv[1:]
print("ready", flush=True)
sys.stdin.readline()
with MemoryManager(path) as memory:
    if adds == "yes":
        session = memory.ensure_session("alice", "chat")
        print(memory.add_message(Message(session_id=session.id, role="user", content="walrus")))
"""


@contextmanager
def _waiting(*arguments: str, count: int = 8) -> Iterator[list[subprocess.Popen[str]]]:
    pipe = subprocess.PIPE
    processes = [
        subprocess.Popen([sys.executable, "-c", OPENER, *arguments], stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        for _ in range(count)
    ]
    guard = threading.Timer(GUARD, lambda: [process.kill() for process in processes])
    guard.start()
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        yield processes
    finally:
        guard.cancel()
        for process in processes:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    stream.close()


@pytest.mark.long
@pytest.mark.parametrize("start", ["missing", "empty file", "older", "base"])
def test_eight_processes_open_one_file_at_once(tmp_path: Path, start: str) -> None:
    file = tmp_path / "folder" / "memory.db"
    old = 0
    if start != "missing":
        file.parent.mkdir()
        file.touch()
    if start in ("older", "base"):
        with MemoryManager(file) as memory:
            old = _say(memory, "walrus")
        schema.downgrade(file, revision="base" if start == "base" else "0001")
    with _waiting(str(file), "no" if start == "empty file" else "yes") as processes:
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        done = [(*process.communicate(), process.returncode) for process in processes]
    assert [(words, code) for _, words, code in done] == [("", 0)] * 8
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute(f"SELECT * FROM {schema.VERSION_TABLE}").fetchall() == [(schema.HEAD_REVISION,)]
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert schema.check(file) == []
    with MemoryManager(file) as memory:
        if start == "empty file":
            assert memory.list_sessions() == []
            return
        (session,) = memory.list_sessions()
        ids = [m.id for m in memory.get_messages(session.id)]
        assert ids == sorted([*([old] if old else []), *(int(out) for out, _, _ in done)])
        assert session.message_count == len(ids) == len(memory.search_messages("walrus", limit=20))


# --- refused, and not touched -----------------------------------------------------------------------------------------


def _make_newer(file: Path) -> None:
    with MemoryManager(file) as memory:
        _say(memory, "from the future")
    _script(file, f"UPDATE {schema.VERSION_TABLE} SET version_num = '9999'")


def _make_foreign(file: Path) -> None:
    _script(file, "CREATE TABLE recipes (id INTEGER PRIMARY KEY, name TEXT); INSERT INTO recipes VALUES (1, 'cake')")


def _make_foreign_wal(file: Path) -> None:
    _script(file, "PRAGMA journal_mode = WAL; CREATE TABLE recipes (id INTEGER PRIMARY KEY)")


def _make_foreign_view(file: Path) -> None:
    _script(file, "CREATE VIEW one AS SELECT 1")


def _make_first_version(file: Path) -> None:
    _script(file, FIRST_VERSION)


def _make_half_of_the_first_version(file: Path) -> None:
    _script(file, "CREATE TABLE sessions (id TEXT); CREATE TABLE messages (id TEXT)")


def _make_garbage(file: Path) -> None:
    file.write_bytes(bytes(range(1, 256)) * 100)


def _make_text(file: Path) -> None:
    file.write_text("Dear diary\n", encoding="utf-8")


def _make_damaged_header(file: Path) -> None:
    with MemoryManager(file) as memory:
        _say(memory, "walrus")
    whole = file.read_bytes()
    file.write_bytes(b"SQLite format 4\0" + whole[16:])


def _make_damaged_schema_page(file: Path) -> None:
    with MemoryManager(file) as memory:
        _say(memory, "walrus")
    whole = file.read_bytes()
    file.write_bytes(whole[:100] + b"\xff" * 3_996 + whole[4_096:])


REFUSED: dict[str, tuple[Callable[[Path], None], type[MiraiMemoryError], str]] = {
    "newer": (_make_newer, SchemaTooNew, "9999.*upgrade mirai-memory"),
    "foreign": (_make_foreign, ForeignDatabase, "not touched"),
    "foreign, WAL": (_make_foreign_wal, ForeignDatabase, "not touched"),
    "foreign, a view only": (_make_foreign_view, ForeignDatabase, "not touched"),
    "first version": (_make_first_version, ForeignDatabase, "mirai-memory import OLD --db NEW"),
    "half of the first version": (_make_half_of_the_first_version, ForeignDatabase, "not touched"),
    "garbage": (_make_garbage, Corrupt, "damaged|no SQLite"),
    "text": (_make_text, Corrupt, "damaged|no SQLite"),
    "damaged header": (_make_damaged_header, Corrupt, "damaged|no SQLite"),
    "damaged schema page": (_make_damaged_schema_page, Corrupt, "damaged|no SQLite"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_not_ours_is_refused_and_left_as_it_is(tmp_path: Path, what: str) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    file = folder / "memory.db"
    make, expected, words = REFUSED[what]
    make(file)
    for lock in ("memory.db.lock", "memory.db.writers.lock"):  # of a file that was ours before it was spoilt
        (folder / lock).unlink(missing_ok=True)
    before, mode = _contents(folder), file.stat().st_mode
    ways: dict[str, Callable[[], Any]] = {
        "open": lambda: MemoryManager(file),
        "upgrade": lambda: schema.upgrade(file),
        "downgrade": lambda: schema.downgrade(file, revision="base"),
        "current": lambda: schema.current(file),
        "check": lambda: schema.check(file),
        "open read-only": lambda: MemoryManager(file, read_only=True),
    }
    left = {}
    for name, way in ways.items():
        with pytest.raises(expected, match=words) as caught:
            way()
        assert type(caught.value) is expected
        after = _contents(folder)
        assert after.pop("memory.db") == before["memory.db"], f"{name} changed the file"
        assert file.stat().st_mode == mode
        if name == "open read-only":
            # A connection that may not write cannot take away what SQLite needs beside a WAL file.
            assert after.pop("memory.db-wal", b"") == b""
            after.pop("memory.db-shm", None)
        if after:
            left[name] = sorted(after)
            for path in after:
                (folder / path).unlink()
    assert left == {}, "something was left beside it"


def test_a_folder_is_no_database(tmp_path: Path) -> None:
    folder = tmp_path / "memory.db"
    folder.mkdir()
    for way in (
        lambda: MemoryManager(folder),
        lambda: MemoryManager(folder, read_only=True),
        lambda: schema.upgrade(folder),
    ):
        with pytest.raises(StorageError, match="is a folder"):
            way()
    assert [path.name for path in tmp_path.iterdir()] == ["memory.db"]
    assert list(folder.iterdir()) == []


def test_a_file_where_a_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text", encoding="utf-8")
    with pytest.raises(StorageError, match="folder"):
        MemoryManager(tmp_path / "file" / "memory.db")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    "path",
    ["", "a\x00b", "x" * 300, "~nobody-of-that-name/memory.db", "lone-\ud800.db"],
    ids=["empty", "NUL", "too long", "no such home", "lone surrogate"],
)
def test_a_path_that_cannot_be_is_our_own_error(tmp_path: Path, path: str) -> None:
    with pytest.raises((ConfigurationError, StorageError)) as caught:
        MemoryManager(path)
    assert isinstance(caught.value, MiraiMemoryError)
    assert list(tmp_path.iterdir()) == []


def _damage(file: Path) -> None:
    """Overwrite pages in the second half of a file, where the rows are."""
    whole = bytearray(file.read_bytes())
    pages = len(whole) // 4_096
    for page in range(pages // 2, 3 * pages // 4):
        whole[page * 4_096 : (page + 1) * 4_096] = b"\xa5" * 4_096
    file.write_bytes(whole)


def test_damage_in_the_middle_is_corrupt_on_use(tmp_path: Path) -> None:
    file = tmp_path / "memory.db"
    with MemoryManager(file) as memory:
        session = memory.ensure_session("alice", "chat").id
        texts = [Message(session_id=session, role="user", content=f"walrus {n} " + "x" * 800) for n in range(1_000)]
        memory.add_messages(texts)
    _damage(file)
    damaged = file.read_bytes()
    opened: list[MemoryManager] = []
    failures: list[MiraiMemoryError] = []

    def attempt(call: Callable[[], Any]) -> None:
        try:
            call()
        except MiraiMemoryError as error:
            failures.append(error)

    def use() -> None:
        with MemoryManager(file) as memory:
            opened.append(memory)
            attempt(lambda: memory.get_messages(session, limit=5_000))
            attempt(lambda: memory.search_messages("walrus", limit=1_000))
            attempt(lambda: [memory.get_message(id) for id in range(1, 1_000)])
            attempt(lambda: memory.delete_session(session))
            attempt(lambda: memory.get_stats())

    attempt(use)
    assert opened
    assert failures
    assert {type(error) for error in failures} == {Corrupt}
    assert file.read_bytes() == damaged
    assert {path.name for path in tmp_path.iterdir()} <= {"memory.db", "memory.db.lock", "memory.db.writers.lock"}


def test_an_opening_that_fails_late_lets_go_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "memory.db"
    with MemoryManager(file):
        pass
    _script(file, "DROP TABLE memory_state")  # looked at last, by the word index
    with pytest.raises(Corrupt):
        MemoryManager(file)
    # The last connection to go takes these with it.
    assert {path.name for path in tmp_path.iterdir()} <= {"memory.db", "memory.db.lock", "memory.db.writers.lock"}


def test_broken_references_in_an_older_file_are_our_own_error(tmp_path: Path) -> None:
    file = tmp_path / "memory.db"
    with MemoryManager(file) as memory:
        _say(memory, "walrus")
    schema.downgrade(file, revision="0001")
    _script(file, "UPDATE messages SET session_id = 'missing'")  # foreign keys are off here
    with pytest.raises(MiraiMemoryError, match="1 broken reference"):
        MemoryManager(file)
    assert schema.current(file) == "0001"


# --- read-only --------------------------------------------------------------------------------------------------------


def test_read_only_reads_everything_and_refuses_every_write(url: str) -> None:
    with MemoryManager(url, clock=FrozenClock()) as memory:
        id = _say(memory, "walrus")
        fact = memory.add_knowledge(Knowledge(value="walrus"))
        task = memory.add_task(Task(description="feed", user_id="alice"))
        memory.save_user_preferences(UserPreferences(user_id="alice"))
    with MemoryManager(url, clock=FrozenClock(), read_only=True) as memory:
        session = memory.list_sessions()[0].id
        assert memory.get_message(id) is not None
        assert len(memory.search_messages("walrus")) == len(memory.search_knowledge("walrus")) == 1
        assert memory.get_task(task) is not None
        assert memory.get_user_preferences("alice") is not None
        assert memory.get_stats()["total_messages"] == 1
        assert memory.cleanup_old_sessions(dry_run=True) == 0
        mine = memory.for_user("alice")
        writes: list[Callable[[], Any]] = [
            lambda: memory.create_session("alice"),
            lambda: memory.ensure_session("alice", "chat"),
            lambda: memory.update_session(session, metadata={}),
            lambda: memory.update_session_activity(session),
            lambda: memory.clear_session(session),
            lambda: memory.delete_session(session),
            lambda: _say(memory, "words"),
            lambda: memory.add_message(Message(session_id=session, role="user", content="words")),
            lambda: memory.add_messages([Message(session_id=session, role="user", content="words")]),
            lambda: memory.update_message(id, "words"),
            lambda: memory.delete_message(id),
            lambda: memory.pop_message(session),
            lambda: memory.trim_old_messages(session, 0),
            lambda: memory.save_user_preferences(UserPreferences(user_id="alice")),
            lambda: memory.update_user_preferences("alice", coding_style="terse"),
            lambda: memory.delete_user_preferences("alice"),
            lambda: memory.add_task(Task(description="words", user_id="alice")),
            lambda: memory.update_task_status(task, "completed"),
            lambda: memory.delete_task(task),
            lambda: memory.add_knowledge(Knowledge(value="words")),
            lambda: memory.add_knowledge_many([Knowledge(value="words")]),
            lambda: memory.delete_knowledge(fact),
            lambda: memory.cleanup_old_sessions(0),
            lambda: memory.run(lambda uow: None),
            lambda: memory.unit_of_work().__enter__(),
            lambda: mine.create_session(),
            lambda: mine.add_message(Message(session_id=session, role="user", content="words")),
        ]
        before = memory.get_stats()
        for write in writes:
            with pytest.raises(ReadOnly):
                write()
        assert memory.get_stats() == before


def test_read_only_changes_no_byte(sqlite_url: str) -> None:
    with MemoryManager(sqlite_url) as memory:
        _say(memory, "walrus")
    before = _contents(Path(sqlite_url).parent)
    with MemoryManager(sqlite_url, read_only=True) as memory:
        memory.search_messages("walrus")
    assert Path(sqlite_url).read_bytes() == before["memory.db"]


def test_read_only_makes_no_missing_file(tmp_path: Path) -> None:
    for missing in (tmp_path / "memory.db", tmp_path / "folder" / "memory.db"):
        with pytest.raises(StorageError, match="does not exist"):
            MemoryManager(missing, read_only=True)
    assert list(tmp_path.iterdir()) == []


def test_read_only_upgrades_nothing(sqlite_url: str) -> None:
    with MemoryManager(sqlite_url) as memory:
        _say(memory, "walrus")
    schema.downgrade(sqlite_url, revision="0001")
    before = Path(sqlite_url).read_bytes()
    with pytest.raises(SchemaOutOfDate, match="0001"):
        MemoryManager(sqlite_url, read_only=True)
    assert Path(sqlite_url).read_bytes() == before


def test_a_file_that_the_system_holds_read_only(sqlite_url: str) -> None:
    with MemoryManager(sqlite_url) as memory:
        _say(memory, "walrus")
    if os.name != "posix" or os.geteuid() == 0:
        pytest.skip("needs a user other than root")
    Path(sqlite_url).chmod(0o400)
    with MemoryManager(sqlite_url) as memory:
        assert len(memory.search_messages("walrus")) == 1
        with pytest.raises(ReadOnly):
            _say(memory, "another")


def test_reading_while_another_process_writes(sqlite_url: str) -> None:
    with MemoryManager(sqlite_url) as writer, MemoryManager(sqlite_url, read_only=True) as reader:
        for number in range(3):
            _say(writer, "walrus")
            assert len(reader.search_messages("walrus")) == number + 1


# --- paths and private databases --------------------------------------------------------------------------------------

NAMES = [
    "why?.db",
    "a?mode=memory&cache=shared.db",
    "number #1.db",
    "100%.db",
    "%41.db",
    "with  spaces .db",
    "память моя.db",
    "naïve-日本-🍵.db",
    'quote\'d "twice".db',
    "back\\slash.db",
    "semi;colon&and=is+plus.db",
    ":memory:.db",
    "file:memory.db",
    "-dash",
    "*.db",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_path_is_a_path(tmp_path: Path, name: str) -> None:
    folder = tmp_path / f"folder {name}"
    file = folder / name
    with MemoryManager(str(file)) as memory:
        _say(memory, "walrus")
        assert memory.url == str(file)
    assert {path.name for path in folder.iterdir()} <= {name, name + ".lock", name + ".writers.lock"}
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]
    os.chdir(folder)
    with MemoryManager(name, read_only=True) as memory:
        assert len(memory.search_messages("walrus")) == 1
    assert schema.current(file) == schema.HEAD_REVISION


def test_a_path_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    with MemoryManager("~/memory.db") as memory:
        assert memory.url == str(tmp_path / "home" / "memory.db")


def test_memories_in_memory_are_private(tmp_path: Path) -> None:
    with MemoryManager(":memory:") as one, MemoryManager(":memory:") as two:
        session = one.create_session("alice").id
        with ThreadPoolExecutor(8) as pool:
            add = lambda n: one.add_message(Message(session_id=session, role="user", content=f"walrus {n}"))  # noqa: E731
            ids = list(pool.map(add, range(80), timeout=GUARD))
            found = list(pool.map(lambda _: len(one.search_messages("walrus", limit=100)), range(8), timeout=GUARD))
        assert sorted(ids) == [m.id for m in one.get_messages(session)] == list(range(1, 81))
        assert found == [80] * 8
        assert two.list_sessions() == []
        assert two.get_stats()["total_messages"] == 0
    with pytest.raises(StorageError, match="closed"):
        one.list_sessions()
    assert list(tmp_path.iterdir()) == [], "nothing reached the disk"


# --- PostgreSQL -------------------------------------------------------------------------------------------------------


def _with_password(url: str) -> str:
    return make_url(url).set(password=CANARY).render_as_string(hide_password=False)


def _refusal(url: str, expected: type[MiraiMemoryError], **arguments: Any) -> str:
    with pytest.raises(expected) as caught:
        MemoryManager(url, **arguments)
    assert type(caught.value) is expected
    error: BaseException | None = caught.value
    while error is not None:
        assert CANARY not in f"{error} {error!r} {error.args}"
        error = error.__cause__ or error.__context__
    return str(caught.value)


@pytest.mark.parametrize("read_only", [False, True])
def test_an_unmigrated_server_is_refused_with_the_command(empty_postgres_url: str, read_only: bool) -> None:
    for revision in (None, "0001"):
        if revision:
            schema.upgrade(empty_postgres_url, revision=revision)
        said = _refusal(_with_password(empty_postgres_url), SchemaOutOfDate, read_only=read_only)
        assert "mirai-memory db upgrade --db 'postgresql+psycopg://" in said
        assert f"revision {revision or 'none'}" in said
        assert "***" in said
        assert schema.current(empty_postgres_url) == revision, "nothing was made"


def test_a_password_among_the_parameters_is_hidden_too(empty_postgres_url: str) -> None:
    url = make_url(empty_postgres_url).update_query_dict({"password": CANARY}).render_as_string(hide_password=False)
    assert CANARY in url
    _refusal(url, SchemaOutOfDate)
    schema.upgrade(url)
    with MemoryManager(url) as memory:
        assert CANARY not in memory.url
        assert CANARY not in repr(memory)


def test_a_newer_server_is_refused(empty_postgres_url: str) -> None:
    schema.upgrade(empty_postgres_url)
    engine = create_engine(empty_postgres_url)
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE mirai_memory.{schema.VERSION_TABLE} SET version_num = '9999'"))
    engine.dispose()
    assert "9999" in _refusal(_with_password(empty_postgres_url), SchemaTooNew)
    with pytest.raises(SchemaTooNew):
        schema.upgrade(empty_postgres_url)


def test_a_strangers_schema_is_refused(empty_postgres_url: str) -> None:
    engine = create_engine(empty_postgres_url)
    with engine.begin() as connection:
        connection.execute(text("CREATE SCHEMA mirai_memory"))
        connection.execute(text("CREATE TABLE mirai_memory.recipes (id INTEGER)"))
    engine.dispose()
    _refusal(_with_password(empty_postgres_url), ForeignDatabase)
    with pytest.raises(ForeignDatabase):
        schema.upgrade(empty_postgres_url)


def test_a_server_that_is_not_there_is_a_storage_error(postgres_server: str) -> None:
    unreachable = f"postgresql://alice:{CANARY}@127.0.0.1:1/memory"
    _refusal(unreachable, StorageError)
    missing = make_url(postgres_server).set(database="no_such_database", password=CANARY)
    _refusal(missing.render_as_string(hide_password=False), StorageError)
