"""All that is known of one owner in one file, and back: JSON Lines with a first line, an end line and a checksum."""

from __future__ import annotations

from mirai_memory.transfer.form import FORMAT, VERSION
from mirai_memory.transfer.reports import ImportConflict, UserExport, UserImport

__all__ = ["FORMAT", "VERSION", "ImportConflict", "UserExport", "UserImport"]
