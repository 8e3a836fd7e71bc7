"""The README is run: its Python blocks in order, as one program; and it mentions what there is."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from mirai_memory import MemoryManager, Settings, UserMemory

README = (Path(__file__).resolve().parent.parent / "README.md").read_text("utf-8")


def test_every_python_block_runs(capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    program: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), program)  # noqa: S102 - our own text
    assert "Мне нравится зелёный чай" in capsys.readouterr().out
    assert len(blocks) >= 8


@pytest.mark.parametrize("owner", [MemoryManager, UserMemory])
def test_every_public_method_is_mentioned(owner: type) -> None:
    names = [name for name, _ in inspect.getmembers(owner, inspect.isfunction) if not name.startswith("_")]
    assert [name for name in names if not re.search(rf"\b{name}\b", README)] == []


def test_every_setting_is_mentioned() -> None:
    def leaves(model: object) -> list[str]:
        found = []
        for name, field in model.model_fields.items():  # type: ignore[attr-defined]
            inner = field.annotation
            found += leaves(inner) if hasattr(inner, "model_fields") else [field.alias or name]
        return found

    assert [leaf for leaf in leaves(Settings) if not re.search(rf"\b{leaf}:", README)] == []


def test_every_command_is_mentioned() -> None:
    import typer

    from mirai_memory.cli.app import app

    def commands(group: typer.Typer, prefix: str) -> list[str]:
        own = [f"{prefix} {command.name or command.callback.__name__}" for command in group.registered_commands]
        inner = [
            name for sub in group.registered_groups for name in commands(sub.typer_instance, f"{prefix} {sub.name}")
        ]
        return own + inner

    found = commands(app, "mirai-memory")
    assert len(found) > 8
    assert [name for name in found if name not in README] == []
