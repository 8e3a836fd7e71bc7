"""Fixtures for the tests of an application that keeps its memory here. Needs the extra ``testing``.

In the top-level ``conftest.py``, or in one test file::

    pytest_plugins = ["mirai_memory.testing.plugin"]

``memory``
    A MemoryManager on a SQLite file of the test's own, with nothing in it, in ``tmp_path``. The file is copied from
    one that is migrated once per test run, which takes some milliseconds. ``memory.url`` is its path.
``user_memory``
    The same as one owner has it: ``memory.for_user(memory_user_id)``.
``memory_clock``
    The FrozenClock of ``memory``: 2026-01-15T12:00:00Z until the test advances it.
``memory_user_id``, ``memory_settings``
    "alice", and the settings that ``memory`` is opened with: the defaults, whatever environment and ``mirai.yaml``
    say. Define a fixture of that name to have others.
``owner_canary``
    Rows of another owner in ``memory``. The test fails as soon as anything of them shows up in what any method of any
    MemoryManager or UserMemory returns, be it called by the test or by the code under test. For the tests of a whole
    file: ``pytestmark = pytest.mark.usefixtures("owner_canary")``. Reading inside of ``unit_of_work()`` is not watched,
    and ids and counts are numbers that go up by the canary's rows.

A fixture of your own called ``memory`` takes the place of this one, for ``user_memory`` and ``owner_canary`` as well.
"""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from mirai_memory import MemoryManager, Settings, UserMemory
from mirai_memory.testing.canary import OwnerCanary, watch
from mirai_memory.testing.clock import FrozenClock

_CANARY = pytest.StashKey[OwnerCanary]()


@pytest.fixture(scope="session")
def _mirai_memory_template(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An empty database at head, as the bytes of its file."""
    path = tmp_path_factory.mktemp("mirai_memory") / "template.db"
    MemoryManager(path, settings=_defaults()).close()
    # Read once, after its last connection, which has put everything into the one file.
    return path.read_bytes()


def _defaults() -> Settings:
    # The usual way reads the environment, .env and mirai.yaml.
    settings = Settings.model_construct()
    rag = settings.memory.rag.model_copy(update={"embedder": "none"})  # a model takes longer than a test
    return settings.model_copy(update={"memory": settings.memory.model_copy(update={"rag": rag})})


@pytest.fixture
def memory_settings() -> Settings:
    """The settings of ``memory``: the defaults, without an embedder."""
    return _defaults()


@pytest.fixture
def memory_user_id() -> str:
    """The owner of ``user_memory``."""
    return "alice"


@pytest.fixture
def memory_clock() -> FrozenClock:
    """Stands at 2026-01-15T12:00:00Z until the test advances it."""
    return FrozenClock()


@pytest.fixture
def memory(
    _mirai_memory_template: bytes, tmp_path: Path, memory_clock: FrozenClock, memory_settings: Settings
) -> Iterator[MemoryManager]:
    """An open memory with nothing in it, for this test alone."""
    path = tmp_path / "mirai_memory.db"
    path.touch(mode=0o600)
    path.write_bytes(_mirai_memory_template)
    _number_from_the_start()
    with MemoryManager(path, settings=memory_settings, clock=memory_clock) as memory:
        yield memory


def _number_from_the_start() -> None:
    """What the factories make in a test is the same whichever tests ran before it."""
    factories = sys.modules.get("mirai_memory.testing.factories")
    if factories is not None:
        factories.reset()


@pytest.fixture
def user_memory(memory: MemoryManager, memory_user_id: str) -> UserMemory:
    """``memory`` as one owner has it."""
    return memory.for_user(memory_user_id)


@pytest.fixture
def owner_canary(memory: MemoryManager, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> OwnerCanary:
    """Rows of another owner, and an alarm for when the test reads one of them."""
    canary = request.node.stash[_CANARY] = OwnerCanary(memory)
    watch(canary, monkeypatch)
    return canary


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    yield
    # The alarm itself may have been swallowed: by a thread, or by an agent that survives whatever its tools raise.
    canary = item.stash.get(_CANARY, None)
    if canary is not None and canary.leaks:
        pytest.fail(canary.message, pytrace=False)
