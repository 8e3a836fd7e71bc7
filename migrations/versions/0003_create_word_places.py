"""Create the places of messages, which a search reads of a whole scope at once, and look up one owner's work.

Why: who spoke, where in which session, when, and whether it asks; with it a search looks at the turns around a word.
And the vectors that one owner still waits for are found without reading those of others.
Cost on a large table: the next opening makes the word index anew, about 20,000 messages a second.
A downgrade loses nothing: the index is a projection, rebuilt by the next opening after an upgrade.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# In order of scope, then id: a search reads one scope in one piece.
PLACES = (
    "CREATE TABLE word_places (scope {number} NOT NULL, id {number} NOT NULL, session {number} NOT NULL,"
    " position {number} NOT NULL, speaker TEXT NOT NULL, cues {number} NOT NULL, length {number} NOT NULL,"
    " time {number} NOT NULL, PRIMARY KEY (scope, id))"
)
# Counted up by what a cached scope cannot see by its number of items: items removed, vectors written.
COUNTERS = ("removals", "vectors")


def upgrade() -> None:
    if op.get_context().dialect.name == "sqlite":
        op.execute(PLACES.format(number="INTEGER") + " WITHOUT ROWID")
    else:
        op.execute(PLACES.format(number="BIGINT"))
    for name in COUNTERS:
        op.execute(f"ALTER TABLE word_scopes ADD COLUMN {name} BIGINT NOT NULL DEFAULT 0")
    pending = sa.text("status = 'pending'")
    op.create_index(
        "ix_embeddings__pending_of_user",
        "embeddings",
        ["user_id", "id"],
        sqlite_where=pending,
        postgresql_where=pending,
    )
    op.execute("DELETE FROM memory_state WHERE name = 'analyzer_version'")


def downgrade() -> None:
    op.drop_index("ix_embeddings__pending_of_user", table_name="embeddings")
    op.execute("DROP TABLE word_places")
    for name in COUNTERS:
        op.execute(f"ALTER TABLE word_scopes DROP COLUMN {name}")
    op.execute("DELETE FROM memory_state WHERE name = 'analyzer_version'")
