"""The tables and indexes of a SQLite file: are they as the migrations make them, all of them and no other?"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

from sqlalchemy import Connection

from mirai_memory.models import Base
from mirai_memory.schema import VERSION_TABLE, is_projection_table

# What ``fingerprint`` makes of each revision; a test makes them anew. Recorded, since Alembic's context is one for the
# whole process: a check in a thread must not run migrations while the host runs its own.
FINGERPRINTS: Mapping[str, str] = {
    "0001": "a3fb415fab86d281",
    "0002": "f9086ea4e0bfbf48",
    "0003": "1ce32ad704de1d87",
}
Objects = Mapping[tuple[str, str], str]
_FTS5_OWN = re.compile(r"word_(messages|knowledge)_(data|idx|content|docsize|config)")
_WORD = re.compile(r"'[^']*'|[a-z0-9_]+|[^\sa-z0-9_\"`\[\]]")


def objects(connection: Connection) -> dict[tuple[str, str], str]:
    """Every object but the engine's own: (type, name) -> the SQL it was made by."""
    rows = connection.exec_driver_sql(
        "SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
    )
    return {(str(row[0]), str(row[1])): str(row[2] or "") for row in rows}


def fingerprint(found: Objects) -> str:
    """What tells apart two sets of objects that mean something else.

    The words of a definition count, and not their order, quotes or spaces: a column that was added by a statement of
    its own stands elsewhere in the text. Of the tables of FTS5's own, which every version of it makes, the name counts.
    """
    lines = []
    for (kind, name), sql in sorted(found.items()):
        words = [] if _FTS5_OWN.fullmatch(name) else sorted(_WORD.findall(sql.lower()))
        lines.append(" ".join([kind, name, *words]))
    return hashlib.sha256("\n".join(lines).encode(errors="replace")).hexdigest()[:16]


def strangers(found: Objects) -> list[str]:
    """Names that are nothing of a memory's."""
    tables = Base.metadata.tables.values()
    known = {VERSION_TABLE, *(table.name for table in tables), *(str(i.name) for t in tables for i in t.indexes)}
    return sorted(name for _, name in found if name not in known and not is_projection_table(name))
