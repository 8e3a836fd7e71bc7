"""What an export has written, and what an import has made of it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class UserExport:
    """What ``export_user`` wrote. ``sha256`` is that of all lines before the last, which has it too."""

    user_id: str
    exported_at: datetime
    preferences: int
    sessions: int
    messages: int
    tasks: int
    facts: int
    bytes: int
    sha256: str

    def to_dict(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "exported_at": self.exported_at.isoformat()}


@dataclass(frozen=True, slots=True)
class ImportConflict:
    """Something of the file that is here already, but otherwise; what is here stays."""

    line: int
    kind: str
    reason: str

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class UserImport:
    """What ``import_user`` did, or with ``dry_run`` would do.

    ``..._there`` were here before, just so. ``not_imported`` lines are told in ``conflicts``, of which the first are
    listed and all are counted; ``erased`` lines are older than the owner's erasure, and stayed out. Facts of
    ``links_lost`` have lost the message that they were learned from.
    """

    user_id: str
    exported_at: datetime
    preferences_added: int = 0
    preferences_there: int = 0
    sessions_added: int = 0
    sessions_there: int = 0
    messages_added: int = 0
    messages_there: int = 0
    tasks_added: int = 0
    tasks_there: int = 0
    facts_added: int = 0
    facts_there: int = 0
    links_lost: int = 0
    erased: int = 0
    not_imported: int = 0
    conflict_count: int = 0
    conflicts: tuple[ImportConflict, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        values = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        conflicts = [conflict.to_dict() for conflict in self.conflicts]
        return {**values, "exported_at": self.exported_at.isoformat(), "conflicts": conflicts}
