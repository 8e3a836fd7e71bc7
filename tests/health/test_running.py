"""How the checks are run: each alone, within its time, and whatever happens in one stays there."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mirai_memory import InvalidInput, MemoryManager, load_settings
from mirai_memory.health import Check, Health, check_health
from mirai_memory.health.probe import Probe
from mirai_memory.health.report import Finding, ok
from mirai_memory.health.run import STEPS, Step

Look = Callable[..., dict[str, Check]]

NAMES = [
    *("python", "package", "settings", "api_key", "embedder", "log_file", "database", "engine", "schema", "writing"),
    *("integrity", "word_index", "vectors", "contents"),
    *("connections", "clock", "tables", "disk", "permissions", "backups"),
]
GUARD = 60.0


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """What hangs waits for it; opened at the end, so that no thread outlives its test."""
    event = threading.Event()
    yield event
    event.set()


def well(probe: Probe) -> Finding:
    return ok("fine")


# --- what is promised to programs -------------------------------------------------------------------------------------


def test_the_names_are_stable_and_all_there_is_goes_into_json(url: str) -> None:
    with MemoryManager(url) as memory:
        for health in (check_health(manager=memory), check_health(url=url), check_health(url="missing.db")):
            told = json.loads(json.dumps(health.to_dict()))
            assert list(told) == ["ok", "checks"]
            assert [check["name"] for check in told["checks"]] == NAMES
            for check in told["checks"]:
                assert list(check) == ["name", "status", "detail", "advice", "seconds"]
                assert check["status"] in ("ok", "warning", "error", "skipped")
                assert check["seconds"] >= 0
                assert (check["advice"] is not None) == (check["status"] in ("warning", "error"))
                assert check["detail"].strip()
                assert "\n" not in check["detail"] + str(check["advice"])


def test_only_an_error_is_not_ok() -> None:
    findings = {"a": Finding("warning", "so so", "mind it"), "b": Finding("skipped", "not now")}
    steps = [Step(name, lambda probe, name=name: findings[name]) for name in findings]  # type: ignore[misc]
    assert check_health(steps=steps).ok
    findings["b"] = Finding("error", "broken", "repair it")
    health = check_health(steps=steps)
    assert not health.ok
    assert [check.status for check in health.checks] == ["warning", "error"]


def test_what_it_says_cannot_be_changed(url: str) -> None:
    health = check_health(url=url)
    with pytest.raises(AttributeError):
        health.ok = True  # type: ignore[misc]
    with pytest.raises(AttributeError):
        health.checks[0].status = "ok"  # type: ignore[misc]
    assert isinstance(health, Health)


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf"), "10", True])
def test_a_time_limit_is_a_number_of_seconds(timeout: Any) -> None:
    with pytest.raises(InvalidInput, match="timeout_s"):
        check_health(timeout_s=timeout)


# --- time -------------------------------------------------------------------------------------------------------------


def test_a_check_that_hangs_is_left_behind(gate: threading.Event) -> None:
    def hanging(probe: Probe) -> Finding:
        gate.wait(GUARD)
        return ok("too late")

    steps = (Step("first", hanging), Step("second", well), Step("third", hanging), Step("fourth", well, ("third",)))
    started = time.monotonic()
    health = check_health(steps=steps, timeout_s=0.2)
    assert time.monotonic() - started < GUARD / 2
    assert [check.status for check in health.checks] == ["error", "ok", "error", "skipped"]
    assert health.checks[0].detail == "did not answer within 0.2 s"
    assert health.checks[0].seconds >= 0.2


def test_a_check_that_hangs_does_not_keep_the_process() -> None:
    code = (
        "import threading\n"
        "from mirai_memory.health import check_health\n"
        "from mirai_memory.health.run import Step\n"
        "health = check_health(steps=[Step('x', lambda probe: threading.Event().wait())], timeout_s=0.1)\n"
        "print(health.checks[0].status)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=GUARD)
    assert (done.returncode, done.stdout, done.stderr) == (0, "error\n", "")


ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"


def _endless(probe: Probe) -> Finding:
    with probe.begin() as db:
        db.exec_driver_sql(ENDLESS).all()
    return ok("it ended")


STOPPED = (*STEPS[:9], Step("endless", _endless), *STEPS[9:])


def test_a_statement_that_takes_too_long_is_stopped(look: Look, url: str) -> None:
    MemoryManager(url).close()
    checks = look(url, steps=STOPPED, timeout_s=2.0)
    assert (checks["endless"].status, checks["endless"].detail) == ("warning", "not finished within 2 s")
    assert "--timeout" in str(checks["endless"].advice)
    assert checks["contents"].status == "ok"
    assert not [thread for thread in threading.enumerate() if thread.name == "mirai-memory-health-endless"]


def test_in_memory_no_statement_but_its_own_is_stopped(look: Look) -> None:
    with MemoryManager(":memory:") as memory:
        assert look(manager=memory, steps=STOPPED, timeout_s=2.0)["endless"].status == "warning"
        assert memory.create_session("alice").user_id == "alice"


# --- faults -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [ZeroDivisionError, RecursionError, SystemExit, KeyboardInterrupt])
def test_a_check_that_fails_fails_alone_and_says_nothing_of_what_it_held(fault: type[BaseException]) -> None:
    def failing(probe: Probe) -> Finding:
        raise fault("p4ssw0rd")

    health = check_health(steps=[Step("first", failing), Step("second", well)])
    assert [check.status for check in health.checks] == ["error", "ok"]
    assert fault.__name__ in health.checks[0].detail
    assert "p4ssw0rd" not in str(health)


def test_where_no_thread_can_be_started_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refused)
    health = check_health(steps=[Step("first", well)])
    assert (health.ok, health.checks[0].detail) == (False, "no thread could be started for it")


# --- settings ---------------------------------------------------------------------------------------------------------


def test_broken_settings_are_told_with_every_fault(look: Look, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("mirai.yaml").write_text("memory: {db_pth: x.db, synchronous: p4ssw0rd}\n")
    monkeypatch.setenv("MIRAI_MEMORY__CACHE", "1")
    checks = look()
    assert [check.name for check in checks.values() if check.status == "error"] == ["settings"]
    for part in ("db_pth", "synchronous", "MIRAI_MEMORY__CACHE", "mirai.yaml"):
        assert part in checks["settings"].detail
    assert "p4ssw0rd" not in str(checks)
    assert {check.name for check in checks.values() if check.status == "skipped"} == set(NAMES[3:])
    assert [path.name for path in tmp_path.iterdir()] == ["mirai.yaml"]


def test_a_missing_file_of_settings_is_told(look: Look) -> None:
    assert "missing.yaml" in look(config="missing.yaml")["settings"].detail


def test_where_the_settings_are_from(look: Look, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    Path("other.yaml").write_text("memory: {short_term: {max_messages: 3}}\n")
    monkeypatch.setenv("MIRAI_MEMORY__RAG__EMBEDDER", "none")
    assert look(config="other.yaml")["settings"].detail == "from variables, other.yaml; the rest are defaults"
    monkeypatch.delenv("MIRAI_MEMORY__RAG__EMBEDDER")
    monkeypatch.delenv("MIRAI_MEMORY__LONG_TERM__BACKUP_ENABLED")
    monkeypatch.delenv("MIRAI_MEMORY__SHORT_TERM__AUTO_SUMMARIZE")
    assert look()["settings"].detail == "all defaults"
    Path(".env").write_text("MIRAI_MEMORY__SYNCHRONOUS=normal\n")
    assert look()["settings"].detail == "from .env; the rest are defaults"
    assert check_health(load_settings()).checks[2].detail == "given by the program"


@pytest.mark.parametrize("url", ["mysql://alice:p4ssw0rd@host/name", "postgresql://alice:p4ssw0rd@host:port/x", "a\0b"])
def test_a_database_that_cannot_be_named_so_is_a_fault_of_the_settings(look: Look, url: str) -> None:
    checks = look(url)
    assert checks["settings"].status == "error"
    assert "p4ssw0rd" not in str(checks)
    assert checks["database"].status == "skipped"
