"""The places that settings come from, each as one layer: its values, where each stands, and its faults so far.

A layer holds known names only. What is unknown, or cannot be read, is a fault of its own and taken out, so that
everything else can be checked all the same.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from mirai_memory._dotenv import DOTENV, read_dotenv
from mirai_memory._settings_tree import (
    Leaf,
    fields,
    in_words,
    is_strict,
    leaves,
    meant,
    near_section,
    nearest,
    section_of,
    sections,
    shown,
    stray_hint,
)
from mirai_memory.errors import ConfigurationError

PREFIX, DELIMITER = "MIRAI_", "__"
# Variables of ours that are no leaves of the tree.
OUTSIDE_THE_TREE = frozenset({"MIRAI_CONFIG", "MIRAI_USER", "MIRAI_TEST_PG_URL"})
ARGUMENT, ENVIRONMENT = "argument", "environment"

_NOWHERE = object()


@dataclass
class Layer:
    """One place: ``argument``, ``environment``, ``.env`` or the name of a file."""

    name: str
    values: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    variables: dict[tuple[str, ...], str] = field(default_factory=dict)
    is_file: bool = False

    def holds(self, path: tuple[str, ...]) -> bool:
        return self.get(path) is not _NOWHERE

    def get(self, path: tuple[str, ...]) -> Any:
        value: Any = self.values
        for name in path:
            if not isinstance(value, Mapping) or name not in value:
                return _NOWHERE
            value = value[name]
        return value

    def place(self, path: tuple[str, ...]) -> str:
        """Where this value stands, as messages begin."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.variables:
                return _variable(self.variables[path[:length]], self.name)
        return self.name


def gather(
    model: type[BaseModel], path: str | os.PathLike[str] | None, arguments: Mapping[str, Any]
) -> tuple[Layer, ...]:
    """All layers, the one that wins first."""
    environment = _from_variables(model, dict(os.environ), ENVIRONMENT)
    return (_from_arguments(model, arguments), environment, _from_dotenv(model), _from_file(model, _file(path)))


# --- arguments and the file ------------------------------------------------------------------------------------------


def _from_arguments(model: type[BaseModel], arguments: Mapping[str, Any]) -> Layer:
    layer = Layer(ARGUMENT)
    layer.values = _sift(arguments, model, layer, ())
    return layer


def _file(path: str | os.PathLike[str] | None) -> Path | None:
    named = path or os.environ.get("MIRAI_CONFIG")
    if not named:
        # A link to nowhere is a file that somebody wants to be read.
        return Path("mirai.yaml") if os.path.lexists("mirai.yaml") else None
    return Path(os.path.expanduser(named))


def _from_file(model: type[BaseModel], path: Path | None) -> Layer:
    layer = Layer(str(path), is_file=True)
    if path is None:
        return layer
    try:
        from mirai_memory._yaml import read_yaml  # PyYAML, for those who have a file

        values = read_yaml(path)
    except ConfigurationError as error:
        layer.problems += error.problems
        return layer
    layer.values = _sift(values, model, layer, ())
    folder = path.resolve().parent
    for leaf in leaves(model):
        if leaf.takes_path:
            _place(layer.values, leaf.path, folder)
    return layer


def _place(values: dict[str, Any], path: tuple[str, ...], folder: Path) -> None:
    """Make a relative path of the file count from its folder."""
    section: Any = values
    for name in path[:-1]:
        section = section.get(name, {})
    value = section.get(path[-1])
    # The model says what "~" is, and that a path is not empty.
    if isinstance(value, str) and value and not value.startswith("~") and value != ":memory:":
        section[path[-1]] = str(folder / value)


def _sift(
    values: Mapping[Any, Any], model: type[BaseModel], layer: Layer, path: tuple[str, ...], root: Any = None
) -> dict[str, Any]:
    """The known names with their values; a section with nothing below it is null in YAML, and means the defaults."""
    root, known, found = root or model, fields(model), {}
    for name, value in values.items():
        inner = section_of(known.get(name)) if isinstance(name, str) else None
        if isinstance(value, BaseModel):
            value = value.model_dump(by_alias=True, exclude_unset=True)
        if name not in known or not isinstance(name, str):
            layer.problems += _stranger(name, value, model, layer, path, root)
        elif inner is None:
            found[name] = value
        elif value is None or isinstance(value, Mapping):
            found[name] = _sift(value or {}, inner, layer, (*path, name), root)
        else:
            fault = f"must have names with values below it, not {in_words(value)}{stray_hint(inner)}"
            layer.problems.append(f"{layer.name}: {'.'.join((*path, name))}: {fault}")
    return found


def _stranger(
    name: Any, value: Any, model: type[BaseModel], layer: Layer, path: tuple[str, ...], root: type[BaseModel]
) -> Iterator[str]:
    """What is wrong with a name that the section does not have. In a section of the host's too: mostly nothing."""
    key = ".".join(map(shown, (*path, name)))
    if not isinstance(name, str):
        if is_strict(model):
            yield f"{layer.name}: {'.'.join(path)}: a name is {in_words(name)}, not text; quote it"
    elif is_strict(model) or layer.name == ARGUMENT:
        yield f"{layer.name}: {key}: unknown name{meant(name, model, root)}"
    else:
        near = near_section(name, value, model, top=not path)
        if near:
            yield f"{layer.name}: unknown section {key!r}; did you mean {'.'.join((*path, near))!r}?"


# --- variables -------------------------------------------------------------------------------------------------------


def _from_dotenv(model: type[BaseModel]) -> Layer:
    try:
        found = read_dotenv()
    except ConfigurationError as error:
        return Layer(DOTENV, problems=list(error.problems))
    layer = _from_variables(model, found.variables, DOTENV)
    layer.problems += [f"{DOTENV}: the line of {name} cannot be read; is a quote missing?" for name in found.lost]
    # The file of the settings is looked for before them. Whoever loads .env into the environment has it there.
    if any(name.upper() == "MIRAI_CONFIG" for name in found.variables) and not os.environ.get("MIRAI_CONFIG"):
        layer.problems.append(f"{DOTENV}: MIRAI_CONFIG counts in the environment only, not in {DOTENV}")
    return layer


def _from_variables(model: type[BaseModel], variables: Mapping[str, str | None], name: str) -> Layer:
    layer = Layer(name)
    # What is below a mapping comes after the mapping; of two spellings of one name capital letters win.
    for variable in sorted(variables, key=lambda name: (name.upper(), name)):
        upper = variable.upper()
        if upper.startswith(PREFIX) and upper not in OUTSIDE_THE_TREE:
            found = _target(model, upper)
            if found is None:
                layer.problems.append(f"{name}: unknown variable {shown(upper)}{_meant_variable(model, upper)}")
            else:
                _set(layer, *found, upper, variables[variable])
    return layer


@cache
def _known_variables(model: type[BaseModel]) -> dict[str, Leaf]:
    return {PREFIX + DELIMITER.join(leaf.path).upper(): leaf for leaf in leaves(model)}


def _target(model: type[BaseModel], variable: str) -> tuple[Leaf, tuple[str, ...]] | None:
    """The leaf that a variable sets, and the path of its value: below a mapping any name may stand."""
    known = _known_variables(model)
    if variable in known:
        return known[variable], known[variable].path
    for name, leaf in known.items():
        below = variable.removeprefix(name + DELIMITER)
        if leaf.takes_names and below not in ("", variable):
            return leaf, (*leaf.path, below.lower())
    return None


def _meant_variable(model: type[BaseModel], variable: str) -> str:
    for path, section in sections(model):
        name = PREFIX + DELIMITER.join(path).upper()
        if variable == name:
            return f": {'.'.join(path)} is a section; set its leaves one by one{stray_hint(section)}"
        if variable.startswith(name + DELIMITER) and stray_hint(section):
            return stray_hint(section)
    near = nearest(variable, _known_variables(model))
    return f"; did you mean {near}?" if near else ""


def _set(layer: Layer, leaf: Leaf, path: tuple[str, ...], variable: str, text: str | None) -> None:
    fault = ""
    value: Any = text
    if text is None:
        fault = "has no value; it is written NAME=value"
    elif leaf.takes_null and text == "null":
        value = None
    elif leaf.takes_json and path == leaf.path:
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            example = '{"name": "value"}' if leaf.takes_names else '["name", "name"]'
            fault = f"is no JSON, which it must be here, such as {example}"
    if fault:
        layer.problems.append(f"{_variable(variable, layer.name)}: {leaf.key}: {fault}")
        return
    section: Any = layer.values
    for name in path[:-1]:
        section = section.setdefault(name, {})
        if not isinstance(section, dict):
            return  # JSON that is no mapping, and a variable below it: the model refuses the first
    if path not in layer.variables:
        section[path[-1]] = value
        layer.variables[path] = variable


def _variable(name: str, layer: str) -> str:
    return f"variable {shown(name)}" + (f" in {DOTENV}" if layer == DOTENV else "")
