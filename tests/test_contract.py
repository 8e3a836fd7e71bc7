"""The contract on every engine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
from sqlalchemy import func, select

from mirai_memory import Knowledge, MemoryManager, Message, Task, UnitOfWork, UserPreferences
from mirai_memory.models import Base
from mirai_memory.search.postings import SCOPES, WORDS
from mirai_memory.testing.clock import FrozenClock
from mirai_memory.testing.contract import MemoryContract


class TestSQLiteFile(MemoryContract):
    @pytest.fixture
    def memory(self, sqlite_memory: MemoryManager) -> MemoryManager:
        return sqlite_memory


class TestSQLiteInMemory(MemoryContract):
    @pytest.fixture
    def memory(self, clock: FrozenClock) -> Iterator[MemoryManager]:
        with MemoryManager(":memory:", clock=clock) as memory:
            yield memory


class TestPostgreSQL(MemoryContract):
    @pytest.fixture
    def memory(self, postgres_url: str, clock: FrozenClock) -> Iterator[MemoryManager]:
        with MemoryManager(postgres_url, clock=clock) as memory:
            yield memory


def test_no_test_of_the_contract_hides_another() -> None:
    names = Counter(name for part in MemoryContract.__mro__ for name in vars(part) if name.startswith("test_"))
    assert [name for name, count in names.items() if count > 1] == []


def test_what_is_deleted_leaves_no_row_behind(memory: MemoryManager) -> None:
    """Rows that no foreign key reaches, those of words and vectors, among them."""
    session = memory.create_session("alice").id
    for number in range(3):
        memory.add_message(Message(session_id=session, role="user", content=f"tea {number}"))
        fact = Knowledge(user_id="alice", key="drink", value=f"tea {number}", embedding=[1.0], embedding_model="mine")
        memory.add_knowledge(fact)
    memory.add_task(Task(session_id=session, description="brew"))
    memory.save_user_preferences(UserPreferences(user_id="alice"))
    memory.update_message(memory.get_messages(session)[0].id or 0, "coffee")

    memory.pop_message(session)
    memory.delete_session(session)
    assert memory.delete_knowledge(key="drink", user_id="alice") == 3
    memory.delete_user_preferences("alice")

    def left(uow: UnitOfWork) -> dict[str, int]:
        tables = [table for table in Base.metadata.sorted_tables if table.name != "memory_state"]
        counts = {
            table.name: uow.db.execute(select(func.count()).select_from(table)).scalar_one()
            for table in (*tables, *WORDS.values())
        }
        weight = func.sum(SCOPES.c.item_count + SCOPES.c.term_count)
        return counts | {"weight": uow.db.execute(select(weight)).scalar_one()}

    assert not any(memory.run(left).values())
