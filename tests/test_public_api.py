"""The front door: what can be imported, with which arguments, is recorded in ``public_api.txt``.

A change of it is made on purpose: ``python tests/test_public_api.py --write`` records it, and the difference is
reviewed with the change.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

RECORD = Path(__file__).with_name("public_api.txt")
MODULES = ("mirai_memory", "mirai_memory.testing")
# Handed out by others; what they are made of is no promise.
NOT_CONSTRUCTED = {"OwnerCanary", "UnitOfWork", "UserMemory"}


def public_names() -> Iterator[tuple[str, Any]]:
    """Every name that a module promises, and what it stands for."""
    for module_name in MODULES:
        module = importlib.import_module(module_name)
        for name in module.__all__:
            if not name.startswith("__"):
                yield f"{module_name}.{name}", getattr(module, name)


def members(cls: type) -> Iterator[tuple[str, Any]]:
    """The public methods and properties of a class of ours, inherited ones included."""
    # A contract's tests come and go, and the methods of settings are pydantic's.
    if cls.__module__.startswith("mirai_memory.testing.contract") or hasattr(cls, "model_fields"):
        return
    for name in sorted(dir(cls)):
        if not name.startswith("_"):
            member = inspect.getattr_static(cls, name)
            home = next((base for base in cls.__mro__ if name in vars(base)), cls)
            if home.__module__.startswith("mirai_memory") and _is_code(member):
                yield name, member


def _is_code(member: Any) -> bool:
    return inspect.isfunction(member) or isinstance(member, (property, classmethod, staticmethod))


def record() -> str:
    """One line for each promise."""
    return "".join(f"{line}\n" for name, value in public_names() for line in _lines(name, value))


def _lines(name: str, value: Any) -> Iterator[str]:
    if inspect.isfunction(value):
        yield f"def {name}{_signature(value)}"
    if inspect.isclass(value):
        yield f"class {name}({', '.join(base.__name__ for base in value.__bases__ if base.__name__[0] != '_')})"
        yield from (f"    {line}" for line in _class_lines(value))


def _class_lines(cls: Any) -> Iterator[str]:
    if hasattr(cls, "model_fields"):
        yield from _leaves(cls, "")
    elif dataclasses.is_dataclass(cls):
        yield from map(_field, dataclasses.fields(cls))
    elif inspect.isfunction(vars(cls).get("__init__")) and cls.__name__ not in NOT_CONSTRUCTED and not _abstract(cls):
        yield f"def __init__{_signature(vars(cls)['__init__'])}"
    for name, member in members(cls):
        if isinstance(member, property):
            yield f"property {name}{_signature(member.fget).removeprefix('(self)')}"
        else:
            yield f"def {name}{_signature(getattr(member, '__func__', member))}"


def _abstract(cls: Any) -> bool:
    return bool(getattr(cls, "_is_protocol", False))


class _Bare:
    """An annotation as it stands in the source: without quotes."""

    def __init__(self, text: Any) -> None:
        self.text = text

    def __repr__(self) -> str:
        return str(self.text)


def _signature(function: Any) -> str:
    signature = inspect.signature(function)
    parameters = [
        parameter
        if parameter.annotation is parameter.empty
        else parameter.replace(annotation=_Bare(parameter.annotation))
        for parameter in signature.parameters.values()
    ]
    return str(signature.replace(parameters=parameters, return_annotation=_Bare(signature.return_annotation)))


def _field(field: Any) -> str:
    if field.default is not dataclasses.MISSING:
        return f"{field.name}: {field.type} = {field.default!r}"
    return f"{field.name}: {field.type}" + (" = ..." if field.default_factory is not dataclasses.MISSING else "")


def _leaves(model: Any, prefix: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        own = f"{prefix}{field.alias or name}"
        if hasattr(field.annotation, "model_fields"):
            yield from _leaves(field.annotation, f"{own}.")
        else:
            yield own


def test_the_api_is_the_recorded_one() -> None:
    """Where it differs on purpose: ``python tests/test_public_api.py --write``."""
    assert record().splitlines() == RECORD.read_text(encoding="utf-8").splitlines()


def documented() -> Iterator[tuple[str, str]]:
    """Every public class, function and method, and what is said of it."""
    for name, value in public_names():
        if inspect.isclass(value) or inspect.isfunction(value):
            said = inspect.getdoc(value) or ""
            yield name, said
        if inspect.isclass(value):
            for method in (method for method, member in members(value) if not isinstance(member, property)):
                # What a protocol's method has to do may stand with the protocol.
                above = said if _abstract(value) and f"``{method}``" in said else ""
                yield f"{name}.{method}", inspect.getdoc(getattr(value, method)) or above


DOCUMENTED = dict(documented())


@pytest.mark.parametrize(("name", "said"), DOCUMENTED.items(), ids=list(DOCUMENTED))
def test_everything_public_says_what_it_is(name: str, said: str) -> None:
    assert said.strip(), f"{name} has no docstring"
    assert not said.startswith(f"{name.rpartition('.')[2]}("), f"{name}: its docstring is its signature"


@pytest.mark.parametrize("module", MODULES)
def test_dir_is_what_is_promised(module: str) -> None:
    found = importlib.import_module(module)
    assert set(found.__all__) <= set(dir(found))
    assert sorted(found.__all__) == list(found.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        found.nonsense  # noqa: B018 - looked up, that is all


def test_arguments_after_the_second_are_named() -> None:
    """``MemoryManager.search_knowledge("tea", 5, "profile")`` would be a riddle."""
    from mirai_memory import MemoryManager, UserMemory

    for cls in (MemoryManager, UserMemory):
        for name, method in members(cls):
            if inspect.isfunction(method):
                by_place = [
                    p for p in inspect.signature(method).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD
                ]
                assert len(by_place) <= 3 + (name in ("update_task_status", "diff")), f"{cls.__name__}.{name}"


def test_every_annotation_resolves() -> None:
    """A name that is imported below TYPE_CHECKING only is no use to whoever reads types at run time."""
    from mirai_memory import MemoryManager, UserMemory

    for cls in (MemoryManager, UserMemory):
        for _, method in members(cls):
            if inspect.isfunction(method):
                typing.get_type_hints(method)


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit("usage: python tests/test_public_api.py --write")
    RECORD.write_text(record(), encoding="utf-8")
