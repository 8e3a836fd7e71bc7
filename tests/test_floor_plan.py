"""Imports only go down: every module stands on a floor and imports from its own and from lower ones."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import mirai_memory

PACKAGE = Path(mirai_memory.__file__).parent
LOBBY = "mirai_memory"  # the public names, made from every floor: only callers of the façade come in here

FLOORS: tuple[frozenset[str], ...] = (
    frozenset(
        {
            "entities",
            "errors",
            "_ids",
            "_time",
            "_locks",
            "_process",
            "_checks",
            "_chat",
            "_render",
            "_version",
            "_files",
        }
    )
    | {"erasures", "_byte_search", "_chroma_process"},
    frozenset({"config", "_yaml", "_unclear", "logging", "embeddings", "summaries", "tokens"})
    | {"_log_files", "_log_lines", "_log_summary", "_redaction", "model_calls", "reranking", "chat_model", "learning"}
    | {"_api_keys", "_dotenv", "_settings_faults", "_settings_layers", "_settings_template", "_settings_tree"},
    frozenset({"models"}),
    frozenset({"database", "schema", "vector_tables"}),
    frozenset({"search"}),
    frozenset({"services"}),
    frozenset({"unit_of_work"}),
    frozenset(
        {
            "manager",
            "scoped",
            "aio",
            "health",
            "background",
            "vectorizing",
            "chroma_opening",
            "chroma_feeding",
            "summarizing",
            "_summaries",
            "_facade",
            "_facts",
            "duplicates",
            "_learning",
            "_upkeep",
            "forgetting",
            "traces",
            "verification",
            "retention",
            "transfer",
            "copying",
        }
    )
    | {"backups"},
    frozenset({"cli", "adapters", "testing", "inspector", "evaluation", "importers", "demo", "__main__"}),
)
TOP = len(FLOORS) - 1
FLOOR_OF = {name: number for number, names in enumerate(FLOORS) for name in names}


def _module_name(path: Path) -> str:
    parts = (LOBBY, *path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {_module_name(path): path for path in sorted(PACKAGE.rglob("*.py")) if "_migrations" not in path.parts}


def _floor(module: str) -> int | None:
    """The floor that ``module`` stands on; None for the lobby."""
    return None if module == LOBBY else FLOOR_OF[module.split(".")[1]]


def _source(module: str, name: str) -> str:
    """Where ``from module import name`` looks: in the lobby a name may be a module, which is then what is imported."""
    return f"{module}.{name}" if module == LOBBY and name in FLOOR_OF else module


def _imported(source: str) -> Iterator[tuple[int, str]]:
    """Line and module of each import of ours, wherever it stands: in a function and below TYPE_CHECKING too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):  # the linter has banned relative ones
            names = {_source(node.module or "", alias.name) for alias in node.names}
        else:
            continue
        yield from ((node.lineno, name) for name in sorted(names) if name.split(".")[0] == LOBBY)


def upward_imports(module: str, source: str) -> list[str]:
    """What is wrong with the imports of ``module``, one line each."""
    floor = _floor(module)
    if floor is None:
        return []
    wrong = []
    for line, name in _imported(source):
        target = _floor(name)
        if target is None and floor < TOP:
            wrong.append(f"{module}:{line} (floor {floor}) imports from the lobby {LOBBY}")
        elif target is not None and target > floor:
            wrong.append(f"{module}:{line} (floor {floor}) imports {name} (floor {target})")
    return wrong


def test_every_module_stands_on_a_floor() -> None:
    homeless = [name for name in MODULES if name != LOBBY and name.split(".")[1] not in FLOOR_OF]
    assert not homeless, f"place these in FLOORS: {homeless}"


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down(module: str) -> None:
    assert upward_imports(module, MODULES[module].read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "import mirai_memory.manager",
        "import json, mirai_memory.manager as m",
        "from mirai_memory.manager import MemoryManager, get_memory_manager",
        "def f():\n    from mirai_memory.services.messages import Messages",
        "if TYPE_CHECKING:\n    from mirai_memory.unit_of_work import UnitOfWork",
        "try:\n    import mirai_memory.cli.main\nexcept ImportError:\n    pass",
        "import mirai_memory",
        "from mirai_memory import MemoryManager",
        "from mirai_memory import errors, manager",
    ],
)
def test_an_upward_import_is_caught(source: str) -> None:
    assert len(upward_imports("mirai_memory.search.fusion", source)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (
            "mirai_memory.search.fusion",
            "from mirai_memory.search.base import Hit\nfrom mirai_memory.errors import Busy",
        ),
        ("mirai_memory.search.fusion", "from mirai_memory import _checks, errors"),
        ("mirai_memory.search", "import json\nimport mirai_memory_plugin\nfrom sqlalchemy import select"),
        ("mirai_memory.cli.main", "import mirai_memory\nfrom mirai_memory import MemoryManager"),
        ("mirai_memory", "from mirai_memory.manager import MemoryManager"),
    ],
)
def test_a_downward_import_is_not(module: str, source: str) -> None:
    assert upward_imports(module, source) == []


def test_an_import_from_no_floor_is_an_error() -> None:
    with pytest.raises(KeyError, match="attic"):
        upward_imports("mirai_memory.search.fusion", "from mirai_memory.attic import junk")
