"""Fixtures of the whole suite: real databases of both engines, a clock that stands still, a bare environment."""

from __future__ import annotations

import os
import shutil
import sys
import uuid
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import hypothesis
import psycopg
import pytest
from sqlalchemy import make_url

from mirai_memory.testing.clock import FrozenClock

sys.path.insert(0, str(Path(__file__).parent))  # for the modules beside this one, wherever a test is

from own_server import own_server
from server_side import conninfo, until

if TYPE_CHECKING:
    from mirai_memory import MemoryManager

# What users are given; the fixture `memory` below, which runs over both engines, takes the place of the plugin's.
pytest_plugins = ["mirai_memory.testing.plugin"]

CI = os.environ.get("CI", "").lower() not in ("", "0", "false")
TEST_PG_URL = os.environ.get("MIRAI_TEST_PG_URL")  # read now: no test sees MIRAI_* variables
# The model that a developer's installation has is slow, and no test is about it that does not say so. Set for fixtures
# of a whole module too, which are made before any test has its surroundings.
NO_EMBEDDER = ("MIRAI_MEMORY__RAG__EMBEDDER", "none")
# Rows that a frozen clock has dated are old for the clock of the next opening, which would then make a daily backup.
NO_BACKUPS = ("MIRAI_MEMORY__LONG_TERM__BACKUP_ENABLED", "false")
# No thread of which a test does not know; trimming is then of messages alone. tests/summaries tries the default.
NO_SUMMARIES = ("MIRAI_MEMORY__SHORT_TERM__AUTO_SUMMARIZE", "false")
os.environ.update([NO_EMBEDDER, NO_BACKUPS, NO_SUMMARIES])
# Many tests start processes, which would each compile the package.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# The only reasons for which CI lets a test be skipped. A package that is missing is not among them.
PLATFORM_FACTS = frozenset({"needs Windows", "needs macOS", "needs POSIX", "needs a user other than root"})

# The machine's load decides how long an example takes.
hypothesis.settings.register_profile("suite", deadline=None, derandomize=CI)
hypothesis.settings.load_profile("suite")


# --- skips ------------------------------------------------------------------------------------------------------------


Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)


def _refuse_skip(report: Report) -> Report:
    if CI and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if reason.removeprefix("Skipped: ") not in PLATFORM_FACTS:
            report.outcome = "failed"
            report.longrepr = (
                f"{reason!r} is no fact of the platform: in CI nothing else is skipped (tests/conftest.py)"
            )
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return _refuse_skip((yield))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return _refuse_skip((yield))


# --- surroundings -----------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _bare_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No MIRAI_* variable and no mirai.yaml or .env of the developer's reaches a test."""
    for name in list(os.environ):
        if name.upper().startswith("MIRAI_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv(*NO_EMBEDDER)
    monkeypatch.setenv(*NO_BACKUPS)
    monkeypatch.setenv(*NO_SUMMARIES)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def clock() -> FrozenClock:
    """Stands at 2026-01-15T12:00:00Z until a test advances it."""
    return FrozenClock()


@pytest.fixture
def eventually() -> Callable[[Callable[[], Any]], None]:
    """Asks again and again until something is so, and gives up after a minute."""
    return partial(until, within=60)


# --- databases --------------------------------------------------------------------------------------------------------


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """The path of a database file that does not exist yet."""
    return str(tmp_path / "memory.db")


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database file at head, migrated once per test process and copied for every test."""
    from mirai_memory.schema import upgrade

    path = tmp_path_factory.mktemp("template") / "memory.db"
    upgrade(path)
    return path


@pytest.fixture
def sqlite_file(sqlite_url: str, sqlite_template: Path) -> str:
    """The path of a database file at head with nothing in it."""
    return str(shutil.copy(sqlite_template, sqlite_url))


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The administrator's URL of a PostgreSQL server: MIRAI_TEST_PG_URL, else a server of this test process's own."""
    if TEST_PG_URL:
        yield make_url(TEST_PG_URL).set(drivername="postgresql+psycopg").render_as_string(hide_password=False)
        return
    with own_server() as server:
        yield server.url


def _execute(server: str, statement: str, *, seconds: int = 0) -> None:
    with psycopg.connect(conninfo(server), autocommit=True, options=f"-c statement_timeout={seconds}s") as connection:
        connection.execute(statement.encode())


def _drop(server: str, name: str) -> None:
    """The server waits here for each of its processes, and has been seen to wait for a minute: it is asked again."""
    for last in (False, False, True):
        try:
            _execute(server, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)", seconds=15)
        except psycopg.errors.QueryCanceled:
            if last:
                raise
        else:
            return


@contextmanager
def _database(server: str, template: str = "template1") -> Iterator[str]:
    name = f"mirai_test_{uuid.uuid4().hex}"
    _execute(server, f"CREATE DATABASE {name} TEMPLATE {template}")
    try:
        yield make_url(server).set(database=name).render_as_string(hide_password=False)
    finally:
        _drop(server, name)


@pytest.fixture(scope="session")
def _postgres_template(postgres_server: str) -> Iterator[str]:
    """The name of a database at head, migrated once per test process and cloned for every test."""
    from mirai_memory.schema import upgrade

    with _database(postgres_server) as url:
        upgrade(url)
        yield str(make_url(url).database)


@pytest.fixture
def postgres_url(postgres_server: str, _postgres_template: str) -> Iterator[str]:
    """A database at head for this test alone."""
    with _database(postgres_server, _postgres_template) as url:
        yield url


@pytest.fixture(scope="module")
def lasting_postgres_url(postgres_server: str, _postgres_template: str) -> Iterator[str]:
    """A database at head for all tests of a module, which empty it themselves."""
    with _database(postgres_server, _postgres_template) as url:
        yield url


@pytest.fixture
def empty_postgres_url(postgres_server: str) -> Iterator[str]:
    """A database with nothing in it, for this test alone."""
    with _database(postgres_server) as url:
        yield url


# What holds on one engine nearly always holds on the other, and a server takes longer to make a database than most
# tests to run: the second time around is in the long run. The contract of test_contract.py is tried on both every time.
ON_BOTH = ["sqlite", pytest.param("postgres", marks=pytest.mark.long)]


@pytest.fixture(params=ON_BOTH)
def url(request: pytest.FixtureRequest) -> str:
    """What ``MemoryManager(url)`` takes, once per engine: a database at head with nothing in it."""
    return str(request.getfixturevalue({"sqlite": "sqlite_file", "postgres": "postgres_url"}[request.param]))


@pytest.fixture(scope="module", params=ON_BOTH)
def lasting_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same for all tests of a module, once per engine."""
    if request.param == "postgres":
        return str(request.getfixturevalue("lasting_postgres_url"))
    return str(tmp_path_factory.mktemp("lasting") / "memory.db")


@contextmanager
def _open_memory(url: str, clock: FrozenClock) -> Iterator[MemoryManager]:
    from mirai_memory import MemoryManager

    with MemoryManager(url, clock=clock) as memory:
        yield memory


@pytest.fixture
def memory(url: str, clock: FrozenClock) -> Iterator[MemoryManager]:
    """An open memory with nothing in it, once per engine."""
    with _open_memory(url, clock) as memory:
        yield memory


@pytest.fixture
def sqlite_memory(sqlite_file: str, clock: FrozenClock) -> Iterator[MemoryManager]:
    """An open memory with nothing in it, for what is true of SQLite only."""
    with _open_memory(sqlite_file, clock) as memory:
        yield memory
