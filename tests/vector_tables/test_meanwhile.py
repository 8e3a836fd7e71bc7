"""While the server searches its vectors, the words are weighed here. Whatever comes of that, nothing else is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import psycopg
import pytest
from server_side import until
from vectors_in_tables import Asked, Opened

from mirai_memory import Busy, MemoryManager, StorageError, vector_tables
from mirai_memory.database.vector_tables import table_name
from mirai_memory.search import message_search
from mirai_memory.testing.contract.making import new_session, say

pytestmark = pytest.mark.usefixtures("never_exact")

Doing = Callable[[Callable[[], object]], AbstractContextManager[None]]
_OTHERS = "datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"


@pytest.fixture
def doing(monkeypatch: pytest.MonkeyPatch) -> Doing:
    """Something happens when the words of a question are weighed."""
    weigh = message_search.signals.words

    @contextmanager
    def meanwhile(happens: Callable[[], object]) -> Iterator[None]:
        def words(*values: Any) -> Any:
            happens()
            return weigh(*values)

        with monkeypatch.context() as patched:
            patched.setattr(message_search.signals, "words", words)
            yield

    return meanwhile


@contextmanager
def _filled(opened: Opened, url: str, **memory: Any) -> Iterator[MemoryManager]:
    """One connection: what is wrong with it meets the next search."""
    with opened(pool_size=1, **memory) as filled:
        say(filled, new_session(filled, "alice"), "good tea", "bad coffee", "a river in the garden")
        filled.reindex()
        vector_tables.enable(url)
        yield filled


def _found(memory: MemoryManager) -> list[Any]:
    found = memory.search_messages("tea by the river", user_id="alice", explain=True)
    return [(message.id, message.score, message.explanation) for message in found]


def test_the_server_is_at_work_before_words_are_weighed(
    opened: Opened, postgres_url: str, ask: Asked, doing: Doing
) -> None:
    searching = (
        f"SELECT count(*) FROM pg_stat_activity WHERE {_OTHERS} AND state = 'active' AND strpos(query, '<=>') > 0"
    )
    with _filled(opened, postgres_url) as memory:
        before = _found(memory)
        with doing(lambda: until(lambda: ask(searching)[0][0], within=10)):
            assert _found(memory) == before


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_what_fails_meanwhile_leaves_the_connection_as_it_was(
    opened: Opened, postgres_url: str, doing: Doing, error: type[BaseException]
) -> None:
    def fail() -> None:
        raise error("meanwhile")

    with _filled(opened, postgres_url) as memory:
        before = _found(memory)
        with doing(fail), pytest.raises(error, match="meanwhile"):
            _found(memory)
        assert _found(memory) == before
        assert len(memory.list_sessions("alice")) == 1


def test_a_connection_that_is_lost_meanwhile_is_a_storage_error(
    opened: Opened, postgres_url: str, ask: Asked, doing: Doing, caplog: pytest.LogCaptureFixture
) -> None:
    def lose() -> None:
        ask(f"SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE {_OTHERS}")

    with _filled(opened, postgres_url) as memory:
        before = _found(memory)
        with doing(lose), pytest.raises(StorageError, match="closed the connection"):
            _found(memory)
        assert _found(memory) == before
    assert not caplog.records


def test_the_limit_of_a_statement_holds(opened: Opened, postgres_url: str, server: psycopg.Connection[Any]) -> None:
    with _filled(opened, postgres_url, statement_timeout_ms=1_000) as memory:
        before = _found(memory)
        with server.transaction():
            server.execute(f"LOCK TABLE {table_name('fake', 32)} IN ACCESS EXCLUSIVE MODE".encode())
            with pytest.raises(Busy, match="longer than its time limit"):
                _found(memory)
        assert _found(memory) == before


def test_with_an_old_libpq_one_comes_after_the_other(
    opened: Opened, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _filled(opened, postgres_url) as memory:
        before = _found(memory)
        monkeypatch.setattr(psycopg.Pipeline, "is_supported", lambda: False)
        assert _found(memory) == before
