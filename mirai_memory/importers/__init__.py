"""Reading other formats into the memory: what is found in a file is stored whole conversations at a time."""

from __future__ import annotations

from mirai_memory.importers.base import Conversation, Importer, ImportFault, ImportReport, SessionDraft
from mirai_memory.importers.run import FORMATS, Progress, detect_format, import_file

__all__ = [
    "FORMATS",
    "Conversation",
    "ImportFault",
    "ImportReport",
    "Importer",
    "Progress",
    "SessionDraft",
    "detect_format",
    "import_file",
]
