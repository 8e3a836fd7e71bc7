"""Every fault of every place in one error, one line each, with its place, key and rule, and without the value."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest

from mirai_memory import ConfigurationError, Settings, load_settings

CANARY = "cAnArY-sEcReT"
KEY = "sk-cAnArY0123456789"


def faults(*arguments: Any, **overrides: Any) -> tuple[str, ...]:
    """The problems of the error; nothing that hangs on it has a value."""
    with pytest.raises(ConfigurationError) as caught:
        load_settings(*arguments, **overrides)
    error: BaseException | None = caught.value
    while error is not None:
        assert CANARY not in f"{error} {error!r} {error.args}"
        assert KEY not in f"{error} {error!r} {error.args}"
        error = error.__cause__ or error.__context__
    assert str(caught.value) == "; ".join(caught.value.problems)
    return caught.value.problems


def yaml(text: str) -> None:
    Path("mirai.yaml").write_text(text, encoding="utf-8")


def dotenv(text: str | bytes) -> None:
    Path(".env").write_bytes(text if isinstance(text, bytes) else text.encode())


# --- all at once ------------------------------------------------------------------------------------------------------


def test_every_fault_of_every_place_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    yaml(
        "memry: {enabled: true}\n"
        "memory: {synchronus: full, busy_timeout_ms: -1, short_term: 5}\n"
        "models: {chat: {model: ''}, embeddings: {model: x}}\n"
        "monitoring: {logs: {level: loud, nonsense: 1}}\n"
        f"security: {{api_keys: {{openai: {KEY}}}}}\n"
    )
    dotenv("MIRAI_NOPE=1\nMIRAI_CONFIG=x.yaml\nMIRAI_MEMORY__RAG__CACHE_MB=0\nMIRAI_MEMORY__BACKEND\n")
    monkeypatch.setenv("MIRAI_MEMORY__LONG_TERM__ON_CONFLICT", "{" + CANARY)
    monkeypatch.setenv("MIRAI_MONITORING__LOGS__FIELDS", CANARY)
    monkeypatch.setenv("MIRAI_MEMRY__URL", CANARY)
    found = faults(memory={"max_content_chars": 0}, memroy={}, models={"embeding": {}})
    beginnings = [
        "argument: memroy: unknown name; did you mean 'memory'?",
        "argument: models.embeding: unknown name; did you mean 'embedding'?",
        "argument: memory.max_content_chars: Input should be greater than or equal to 1",
        "variable MIRAI_MEMORY__LONG_TERM__ON_CONFLICT: memory.long_term.on_conflict: is no JSON",
        "environment: unknown variable MIRAI_MEMRY__URL; did you mean MIRAI_MEMORY__URL?",
        "variable MIRAI_MONITORING__LOGS__FIELDS: monitoring.logs.fields: is no JSON",
        "variable MIRAI_MEMORY__BACKEND in .env: memory.backend: has no value",
        ".env: unknown variable MIRAI_NOPE",
        ".env: MIRAI_CONFIG counts in the environment only",
        "variable MIRAI_MEMORY__RAG__CACHE_MB in .env: memory.rag.cache_mb: Input should be greater",
        "mirai.yaml: unknown section 'memry'; did you mean 'memory'?",
        "mirai.yaml: memory.synchronus: unknown name; did you mean 'synchronous'?",
        "mirai.yaml: memory.short_term: must have names with values below it, not a number",
        "mirai.yaml: unknown section 'models.embeddings'; did you mean 'models.embedding'?",
        "mirai.yaml: monitoring.logs.nonsense: unknown name",
        "mirai.yaml: security.api_keys.openai: unknown name; keys never stand in the settings",
        "mirai.yaml: memory.busy_timeout_ms: Input should be greater than or equal to 0",
        "mirai.yaml: models.chat.model: String should have at least 1 character",
        "mirai.yaml: monitoring.logs.level: Input should be 'TRACE'",
    ]
    for beginning in beginnings:
        assert sum(problem.startswith(beginning) for problem in found) == 1, (beginning, found)
    assert len(found) == len(beginnings), found


def test_a_file_that_is_broken_is_one_fault_and_the_rest_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    yaml("memory: {a: b")
    dotenv(b"MIRAI_X=\xff\n")
    monkeypatch.setenv("MIRAI_MEMORY__SYNCHRONOUS", "off")
    broken_value, broken_dotenv, broken_yaml = faults()
    assert broken_value.startswith("variable MIRAI_MEMORY__SYNCHRONOUS: memory.synchronous: ")
    assert broken_dotenv == ".env: is not UTF-8 (byte 8)"
    assert broken_yaml.startswith("mirai.yaml: line 1, column 14: ")


def test_a_value_that_a_higher_place_hides_is_checked_too(monkeypatch: pytest.MonkeyPatch) -> None:
    yaml("memory: {short_term: {max_messages: none}}")
    monkeypatch.setenv("MIRAI_MEMORY__SHORT_TERM__MAX_MESSAGES", "5")
    [fault] = faults(memory={"short_term": {"max_messages": 6}})
    assert fault.startswith("mirai.yaml: memory.short_term.max_messages: ")


def test_leaves_that_do_not_fit_each_other_may_stand_in_two_places(monkeypatch: pytest.MonkeyPatch) -> None:
    yaml("memory: {backend: postgresql}")
    assert faults() == ("mirai.yaml: memory.backend: backend postgresql needs memory.url",)
    monkeypatch.setenv("MIRAI_MEMORY__URL", "postgresql://alice@db/memory")
    assert load_settings().memory.backend == "postgresql"


def test_settings_made_without_load_settings_report_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    yaml("memory: {synchronus: full}")
    monkeypatch.setenv("MIRAI_NOPE", "1")
    with pytest.raises(ConfigurationError) as caught:
        Settings()
    assert len(caught.value.problems) == 2
    yaml("memory: {synchronous: normal}")
    monkeypatch.delenv("MIRAI_NOPE")
    assert Settings() == load_settings()


def test_the_error_survives_pickling() -> None:
    yaml("memory: {a: 1, b: 2}")
    with pytest.raises(ConfigurationError) as caught:
        load_settings()
    again = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 - our own
    assert (str(again), again.problems) == (str(caught.value), caught.value.problems)
    assert len(again.problems) == 2


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "near"),
    [
        ("Models: {}", "models"),
        ("model: {embedding: {}}", "models"),
        ("monitor: {logs: {path: x.log}}", "monitoring"),
        ("monitoring: {log: {path: x.log}}", "monitoring.logs"),
        ("models: {Chat: {model: x}}", "models.chat"),
        ("securty: {api_keys: {}}", "security"),
        ("security: {api_key: {env_var: X}}", "security.api_keys"),
    ],
)
def test_a_near_miss_of_a_section_that_is_shared_is_reported_for_what_stands_below_it(text: str, near: str) -> None:
    yaml(text)
    [fault] = faults()
    assert fault.startswith("mirai.yaml: unknown section ")
    assert fault.endswith(f"; did you mean {near!r}?")


@pytest.mark.parametrize(
    "text",
    [
        "model: gpt-4o",
        "modules: [a]",
        "monitor: {port: 80}",
        "models: {embeddings: {size: 5}, gpt-4o: {}, chats: [1]}",
        "monitoring: {log: true, prometheus: {port: 80}}",
        f"security: {{api_key: {CANARY}, cors: []}}",
        "models: {1: x, null: y, yes: z}\n5: x\nnull: y\n",
    ],
)
def test_what_a_host_keeps_in_its_own_or_in_shared_sections_is_none_of_our_business(text: str) -> None:
    yaml(text)
    assert CANARY not in repr(load_settings())


@pytest.mark.parametrize("text", ["memory: {1: x}", "memory: {short_term: {yes: x}}", "memory: {null: x}"])
def test_a_name_of_ours_is_text(text: str) -> None:
    yaml(text)
    [fault] = faults()
    assert "not text; quote it" in fault


@pytest.mark.parametrize("below", ["", "short_term: ", "long_term: ", "rag: "])
def test_a_section_with_nothing_below_it_means_the_defaults(below: str) -> None:
    yaml(f"memory: {{{below}}}" if below else "memory:\nmodels:\nmonitoring:\nsecurity: {api_keys: }")
    assert load_settings() == Settings()
    assert load_settings(memory=None) == Settings()


def test_arguments_are_all_ours() -> None:
    found = faults(server={}, models={"gpt": {}}, security={"cors": 1}, memory={"short_term": None})
    assert [fault.split(":")[1].strip() for fault in found] == ["server", "models.gpt", "security.cors"]


def test_sections_may_be_given_as_what_settings_hold() -> None:
    settings = load_settings(memory={"schema": "other", "url": "x.db", "short_term": {"max_messages": 5}})
    again = load_settings(memory=settings.memory)
    assert again.memory == settings.memory


def test_a_long_name_is_cut() -> None:
    yaml(f"memory: {{{'x' * 500}: 1}}")
    [fault] = faults()
    assert len(fault) < 200


# --- secrets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "below",
    [
        f"{{openai: {KEY}}}",
        f"{{{KEY}: openai}}",
        f"{{env_var: {KEY}}}",
        "{env_var: AIzacAnArYcAnArYcAnArYcAnArY}",
        f"{{fallback_file: {KEY}}}",
        f"{{source: {KEY}}}",
        f"[{KEY}]",
        KEY,
    ],
)
def test_a_key_in_the_settings_is_refused_with_the_places_where_keys_belong(below: str) -> None:
    yaml(f"security: {{api_keys: {below}}}")
    [fault] = faults()
    assert fault.startswith("mirai.yaml: security.api_keys")
    assert "AIza" not in fault
    if "source" not in below and "env_var: sk" not in below:
        assert "in the environment, in .env, or in the file of security.api_keys.fallback_file" in fault


def test_a_key_in_a_variable_of_ours_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIRAI_SECURITY__API_KEYS__OPENAI", KEY)
    [fault] = faults()
    assert "unknown variable MIRAI_SECURITY__API_KEYS__OPENAI; keys never stand in the settings" in fault


def test_a_url_of_a_model_does_not_show_who_logs_in() -> None:
    for userinfo in (CANARY, f"alice:{CANARY}", f"alice:{CANARY}@home"):
        settings = load_settings(models={"chat": {"base_url": f"https://{userinfo}@models.example/v1"}})
        assert CANARY not in repr(settings)
        assert CANARY not in str(settings)
        assert "models.example/v1" in repr(settings)
        assert CANARY in str(settings.models.chat.base_url)


# --- .env -------------------------------------------------------------------------------------------------------------


def test_a_dotenv_that_is_a_folder_or_cannot_be_reached_is_a_fault() -> None:
    Path(".env").mkdir()
    assert faults() == (".env: cannot be read (Is a directory)",)
    Path(".env").rmdir()
    os.symlink(".env", ".env")  # round and round, for root too
    assert faults() == (".env: cannot be read (Too many levels of symbolic links)",)


def test_a_dotenv_that_is_no_text_or_too_large_is_a_fault() -> None:
    dotenv("Ж".encode("cp1251"))
    assert faults() == (".env: is not UTF-8 (byte 0)",)
    dotenv("#" * 1_100_000)
    assert faults() == (".env: is larger than 1000000 bytes",)


@pytest.mark.parametrize("line", ['{}="{}', "export {}='{}", "{} {}", ' {}="a" {}'])
def test_a_line_of_ours_that_is_no_setting_is_a_fault(line: str) -> None:
    dotenv("A=1\n" + line.format("MIRAI_MEMORY__DB_PATH", CANARY) + "\n")
    [fault] = faults()
    assert fault == ".env: the line of MIRAI_MEMORY__DB_PATH cannot be read; is a quote missing?"


def test_a_line_without_a_value_is_a_fault_where_null_is_one_too() -> None:
    dotenv("MIRAI_MEMORY__URL\n")
    assert faults() == ("variable MIRAI_MEMORY__URL in .env: memory.url: has no value; it is written NAME=value",)


def test_lines_of_others_are_theirs() -> None:
    dotenv("BROKEN='x\n# MIRAI_NOPE=1\n no setting\n\nNAME\nMIRAI_MEMORY__SYNCHRONOUS=normal\n")
    assert load_settings().memory.synchronous == "normal"


@pytest.mark.parametrize("start", ["\ufeff", "\r\n", "# Настройки\r\n", "export "])
def test_a_dotenv_of_any_editor_is_read(start: str) -> None:
    dotenv(f"{start}MIRAI_MEMORY__DB_PATH='моя память.db'\r\nMIRAI_MEMORY__SYNCHRONOUS=normal\r\n")
    memory = load_settings().memory
    assert (memory.db_path, memory.synchronous) == (Path("моя память.db"), "normal")


def test_the_file_of_the_settings_is_not_named_in_dotenv(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("other.yaml").write_text("memory: {synchronous: normal}")
    dotenv("MIRAI_CONFIG=other.yaml\nMIRAI_USER=alice\n")
    assert faults() == (".env: MIRAI_CONFIG counts in the environment only, not in .env",)
    # Whoever starts the program with .env as its environment has it in both.
    monkeypatch.setenv("MIRAI_CONFIG", "other.yaml")
    assert load_settings().memory.synchronous == "normal"


# --- variables --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["environment", ".env"])
@pytest.mark.parametrize("text", ["", "{", "full,normal", "[1", "9" * 5_000, "[" * 100_000])
def test_what_is_no_json_is_reported_for_each_variable(monkeypatch: pytest.MonkeyPatch, text: str, place: str) -> None:
    names = ("MIRAI_MEMORY__LONG_TERM__ON_CONFLICT", "MIRAI_MONITORING__LOGS__FIELDS")
    if place == ".env":
        dotenv("".join(f"{name}='{text}'\n" for name in names))
    else:
        for name in names:
            monkeypatch.setenv(name, text)
    where = " in .env" if place == ".env" else ""
    found = faults()
    assert len(found) == 2
    for name, fault in zip(names, found, strict=True):
        assert fault.startswith(f"variable {name}{where}: ")
        assert "no JSON" in fault


def test_a_mapping_and_names_below_it_are_laid_over_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("mirai_memory__long_term__on_conflict", '{"default": "reject", "diet": "reject"}')
    monkeypatch.setenv("MIRAI_MEMORY__LONG_TERM__ON_CONFLICT__DIET", "replace")
    assert load_settings().memory.long_term.on_conflict == {"default": "reject", "diet": "replace"}
    monkeypatch.setenv("MIRAI_MEMORY__LONG_TERM__ON_CONFLICT__DIET", CANARY)
    [fault] = faults()
    name = "MIRAI_MEMORY__LONG_TERM__ON_CONFLICT__DIET"
    assert fault.startswith(f"variable {name}: memory.long_term.on_conflict.diet: Input should be 'replace'")
    monkeypatch.setenv("mirai_memory__long_term__on_conflict", "[1]")
    assert "memory.long_term.on_conflict: must have names with values below it" in faults()[0]


def test_null_in_a_variable_undoes_what_the_file_says(monkeypatch: pytest.MonkeyPatch) -> None:
    yaml("memory: {url: other.db}\nmodels: {embedding: {dimensions: 5}}")
    monkeypatch.setenv("MIRAI_MEMORY__URL", "null")
    monkeypatch.setenv("MIRAI_MODELS__EMBEDDING__DIMENSIONS", "null")
    settings = load_settings()
    assert (settings.memory.url, settings.models.embedding.dimensions) == (None, None)
    monkeypatch.setenv("MIRAI_MEMORY__URL", "")
    assert faults() == ("variable MIRAI_MEMORY__URL: memory.url: is empty; null means that there is none",)


@pytest.mark.parametrize("name", ["MIRAI_MEMORY", "MIRAI_MEMORY__SHORT_TERM", "MIRAI_SECURITY__API_KEYS"])
def test_a_section_is_no_variable(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "{}")
    [fault] = faults()
    assert fault.startswith(f"environment: unknown variable {name}: ")
    assert "is a section; set its leaves one by one" in fault


@pytest.mark.parametrize("name", ["MIRAI_MEMORY__BACKEND__X", "MIRAI_MEMORY__LONG_TERM__ON_CONFLICT__", "MIRAI_"])
def test_below_a_leaf_that_is_no_mapping_there_are_no_variables(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "sqlite")
    [fault] = faults()
    assert fault.startswith(f"environment: unknown variable {name}")
