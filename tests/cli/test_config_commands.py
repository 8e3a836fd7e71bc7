"""``config show``, ``config check`` and ``init``."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from cli_runner import CliRunner, Result

from mirai_memory import Settings, load_settings
from mirai_memory._settings_template import NOTES, template
from mirai_memory._settings_tree import leaves
from mirai_memory.cli.app import app

CANARY = "cAnArY-sEcReT"


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch, _bare_surroundings: None) -> None:
    """No setting of the suite's own is shown."""
    for name in [name for name in os.environ if name.upper().startswith("MIRAI_")]:
        monkeypatch.delenv(name)


def invoke(*arguments: str) -> Result:
    result = CliRunner().invoke(app, [*arguments])
    assert CANARY not in result.output
    return result


def shown(*arguments: str) -> dict[str, tuple[Any, str]]:
    """Value and place of each key."""
    result = invoke("config", "show", "--json", *arguments)
    assert result.exit_code == 0, result.stderr
    return {row["key"]: (row["value"], row["from"]) for row in json.loads(result.stdout)}


# --- show -------------------------------------------------------------------------------------------------------------


def test_every_leaf_is_shown_with_its_default() -> None:
    rows = shown()
    assert list(rows) == [leaf.key for leaf in leaves(Settings)]
    assert {place for _, place in rows.values()} == {"default"}
    assert rows["memory.url"] == (None, "default")
    assert rows["memory.schema"] == ("mirai_memory", "default")
    assert rows["memory.short_term.max_messages"] == (12, "default")
    assert rows["memory.long_term.on_conflict"] == ({"default": "replace"}, "default")


def test_each_value_comes_with_its_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    Path("app.yaml").write_text(
        "memory: {synchronous: normal, busy_timeout_ms: 1, db_path: x.db, rag: {cache_mb: 1},"
        " long_term: {on_conflict: {diet: reject}}}"
    )
    Path(".env").write_text("MIRAI_MEMORY__BUSY_TIMEOUT_MS=2\nMIRAI_MEMORY__RAG__CACHE_MB=2\n")
    monkeypatch.setenv("MIRAI_MEMORY__RAG__CACHE_MB", "3")
    monkeypatch.setenv("MIRAI_MEMORY__LONG_TERM__ON_CONFLICT__CITY", "reject")
    rows = shown("--config", "app.yaml")
    assert rows["memory.synchronous"] == ("normal", "app.yaml")
    assert rows["memory.db_path"] == (str(tmp_path / "x.db"), "app.yaml")
    assert rows["memory.busy_timeout_ms"] == (2, ".env")
    assert rows["memory.rag.cache_mb"] == (3, "environment")
    conflict = {"diet": "reject", "city": "reject"}
    assert rows["memory.long_term.on_conflict"] == (conflict, "environment, app.yaml")
    assert rows["memory.rag.enabled"] == (True, "default")
    assert shown("--db", "other.db")["memory.url"] == (str(tmp_path / "other.db"), "argument")


def test_the_table_has_a_line_for_each_leaf() -> None:
    Path("mirai.yaml").write_text("models: {chat: {model: модель}}", encoding="utf-8")
    lines = invoke("config", "show").stdout.splitlines()
    assert len(lines) == 1 + len(list(leaves(Settings)))
    assert lines[0].split() == ["key", "from", "value"]
    assert ["models.chat.model", "mirai.yaml", "модель"] in [line.split() for line in lines]
    assert ["memory.short_term.ttl_hours", "default", "24"] in [line.split() for line in lines]
    assert ["memory.url", "default", "null"] in [line.split() for line in lines]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (f"postgresql://alice:{CANARY}@db.example/memory", "postgresql+psycopg://alice:***@db.example/memory"),
        (f"postgresql://db/memory?password={CANARY}", "postgresql+psycopg://db/memory?password=%2A%2A%2A"),
        (f"postgresql://alice:{CANARY}@db:port/memory", "**********"),
        (f"mysql://alice:{CANARY}@db/memory", "**********"),
    ],
)
def test_the_password_of_the_database_is_hidden(monkeypatch: pytest.MonkeyPatch, url: str, expected: str) -> None:
    monkeypatch.setenv("MIRAI_MEMORY__URL", url)
    assert shown()["memory.url"] == (expected, "environment")
    assert expected in invoke("config", "show").stdout


def test_who_logs_in_to_a_model_is_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIRAI_MODELS__CHAT__BASE_URL", f"https://alice:{CANARY}@models.example/v1")
    monkeypatch.setenv("MIRAI_MODELS__EMBEDDING__BASE_URL", f"https://{CANARY}@models.example/v1?api_key={CANARY}")
    rows = shown()
    assert rows["models.chat.base_url"] == ("https://***@models.example/v1", "environment")
    assert rows["models.embedding.base_url"][0].startswith("https://***@models.example/v1?api_key=[redacted]")
    invoke("config", "show")


def test_broken_settings_are_not_shown() -> None:
    Path("mirai.yaml").write_text("memory: {synchronus: full}")
    result = invoke("config", "show", "--json")
    assert (result.exit_code, result.stdout) == (3, "")
    assert "memory.synchronus" in result.stderr


# --- check ------------------------------------------------------------------------------------------------------------


def test_no_faults() -> None:
    before = sorted(os.listdir())
    result = invoke("config", "check")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "no faults\n", "")
    assert json.loads(invoke("config", "check", "--json").stdout) == []
    assert sorted(os.listdir()) == before


def test_every_fault_has_a_line_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("mirai.yaml").write_text("memory: {synchronus: full, busy_timeout_ms: -1}")
    Path(".env").write_text(f"MIRAI_NOPE={CANARY}\n")
    monkeypatch.setenv("MIRAI_MEMORY__BACKEND", CANARY)
    result = invoke("config", "check")
    assert (result.exit_code, result.stdout) == (3, "")
    lines = result.stderr.splitlines()
    assert len(lines) == 4
    for word in ("memory.synchronus", "memory.busy_timeout_ms", "MIRAI_NOPE", "MIRAI_MEMORY__BACKEND"):
        assert sum(word in line for line in lines) == 1
    assert all(line.startswith("mirai-memory: error: ") for line in lines)
    machine = invoke("config", "check", "--json")
    assert (machine.exit_code, machine.stderr) == (3, "")
    assert [f"mirai-memory: error: {fault}" for fault in json.loads(machine.stdout)] == lines


def test_a_missing_file_of_settings_is_a_fault() -> None:
    result = invoke("config", "check", "--config", "missing.yaml")
    assert (result.exit_code, result.stderr.count("missing.yaml: cannot be read")) == (3, 1)


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("MEMORY__URL", f"postgresql://alice:{CANARY}@db:x/y", "memory.url: the database URL cannot be parsed"),
        ("MEMORY__URL", "file/x.db", "memory.url: {}/file is no folder"),
        ("MEMORY__DB_PATH", "file/a/b/x.db", "memory.db_path: {}/file is no folder"),
        ("MONITORING__LOGS__PATH", "file/x.log", "monitoring.logs.path: {}/file is no folder"),
        ("MONITORING__LOGS__PATH", "folder", "monitoring.logs.path: {}/folder is a folder"),
        ("MEMORY__LONG_TERM__BACKUP_DIR", "file", "memory.long_term.backup_dir: {}/file is no folder"),
        ("SECURITY__API_KEYS__FALLBACK_FILE", "file", "security.api_keys: file: must be a JSON object"),
    ],
)
def test_what_can_be_seen_without_making_anything(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str, value: str, said: str
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    Path("file").write_text(CANARY)
    Path("folder").mkdir()
    monkeypatch.setenv(f"MIRAI_{variable}", value)
    result = invoke("config", "check")
    assert result.exit_code == 3
    assert result.stderr.count("\n") == 1
    assert said.format(tmp_path) in result.stderr
    assert sorted(os.listdir()) == ["file", "folder"]


def test_what_may_not_be_written_is_a_fault(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MIRAI_MONITORING__LOGS__PATH", "x.log")
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    lines = invoke("config", "check").stderr.splitlines()
    assert f"monitoring.logs.path: the folder {tmp_path} is not writable" in lines[0]
    assert f"memory.db_path: the folder {tmp_path} is not writable" in lines[1]
    Path("x.log").touch()
    assert f"monitoring.logs.path: {tmp_path}/x.log is not writable" in invoke("config", "check").stderr


# --- init -------------------------------------------------------------------------------------------------------------


def test_what_init_writes_loads_and_is_the_defaults(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    result = invoke("init")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "mirai.yaml is written" in result.stderr
    written, defaults = load_settings().model_dump(), Settings.model_construct().model_dump()
    # A relative path counts from the file's folder, and so it does without the file from the same folder.
    for values in (written, defaults):
        for path in (("memory", "db_path"), ("security", "api_keys", "fallback_file")):
            section = values
            for name in path[:-1]:
                section = section[name]
            section[path[-1]] = tmp_path / section[path[-1]]
    assert written == defaults
    assert {place for _, place in shown().values()} == {"mirai.yaml"}
    assert invoke("config", "check").exit_code == 0


def test_every_leaf_is_written_with_a_line_on_what_it_does() -> None:
    text = template(Settings)
    assert NOTES.keys() == {leaf.key for leaf in leaves(Settings)}
    assert all(len(line) <= 160 for line in text.splitlines())
    lines = text.splitlines()
    for leaf in leaves(Settings):
        value: Any = yaml.safe_load(text)
        for name in leaf.path:
            value = value[name]  # it is there
        [place] = [
            number
            for number, line in enumerate(lines)
            if line.endswith(f"# {NOTES[leaf.key]}")
            and lines[number + 1].lstrip().startswith(f"{leaf.path[-1]}: ")
            and leaf.path[-2] == _section(lines, number)
        ]
        assert lines[place].index("#") == lines[place + 1].index(leaf.path[-1])


def _section(lines: list[str], number: int) -> str:
    """The name of the section that this line stands in."""
    indent = len(lines[number]) - len(lines[number].lstrip())
    above = [line for line in lines[:number] if line.strip() and len(line) - len(line.lstrip()) < indent]
    return [line for line in above if line.endswith(":")][-1].strip(": ")


def test_init_changes_no_file() -> None:
    for make in (lambda: Path("mirai.yaml").write_text("mine"), lambda: os.symlink("nowhere", "mirai.yaml")):
        make()
        result = invoke("init")
        assert (result.exit_code, result.stdout) == (1, "")
        assert "mirai.yaml is there already, and was not changed" in result.stderr
        assert not Path("nowhere").exists()
        if not Path("mirai.yaml").is_symlink():
            assert Path("mirai.yaml").read_text() == "mine"
        Path("mirai.yaml").unlink()


def test_init_writes_where_it_is_told_to() -> None:
    Path("настройки").mkdir()
    assert invoke("init", "настройки").exit_code == 0
    assert invoke("init", "настройки/").exit_code == 1
    assert invoke("init", "other.yaml").exit_code == 0
    assert Path("настройки/mirai.yaml").read_text("utf-8") == Path("other.yaml").read_text("utf-8")
    assert sorted(os.listdir()) == ["other.yaml", "настройки"]


@pytest.mark.parametrize("path", ["missing/", "missing/x.yaml", "file/x.yaml", "x" * 300])
def test_init_says_what_is_in_its_way(path: str) -> None:
    Path("file").touch()
    result = invoke("init", path)
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert os.listdir() == ["file"]


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX")
def test_half_a_file_does_not_stay() -> None:
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        result = invoke("init")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (result.exit_code, result.stderr) == (1, "mirai-memory: error: mirai.yaml: File too large\n")
    assert os.listdir() == []
