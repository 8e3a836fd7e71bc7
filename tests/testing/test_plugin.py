"""The plugin, as an application's tests use it: a small project of its own, run by a pytest of its own."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from mirai_memory import MemoryManager

pytest_plugins = ["pytester"]

CONFTEST = 'pytest_plugins = ["mirai_memory.testing.plugin"]\n'
HEAD = """
    import threading
    import pytest
    from mirai_memory import Knowledge, MemoryManager, Message, NotFound, Settings, Task
    from mirai_memory.testing import MessageFactory, SessionFactory
"""


def run(project: pytest.Pytester, tests: str, *options: str, conftest: str = CONFTEST) -> pytest.RunResult:
    """Run tests against a project that has nothing but them and the plugin."""
    project.makeconftest(conftest)
    project.makepyfile(textwrap.dedent(HEAD) + textwrap.dedent(tests))
    # A process of its own: what it loads and patches is nobody else's.
    return project.runpytest_subprocess("-p", "no:cacheprovider", "-p", "no:xdist", "-W", "error", *options)


# --- fixtures ---------------------------------------------------------------------------------------------------------


def test_the_fixtures(pytester: pytest.Pytester) -> None:
    pytester.path.joinpath("mirai.yaml").write_text("memory: {short_term: {max_messages: 3}, synchronous: normal}\n")
    result = run(
        pytester,
        """
        from datetime import UTC, datetime
        from pathlib import Path

        @pytest.mark.parametrize("time", [1, 2])
        def test_each_test_has_a_memory_of_its_own(memory, user_memory, tmp_path, time):
            assert memory.get_stats()["total_sessions"] == 0
            assert Path(memory.url).parent == tmp_path
            session = SessionFactory.create(memory=user_memory)
            MessageFactory.create_batch(15, session_id=session.id, memory=memory)
            assert user_memory.get_recent_messages(session.id)[0].content.startswith("message 4:")
            assert user_memory.user_id == session.user_id == "alice"
            assert len(user_memory.search_messages("message", limit=20)) == 15

        def test_the_clock_is_the_memory_s(memory, memory_clock):
            assert SessionFactory.create(memory=memory).created_at == datetime(2026, 1, 15, 12, tzinfo=UTC)
            memory_clock.advance(hours=25)
            assert memory.get_active_sessions() == []

        def test_another_process_can_open_it(memory):
            SessionFactory.create(memory=memory)
            with MemoryManager(memory.url) as other:
                assert len(other.list_sessions()) == 1

        def test_the_settings_are_the_defaults(memory, monkeypatch):
            assert memory.settings.memory.short_term.max_messages == 12
            assert memory.settings.memory.synchronous == "full"

        class TestOfMyOwn:
            @pytest.fixture
            def memory_settings(self):
                return Settings(memory={"short_term": {"max_messages": 2}})

            @pytest.fixture
            def memory_user_id(self):
                return "bob"

            def test_settings_and_user_can_be_chosen(self, user_memory):
                session = SessionFactory.create(memory=user_memory)
                MessageFactory.create_batch(5, session_id=session.id, memory=user_memory)
                assert len(user_memory.get_recent_messages(session.id)) == 2
                assert session.user_id == "bob"
        """,
    )
    result.assert_outcomes(passed=6)


@pytest.mark.long
def test_the_memory_is_closed_and_its_file_is_private(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
        from pathlib import Path
        from mirai_memory import StorageError
        seen = []

        def test_first(memory):
            seen.append(memory)
            assert Path(memory.url).stat().st_mode & 0o077 == 0

        def test_second():
            with pytest.raises(StorageError, match="closed"):
                seen[0].get_stats()
            assert not Path(seen[0].url + "-wal").exists()
        """,
    )
    result.assert_outcomes(passed=2)


@pytest.mark.long
def test_a_memory_fixture_of_the_project_s_own_takes_its_place(pytester: pytest.Pytester) -> None:
    own = """
        import pytest
        from mirai_memory import MemoryManager

        @pytest.fixture
        def memory():
            with MemoryManager(":memory:") as memory:
                yield memory
    """
    result = run(
        pytester,
        """
        def test_own(memory, user_memory):
            assert memory.url == ":memory:"
            assert SessionFactory.create(memory=user_memory) == memory.list_sessions()[0]

        def test_leak(memory, owner_canary):
            memory.list_sessions()
        """,
        conftest=CONFTEST + textwrap.dedent(own),
    )
    result.assert_outcomes(passed=1, failed=1)


@pytest.mark.long
def test_nothing_happens_to_who_does_not_ask(pytester: pytest.Pytester) -> None:
    result = run(pytester, "def test_mine(memory): pass\n", conftest="")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*fixture 'memory' not found"])


# --- the canary -------------------------------------------------------------------------------------------------------

FINE = """
    pytestmark = pytest.mark.usefixtures("owner_canary")

    def test_an_owner_s_own_reads(user_memory, owner_canary):
        session = SessionFactory.create(memory=user_memory)
        MessageFactory.create(memory=user_memory, session_id=session.id, content="green tea")
        user_memory.add_knowledge(Knowledge(value="likes green tea"))
        user_memory.add_task(Task(description="buy tea"))
        user_memory.update_user_preferences(communication_tone="brief")
        assert len(user_memory.recall("tea")) == 2
        assert [m.content for m in user_memory.search_messages("tea")] == ["green tea"]
        assert [f.value for f in user_memory.search_knowledge(query="tea")] == ["likes green tea"]
        assert "tea" in user_memory.build_context(session.id, "tea").to_prompt()
        assert len(user_memory.list_sessions()) == len(user_memory.get_tasks()) == len(user_memory.get_knowledge()) == 1
        assert user_memory.get_session(owner_canary.session_id) is None
        assert user_memory.get_message(owner_canary.message_id) is None
        with pytest.raises(NotFound):
            user_memory.delete_task(owner_canary.task_id)

    def test_the_whole_memory_asked_for_one_owner(memory):
        session = SessionFactory.create(memory=memory)
        memory.list_sessions("alice")
        memory.search_messages("anything", user_id="alice")
        memory.recall("anything", user_id="alice")
        memory.get_messages(session.id)
        memory.get_stats()
        memory.run(lambda uow: uow.sessions.get(session.id))

    def test_looking_away(memory, owner_canary):
        with owner_canary.looking_away():
            assert len(memory.list_sessions()) == 1

    def test_wrong_arguments_stay_wrong(user_memory):
        with pytest.raises(TypeError):
            user_memory.search_messages()
        with pytest.raises(ValueError, match="query"):
            user_memory.search_messages(7)
        user_memory.search_messages("")
"""


@pytest.mark.long
def test_the_canary_is_silent_where_owners_are_kept_apart(pytester: pytest.Pytester) -> None:
    run(pytester, FINE).assert_outcomes(passed=4)


LEAKS = {
    "list": "memory.list_sessions()",
    "active": "memory.get_active_sessions()",
    "tasks": "memory.get_tasks()",
    "search": 'memory.search_messages("a word that nobody ever wrote")',
    "facts": 'memory.search_knowledge("some words", user_id=owner_canary.user_id)',
    "by id": "memory.get_message(owner_canary.message_id)",
    "history": "memory.get_conversation_history(owner_canary.session_id)",
    "context": "memory.build_context(owner_canary.session_id)",
    "preferences": "memory.get_user_preferences(owner_canary.user_id)",
    "run": "memory.run(lambda uow: {'deep': [uow.sessions.get(owner_canary.session_id)]})",
    "changed": "memory.update_session(owner_canary.session_id, metadata={})",
    "other manager": "MemoryManager(memory.url).list_sessions()",
    "other owner": "memory.for_user(owner_canary.user_id).list_sessions()",
}


@pytest.mark.long
def test_the_canary_fails_the_test_that_reads_it(pytester: pytest.Pytester) -> None:
    tests = [f"def test_{name.replace(' ', '_')}(memory, owner_canary):\n    {call}\n" for name, call in LEAKS.items()]
    result = run(pytester, "\n" + "\n".join(tests), "-W", "default::ResourceWarning")
    result.assert_outcomes(failed=len(LEAKS))
    words = result.stdout.str()
    assert "MemoryManager.list_sessions() returned rows of another owner: result[0].user_id is the canary's" in words
    assert "UserMemory.list_sessions() returned" in words
    assert "result['deep'][0].user_id" in words
    assert "looking_away" in words
    assert "canary.py" not in words  # the traceback ends in the test's own line


@pytest.mark.long
def test_an_alarm_that_is_swallowed_still_fails_the_test(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
        def test_in_a_thread(memory, owner_canary):
            def work():
                try:
                    memory.list_sessions()
                except BaseException:
                    pass
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()

        def test_caught(memory, owner_canary):
            try:
                memory.get_tasks()
            except BaseException:
                pass

        def test_the_next_one_is_unharmed(memory):
            SessionFactory.create(memory=memory)
            assert len(memory.list_sessions()) == 1
        """,
    )
    result.assert_outcomes(failed=2, passed=1)
    assert result.stdout.str().count("owner_canary: the test read what belongs to another owner.") >= 2


def test_the_canary_works_on_every_engine(memory: MemoryManager) -> None:
    from mirai_memory.testing import OwnerCanary

    canary = OwnerCanary(memory)
    canary.lure("зелёный чай")
    canary.lure("no text: \x00")
    mine = memory.for_user(canary.user_id)
    # With what stands beside it in the conversation, which a search finds too.
    found = [message.content for message in mine.search_messages("чай")]
    assert found == [f"зелёный чай {canary.user_id}", f"a secret of {canary.user_id}"]
    assert len(mine.search_knowledge("чай")) == 1
    assert memory.for_user("alice").recall("чай") == []
    with pytest.raises(pytest.fail.Exception, match="is the canary's"):
        canary.inspect("call", mine.list_sessions())


@pytest.mark.long
def test_the_template_is_copied_whole(pytester: pytest.Pytester, tmp_path: Path) -> None:
    result = run(
        pytester,
        """
        import sqlite3
        from mirai_memory import schema

        def test_nothing_is_to_be_done(_mirai_memory_template, memory):
            assert schema.current(memory.url) == schema.HEAD_REVISION
            assert schema.check(memory.url) == []
            with sqlite3.connect(memory.url) as db:
                assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            db.close()
            assert _mirai_memory_template.startswith(b"SQLite format 3")
        """,
    )
    result.assert_outcomes(passed=1)
