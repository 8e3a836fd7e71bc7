"""What is wrong with the values of a layer, in the words of the models, with place, key and rule, without the value."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from pydantic import BaseModel, ValidationError

from mirai_memory._settings_layers import Layer
from mirai_memory._settings_tree import fields, section_of, shown
from mirai_memory._unclear import Unclear

TOGETHER = "together"  # the type of errors on leaves that do not fit each other, wherever each of them stands
# Where pydantic's own words name Python's types.
_RULES = {
    "path_type": "must be text, the path of a file",
    "tuple_type": "must be a list",
    "dict_type": "must have names with values below it",
}
_QUOTES = "; text that reads like a number or like yes and no must be quoted"
_DIGITS = "; it is written like an octal or a base 60 number: write decimal digits, or quote it"


def faults(layers: Iterable[Layer], model: type[BaseModel]) -> Iterator[str]:
    """Every fault of every layer, those of values that a higher layer hides included."""
    for layer in layers:
        yield from layer.problems
        for name, info in fields(model).items():
            section = section_of(info)
            if section and name in layer.values:
                yield from _faults_of(section, layer, name)


def _faults_of(section: type[BaseModel], layer: Layer, name: str) -> Iterator[str]:
    try:
        section.model_validate(layer.values[name])
    except ValidationError as error:
        # The values are looked at below, and shown by nobody.
        for item in error.errors(include_url=False):
            if item["type"] != TOGETHER:
                path = (name, *(str(part) for part in item["loc"] if part != "[key]"))
                yield f"{layer.place(path)}: {'.'.join(map(shown, path))}: {_rule(item)}{_hint(item, layer)}"


def faults_together(error: ValidationError, layers: Iterable[Layer]) -> Iterator[str]:
    """What is wrong once all layers are laid over each other."""
    for item in error.errors(include_input=False, include_url=False):
        if item["type"] == TOGETHER:
            key = str(item["ctx"]["key"])
            path = tuple(key.split("."))
            place = next((layer.place(path) for layer in layers if layer.holds(path)), "settings")
            yield f"{place}: {key}: {_rule(item)}"


def _rule(item: Any) -> str:
    return _RULES.get(item["type"]) or str(item["msg"]).removeprefix("Value error, ")


def _hint(item: Any, layer: Layer) -> str:
    """What YAML made of a text that was meant as it stands."""
    if not layer.is_file:
        return ""
    if isinstance(item["input"], Unclear):
        return _DIGITS
    is_text = item["type"] in ("string_type", "path_type", "literal_error", "flag_as_text")
    return _QUOTES if is_text and isinstance(item["input"], bool | int | float) else ""
