"""Copies of a SQLite memory that can be relied on: made, kept, restored, and tried out."""

from __future__ import annotations

from mirai_memory.backups.automatic import DailyBackup, Found, before_change, folder_of, found_backups
from mirai_memory.backups.report import Backup, Drill, Restored

__all__ = ["Backup", "DailyBackup", "Drill", "Found", "Restored", "before_change", "folder_of", "found_backups"]
