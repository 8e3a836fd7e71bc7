"""Backups that nobody asks for: when they are made, how many are kept, and that no program fails to start for them."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from backup_files import change, fill
from disk import FULL, Disk, installed
from rights import bound_by_modes
from work import faults, rows

from mirai_memory import Knowledge, MemoryManager, Message, Settings, load_settings, schema
from mirai_memory.backups import automatic, objects
from mirai_memory.backups.check import begun, sqlite_database
from mirai_memory.health import check_health
from mirai_memory.logging import logger
from mirai_memory.testing.clock import FrozenClock

GUARD = 60


def _settings(**long_term: Any) -> Settings:
    return load_settings(memory={"long_term": {"backup_enabled": True, **long_term}})


Opened = Callable[..., list[str]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "memory.db"


@pytest.fixture
def opened(path: Path, clock: FrozenClock) -> Opened:
    """Open the memory and close it again; which backups there are then, by reason and hour of their making."""

    def open_once(work: Callable[[MemoryManager], Any] = lambda memory: None, **long_term: Any) -> list[str]:
        with MemoryManager(path, settings=_settings(**long_term), clock=clock) as memory:
            work(memory)
        return _made(path.parent / "backups")

    return open_once


def _made(folder: Path) -> list[str]:
    """Like "daily 16T12"."""
    names = sorted(path.name for path in folder.glob("memory-*.db")) if folder.is_dir() else []
    return [f"{name.split('-')[2]} {name.split('-')[1][6:11]}" for name in names]


@pytest.fixture
def warnings() -> Any:
    """What is logged as a warning."""
    said: list[str] = []
    logger.enable("mirai_memory")
    sink = logger.add(lambda message: said.append(message.record["message"]), level="WARNING", filter="mirai_memory")
    yield said
    logger.remove(sink)
    logger.disable("mirai_memory")


# --- daily ------------------------------------------------------------------------------------------------------------


def test_it_is_the_default(path: Path, clock: FrozenClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MIRAI_MEMORY__LONG_TERM__BACKUP_ENABLED")
    with MemoryManager(path, clock=clock) as memory:
        fill(memory)
    clock.advance(days=1)
    MemoryManager(path, clock=clock).close()
    assert _made(path.parent / "backups") == ["daily 16T12"]


def test_the_first_is_made_a_day_after_the_first_row_and_then_one_a_day(opened: Opened, clock: FrozenClock) -> None:
    assert opened(fill) == []
    clock.advance(hours=23.9)
    assert opened() == []
    clock.advance(hours=0.1)
    assert opened() == ["daily 16T12"]
    clock.advance(hours=23.9)
    assert opened() == ["daily 16T12"]
    clock.advance(hours=5)
    assert opened() == ["daily 16T12", "daily 17T16"]
    clock.advance(days=9)
    assert opened() == ["daily 16T12", "daily 17T16", "daily 26T16"]


@pytest.mark.parametrize(
    "store",
    [
        lambda memory: memory.create_session("alice"),
        lambda memory: memory.add_knowledge(Knowledge(value="shared")),
        lambda memory: memory.update_user_preferences("alice", coding_style="terse"),
    ],
)
def test_any_row_is_worth_a_backup(opened: Opened, clock: FrozenClock, store: Callable[[MemoryManager], Any]) -> None:
    opened(store)
    clock.advance(days=1)
    assert opened() == ["daily 16T12"]


def test_an_empty_memory_needs_none(opened: Opened, clock: FrozenClock, path: Path) -> None:
    opened()
    clock.advance(days=30)
    assert opened() == []
    assert not (path.parent / "backups").exists()


def test_it_holds_every_row(opened: Opened, clock: FrozenClock, path: Path) -> None:
    opened(fill)
    clock.advance(days=1)
    opened()
    [made] = (path.parent / "backups").glob("memory-*.db")
    assert rows(made) == rows(path)
    assert faults(made) == []


def test_one_that_was_made_by_hand_counts_as_the_days(opened: Opened, clock: FrozenClock) -> None:
    opened(fill)
    clock.advance(days=1)
    assert opened(lambda memory: memory.backup(), backup_enabled=False) == ["manual 16T12"]
    clock.advance(hours=12)
    assert opened() == ["manual 16T12"]
    clock.advance(hours=12)
    assert opened() == ["manual 16T12", "daily 17T12"]


def test_one_from_the_future_does_not_count(opened: Opened, clock: FrozenClock) -> None:
    opened(fill)
    clock.advance(days=300)
    assert len(opened()) == 1
    clock.advance(days=-299)
    assert "daily 16T12" in opened()


def test_none_is_made_where_it_is_not_wanted(opened: Opened, clock: FrozenClock, path: Path) -> None:
    opened(fill)
    clock.advance(days=3)
    assert opened(backup_enabled=False) == []
    with MemoryManager(path, settings=_settings(), clock=clock, read_only=True):
        pass
    with MemoryManager(":memory:", settings=_settings(), clock=clock) as memory:
        fill(memory)
    assert not (path.parent / "backups").exists()


def test_opening_does_not_wait_for_it(path: Path, clock: FrozenClock, monkeypatch: pytest.MonkeyPatch) -> None:
    with MemoryManager(path, settings=_settings(), clock=clock) as memory:
        fill(memory)
    clock.advance(days=1)
    begun, go_on = threading.Event(), threading.Event()
    make = automatic.back_up

    def held(*arguments: Any, **more: Any) -> Any:
        begun.set()
        assert go_on.wait(GUARD)
        return make(*arguments, **more)

    monkeypatch.setattr(automatic, "back_up", held)
    with MemoryManager(path, settings=_settings(), clock=clock) as memory:
        assert begun.wait(GUARD)
        memory.add_message(Message(session_id="talk of alice", role="user", content="meanwhile"))
        assert _made(path.parent / "backups") == []
        go_on.set()
    assert _made(path.parent / "backups") == ["daily 16T12"], "close() lets it end"


def test_of_many_that_are_opened_at_once_one_makes_it(
    path: Path, clock: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them find it due; those that come to make it later find it made."""
    with MemoryManager(path, settings=_settings(), clock=clock) as memory:
        fill(memory)
    clock.advance(days=1)
    all_open, turn = threading.Event(), threading.Lock()
    run = automatic.DailyBackup._run

    def in_turn(self: automatic.DailyBackup, place: Path) -> None:
        assert all_open.wait(GUARD)
        with turn:
            clock.advance(seconds=1)  # a name of its own
            run(self, place)

    monkeypatch.setattr(automatic.DailyBackup, "_run", in_turn)
    memories = [MemoryManager(path, settings=_settings(), clock=clock) for _ in range(4)]
    all_open.set()
    for memory in memories:
        memory.close()
    assert _made(path.parent / "backups") == ["daily 16T12"]


ENDS = """
import sys
from datetime import timedelta
from mirai_memory import MemoryManager, load_settings
from mirai_memory._time import utc_now
settings = load_settings(memory={"long_term": {"backup_enabled": True}})
memory = MemoryManager(sys.argv[1], settings=settings, clock=lambda: utc_now() + timedelta(days=400))
"""


def test_a_program_that_closes_nothing_has_one_too(opened: Opened, path: Path) -> None:
    opened(fill)
    subprocess.run([sys.executable, "-c", ENDS, str(path)], check=True, timeout=GUARD)
    assert len(_made(path.parent / "backups")) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs POSIX")
def test_a_fork_does_not_wait_for_it_nor_harm_it(
    path: Path, clock: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with MemoryManager(path, settings=_settings(), clock=clock) as memory:
        fill(memory)
    clock.advance(days=1)
    inside, forked = threading.Event(), threading.Event()
    stepped = automatic.DailyBackup._stepped
    attempts = []

    def held(self: Any, stage: Any, done: int, total: int) -> None:
        if stage == "copy" and not attempts:
            attempts.append(done)
            inside.set()
            while not self._store.is_waited_for and not forked.is_set():
                forked.wait(0.01)
        stepped(self, stage, done, total)

    begun = []
    make = automatic.back_up
    monkeypatch.setattr(automatic, "back_up", lambda *given, **more: begun.append(1) or make(*given, **more))
    monkeypatch.setattr(automatic.DailyBackup, "_stepped", held)
    with MemoryManager(path, settings=_settings(), clock=clock) as memory:
        assert inside.wait(GUARD)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                memory.create_session("bob", session_id="of the child")
                code = 0
            finally:
                os._exit(code)
        forked.set()
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert memory.get_session("of the child") is not None
    assert len(begun) == 2, "what the fork ended is begun again"
    assert _made(path.parent / "backups") == ["daily 16T12"]


# --- before the tables are changed ------------------------------------------------------------------------------------


@pytest.fixture
def older(path: Path, clock: FrozenClock) -> Path:
    """A database with rows, of an older schema."""
    with MemoryManager(path, clock=clock) as memory:
        fill(memory)
    schema.downgrade(path, revision="0001")
    return path


def test_one_is_made_before_an_upgrade(opened: Opened, older: Path) -> None:
    before = rows(older)
    assert opened() == ["upgrade 15T12"]
    [made] = (older.parent / "backups").glob("memory-*.db")
    assert schema.current(made) == "0001"
    assert rows(made) == before
    assert schema.current(older) == schema.HEAD_REVISION
    assert opened() == ["upgrade 15T12"]


def test_none_before_a_new_file_is_made_or_an_empty_one_is_upgraded(opened: Opened, path: Path) -> None:
    assert opened() == []
    schema.downgrade(path, revision="0001")
    assert opened() == []
    assert not (path.parent / "backups").exists()


def test_none_where_it_is_switched_off(opened: Opened, older: Path) -> None:
    assert opened(backup_enabled=False) == []
    assert schema.current(older) == schema.HEAD_REVISION


def test_an_upgrade_goes_on_without_one_where_it_cannot_be_made(
    opened: Opened, older: Path, warnings: list[str]
) -> None:
    (older.parent / "backups").write_text("a file where the folder should be")
    opened()
    assert schema.current(older) == schema.HEAD_REVISION
    assert len(warnings) == 1
    assert warnings[0].startswith("no backup before the tables are changed: ")


# --- what is kept -----------------------------------------------------------------------------------------------------


def test_only_so_many_are_kept(opened: Opened, clock: FrozenClock) -> None:
    opened(fill)
    for _ in range(5):
        clock.advance(days=1)
        made = opened(backup_keep=3)
    assert made == ["daily 18T12", "daily 19T12", "daily 20T12"]
    clock.advance(days=1)
    assert opened(backup_keep=1) == ["daily 21T12"]


def test_what_we_did_not_make_ourselves_is_kept(opened: Opened, clock: FrozenClock, path: Path) -> None:
    folder = path.parent / "backups"
    opened(fill)
    clock.advance(days=1)
    opened(lambda memory: memory.backup(), backup_enabled=False)
    clock.advance(days=1)
    opened()
    [daily] = folder.glob("*-daily-*")
    mark = daily.name.split("-")[3]
    others = [
        "memory-20200101T000000000Z-daily-aaaaaa.db",  # of a file of that name in another folder
        f"other-20200101T000000000Z-daily-{mark}",
        f"memory-20200101T000000000Z-mine-{mark}",
        f"memory-2020-daily-{mark}",
        f"memory-20200101T000000000Z-daily-{mark}.txt",
        "notes.txt",
    ]
    for name in others:
        (folder / name).write_text("precious")
    (folder / f"memory-20200101T000000000Z-daily-{mark}").symlink_to(daily)
    (folder / f"memory-20200102T000000000Z-daily-{mark}").mkdir()
    for _ in range(3):
        clock.advance(days=1)
        made = opened(backup_keep=1)
    assert [name for name in made if name.startswith("manual")] == ["manual 16T12"]
    assert len(list(folder.glob(f"memory-*Z-daily-{mark}"))) == 3, "the newest, the link and the folder"
    assert all((folder / name).read_text() == "precious" for name in others)


def test_two_files_of_one_name_share_a_folder(tmp_path: Path, clock: FrozenClock) -> None:
    places = [tmp_path / name / "memory.db" for name in ("one", "two")]
    settings = _settings(backup_dir=str(tmp_path / "all"), backup_keep=1)
    for _ in range(3):
        for place in places:
            with MemoryManager(place, settings=settings, clock=clock) as memory:
                memory.create_session(place.parent.name)
        clock.advance(days=1)
    found = [automatic.found_backups(place, settings.memory.long_term) for place in places]
    assert [len(backups) for backups in found] == [1, 1]
    for place, [backup] in zip(places, found, strict=True):
        with MemoryManager(backup.path) as memory:
            assert {session.user_id for session in memory.list_sessions()} == {place.parent.name}


# --- what goes wrong is a warning -------------------------------------------------------------------------------------


def test_a_disk_that_is_full_is_a_warning(opened: Opened, clock: FrozenClock, path: Path, warnings: list[str]) -> None:
    opened(fill)
    clock.advance(days=1)
    with installed(Disk()) as disk:
        disk.refuse = lambda operation: (
            FULL if ".mirai-backup-" in operation.path and operation.kind == "write" else None
        )
        assert opened(lambda memory: memory.create_session("bob")) == []
    assert warnings == [
        f"no daily backup: no space is left for a backup at {path.parent / 'backups'}; nothing was kept of it"
    ]
    assert opened() == ["daily 16T12"]


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX")
def test_a_folder_that_may_not_be_written_is_a_warning(
    opened: Opened, clock: FrozenClock, tmp_path: Path, warnings: list[str]
) -> None:
    opened(fill)
    clock.advance(days=1)
    (tmp_path / "closed").mkdir(mode=0o500)
    os.chown(tmp_path / "closed", os.geteuid(), os.getegid())
    with bound_by_modes():
        thread = _in_this_thread()
        with thread:
            opened(backup_dir=str(tmp_path / "closed"))
    (tmp_path / "closed").chmod(0o700)
    assert len(warnings) == 1
    assert warnings[0].startswith("no daily backup: ")


def _in_this_thread() -> Any:
    """Threads that are started inside run at once and where they are: rights that were given up are a thread's own."""
    patch = pytest.MonkeyPatch.context()

    class Patched:
        def __enter__(self) -> None:
            self.patch = patch.__enter__()
            self.patch.setattr(automatic.threading.Thread, "start", lambda thread: thread.run())
            self.patch.setattr(automatic.threading.Thread, "join", lambda thread, timeout=None: None)

        def __exit__(self, *error: Any) -> None:
            patch.__exit__(None, None, None)

    return Patched()


def test_a_database_that_cannot_be_backed_up_is_a_warning(
    opened: Opened, clock: FrozenClock, path: Path, warnings: list[str]
) -> None:
    opened(fill)
    change(path, "CREATE TABLE mine (a)")
    clock.advance(days=1)
    assert opened(lambda memory: memory.create_session("bob")) == []
    assert len(warnings) == 1
    assert "'mine' is nothing of a memory's" in warnings[0]


# --- health -----------------------------------------------------------------------------------------------------------


def _health(path: Path, clock: FrozenClock, **long_term: Any) -> tuple[str, str]:
    with MemoryManager(path, settings=_settings(**long_term), clock=clock) as memory:
        memory._daily.finish()
        [check] = [check for check in memory.health().checks if check.name == "backups"]
    return check.status, check.detail


def test_health_tells_the_age_of_the_newest(opened: Opened, clock: FrozenClock, path: Path) -> None:
    assert _health(path, clock)[0] == "ok"
    opened(fill)
    assert _health(path, clock) == ("ok", "none yet; the first is made when a memory of more than a day is opened")
    clock.advance(days=1)
    status, detail = _health(path, clock)
    assert status == "ok"
    assert detail.startswith("the newest is of 2026-01-16 12:00 UTC, 0.")
    assert detail.endswith(f"; 1 in {path.parent / 'backups'}")
    with MemoryManager(path, settings=_settings(), clock=clock) as memory:
        clock.advance(days=9)
        [check] = [check for check in memory.health().checks if check.name == "backups"]
    assert (check.status, check.detail) == ("warning", "the newest is 9 days old")
    assert check.advice == f"make one: mirai-memory backup --db {path}"


def test_health_tells_that_they_are_switched_off(opened: Opened, clock: FrozenClock, path: Path) -> None:
    opened(fill)
    assert _health(path, clock, backup_enabled=False) == (
        "ok",
        "switched off: memory.long_term.backup_enabled is false",
    )


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX")
def test_health_tells_of_a_folder_that_cannot_be_used(path: Path, tmp_path: Path) -> None:
    with MemoryManager(path):
        pass
    (tmp_path / "file").write_text("")
    said = {}
    for name in ("file", "file/below"):
        settings = _settings(backup_dir=str(tmp_path / name))
        [check] = [check for check in check_health(settings, path).checks if check.name == "backups"]
        said[name] = check.status, check.detail
    assert said["file"] == ("warning", f"{tmp_path / 'file'} is no folder")
    assert said["file/below"][0] == "warning"


# --- the record of what the migrations make ---------------------------------------------------------------------------


@pytest.mark.parametrize("revision", objects.FINGERPRINTS)
def test_the_fingerprints_are_those_of_the_migrations(tmp_path: Path, revision: str) -> None:
    """After a new migration: record what this test prints, in backups/objects.py."""
    path = tmp_path / "memory.db"
    schema.upgrade(path, revision=revision)
    assert _fingerprint(path) == objects.FINGERPRINTS[revision]
    schema.upgrade(path)
    schema.downgrade(path, revision=revision)
    assert _fingerprint(path) == objects.FINGERPRINTS[revision], "another way to the same revision"
    schema.downgrade(path, revision="base")
    schema.upgrade(path, revision=revision)
    assert _fingerprint(path) == objects.FINGERPRINTS[revision]


def test_every_revision_has_one() -> None:
    assert list(objects.FINGERPRINTS) == [revision.id for revision in schema.history()]


def _fingerprint(path: Path) -> str:
    database = sqlite_database(path)
    try:
        with begun(database) as db:
            return objects.fingerprint(objects.objects(db))
    finally:
        database.dispose()
