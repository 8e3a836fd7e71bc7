"""Preferences: one row an owner, changed as a whole or field by field, never over somebody's newer change."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mirai_memory import Conflict, MemoryManager, NotFound, UserPreferences
from mirai_memory.testing.clock import FrozenClock

_LIKES = UserPreferences(
    user_id="alice",
    coding_style="PEP 8, но строки до 120",
    communication_tone="кратко 🙂",
    favorite_tools=["ruff", "uv", "ruff"],
    project_context="",
    metadata={"weights": {"a": 0.1}, "list": [1, None]},
)


class PreferencesContract:
    def test_saved_preferences_come_back_exactly(self, memory: MemoryManager, clock: FrozenClock) -> None:
        saved = memory.save_user_preferences(_LIKES)
        assert saved == replace(_LIKES, version=1, updated_at=clock())
        assert memory.get_user_preferences("alice") == saved

    def test_an_owner_without_preferences_has_none(self, memory: MemoryManager) -> None:
        memory.save_user_preferences(_LIKES)
        assert memory.get_user_preferences("bob") is None

    def test_saving_replaces_the_whole_row(self, memory: MemoryManager, clock: FrozenClock) -> None:
        memory.save_user_preferences(_LIKES)
        clock.advance(hours=1)
        saved = memory.save_user_preferences(UserPreferences(user_id="alice", coding_style="black"))
        expected = UserPreferences(user_id="alice", coding_style="black", version=2, updated_at=clock())
        assert memory.get_user_preferences("alice") == saved == expected

    def test_the_version_that_was_read_may_be_saved(self, memory: MemoryManager) -> None:
        read = memory.save_user_preferences(_LIKES)
        assert memory.save_user_preferences(replace(read, coding_style="black")).version == 2

    def test_a_stale_version_is_a_conflict(self, memory: MemoryManager) -> None:
        read = memory.save_user_preferences(_LIKES)
        newer = memory.save_user_preferences(replace(read, coding_style="black"))
        with pytest.raises(Conflict):
            memory.save_user_preferences(replace(read, coding_style="yapf"))
        assert memory.get_user_preferences("alice") == newer

    def test_a_version_of_what_is_not_there_is_a_conflict(self, memory: MemoryManager) -> None:
        with pytest.raises(Conflict):
            memory.save_user_preferences(replace(_LIKES, version=1))
        assert memory.get_user_preferences("alice") is None

    def test_updating_sets_the_named_fields_and_keeps_the_others(self, memory: MemoryManager) -> None:
        saved = memory.save_user_preferences(_LIKES)
        updated = memory.update_user_preferences("alice", coding_style=None, favorite_tools=["mypy"])
        assert updated == replace(saved, coding_style=None, favorite_tools=["mypy"], version=2)
        assert memory.get_user_preferences("alice") == updated

    def test_updating_merges_the_metadata_key_by_key(self, memory: MemoryManager) -> None:
        memory.save_user_preferences(_LIKES)
        updated = memory.update_user_preferences("alice", metadata={"list": [], "new": True})
        assert updated.metadata == {"weights": {"a": 0.1}, "list": [], "new": True}
        assert memory.get_user_preferences("alice") == updated

    def test_updating_makes_what_is_not_there(self, memory: MemoryManager) -> None:
        updated = memory.update_user_preferences("alice", communication_tone="dry")
        assert (updated.communication_tone, updated.favorite_tools, updated.version) == ("dry", [], 1)
        assert memory.get_user_preferences("alice") == updated

    def test_deleting_takes_the_owner_s_preferences(self, memory: MemoryManager) -> None:
        memory.save_user_preferences(_LIKES)
        kept = memory.save_user_preferences(replace(_LIKES, user_id="bob"))
        memory.delete_user_preferences("alice")
        assert memory.get_user_preferences("alice") is None
        assert memory.get_user_preferences("bob") == kept
        with pytest.raises(NotFound):
            memory.delete_user_preferences("alice")
