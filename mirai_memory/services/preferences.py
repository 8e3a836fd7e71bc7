"""What an owner likes: one row each, changed by compare-and-set."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sqlalchemy import delete, insert, select, update

from mirai_memory import _checks
from mirai_memory.config import PREFERENCES as REMEMBERABLE
from mirai_memory.config import MemorySettings
from mirai_memory.entities import UserPreferences
from mirai_memory.errors import ConfigurationError, Conflict, InvalidInput, NotFound
from mirai_memory.models import PreferencesRow
from mirai_memory.services.base import Service

PREFERENCES = PreferencesRow.table()
CHANGEABLE = ("coding_style", "communication_tone", "favorite_tools", "project_context", "metadata")


def checked(preferences: UserPreferences, settings: MemorySettings) -> UserPreferences:
    """The preferences, if every value keeps its rule. Raises InvalidInput."""
    if not isinstance(preferences, UserPreferences):
        raise InvalidInput("preferences", f"must be UserPreferences, not {type(preferences).__name__}")
    limit = settings.max_content_chars
    _checks.owner(preferences.user_id)
    for field in ("coding_style", "communication_tone", "project_context"):
        _checks.optional_text(field, getattr(preferences, field), limit=limit)
    _checks.texts("favorite_tools", preferences.favorite_tools, limit=limit)
    _checks.json_object("metadata", preferences.metadata, limit=limit)
    _checks.optional_integer("version", preferences.version)
    return preferences


class Preferences(Service):
    def get(self, user_id: str | None = None, *, for_update: bool = False) -> UserPreferences | None:
        statement = select(PREFERENCES).where(PREFERENCES.c.user_id == self._owner_of(user_id))
        if not self._settings.user_preferences.enabled:
            return None
        row = self._db.execute(statement.with_for_update() if for_update else statement).first()
        return UserPreferences(**row._mapping) if row else None

    def save(self, preferences: UserPreferences) -> UserPreferences:
        """Replace the whole row. With ``version`` set, only if that is still the stored one: else Conflict."""
        wanted = checked(preferences, self._settings)
        owner = self._owner_of(wanted.user_id)
        stored = self.get(owner, for_update=True)
        if wanted.version is not None and (stored is None or stored.version != wanted.version):
            there = "gone" if stored is None else f"at version {stored.version}"
            raise Conflict("preferences", owner, f"version {wanted.version} is stale, the stored row is {there}")
        return self._write(wanted, stored)

    def change(self, user_id: str | None, changes: dict[str, Any]) -> UserPreferences:
        """Set the named fields and keep the others; ``metadata`` is merged key by key."""
        unknown = sorted(set(changes) - set(CHANGEABLE))
        if unknown:
            shown = unknown[0] if len(unknown[0]) <= 40 and unknown[0].isidentifier() else "a name"
            raise InvalidInput(shown, f"is no preference; they are {', '.join(CHANGEABLE)}")
        owner = self._owner_of(user_id)
        checked(replace(UserPreferences(user_id=owner), **changes), self._settings)
        stored = self.get(owner, for_update=True)
        before = stored or UserPreferences(user_id=owner)
        if "metadata" in changes:
            changes = {**changes, "metadata": before.metadata | changes["metadata"]}
        return self._write(checked(replace(before, **changes), self._settings), stored)

    def _write(self, wanted: UserPreferences, stored: UserPreferences | None) -> UserPreferences:
        self._check_enabled()
        version = 1 if stored is None else (stored.version or 0) + 1
        not_kept = set(REMEMBERABLE) - set(self._settings.user_preferences.remember)
        emptied: dict[str, Any] = {name: [] if name == "favorite_tools" else None for name in not_kept}
        new = replace(wanted, version=version, updated_at=self._now(), **emptied)
        values = {field: getattr(new, field) for field in (*CHANGEABLE, "version", "updated_at")}
        if stored is None:
            self._db.execute(insert(PREFERENCES), {"user_id": new.user_id, **values})
        else:
            self._db.execute(update(PREFERENCES).where(PREFERENCES.c.user_id == new.user_id).values(values))
        return new

    def _check_enabled(self) -> None:
        if not self._settings.user_preferences.enabled:
            raise ConfigurationError("memory.user_preferences.enabled is false: preferences are not kept")

    def delete(self, user_id: str | None = None) -> None:
        self._check_enabled()
        owner = self._owner_of(user_id)
        if not self._db.execute(delete(PREFERENCES).where(PREFERENCES.c.user_id == owner)).rowcount:
            raise NotFound("preferences", owner)
