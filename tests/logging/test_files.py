"""The file: rotated by size, private, shared by processes, and never a reason for the host to fail."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from mirai_memory import _log_files
from mirai_memory._locks import file_lock
from mirai_memory._log_files import LogFile

WRITERS = Path(__file__).with_name("writers.py")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "mirai.log"


def siblings(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.parent.iterdir() if file.suffix != ".lock"}


# --- rotation ---------------------------------------------------------------------------------------------------------


def test_old_files_are_numbered_from_the_newest_and_as_many_as_asked_for(path: Path) -> None:
    file = LogFile(path, max_bytes=8, backup_count=3)
    for number in range(12):
        file.append(b"%03d\n" % number)
    assert siblings(path) == {
        "mirai.log": b"010\n011\n",
        "mirai.log.1": b"008\n009\n",
        "mirai.log.2": b"006\n007\n",
        "mirai.log.3": b"004\n005\n",
    }


def test_without_old_files_the_log_begins_anew(path: Path) -> None:
    file = LogFile(path, max_bytes=8, backup_count=0)
    for number in range(5):
        file.append(b"%03d\n" % number)
    assert siblings(path) == {"mirai.log": b"004\n"}


def test_without_rotation_one_file_grows(path: Path) -> None:
    file = LogFile(path, max_bytes=None, backup_count=3)
    for _ in range(100):
        file.append(b"x" * 1000 + b"\n")
    assert {name: len(content) for name, content in siblings(path).items()} == {"mirai.log": 100_100}


def test_a_line_longer_than_a_file_may_be_has_one_to_itself(path: Path) -> None:
    file = LogFile(path, max_bytes=8, backup_count=9)
    for line in (b"a\n", b"b" * 20 + b"\n", b"c\n"):
        file.append(line)
    assert siblings(path) == {"mirai.log": b"c\n", "mirai.log.1": b"b" * 20 + b"\n", "mirai.log.2": b"a\n"}


def test_fewer_old_files_than_before_drop_the_rest(path: Path) -> None:
    for count in (5, 2):
        file = LogFile(path, max_bytes=1, backup_count=count)
        for _ in range(8):
            file.append(b"x\n")
    assert sorted(siblings(path)) == ["mirai.log", "mirai.log.1", "mirai.log.2"]


def test_a_rotation_that_was_interrupted_costs_no_file(path: Path) -> None:
    path.parent.mkdir()
    for name in ("mirai.log", "mirai.log.1", "mirai.log.3"):  # .2 had just become .3
        path.with_name(name).write_text(name + "\n")
    LogFile(path, max_bytes=1, backup_count=3).append(b"new\n")
    assert siblings(path) == {
        "mirai.log": b"new\n",
        "mirai.log.1": b"mirai.log\n",
        "mirai.log.2": b"mirai.log.1\n",
        "mirai.log.3": b"mirai.log.3\n",
    }


def test_where_files_cannot_be_renamed_the_line_is_written_nevertheless(path: Path) -> None:
    file = LogFile(path, max_bytes=4, backup_count=1)
    path.parent.mkdir()
    path.with_name("mirai.log.1").mkdir()
    file.append(b"one\n")
    with pytest.raises(OSError, match=r"."):
        file.append(b"two\n")
    assert path.read_bytes() == b"one\ntwo\n"


def test_the_settings_of_rotation_are_heard(configure: Any, ours: Any, path: Path) -> None:
    from types import SimpleNamespace

    rotate = SimpleNamespace(enabled=True, max_bytes=100, backup_count=2)
    configure(path=path, fields=("message",), rotate=rotate)
    for number in range(50):
        ours.info("line {}", number)
    found = siblings(path)
    assert sorted(found) == ["mirai.log", "mirai.log.1", "mirai.log.2"]
    assert all(0 < len(content) <= 100 for content in found.values())
    rotate.enabled = False
    configure(path=path, fields=("message",), rotate=rotate)
    for number in range(50):
        ours.info("line {}", number)
    assert len(path.read_bytes()) > 100


# --- many writers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_no_line_of_four_processes_is_lost_doubled_or_torn(path: Path, method: str) -> None:
    processes, lines, max_bytes = 4, 1500, 15_000
    arguments = [method, str(path), str(processes), str(lines), str(max_bytes)]
    done = subprocess.run([sys.executable, str(WRITERS), *arguments], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    found = siblings(path)
    assert len(found) > 20
    messages = [json.loads(line)["message"] for content in found.values() for line in content.decode().splitlines()]
    assert Counter(messages) == Counter(
        f"writer {writer} line {line} {'x' * (line % 97)}" for writer in range(processes) for line in range(lines)
    )
    assert all(content.endswith(b"\n") for content in found.values())


def test_no_line_of_many_threads_is_lost(configure: Any, ours: Any, path: Path) -> None:
    configure(path=path, fields=("message",))

    def write(number: int) -> None:
        for line in range(200):
            ours.info("{} {}", number, line)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    messages = [json.loads(line)["message"] for line in path.read_text().splitlines()]
    assert sorted(messages) == sorted(f"{number} {line}" for number in range(6) for line in range(200))


def test_a_lock_that_nobody_gives_back_costs_no_line(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_log_files, "_PATIENCE", 0.01)
    file = LogFile(path, max_bytes=8, backup_count=1)
    file.append(b"one\n")
    with file_lock(path.with_name("mirai.log.lock"), wait=0):
        for _ in range(5):
            file.append(b"two\n")
    assert path.read_bytes() == b"one\n" + b"two\n" * 5
    file.append(b"six\n")
    assert siblings(path) == {"mirai.log": b"six\n", "mirai.log.1": b"one\n" + b"two\n" * 5}


def test_half_a_line_of_a_writer_that_was_killed_stands_alone(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b'{"whole": 1}\n{"ha')
    LogFile(path, max_bytes=1000, backup_count=1).append(b'{"next": 1}\n')
    assert path.read_bytes() == b'{"whole": 1}\n{"ha\n{"next": 1}\n'


# --- whose file it is -------------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX")
def test_log_old_files_and_lock_are_private(configure: Any, ours: Any, path: Path) -> None:
    before = os.umask(0)
    try:
        file = LogFile(path, max_bytes=1, backup_count=2)
        file.append(b"x\n")
        path.chmod(0o644)  # as another program left it
        file.append(b"y\n")
        file.append(b"z\n")
    finally:
        os.umask(before)
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert modes == dict.fromkeys(["mirai.log", "mirai.log.1", "mirai.log.2", "mirai.log.lock"], 0o600)


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX")
@pytest.mark.parametrize("name", ["mirai.log", "mirai.log.lock"])
def test_a_link_is_not_followed(
    configure: Any, ours: Any, path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path.parent.mkdir()
    victim = path.parent / "victim"
    victim.write_text("precious")
    victim.chmod(0o644)
    path.with_name(name).symlink_to(victim)
    configure(path=path)
    ours.info("hello")
    assert victim.read_text() == "precious"
    assert stat.S_IMODE(victim.stat().st_mode) == 0o644
    assert capsys.readouterr().err.count("log lines are lost") == 1


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX")
def test_a_link_among_the_old_files_is_moved_not_followed(path: Path) -> None:
    path.parent.mkdir()
    victim = path.parent / "victim"
    victim.write_text("precious")
    path.with_name("mirai.log.1").symlink_to(victim)
    file = LogFile(path, max_bytes=1, backup_count=1)
    for _ in range(3):
        file.append(b"x\n")
    assert victim.read_text() == "precious"


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX")
def test_a_pipe_in_the_place_of_the_log_is_refused_at_once(path: Path) -> None:
    path.parent.mkdir()
    os.mkfifo(path)
    with pytest.raises(OSError, match="no regular file"):
        LogFile(path, max_bytes=None, backup_count=0).append(b"x\n")


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX")
def test_another_users_file_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.parent.mkdir()
    path.write_text("theirs\n")
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    with pytest.raises(PermissionError, match="another user"):
        LogFile(path, max_bytes=None, backup_count=0).append(b"x\n")
    assert path.read_text() == "theirs\n"


# --- when it cannot be written ----------------------------------------------------------------------------------------


def test_a_removed_folder_and_a_deleted_file_are_made_again(configure: Any, ours: Any, path: Path) -> None:
    configure(path=path, fields=("message",))
    ours.info("one")
    path.unlink()
    ours.info("two")
    assert path.read_text() == '{"message": "two"}\n'
    for file in path.parent.iterdir():
        file.unlink()
    path.parent.rmdir()
    ours.info("three")
    assert path.read_text() == '{"message": "three"}\n'


def test_a_file_that_cannot_be_written_is_said_once_and_breaks_nothing(
    configure: Any, ours: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    configure(path=tmp_path / "file" / "mirai.log")
    for _ in range(3):
        ours.info("hello")
    said = capsys.readouterr().err
    assert said == f"mirai_memory: log lines are lost: {tmp_path / 'file' / 'mirai.log'}: Not a directory\n"


def test_a_program_without_stderr_goes_on(
    configure: Any, ours: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    configure(path=tmp_path)
    ours.info("hello")
    assert capsys.readouterr().out == ""


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX")
def test_a_full_disk_keeps_whole_lines_and_the_host_goes_on(path: Path) -> None:
    # A limit on the size of a file is a full disk as far as write() is concerned: it takes half a line.
    script = (
        "import resource, sys\n"
        "sys.path.insert(0, sys.argv[2])\n"
        "import writers\n"
        "writers.logger.remove()\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "writers.configure(sys.argv[1], 10_000)\n"
        "writers.write(0, 100)\n"
        "print('still here')\n"
    )
    command = [sys.executable, "-c", script, str(path), str(WRITERS.parent)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "still here\n")
    assert done.stderr.count("\n") == 1
    assert "File too large" in done.stderr
    content = path.read_bytes()
    assert 900 < len(content) <= 1000
    assert content.endswith(b"\n")
    assert all(json.loads(line) for line in content.splitlines())
