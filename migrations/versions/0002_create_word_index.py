"""Create the word index: which scope holds which terms.

Why: word search, by FTS5 on SQLite, by tsvector and GIN on PostgreSQL.
Cost on a large table: none here; the next opening analyses what is stored and fills the index, about 20,000
messages a second.
A downgrade loses nothing: the index is a projection, rebuilt by the next opening after an upgrade.
"""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# One token is `term@scope`, and the analyser makes no "@": a query for a term of one scope reads that scope's
# postings and nobody else's. The ascii tokenizer takes every character beyond ASCII as part of a word, so the terms
# of any script stay whole. Positions and column sizes serve phrases and bm25(), which are not used.
FULL_TEXT = (
    "CREATE VIRTUAL TABLE {name} USING fts5(terms, tokenize=\"ascii tokenchars '@'\", detail='none', columnsize=0)"
)


def upgrade() -> None:
    if op.get_context().dialect.name == "sqlite":
        op.execute(
            "CREATE TABLE word_scopes (id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, user_id TEXT NOT NULL,"
            " item_count INTEGER NOT NULL, term_count INTEGER NOT NULL, UNIQUE (kind, user_id))"
        )
        for name in ("word_messages", "word_knowledge"):
            op.execute(FULL_TEXT.format(name=name))
    else:
        op.execute(
            "CREATE TABLE word_scopes (id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, kind TEXT NOT NULL,"
            " user_id TEXT NOT NULL, item_count BIGINT NOT NULL, term_count BIGINT NOT NULL, UNIQUE (kind, user_id))"
        )
        for name in ("word_messages", "word_knowledge"):
            op.execute(
                f"CREATE TABLE {name} (rowid BIGINT PRIMARY KEY, terms TEXT NOT NULL, lexemes TSVECTOR NOT NULL)"
            )
            op.execute(f"CREATE INDEX ix_{name}__lexemes ON {name} USING gin (lexemes)")


def downgrade() -> None:
    for name in ("word_messages", "word_knowledge", "word_scopes"):
        op.execute(f"DROP TABLE {name}")
    op.execute("DELETE FROM memory_state WHERE name = 'analyzer_version'")
