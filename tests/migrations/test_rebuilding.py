"""A revision of the future that rebuilds a table: the rows that refer to it stay."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from alembic import command
from alembic.config import Config

from mirai_memory import MemoryManager, Message, Task, schema

NEXT = f"{int(schema.HEAD_REVISION) + 1:04d}"
REBUILDING = f"""
import sqlalchemy as sa
from alembic import op

revision, down_revision, branch_labels, depends_on = "{NEXT}", "{schema.HEAD_REVISION}", None, None

def upgrade():
    with op.batch_alter_table("sessions", recreate="always") as table:
        table.alter_column("agent_id", type_=sa.String(100))
"""


def test_a_rebuilt_table_keeps_its_children(tmp_path: Path, sqlite_url: str) -> None:
    with MemoryManager(sqlite_url) as memory:
        session = memory.create_session("alice").id
        said = memory.add_message(Message(session_id=session, role="user", content="tea"))
        task = memory.add_task(Task(session_id=session, description="brew"))
    scripts = Path(shutil.copytree(schema.script_location(), tmp_path / "migrations"))
    (scripts / "versions" / f"{NEXT}_rebuild_sessions.py").write_text(REBUILDING, encoding="utf-8")
    config = Config()
    config.set_main_option("script_location", str(scripts))
    config.set_main_option("path_separator", "os")
    config.attributes.update(url=sqlite_url)
    command.upgrade(config, NEXT)
    with closing(sqlite3.connect(sqlite_url)) as connection, connection:  # this version opens no newer file
        connection.execute(f"UPDATE {schema.VERSION_TABLE} SET version_num = ?", [schema.HEAD_REVISION])
    with MemoryManager(sqlite_url) as memory:
        assert [message.id for message in memory.get_messages(session)] == [said]
        assert [found.id for found in memory.get_tasks(session)] == [task]
