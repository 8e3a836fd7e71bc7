"""What a server keeps of deleted rows: how VACUUM lets go of it, and what is left elsewhere."""

from __future__ import annotations

import time

from psycopg.errors import Diagnostic
from sqlalchemy import text

from mirai_memory.database.catalogue import schema_of
from mirai_memory.database.engine import Compaction, Db, Remains, driver_of
from mirai_memory.database.migrating import quoted

# How long transactions that began before the deletion are waited for, a moment at a time.
PATIENCE_S = 3.0
_PAUSE_S = 0.05
_TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = :schema ORDER BY tablename"
# Whoever may still see rows as they were at :mark keeps VACUUM from taking them: in this database, or on a standby that
# says what it reads.
_OLDER = (
    "SELECT 'process ' || pid || coalesce(' (application ' || nullif(application_name, '') || ')', '') "
    "FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND (datname = current_database() OR datname IS NULL) "
    "AND greatest(age(backend_xmin), age(backend_xid)) > age(CAST(:mark AS xid)) "
    "UNION ALL SELECT 'prepared transaction ' || gid FROM pg_prepared_xacts "
    "WHERE database = current_database() AND age(transaction) > age(CAST(:mark AS xid)) "
    "UNION ALL SELECT 'replication slot ' || slot_name FROM pg_replication_slots "
    "WHERE age(xmin) > age(CAST(:mark AS xid))"
)


def tables_of(db: Db) -> list[str]:
    """The tables of our schema, quoted."""
    schema = schema_of(db)
    names = db.execute(text(_TABLES), {"schema": schema}).scalars()
    return [f"{quoted(schema)}.{quoted(name)}" for name in names]


def vacuum(db: Db) -> Compaction:
    """VACUUM every table of ours, on a connection without a transaction."""
    mark = str(db.exec_driver_sql("SELECT pg_current_xact_id()::xid::text").scalar_one())
    _wait_for_older(db, mark)
    swept: list[str] = []
    refused: list[str] = []
    for name in tables_of(db):
        (refused if _is_refused(db, name) else swept).append(name)
    return Compaction(swept=tuple(swept), refused=tuple(refused), held_by=_older(db, mark))


def _is_refused(db: Db, table: str) -> bool:
    """Whether the role may not VACUUM the table: the server says so in a warning, and goes on."""
    warnings: list[str] = []

    def note(diagnostic: Diagnostic) -> None:
        if diagnostic.severity_nonlocalized == "WARNING":
            warnings.append(str(diagnostic.sqlstate))

    driver = driver_of(db)
    driver.add_notice_handler(note)
    try:
        db.exec_driver_sql(f"VACUUM {table}")
    finally:
        driver.remove_notice_handler(note)
    return bool(warnings)


def _older(db: Db, mark: str) -> tuple[str, ...]:
    return tuple(db.execute(text(_OLDER), {"mark": mark}).scalars())


def _wait_for_older(db: Db, mark: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while _older(db, mark) and time.monotonic() < deadline:
        time.sleep(_PAUSE_S)


def remains(db: Db, done: Compaction) -> tuple[Remains, ...]:
    """The places where bytes of what was deleted may be for a while, and how to be rid of them."""
    full = tuple(f"VACUUM FULL {table}" for table in tables_of(db))
    return (
        Remains(place="pages", advice=_of_pages(done), statements=full),
        Remains(
            place="log",
            advice="the server's log (WAL) has what was written until it is used again, and an archive of it for as "
            "long as that is kept: begin a new log file, make a base backup, and delete the archive before it",
            statements=("SELECT pg_switch_wal()", "CHECKPOINT"),
        ),
        Remains(
            place="replicas",
            advice="a physical standby repeats all of this by itself, in time; on a logical one run the statements too",
            statements=full,
        ),
        Remains(
            place="backups",
            advice="those that are older still have the owner, whatever made them: delete them, or forget again after "
            "restoring one",
        ),
    )


def _of_pages(done: Compaction) -> str:
    if done.refused:
        what = f"the role may not VACUUM {len(done.refused)} tables, and the server will in its own time"
    elif done.swept:
        what = f"VACUUM has freed the room of dead rows in {len(done.swept)} tables"
    else:
        what = "VACUUM frees the room of dead rows"
    return f"{what}; their bytes stay in it until it is used again. VACUUM FULL ends that, and locks a table meanwhile"
