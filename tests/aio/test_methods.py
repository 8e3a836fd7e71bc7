"""The async classes have every method of the others: same names, parameters, defaults, annotations; and say the same.

Methods that only hand a call on are made from the source of the sync ones. After a change there,
``python tests/aio/test_methods.py --write`` makes them again, and the difference is reviewed with the change.
"""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest

from mirai_memory import AsyncMemoryManager, AsyncUserMemory, MemoryManager, UserMemory
from mirai_memory._facade import Facade
from mirai_memory._facts import OwnersFacts
from mirai_memory._learning import Learns
from mirai_memory._summaries import Summarizes
from mirai_memory._upkeep import Upkeep
from mirai_memory.aio.facade import AsyncFacade
from mirai_memory.aio.fact_methods import OwnersFactMethods
from mirai_memory.aio.learning_methods import LearningMethods
from mirai_memory.aio.manager_methods import ManagerMethods
from mirai_memory.aio.summary_methods import SummaryMethods
from mirai_memory.aio.upkeep_methods import UpkeepMethods

# Which class has the methods that are made of which.
MADE: list[tuple[type, type]] = [
    (Facade, AsyncFacade),
    (Upkeep, UpkeepMethods),
    (Learns, LearningMethods),
    (OwnersFacts, OwnersFactMethods),
    (Summarizes, SummaryMethods),
    (MemoryManager, ManagerMethods),
    (UserMemory, AsyncUserMemory),
]
FACES: list[tuple[type, type]] = [(MemoryManager, AsyncMemoryManager), (UserMemory, AsyncUserMemory)]
MARK = "    # Made by tests/aio/test_methods.py --write\n"

# They have something of their own to do, or to say.
WRITTEN_BY_HAND = {"run", "close", "for_user", "reindex"}
# Its body would hold the write lock while it awaits; ``run`` does the same in one hop.
LEFT_OUT = {"unit_of_work"}
ASYNC_ONLY = {"open", "of", "iterate_messages", "iterate_sessions", "iterate_tasks", "iterate_knowledge"}
# They touch no database.
NOT_AWAITED = {"for_user"}
# They may ask an embedder, a reranker or a counter, or take more than one transaction.
SLOW = {
    "backup", "drill_backup", "restore_backup",
    "copy_to", "forget_user", "repair", "verify", "verify_forgotten",
    "add_knowledge", "add_knowledge_many", "build_context", "cleanup", "cleanup_old_sessions", "export_user",
    "find_duplicates",
    "get_conversation_history", "health", "import_user", "learn", "recall", "search_knowledge", "search_messages",
    "summarize", "trim_old_messages",
}  # fmt: skip
READS = ("get_", "list_", "knowledge_history", "diff")


def own_methods(cls: type) -> dict[str, FunctionType]:
    """Public methods that the class itself defines, in order."""
    return {
        name: member
        for name, member in vars(cls).items()
        if name[0] != "_" and inspect.isfunction(inspect.unwrap(member))
    }


def public(cls: type) -> dict[str, Any]:
    """Every public method and property, inherited ones included."""
    return {name: inspect.getattr_static(cls, name) for name in dir(cls) if name[0] != "_"}


# --- making them ------------------------------------------------------------------------------------------------------


def made(sync: type) -> Iterator[str]:
    """The source of the async method for each method of the class."""
    for name, method in own_methods(sync).items():
        if name not in WRITTEN_BY_HAND | LEFT_OUT:
            yield _made(textwrap.dedent(inspect.getsource(method)))


def _made(source: str) -> str:
    function = ast.parse(source).body[0]
    assert isinstance(function, ast.FunctionDef)
    docstring = ast.get_source_segment(source, function.body[0])
    assert docstring is not None
    assert function.returns is not None
    returns = ast.unparse(function.returns)
    call = f"self.{_lane(function.name)}(lambda memory: memory.{function.name}({_handed_on(function.args)}))"
    return (
        f"async def {function.name}({ast.unparse(function.args)}) -> {returns}:\n"
        f"    {docstring}\n    {'' if returns == 'None' else 'return '}await {call}\n"
    )


def _lane(name: str) -> str:
    if name in SLOW:
        return "_slow"
    return "_read" if name.startswith(READS) else "_write"


def _handed_on(arguments: ast.arguments) -> str:
    by_place = [argument.arg for argument in arguments.args[1:]]
    by_name = [f"{argument.arg}={argument.arg}" for argument in arguments.kwonlyargs]
    rest = [f"**{arguments.kwarg.arg}"] if arguments.kwarg else []
    return ", ".join([*by_place, *by_name, *rest])


def _source_file(cls: type) -> Path:
    return Path(inspect.getfile(cls))


def _end(cls: type) -> int:
    """The number of the last line of the class."""
    lines, first = inspect.getsourcelines(cls)
    return first + len(lines) - 1


def write() -> None:
    for sync, async_ in MADE:
        path = _source_file(async_)
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        start = lines.index(MARK) + 1
        methods = "".join(f"\n{textwrap.indent(method, '    ')}" for method in made(sync))
        path.write_text("".join(lines[:start]) + methods + "".join(lines[_end(async_) :]), encoding="utf-8")
        subprocess.run([sys.executable, "-m", "ruff", "format", "--quiet", path], check=True)


@pytest.mark.parametrize(("sync", "async_"), MADE)
def test_the_made_methods_are_those_that_would_be_made(sync: type, async_: type) -> None:
    """Where they differ on purpose: ``python tests/aio/test_methods.py --write``."""
    written = {name: ast.parse(textwrap.dedent(inspect.getsource(m))) for name, m in own_methods(async_).items()}
    for source in made(sync):
        wanted = ast.parse(source)
        [function] = wanted.body
        assert isinstance(function, ast.AsyncFunctionDef)
        assert function.name in written, f"{async_.__name__} has no {function.name}"
        assert ast.unparse(written[function.name]) == ast.unparse(wanted)


# --- comparing them ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("sync", "async_"), FACES)
def test_no_name_is_missing_or_made_up(sync: type, async_: type) -> None:
    extra = ASYNC_ONLY if async_ is AsyncMemoryManager else ASYNC_ONLY - {"open", "of"}
    assert public(sync).keys() - LEFT_OUT == public(async_).keys() - extra
    assert extra <= public(async_).keys()


def _methods() -> Iterator[Any]:
    for sync, async_ in FACES:
        for name, member in public(sync).items():
            if name not in LEFT_OUT and not isinstance(member, property):
                yield pytest.param(sync, async_, name, id=f"{async_.__name__}.{name}")


@pytest.mark.parametrize(("sync", "async_", "name"), list(_methods()))
def test_a_method_takes_and_returns_the_same(sync: type, async_: type, name: str) -> None:
    one, other = getattr(sync, name), getattr(async_, name, None)
    assert other is not None
    assert _parameters(one) == _parameters(other)
    assert _returned(one) == _returned(other)
    assert inspect.iscoroutinefunction(other) == (name not in NOT_AWAITED)
    assert inspect.getdoc(other)


def _parameters(function: Any) -> list[tuple[Any, ...]]:
    return [(p.name, p.kind, p.default, p.annotation) for p in inspect.signature(function).parameters.values()]


def _returned(function: Any) -> str:
    # What hands out a UserMemory hands out an AsyncUserMemory here.
    return str(inspect.signature(function).return_annotation).replace("AsyncUserMemory", "UserMemory")


def test_the_constructors_take_the_same() -> None:
    assert _parameters(MemoryManager.__init__) == _parameters(AsyncMemoryManager.__init__)


@pytest.mark.parametrize(("sync", "async_"), FACES)
def test_properties_are_properties(sync: type, async_: type) -> None:
    for name, member in public(sync).items():
        if isinstance(member, property):
            assert isinstance(public(async_)[name], property)
            assert _returned(member.fget) == _returned(public(async_)[name].fget)


@pytest.mark.parametrize("cls", [AsyncMemoryManager, AsyncUserMemory])
def test_all_that_is_public_says_what_it_is(cls: type) -> None:
    assert [name for name, member in public(cls).items() if not inspect.getdoc(member)] == []


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit("usage: python tests/aio/test_methods.py --write")
    write()
