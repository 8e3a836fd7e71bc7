"""Create the tables of sessions, messages, preferences, tasks, knowledge, embeddings and state.

Why: the first schema. Cost on a large table: none, there is none yet.
A downgrade loses nothing: rows are parked in ``parked_*`` tables, and the next upgrade takes them back.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# Parents before children.
TABLES = ("sessions", "messages", "user_preferences", "tasks", "knowledge", "embeddings", "memory_state")
# The highest id ever given must come back as well: ids are never used twice.
NUMBERED = ("messages", "tasks", "knowledge", "embeddings")


def upgrade() -> None:
    _create_sessions()
    _create_messages()
    _create_user_preferences()
    _create_tasks()
    _create_knowledge()
    _create_embeddings()
    _create_memory_state()
    if not op.get_context().as_sql:
        _unpark()


def downgrade() -> None:
    _park()
    for table in reversed(TABLES):
        op.drop_table(table)


def _create_sessions() -> None:
    op.create_table(
        "sessions",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("external_id", sa.Text(), nullable=True),
        sa.Column("agent_id", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_active", sa.DateTime(timezone=True), nullable=False),
        sa.Column("message_count", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("next_position", sa.BigInteger(), server_default="1", nullable=False),
        sa.Column("summary", sa.Text(), nullable=True),
        sa.Column("summarized_through", sa.BigInteger(), nullable=True),
        sa.Column("summary_method", sa.Text(), nullable=True),
        sa.Column("summary_tokens", sa.BigInteger(), nullable=True),
        sa.Column("summary_source_tokens", sa.BigInteger(), nullable=True),
        sa.Column("learned_through", sa.BigInteger(), nullable=True),
        sa.Column("lease_owner", sa.Text(), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("metadata", sa.JSON(none_as_null=True), server_default="{}", nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_sessions"),
    )
    op.create_index("ix_sessions__created_at_id", "sessions", ["created_at", "id"], unique=False)
    op.create_index("ix_sessions__last_active", "sessions", ["last_active"], unique=False)
    op.create_index("ix_sessions__user_id_created_at_id", "sessions", ["user_id", "created_at", "id"], unique=False)
    op.create_index("ix_sessions__user_id_last_active", "sessions", ["user_id", "last_active"], unique=False)
    op.create_index(
        "uq_sessions__external_id",
        "sessions",
        ["user_id", "external_id"],
        unique=True,
        sqlite_where=sa.text("external_id IS NOT NULL"),
        postgresql_where=sa.text("external_id IS NOT NULL"),
    )


def _create_messages() -> None:
    op.create_table(
        "messages",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("session_id", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("group_start", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.Text(), server_default="chat", nullable=False),
        sa.Column("role", sa.Text(), nullable=True),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("tool_calls", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("tool_call_id", sa.Text(), nullable=True),
        sa.Column("parts", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("payload", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("timestamp", sa.DateTime(timezone=True), nullable=False),
        sa.Column("tokens", sa.BigInteger(), nullable=True),
        sa.Column("model", sa.Text(), nullable=True),
        sa.Column("metadata", sa.JSON(none_as_null=True), server_default="{}", nullable=False),
        sa.Column("client_id", sa.Text(), nullable=True),
        sa.CheckConstraint("kind = 'item' OR role IS NOT NULL", name=op.f("ck_messages__chat_has_role")),
        sa.CheckConstraint("kind IN ('chat', 'item')", name=op.f("ck_messages__kind")),
        sa.CheckConstraint(
            "role IN ('system', 'user', 'assistant', 'tool', 'developer')", name=op.f("ck_messages__role")
        ),
        sa.ForeignKeyConstraint(
            ["session_id"], ["sessions.id"], name="fk_messages__session_id__sessions", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_messages"),
        sa.UniqueConstraint("session_id", "position", name="uq_messages__session_id_position"),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "uq_messages__client_id",
        "messages",
        ["session_id", "client_id"],
        unique=True,
        sqlite_where=sa.text("client_id IS NOT NULL"),
        postgresql_where=sa.text("client_id IS NOT NULL"),
    )


def _create_user_preferences() -> None:
    op.create_table(
        "user_preferences",
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("coding_style", sa.Text(), nullable=True),
        sa.Column("communication_tone", sa.Text(), nullable=True),
        sa.Column("favorite_tools", sa.JSON(none_as_null=True), server_default="[]", nullable=False),
        sa.Column("project_context", sa.Text(), nullable=True),
        sa.Column("metadata", sa.JSON(none_as_null=True), server_default="{}", nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("user_id", name="pk_user_preferences"),
    )


def _create_tasks() -> None:
    op.create_table(
        "tasks",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("session_id", sa.Text(), nullable=True),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), server_default="pending", nullable=False),
        sa.Column("result", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("completed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("metadata", sa.JSON(none_as_null=True), server_default="{}", nullable=False),
        sa.Column("client_id", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "status IN ('pending', 'in_progress', 'completed', 'failed')", name=op.f("ck_tasks__status")
        ),
        sa.ForeignKeyConstraint(
            ["session_id"], ["sessions.id"], name="fk_tasks__session_id__sessions", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_tasks"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_tasks__session_id_status", "tasks", ["session_id", "status"], unique=False)
    op.create_index("ix_tasks__user_id_status", "tasks", ["user_id", "status"], unique=False)
    op.create_index(
        "uq_tasks__client_id",
        "tasks",
        ["user_id", "client_id"],
        unique=True,
        sqlite_where=sa.text("client_id IS NOT NULL"),
        postgresql_where=sa.text("client_id IS NOT NULL"),
    )


def _create_knowledge() -> None:
    op.create_table(
        "knowledge",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("category", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=True),
        sa.Column("source_kind", sa.Text(), nullable=False),
        sa.Column("confidence", sa.Double(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("valid_from", sa.DateTime(timezone=True), nullable=False),
        sa.Column("valid_to", sa.DateTime(timezone=True), nullable=True),
        sa.Column("superseded_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("superseded_by", sa.BigInteger(), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("message_id", sa.BigInteger(), nullable=True),
        sa.Column("metadata", sa.JSON(none_as_null=True), server_default="{}", nullable=False),
        sa.CheckConstraint(
            "source_kind IN ('user', 'assistant', 'tool', 'document', 'import')", name=op.f("ck_knowledge__source_kind")
        ),
        sa.CheckConstraint("confidence >= 0 AND confidence <= 1", name=op.f("ck_knowledge__confidence")),
        sa.ForeignKeyConstraint(
            ["message_id"], ["messages.id"], name="fk_knowledge__message_id__messages", ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(
            ["superseded_by"], ["knowledge.id"], name="fk_knowledge__superseded_by__knowledge", ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_knowledge"),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ix_knowledge__expires_at",
        "knowledge",
        ["expires_at"],
        unique=False,
        sqlite_where=sa.text("expires_at IS NOT NULL"),
        postgresql_where=sa.text("expires_at IS NOT NULL"),
    )
    op.create_index("ix_knowledge__message_id", "knowledge", ["message_id"], unique=False)
    op.create_index("ix_knowledge__superseded_by", "knowledge", ["superseded_by"], unique=False)
    op.create_index(
        "ix_knowledge__user_id_category_key_id", "knowledge", ["user_id", "category", "key", "id"], unique=False
    )
    op.create_index("ix_knowledge__user_id_id", "knowledge", ["user_id", "id"], unique=False)
    op.create_index(
        "uq_knowledge__open",
        "knowledge",
        ["user_id", "category", "key"],
        unique=True,
        sqlite_where=sa.text("superseded_at IS NULL AND valid_to IS NULL"),
        postgresql_where=sa.text("superseded_at IS NULL AND valid_to IS NULL"),
    )


def _create_embeddings() -> None:
    op.create_table(
        "embeddings",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("item_id", sa.BigInteger(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("dim", sa.BigInteger(), nullable=False),
        sa.Column("vector", sa.LargeBinary(), nullable=True),
        sa.Column("content_hash", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.CheckConstraint("kind IN ('message', 'knowledge')", name=op.f("ck_embeddings__kind")),
        sa.CheckConstraint(
            "status <> 'ready' OR (vector IS NOT NULL AND dim > 0)", name=op.f("ck_embeddings__ready_has_vector")
        ),
        sa.CheckConstraint("status IN ('ready', 'pending', 'failed')", name=op.f("ck_embeddings__status")),
        sa.PrimaryKeyConstraint("id", name="pk_embeddings"),
        sa.UniqueConstraint("kind", "item_id", "model", name="uq_embeddings__kind_item_id_model"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_embeddings__model_content_hash", "embeddings", ["model", "content_hash"], unique=False)
    op.create_index(
        "ix_embeddings__pending",
        "embeddings",
        ["id"],
        unique=False,
        sqlite_where=sa.text("status = 'pending'"),
        postgresql_where=sa.text("status = 'pending'"),
    )
    op.create_index("ix_embeddings__user_id_model_kind", "embeddings", ["user_id", "model", "kind"], unique=False)


def _create_memory_state() -> None:
    op.create_table(
        "memory_state",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_memory_state"),
    )


def _execute(statement: str) -> sa.CursorResult[tuple[object, ...]]:
    connection = op.get_context().connection
    assert connection is not None
    return connection.exec_driver_sql(statement)


def _park() -> None:
    for table in TABLES:
        op.execute(f"CREATE TABLE parked_{table} AS SELECT * FROM {table}")
    op.execute("CREATE TABLE parked_last_ids (name TEXT, last_id BIGINT)")
    for table in NUMBERED:
        if op.get_context().dialect.name == "sqlite":
            last = f"coalesce((SELECT seq FROM sqlite_sequence WHERE name = '{table}'), 0)"
        else:
            last = f"coalesce(pg_sequence_last_value(pg_get_serial_sequence('{table}', 'id')::regclass), 0)"
        op.execute(f"INSERT INTO parked_last_ids SELECT '{table}', {last}")


def _unpark() -> None:
    connection = op.get_context().connection
    assert connection is not None
    parked = {name for name in sa.inspect(connection).get_table_names() if name.startswith("parked_")}
    for table in TABLES:
        if f"parked_{table}" in parked:
            names = [column["name"] for column in sa.inspect(connection).get_columns(f"parked_{table}")]
            columns = ", ".join(f'"{name}"' for name in names)
            # A fact may name one that comes after it: in one statement the reference is checked at its end.
            _execute(f"INSERT INTO {table} ({columns}) SELECT {columns} FROM parked_{table}")
    if "parked_last_ids" in parked:
        for name, last_id in _execute("SELECT name, last_id FROM parked_last_ids WHERE last_id > 0").all():
            _go_on_after(str(name), int(str(last_id)))
    for table in parked:
        op.drop_table(table)


def _go_on_after(table: str, last_id: int) -> None:
    if op.get_context().dialect.name == "sqlite":
        _execute(f"DELETE FROM sqlite_sequence WHERE name = '{table}'")
        _execute(f"INSERT INTO sqlite_sequence (name, seq) VALUES ('{table}', {last_id})")
    else:
        _execute(f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), {last_id})")
