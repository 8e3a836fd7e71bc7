"""The file of erasures recognises owners and names none; it survives what may happen to it, or says so."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mirai_memory import StorageError, erasures

AT = datetime(2026, 1, 15, 12, tzinfo=UTC)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "memory.db"


def test_the_newest_erasure_of_an_owner_counts(database: Path) -> None:
    assert erasures.erased(database, "alice") is None
    for owner, days in (("alice", 0), ("bob", 1), ("alice", 2), ("alice", 1)):
        erasures.record(database, owner, AT + timedelta(days=days))
    assert erasures.erased(database, "alice") == AT + timedelta(days=2)
    found = erasures.erased_owners(database, ["alice", "bob", "carol"])
    assert found == {"alice": AT + timedelta(days=2), "bob": AT + timedelta(days=1)}


def test_it_names_nobody(database: Path) -> None:
    erasures.record(database, "alice@example.org", AT)
    first = erasures.erasures_path(database).read_text()
    assert "alice" not in first
    other = database.with_name("other.db")
    erasures.record(other, "alice@example.org", AT)
    assert erasures.erasures_path(other).read_text() != first, "another file has another salt"


def test_only_its_owner_may_read_it(database: Path) -> None:
    before = os.umask(0)
    try:
        erasures.record(database, "alice", AT)
    finally:
        os.umask(before)
    assert stat.S_IMODE(erasures.erasures_path(database).stat().st_mode) == 0o600


def test_a_line_that_was_cut_off_costs_nothing_else(database: Path) -> None:
    erasures.record(database, "alice", AT)
    path = erasures.erasures_path(database)
    whole = path.read_bytes()
    for end in range(len(whole)):
        path.write_bytes(whole + whole[:end])
        assert erasures.erased(database, "alice") == AT
    erasures.record(database, "bob", AT)
    assert erasures.erased_owners(database, ["alice", "bob"]).keys() == {"alice", "bob"}
    assert path.read_bytes().count(b"\n") == 2


@pytest.mark.parametrize(
    "line", [b"nonsense\n", b"{}\n", b"[]\n", b'{"version": 2}\n', b"\xff\xfe\n", b'{"version": 1, "at": 5}\n', b"\n"]
)
def test_anything_else_is_refused(database: Path, line: bytes) -> None:
    erasures.record(database, "alice", AT)
    path = erasures.erasures_path(database)
    for content in (line + path.read_bytes(), path.read_bytes() + line):
        path.write_bytes(content)
        with pytest.raises(StorageError, match="no erasure that this version knows"):
            erasures.erased(database, "alice")
        with pytest.raises(StorageError):
            erasures.record(database, "bob", AT)
        assert path.read_bytes() == content


def test_a_link_is_not_followed(database: Path, tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("precious")
    erasures.erasures_path(database).symlink_to(target)
    with pytest.raises(StorageError):
        erasures.record(database, "alice", AT)
    with pytest.raises(StorageError):
        erasures.erased(database, "alice")
    assert target.read_text() == "precious"


def test_a_folder_in_its_place_and_a_missing_folder(database: Path, tmp_path: Path) -> None:
    erasures.erasures_path(database).mkdir()
    with pytest.raises(StorageError):
        erasures.record(database, "alice", AT)
    with pytest.raises(StorageError):
        erasures.record(tmp_path / "missing" / "memory.db", "alice", AT)


def test_a_naive_time_is_refused(database: Path) -> None:
    with pytest.raises(ValueError, match="naive"):
        erasures.record(database, "alice", AT.replace(tzinfo=None))


def test_processes_that_record_at_once_lose_no_line(database: Path) -> None:
    program = (
        "import sys\nfrom datetime import UTC, datetime\nfrom mirai_memory import erasures\n"
        "for n in range(50): erasures.record(sys.argv[1], f'{sys.argv[2]}-{n}', datetime.now(UTC))\n"
    )
    children = [subprocess.Popen([sys.executable, "-c", program, str(database), str(n)]) for n in range(3)]
    assert [child.wait(120) for child in children] == [0, 0, 0]
    owners = [f"{child}-{n}" for child in range(3) for n in range(50)]
    assert erasures.erased_owners(database, owners).keys() == set(owners)
