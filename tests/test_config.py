"""Settings: which source wins, which mistakes are reported and how, and that no setting is decoration."""

from __future__ import annotations

import json
import os
import queue
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from mirai_memory import (
    Busy,
    ConfigurationError,
    Conflict,
    InvalidInput,
    Knowledge,
    MemoryManager,
    Message,
    ModelError,
    Settings,
    StorageError,
    get_memory_manager,
    load_settings,
    schema,
)
from mirai_memory.logging import configure_logging
from mirai_memory.testing import FakeEmbedder
from mirai_memory.testing.clock import FrozenClock

sys.path.insert(0, str(Path(__file__).with_name("embeddings")))
from chat_server import ChatServer
from embeddings_server import EmbeddingsServer

CANARY = "cAnArY-sEcReT"
PG = f"postgresql://alice:{CANARY}@db.example/memory"


def _yaml(text: str | bytes, path: str = "mirai.yaml") -> Path:
    file = Path(path).absolute()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def _error(*arguments: Any, **overrides: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(*arguments, **overrides)
    error: BaseException | None = caught.value
    while error is not None:
        assert CANARY not in f"{error} {error!r} {error.args}"
        error = error.__cause__ or error.__context__
    return str(caught.value)


# --- which source wins ------------------------------------------------------------------------------------------------

MAX = ("memory", "short_term", "max_messages")
SOURCES = ("defaults", "yaml", ".env", "environment", "arguments")


@pytest.mark.parametrize("highest", range(len(SOURCES)), ids=SOURCES)
def test_the_higher_source_wins(monkeypatch: pytest.MonkeyPatch, highest: int) -> None:
    overrides: dict[str, Any] = {}
    if highest >= 1:
        _yaml("memory: {short_term: {max_messages: 101, ttl_hours: 7}, synchronous: normal}")
    if highest >= 2:
        Path(".env").write_text("MIRAI_MEMORY__SHORT_TERM__MAX_MESSAGES=102\nOTHER=1\n", encoding="utf-8")
    if highest >= 3:
        monkeypatch.setenv("MIRAI_MEMORY__SHORT_TERM__MAX_MESSAGES", "103")
    if highest >= 4:
        overrides = {"memory": {"short_term": {"max_messages": 104}}}
    memory = load_settings(**overrides).memory
    assert memory.short_term.max_messages == (12, 101, 102, 103, 104)[highest]
    # What a higher source does not name stays with the lower one, in the same section too.
    assert memory.short_term.ttl_hours == (24, 7, 7, 7, 7)[highest]
    assert memory.synchronous == ("full", "normal", "normal", "normal", "normal")[highest]


def test_the_named_file_is_the_argument_then_the_variable_then_the_working_folders(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = "memory: {{short_term: {{max_messages: {}}}}}"
    argument, variable = _yaml(text.format(1), "a/one.yaml"), _yaml(text.format(2), "b/two.yaml")
    _yaml(text.format(3))
    assert load_settings().memory.short_term.max_messages == 3
    monkeypatch.setenv("MIRAI_CONFIG", str(variable))
    assert load_settings().memory.short_term.max_messages == 2
    assert load_settings(argument).memory.short_term.max_messages == 1
    assert load_settings(str(argument)).memory.short_term.max_messages == 1


def test_a_file_in_a_parent_folder_is_not_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    _yaml("memory: {synchronous: normal}")
    Path("below").mkdir()
    monkeypatch.chdir("below")
    assert load_settings().memory.synchronous == "full"


def test_names_of_variables_have_no_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("mirai_memory__Synchronous", "normal")
    assert load_settings().memory.synchronous == "normal"


def test_settings_are_frozen() -> None:
    settings = load_settings()
    for target, name in ((settings, "memory"), (settings.memory, "url"), (settings.memory.short_term, "ttl_hours")):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(target, name, None)


def test_settings_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with MemoryManager(":memory:") as memory:
        monkeypatch.setenv("MIRAI_MEMORY__SHORT_TERM__MAX_MESSAGES", "1")
        _yaml("memory: {synchronous: normal}")
        assert memory.settings.memory.short_term.max_messages == 12
        assert memory.settings.memory.synchronous == "full"


def test_a_caller_s_own_settings_are_used_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_settings(memory={"short_term": {"max_messages": 5}})
    monkeypatch.setenv("MIRAI_NONSENSE", "1")
    with MemoryManager(":memory:", settings=settings) as memory:
        assert memory.settings is settings


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n# nothing but words\n",
        "---\n",
        "memory:\n",
        "memory: null\n",
        "memory: {}\n",
        "server: {port: 80}\nlist: [1, 2]\nmemory:\n",
        "\ufeff",
        "\ufeffmemory:\r\n",
    ],
)
def test_a_file_with_nothing_of_ours_means_the_defaults(text: str) -> None:
    _yaml(text)
    assert load_settings() == Settings()
    assert load_settings().memory.short_term.max_messages == 12


@pytest.mark.parametrize(
    "text",
    [
        "memory:\n  synchronous: normal\n",
        "\ufeffmemory:\n  synchronous: normal\n",
        "memory:\r\n  synchronous: normal\r\n",
        "\ufeff# Настройки\r\nmemory:\r\n  synchronous: 'normal'   # слова\r\n",
        "сервер: {порт: 80}\nmemory: {synchronous: normal}\n",
    ],
)
def test_a_file_of_any_editor_is_read(text: str) -> None:
    _yaml(text)
    assert load_settings().memory.synchronous == "normal"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- memory\n", "mapping"),
        ("just words\n", "mapping"),
        ("42\n", "mapping"),
        ("memory:\n\tsynchronous: normal\n", "line 2"),
        ("memory: {synchronous: normal\n", "line"),
        ("memory: {}\nmemory: {}\n", "line 2, column 1: the same key stands twice"),
        ("memory:\n  synchronous: full\n  synchronous: normal\n", "line 3, column 3: the same key stands twice"),
        ("other: {a: 1, a: 2}\n", "the same key stands twice"),
        ("a: &a [x]\nb: *a\n", "aliases are not allowed"),
        ("memory: !!python/object/apply:os.system ['true']\n", "line 1"),
        ("? [a, b]\n: 1\n", "line 1"),
        (b"memory: {db_path: '\xff'}\n", "is not UTF-8"),
        ("#" * 1_100_000, "is larger than"),
        ("[" * 5_000, "is nested too deeply"),
    ],
)
def test_a_broken_file_is_named_with_the_fault(text: str | bytes, said: str) -> None:
    file = _yaml(text)
    message = _error()
    assert message.startswith("mirai.yaml: ")
    assert said in message
    assert str(file) in _error(file)


@pytest.mark.parametrize("kind", ["missing", "a folder"])
def test_a_named_file_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    if kind == "a folder":
        Path("settings.yaml").mkdir()
    assert "settings.yaml: cannot be read" in _error("settings.yaml")
    monkeypatch.setenv("MIRAI_CONFIG", "settings.yaml")
    assert "settings.yaml: cannot be read" in _error()


# --- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Memory", "memry", "memroy", "memorys", "MEMORY"])
def test_a_near_miss_of_our_section_is_reported(name: str) -> None:
    _yaml(f"{name}: {{synchronous: normal}}")
    message = _error()
    assert f"unknown section '{name}'" in message
    assert "did you mean 'memory'?" in message


@pytest.mark.parametrize("name", ["server", "database", "logging", "mem", "agents"])
def test_a_hosts_own_section_is_none_of_our_business(name: str) -> None:
    _yaml(f"{name}: {{synchronous: anything, url: '{CANARY}'}}")
    assert CANARY not in repr(load_settings())


@pytest.mark.parametrize(
    ("text", "key", "near"),
    [
        ("memory: {synchronus: full}", "memory.synchronus", "synchronous"),
        ("memory: {Synchronous: full}", "memory.Synchronous", "synchronous"),
        ("memory: {short_term: {max_message: 5}}", "memory.short_term.max_message", "max_messages"),
        ("memory: {long_term: {retention: 5}}", "memory.long_term.retention", "retention_days"),
        ("memory: {schema_: x}", "memory.schema_", "schema"),
        ("memory: {max_messages: 5}", "memory.max_messages", "memory.short_term.max_messages"),
        ("monitoring: {logs: {max_bytes: 5}}", "monitoring.logs.max_bytes", "monitoring.logs.rotate.max_bytes"),
        ("models: {chat: {modl: x}}", "models.chat.modl", "model"),
    ],
)
def test_an_unknown_name_below_ours_is_reported_with_its_place(text: str, key: str, near: str) -> None:
    _yaml(text)
    assert _error() == f"mirai.yaml: {key}: unknown name; did you mean {near!r}?"


def test_a_name_like_none_of_ours_is_reported_too() -> None:
    _yaml("memory: {zzz: 1}")
    assert _error() == "mirai.yaml: memory.zzz: unknown name"


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("MIRAI_MEMORY__SYNCHRONUS", "MIRAI_MEMORY__SYNCHRONOUS"),
        ("MIRAI_MEMORY__SHORT_TERM__MAX_MESSAGE", "MIRAI_MEMORY__SHORT_TERM__MAX_MESSAGES"),
        ("MIRAI_MEMORY_URL", "MIRAI_MEMORY__URL"),
        ("MIRAI_URL", ""),
        ("mirai_zzz", ""),
    ],
)
def test_an_unknown_variable_is_reported(monkeypatch: pytest.MonkeyPatch, name: str, near: str) -> None:
    monkeypatch.setenv(name, CANARY)
    message = _error()
    assert f"environment: unknown variable {name.upper()}" in message
    assert near in message
    monkeypatch.delenv(name)
    Path(".env").write_text(f"{name}={CANARY}\n", encoding="utf-8")
    assert f".env: unknown variable {name.upper()}" in _error()


@pytest.mark.parametrize("name", ["MIRAI_USER", "MIRAI_TEST_PG_URL", "MIRAIDA", "XMIRAI_MEMORY"])
def test_variables_outside_the_tree_are_no_mistakes(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "words")
    load_settings()


BAD = [
    ("backend", "oracle", "'sqlite' or 'postgresql'"),
    ("synchronous", "off", "'full' or 'normal'"),
    ("busy_timeout_ms", "-1", "greater than or equal to 0"),
    ("busy_timeout_ms", "soon", "integer"),
    ("max_content_chars", "0", "greater than or equal to 1"),
    ("schema", "Our Schema; --", "pattern"),
    ("short_term.max_messages", "0", "greater than or equal to 1"),
    ("short_term.max_messages", "1.5", "integer"),
    ("short_term.ttl_hours", "nan", "less than or equal"),
    ("long_term.retention_days", "-1", "greater than or equal to 0"),
    ("long_term.retention_days", "inf", "less than or equal"),
]


def _nested(key: str, value: Any) -> dict[str, Any]:
    for part in reversed(f"memory.{key}".split(".")):
        value = {part: value}
    return dict(value)


@pytest.mark.parametrize(("key", "value", "rule"), BAD)
def test_a_bad_value_is_reported_with_source_key_and_rule(
    monkeypatch: pytest.MonkeyPatch, key: str, value: str, rule: str
) -> None:
    variable = f"MIRAI_MEMORY__{key.upper().replace('.', '__')}"
    assert _error(**_nested(key, value)).startswith(f"argument: memory.{key}: ")
    _yaml(repr(_nested(key, value)))
    assert _error().startswith(f"mirai.yaml: memory.{key}: ")
    Path(".env").write_text(f"{variable}={value!r}\n", encoding="utf-8")
    assert _error().startswith(f"variable {variable} in .env: memory.{key}: ")
    monkeypatch.setenv(variable, value)
    message = _error()
    assert message.startswith(f"variable {variable}: memory.{key}: ")
    assert rule in message


def test_every_mistake_is_in_one_error() -> None:
    _yaml("memory: {synchronous: off, busy_timeout_ms: -1, nonsense: 1}")
    message = _error()
    assert all(key in message for key in ("memory.synchronous", "memory.busy_timeout_ms", "memory.nonsense"))


def test_a_section_that_is_no_mapping_is_an_error() -> None:
    for text in ("memory: 5", "memory: [1]", "memory: words", "memory: {short_term: 5}"):
        _yaml(text)
        assert "mirai.yaml: memory" in _error()


def test_broken_json_in_a_variable_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "MIRAI_MEMORY__LONG_TERM__ON_CONFLICT"
    monkeypatch.setenv(name, '{"default": ' + CANARY)
    assert name in _error()
    monkeypatch.setenv("MIRAI_MEMORY__SYNCHRONOUS", "normal")  # well, and not the one to blame
    assert name in _error()


def test_a_mapping_in_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIRAI_MEMORY__LONG_TERM__ON_CONFLICT", '{"default": "reject"}')
    assert load_settings().memory.long_term.policy("anything") == "reject"
    monkeypatch.delenv("MIRAI_MEMORY__LONG_TERM__ON_CONFLICT")
    monkeypatch.setenv("MIRAI_MEMORY__LONG_TERM__ON_CONFLICT__DIET", "reject")
    assert load_settings().memory.long_term.policy("diet") == "reject"


def test_the_backend_postgresql_needs_a_url() -> None:
    assert "backend postgresql needs memory.url" in _error(memory={"backend": "postgresql"})
    load_settings(memory={"backend": "postgresql", "url": PG})


# --- paths ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", ["память/моя память.db", "100%.db", "a#b?.db", "../beside.db", "deep/er/x.db"], ids=str
)
def test_a_relative_path_counts_from_its_file_s_folder(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    file = _yaml(f"memory: {{db_path: '{value}'}}", "настройки/mirai.yaml")
    expected = os.path.normpath(file.parent / value)
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    monkeypatch.setenv("MIRAI_CONFIG", str(file))
    with MemoryManager() as memory:
        assert os.path.normpath(memory.url) == expected
        assert Path(expected).is_file()


def test_a_relative_path_from_elsewhere_counts_from_the_working_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = _yaml("memory: {db_path: x.db}", "folder/mirai.yaml")
    monkeypatch.setenv("MIRAI_MEMORY__DB_PATH", "y.db")
    with MemoryManager(settings=load_settings(file)) as memory:
        assert memory.url == str(tmp_path / "y.db")
    with MemoryManager(settings=load_settings(file, memory={"db_path": "z.db"})) as memory:
        assert memory.url == str(tmp_path / "z.db")


def test_an_absolute_path_stays(tmp_path: Path) -> None:
    file = _yaml(f"memory: {{db_path: '{tmp_path}/x.db'}}", "folder/mirai.yaml")
    assert load_settings(file).memory.db_path == tmp_path / "x.db"


def test_the_home_folder_in_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    _yaml("memory: {db_path: '~/memory.db'}")
    with MemoryManager() as memory:
        assert memory.url == str(tmp_path / "home" / "memory.db")


@pytest.mark.parametrize("source", ["yaml", "environment", "argument"])
def test_memory_means_memory_wherever_it_is_written(monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    overrides: dict[str, Any] = {}
    if source == "yaml":
        _yaml("memory: {db_path: ':memory:'}")
    elif source == "environment":
        monkeypatch.setenv("MIRAI_MEMORY__DB_PATH", ":memory:")
    else:
        overrides = {"memory": {"db_path": ":memory:"}}
    with MemoryManager(settings=load_settings(**overrides)) as memory:
        assert memory.url == ":memory:"


def test_the_argument_url_wins_over_settings(tmp_path: Path) -> None:
    settings = load_settings(memory={"url": PG, "backend": "postgresql"})
    with MemoryManager(tmp_path / "x.db", settings=settings) as memory:
        assert memory.url == str(tmp_path / "x.db")


# --- secrets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["yaml", ".env", "environment", "argument"])
def test_a_password_is_never_shown(monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    overrides: dict[str, Any] = {}
    if source == "yaml":
        _yaml(f"memory: {{url: '{PG}'}}")
    elif source == ".env":
        Path(".env").write_text(f"MIRAI_MEMORY__URL={PG}\n", encoding="utf-8")
    elif source == "environment":
        monkeypatch.setenv("MIRAI_MEMORY__URL", PG)
    else:
        overrides = {"memory": {"url": PG}}
    settings = load_settings(**overrides)
    assert settings.memory.url is not None
    assert settings.memory.url.get_secret_value() == PG
    for shown in (repr(settings), str(settings), str(settings.model_dump()), settings.model_dump_json()):
        assert CANARY not in shown
    # Another mistake beside it does not bring it to light.
    if source == "yaml":
        _yaml(f"memory: {{url: '{PG}', synchronous: off}}")
        _error()
    _error(memory={**overrides.get("memory", {}), "busy_timeout_ms": -1})


@pytest.mark.parametrize(
    "url",
    [
        f"mysql://alice:{CANARY}@db/memory",
        f"postgresql+asyncpg://alice:{CANARY}@db/memory",
        f"postgresql://alice:{CANARY}@db:port/memory",
        f"://alice:{CANARY}@",
    ],
)
def test_a_url_that_is_no_database_of_ours_is_refused_without_its_password(url: str) -> None:
    settings = load_settings(memory={"url": url})
    for call in (lambda: MemoryManager(url), lambda: MemoryManager(settings=settings), lambda: schema.current(url)):
        with pytest.raises(ConfigurationError) as caught:
            call()
        error: BaseException | None = caught.value
        while error is not None:
            assert CANARY not in f"{error} {error!r} {error.args}"
            error = error.__cause__ or error.__context__


def test_a_secret_of_a_wrong_type_is_not_shown() -> None:
    _yaml(f"memory: {{url: [{CANARY}]}}")
    assert "mirai.yaml: memory.url" in _error()


# --- one manager for a process and a database -------------------------------------------------------------------------


@contextmanager
def _managers() -> Iterator[Callable[..., MemoryManager]]:
    made: list[MemoryManager] = []

    def get(*arguments: Any) -> MemoryManager:
        made.append(get_memory_manager(*arguments))
        return made[-1]

    try:
        yield get
    finally:
        for manager in made:
            manager.close()


def test_one_manager_for_one_database(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with _managers() as get:
        first = get("x.db")
        assert get(str(tmp_path / "x.db")) is get(tmp_path / "x.db") is get(f"sqlite:///{tmp_path}/x.db") is first
        assert get("y.db") is not first
        assert get(":memory:") is get(":memory:")
        assert get() is get("data/mirai_memory.db")
        monkeypatch.setenv("MIRAI_MEMORY__DB_PATH", "x.db")
        assert get() is first


def test_close_takes_the_manager_out() -> None:
    with _managers() as get:
        first, other = get("x.db"), get("y.db")
        first.close()
        second = get("x.db")
        assert second is not first
        second.create_session("alice")
        with pytest.raises(StorageError, match="closed"):
            first.list_sessions()
        first.close()  # again: the second stays
        assert get("x.db") is second
        assert get("y.db") is other


def test_a_manager_that_cannot_be_opened_is_not_kept(tmp_path: Path) -> None:
    (tmp_path / "x.db").mkdir()
    with _managers() as get:
        with pytest.raises(StorageError):
            get("x.db")
        (tmp_path / "x.db").rmdir()
        get("x.db").create_session("alice")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs POSIX")
def test_a_child_after_a_fork_has_a_manager_of_its_own() -> None:
    with _managers() as get:
        mine = get("x.db")
        mine.create_session("alice")
        child = os.fork()
        if child == 0:
            code = 1
            try:
                own = get_memory_manager("x.db")
                if own is not mine:
                    own.create_session("bob")
                    own.close()
                    code = 0
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert get("x.db") is mine
        assert [session.user_id for session in mine.list_sessions()] == ["alice", "bob"]


# --- no setting is decoration -----------------------------------------------------------------------------------------


def _leaves(model: type[BaseModel] = Settings, prefix: str = "") -> Iterator[str]:
    for name, info in model.model_fields.items():
        key = prefix + (info.alias or name)
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            yield from _leaves(info.annotation, key + ".")
        else:
            yield key


def _opened(key: str, value: Any, ask: Callable[[MemoryManager], Any], url: str | None = None) -> Any:
    """What ``ask`` finds of a memory that was opened with one setting changed."""
    leaf = key.removeprefix("memory.")
    with MemoryManager(url, settings=load_settings(**_nested(leaf, value)), clock=FrozenClock()) as memory:
        return ask(memory)


def _tree(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """What ``load_settings`` takes, of leaves with their whole names."""
    tree: dict[str, Any] = {}
    for name, value in leaves.items():
        *sections, leaf = name.split(".")
        place = tree
        for section in sections:
            place = place.setdefault(section, {})
        place[leaf] = value
    return tree


def _outcome(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except (Busy, ConfigurationError, Conflict, InvalidInput, ModelError) as error:
        return type(error)


def _add(memory: MemoryManager, content: str, count: int = 1) -> str:
    session = memory.create_session("alice").id
    memory.add_messages([Message(session_id=session, role="user", content=content) for _ in range(count)])
    return session


def _pragma(name: str) -> Callable[[MemoryManager], Any]:
    def ask(memory: MemoryManager) -> Any:
        with memory.unit_of_work() as uow:
            return uow.db.exec_driver_sql(f"PRAGMA {name}").scalar()

    return ask


def _old_session(memory: MemoryManager, age: timedelta) -> None:
    clock = memory._clock
    assert isinstance(clock, FrozenClock)
    memory.create_session("alice")
    clock.advance(seconds=age.total_seconds())


def _backend(value: Any, _url: str) -> Any:
    return _outcome(lambda: load_settings(memory={"backend": value}).memory.backend)


def _schema(value: Any, postgres_url: str) -> Any:
    schema.upgrade(postgres_url, schema=value)
    return _opened("memory.schema", value, lambda m: len(m.list_sessions()), postgres_url)


def _connections(value: Any, postgres_url: str) -> Any:
    """How many of four units of work run at once in a memory with so many connections, while the others are Busy."""
    settings, leave = load_settings(memory={"pool_size": value, "busy_timeout_ms": 1}), threading.Event()
    with MemoryManager(postgres_url, settings=settings) as memory, ThreadPoolExecutor(4) as pool:
        began: queue.SimpleQueue[bool] = queue.SimpleQueue()

        def hold() -> None:
            try:
                with memory.unit_of_work():
                    began.put(True)
                    leave.wait(60)
            except Busy:
                began.put(False)

        for _ in range(4):
            pool.submit(hold)
        found = [began.get(timeout=60) for _ in range(4)]
        leave.set()
    return sum(found)


def _active(value: Any, _url: str) -> Any:
    def ask(memory: MemoryManager) -> int:
        _old_session(memory, timedelta(hours=2))
        return len(memory.get_active_sessions())

    return _opened("memory.short_term.ttl_hours", value, ask, ":memory:")


def _retention(value: Any, _url: str) -> Any:
    def ask(memory: MemoryManager) -> int:
        _old_session(memory, timedelta(days=2))
        return memory.cleanup_old_sessions()

    return _opened("memory.long_term.retention_days", value, ask, ":memory:")


def _backups(leaf: str) -> Callable[[Any, str], Any]:
    """In which folder backups lie, and of which days, once a memory was opened on four of them."""

    def ask(value: Any, _url: str) -> Any:
        long_term = {"backup_enabled": True, leaf: value}
        settings, clock = load_settings(memory={"long_term": long_term}), FrozenClock()
        place = Path("kept").absolute()
        for _ in range(4):
            with MemoryManager(place / "x.db", settings=settings, clock=clock) as memory:
                memory.create_session("alice")
            clock.advance(days=1)
        found = sorted((path.parent.name, path.name.split("-")[1][:8]) for path in Path.cwd().rglob("x-*-daily-*.db"))
        for folder in {path.parent for path in Path.cwd().rglob("x*.db")}:
            shutil.rmtree(folder, ignore_errors=True)
        return found

    return ask


def _conflict(value: Any, _url: str) -> Any:
    def ask(memory: MemoryManager) -> Any:
        memory.add_knowledge(Knowledge(key="k", value="old"))
        return _outcome(lambda: memory.add_knowledge(Knowledge(key="k", value="new")))

    return _opened("memory.long_term.on_conflict", value, ask, ":memory:")


def _window(value: Any, _url: str) -> Any:
    key = "memory.short_term.max_messages"
    return _opened(key, value, lambda m: len(m.get_recent_messages(_add(m, "words", 5))), ":memory:")


def _length(value: Any, _url: str) -> Any:
    return _opened("memory.max_content_chars", value, lambda m: bool(_outcome(lambda: _add(m, "x" * 50))) and
                   m.get_stats()["total_messages"], ":memory:")  # fmt: skip


def _place(leaf: str) -> Callable[[Any, str], Any]:
    return lambda value, _url: _opened(leaf, value, lambda m: m.url)


def _asked(leaf: str, pragma: str) -> Callable[[Any, str], Any]:
    return lambda value, _url: _opened(leaf, value, _pragma(pragma), "x.db")


def _slept(value: Any, url: str) -> Any:
    sleep = lambda uow: uow.db.exec_driver_sql("SELECT pg_sleep(1)").scalar()  # noqa: E731
    return _opened("memory.statement_timeout_ms", value, lambda memory: _outcome(lambda: memory.run(sleep)), url)


def _facts(value: Any, _url: str) -> Any:
    def ask(memory: MemoryManager) -> Any:
        return _outcome(lambda: memory.add_knowledge(Knowledge(value="v"))), memory.get_knowledge() == []

    return _opened("memory.long_term.enabled", value, ask, ":memory:")


def _likes(key: str) -> Callable[[Any, str], Any]:
    def ask(memory: MemoryManager) -> Any:
        liked = _outcome(lambda: memory.update_user_preferences("alice", coding_style="typed", favorite_tools=["uv"]))
        stored = memory.get_user_preferences("alice")
        return (liked if isinstance(liked, type) else None), stored and (stored.coding_style, stored.favorite_tools)

    return lambda value, _url: _opened(key, value, ask, ":memory:")


def _logged(key: str) -> Callable[[Any, str], Any]:
    """What lies in the folder after some lines were logged under this setting."""

    def ask(value: Any, _url: str) -> Any:
        folder = Path("logged")
        shutil.rmtree(folder, ignore_errors=True)
        leaves = {"monitoring.logs.path": "logged/a.log", "monitoring.logs.rotate.max_bytes": 1_000, key: value}
        with configure_logging(load_settings(**_tree(leaves))), MemoryManager(":memory:") as memory:
            for _ in range(40):
                memory.cleanup_old_sessions()  # says so at level INFO, and each unit of work at level DEBUG
        files = sorted(path for path in folder.iterdir() if not path.name.endswith(".lock"))
        newest = files[0].read_text("utf-8").splitlines()[-1]
        shape = sorted(json.loads(newest)) if newest.startswith("{") else "text"
        text = "".join(path.read_text("utf-8") for path in files)
        return [path.name for path in files], [path.stat().st_size < 2_000 for path in files], shape, "unit of" in text

    return ask


def _key(leaf: str) -> Callable[[Any, str], Any]:
    """Which of many keys is found under this setting."""

    def ask(value: Any, _url: str) -> Any:
        Path("configs").mkdir(exist_ok=True)
        for name in ("a.json", "b.json", "configs/api_keys.json"):
            Path(name).write_text(json.dumps({"openai": f"key-in-{name}"}), encoding="utf-8")
        dotenv = "OPENAI_API_KEY=key-one\nOTHER=key-two\n" if leaf != "fallback_file" else ""
        Path(".env").write_text(dotenv, encoding="utf-8")
        settings = load_settings(security={"api_keys": {leaf: value}})
        return settings.security.api_keys.get_api_key().get_secret_value()

    return ask


Embedded = Callable[[MemoryManager, EmbeddingsServer], Any]


def _embedding(key: str, ask: Embedded) -> Callable[[Any, str], Any]:
    """What ``ask`` finds of a memory whose embedder is a server, with this setting changed."""

    def opened(value: Any, _url: str) -> Any:
        with EmbeddingsServer() as server:
            leaves = {
                "memory.rag.embedder": "openai",
                "memory.rag.background": False,
                "models.embedding.base_url": server.url,
                key: server.url + value if key == "models.embedding.base_url" else value,
            }
            with MemoryManager(":memory:", settings=load_settings(**_tree(leaves))) as memory:
                return ask(memory, server)

    return opened


def _know_tea(memory: MemoryManager, server: EmbeddingsServer) -> Any:
    """What the server was asked, and what has come of it."""
    for owner in ("alice", "bob"):
        memory.add_knowledge(Knowledge(user_id=owner, value="tea"))
    facts = memory.get_knowledge(user_id="alice", with_embedding=True)
    asked = [(request.path, request.body["model"]) for request in server.requests]
    return asked, [fact.embedding and len(fact.embedding) for fact in facts]


def _know_slowly(memory: MemoryManager, server: EmbeddingsServer) -> Any:
    def late(request: Any) -> None:
        server.ending.wait(0.5)

    server.always = late
    return _know_tea(memory, server)[1]


def _chroma(key: str) -> Callable[[Any, str], Any]:
    """Whether reindex() asks for a process of Chroma's, and where it is to look, with this setting changed."""

    def opened(value: Any, _url: str) -> Any:
        leaves = {
            "memory.rag.vector_store": "chroma",
            "memory.rag.background": False,
            "memory.rag.chroma.min_items": 1,
            key: value,
        }
        path = Path("chroma.db")
        asked: list[Any] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("mirai_memory.search.chroma_link._spawn", lambda: _refuse(asked))
            with MemoryManager(path, embedder=FakeEmbedder(), settings=load_settings(**_tree(leaves))) as memory:
                _add(memory, "tea")
                memory.reindex()
                link = memory._tools.chroma and memory._tools.chroma.link
                place = str(link.place) if link else None
        path.unlink()
        return place, len(asked)

    return opened


def _refuse(asked: list[Any]) -> Any:
    asked.append(1)
    raise OSError("not started here")


def _meaning(memory: MemoryManager, server: EmbeddingsServer) -> Any:
    _add(memory, "tea")
    [found] = memory.search_messages("tea", user_id="alice", explain=True)
    return "dense" in (found.explanation or {})


def _is_in_background(memory: MemoryManager, server: EmbeddingsServer) -> Any:
    _add(memory, "tea")
    return any(thread.name == "mirai-memory-vectors" for thread in threading.enumerate())


def _vectors_read_again(memory: MemoryManager, server: EmbeddingsServer) -> Any:
    """How often vectors are read by a search for what was searched before: 100 vectors of 12 kB."""
    _add(memory, "tea", 100)
    memory.reindex()
    memory.search_messages("tea", user_id="alice")
    statements: list[str] = []
    with memory.unit_of_work() as uow:
        driver: Any = uow.db.connection.driver_connection
    driver.set_trace_callback(statements.append)
    memory.search_messages("tea", user_id="alice")
    return sum("embeddings.vector" in statement for statement in statements)


def _extractor(value: Any, _url: str) -> Any:
    """What comes of learning from a session, and how often a model was asked."""
    with ChatServer() as server:
        server.text = json.dumps({"facts": [], "preferences": []})
        leaves = {"memory.long_term.extractor": value, "models.chat.base_url": server.url}
        with MemoryManager(":memory:", settings=load_settings(**_tree(leaves))) as memory:
            session = _add(memory, "words")
            return _outcome(lambda: memory.learn(session).messages), len(server.requests)


def _summary(key: str, ask: Callable[[MemoryManager, str], Any]) -> Callable[[Any, str], Any]:
    """What ``ask`` finds of a memory whose summariser is a server, with this setting changed; and the questions."""

    def opened(value: Any, _url: str) -> Any:
        with ChatServer() as server:
            leaves = {
                "memory.short_term.summarizer": "openai",
                "models.chat.base_url": server.url,
                key: server.url + value if key == "models.chat.base_url" else value,
            }
            server.text = "A sentence of some words. " * 10

            def late(request: Any) -> None:
                server.ending.wait(0.5)

            server.always = late if key == "models.chat.timeout_s" else server.always
            with MemoryManager(":memory:", settings=load_settings(**_tree(leaves))) as memory:
                found = ask(memory, _add(memory, "words", 30))
            return found, [(request.path, request.body["model"]) for request in server.requests]

    return opened


def _summarized(memory: MemoryManager, session: str) -> Any:
    return _outcome(lambda: memory.summarize(session).summary)


def _trimmed(memory: MemoryManager, session: str) -> Any:
    return memory.trim_old_messages(session)


# For each leaf: two values, and what a public call says with either.
LEAVES: Mapping[str, tuple[Any, Any, Callable[[Any, str], Any]]] = {
    "memory.backend": ("sqlite", "postgresql", _backend),
    "memory.db_path": ("a.db", "b.db", _place("memory.db_path")),
    "memory.url": ("a.db", "sqlite:///b.db", _place("memory.url")),
    "memory.schema": ("mirai_memory", "another", _schema),
    "memory.pool_size": (1, 3, _connections),
    "memory.synchronous": ("full", "normal", _asked("memory.synchronous", "synchronous")),
    "memory.busy_timeout_ms": (1, 2, _asked("memory.busy_timeout_ms", "busy_timeout")),
    "memory.statement_timeout_ms": (400, 60_000, _slept),
    "memory.max_content_chars": (49, 50, _length),
    "memory.short_term.max_messages": (2, 3, _window),
    "memory.short_term.ttl_hours": (1, 3, _active),
    "memory.short_term.auto_summarize": (True, False, _summary("memory.short_term.auto_summarize", _trimmed)),
    "memory.short_term.summarizer": ("extractive", "openai", _summary("memory.short_term.summarizer", _summarized)),
    "memory.short_term.summary_tokens": (10, 30, _summary("memory.short_term.summary_tokens", _summarized)),
    "memory.long_term.retention_days": (1, 3, _retention),
    "memory.long_term.backup_enabled": (True, False, _backups("backup_enabled")),
    "memory.long_term.backup_dir": ("a", "b", _backups("backup_dir")),
    "memory.long_term.backup_keep": (1, 2, _backups("backup_keep")),
    "memory.enabled": (True, False, lambda value, _url: _opened("memory.enabled", value, lambda m: m.url, "x.db")),
    "memory.long_term.enabled": (True, False, _facts),
    "memory.user_preferences.enabled": (True, False, _likes("memory.user_preferences.enabled")),
    "memory.user_preferences.remember": (
        ["coding_style"],
        ["favorite_tools"],
        _likes("memory.user_preferences.remember"),
    ),
    "monitoring.logs.path": ("logged/a.log", "logged/b.log", _logged("monitoring.logs.path")),
    "monitoring.logs.level": ("INFO", "DEBUG", _logged("monitoring.logs.level")),
    "monitoring.logs.format": ("json", "text", _logged("monitoring.logs.format")),
    "monitoring.logs.fields": (["message"], ["message", "level"], _logged("monitoring.logs.fields")),
    "monitoring.logs.rotate.enabled": (True, False, _logged("monitoring.logs.rotate.enabled")),
    "monitoring.logs.rotate.max_bytes": (1_000, 100_000, _logged("monitoring.logs.rotate.max_bytes")),
    "monitoring.logs.rotate.backup_count": (1, 3, _logged("monitoring.logs.rotate.backup_count")),
    "memory.long_term.extractor": ("none", "openai", _extractor),
    "memory.long_term.on_conflict": ({"default": "replace"}, {"default": "reject"}, _conflict),
    "memory.rag.enabled": (True, False, _embedding("memory.rag.enabled", _know_tea)),
    "memory.rag.vector_store": ("builtin", "chroma", _chroma("memory.rag.vector_store")),
    "memory.rag.chroma.path": (None, "vectors", _chroma("memory.rag.chroma.path")),
    "memory.rag.chroma.url": (None, "http://127.0.0.1:1", _chroma("memory.rag.chroma.url")),
    "memory.rag.chroma.min_items": (1, 2, _chroma("memory.rag.chroma.min_items")),
    "memory.rag.cache_embeddings": (True, False, _embedding("memory.rag.cache_embeddings", _know_tea)),
    "memory.rag.embedder": ("openai", "none", _embedding("memory.rag.embedder", _know_tea)),
    "memory.rag.background": (True, False, _embedding("memory.rag.background", _is_in_background)),
    "memory.rag.search_budget_ms": (0, 60_000, _embedding("memory.rag.search_budget_ms", _meaning)),
    "memory.rag.cache_mb": (1, 2, _embedding("memory.rag.cache_mb", _vectors_read_again)),
    "models.embedding.model": (
        "text-embedding-3-large",
        "text-embedding-3-small",
        _embedding("models.embedding.model", _know_tea),
    ),
    "models.embedding.base_url": ("/a", "/b", _embedding("models.embedding.base_url", _know_tea)),
    "models.embedding.dimensions": (32, 64, _embedding("models.embedding.dimensions", _know_tea)),
    "models.embedding.timeout_s": (0.1, 30, _embedding("models.embedding.timeout_s", _know_slowly)),
    "models.chat.model": ("small", "large", _summary("models.chat.model", _summarized)),
    "models.chat.base_url": ("/a", "/b", _summary("models.chat.base_url", _summarized)),
    "models.chat.timeout_s": (0.1, 30, _summary("models.chat.timeout_s", _summarized)),
    "security.api_keys.source": ("env", "file", _key("source")),
    "security.api_keys.env_var": ("OPENAI_API_KEY", "OTHER", _key("env_var")),
    "security.api_keys.fallback_file": ("a.json", "b.json", _key("fallback_file")),
}


# Leaves that are read and checked, but whose work is not there yet. The set only shrinks.
WIRED_LATER: frozenset[str] = frozenset()


def test_every_leaf_is_in_the_table() -> None:
    assert set(_leaves()) == LEAVES.keys() | WIRED_LATER
    assert not LEAVES.keys() & WIRED_LATER


@pytest.mark.parametrize("leaf", LEAVES)
def test_a_setting_changes_what_a_call_does(
    leaf: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    first, second, ask = LEAVES[leaf]
    on_a_server = leaf in ("memory.schema", "memory.pool_size", "memory.statement_timeout_ms")
    url = request.getfixturevalue("postgres_url") if on_a_server else ""
    if leaf == "memory.schema":
        with MemoryManager(url) as memory:
            memory.create_session("alice")
    assert ask(first, url) != ask(second, url)
