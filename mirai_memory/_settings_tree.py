"""The tree of the settings as its models declare it, and which of its names a mistyped one was meant to be."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from mirai_memory._redaction import redact

_USERINFO = re.compile(r"(?<=://)\S*@")
_LONGEST_NAME = 80  # a longer one was no name


@dataclass(frozen=True, slots=True)
class Leaf:
    """One setting: the names that lead to it, and what it takes."""

    path: tuple[str, ...]
    info: FieldInfo

    @property
    def key(self) -> str:
        return ".".join(self.path)

    @property
    def takes_null(self) -> bool:
        return NoneType in kinds_of(self.info)

    @property
    def takes_path(self) -> bool:
        return Path in kinds_of(self.info)

    @property
    def takes_names(self) -> bool:
        """Whether it is a mapping, whose names are the user's."""
        return dict in kinds_of(self.info)

    @property
    def takes_json(self) -> bool:
        """Whether a variable holds it as JSON."""
        return bool({dict, tuple, list} & kinds_of(self.info))


def kinds_of(info: FieldInfo) -> frozenset[Any]:
    """The plain types that a field takes: ``Annotated[int, ...] | None`` are int and NoneType."""
    return _kinds(info.annotation)


def _kinds(annotation: Any) -> frozenset[Any]:
    origin = get_origin(annotation)
    if origin in (Union, UnionType):
        return frozenset().union(*map(_kinds, get_args(annotation)))
    if origin is Annotated:
        return _kinds(get_args(annotation)[0])
    return frozenset({origin or annotation})


def fields(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """The fields under the names that users write."""
    return {info.alias or name: info for name, info in model.model_fields.items()}


def section_of(info: FieldInfo | None) -> type[BaseModel] | None:
    """The section that a field holds; None for a leaf."""
    kind = info.annotation if info else None
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def leaves(model: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[Leaf]:
    """Every leaf, in the order of the models."""
    for name, info in fields(model).items():
        inner = section_of(info)
        if inner:
            yield from leaves(inner, (*path, name))
        else:
            yield Leaf((*path, name), info)


def sections(model: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], type[BaseModel]]]:
    for name, info in fields(model).items():
        inner = section_of(info)
        if inner:
            yield (*path, name), inner
            yield from sections(inner, (*path, name))


def is_strict(model: type[BaseModel]) -> bool:
    """Whether every name below it is ours."""
    return model.model_config.get("extra") == "forbid"


def stray_hint(model: type[BaseModel] | None) -> str:
    """What a section says of anything that does not belong into it."""
    return getattr(model, "stray_hint", "")


def nearest(name: str, names: Iterable[str], cutoff: float = 0.6) -> str | None:
    return next(iter(difflib.get_close_matches(name, list(names), n=1, cutoff=cutoff)), None)


def meant(name: str, model: type[BaseModel], root: type[BaseModel]) -> str:
    """The end of a message on an unknown name of a section: what it may have been meant to be."""
    near = nearest(name.lower(), fields(model), cutoff=0.8)
    elsewhere = [leaf.key for leaf in leaves(root) if leaf.path[-1] == name.lower()]
    if not near and len(elsewhere) == 1:
        near = elsewhere[0]
    near = near or (None if stray_hint(model) else nearest(name.lower(), fields(model)))
    return f"; did you mean {near!r}?" if near else stray_hint(model)


def near_section(name: str, value: Any, model: type[BaseModel], *, top: bool) -> str | None:
    """The section that a name of the host's looks like, where what stands below it is ours.

    At the top a name like that of a section which is ours alone is enough: nobody else has a use for it.
    """
    near = nearest(name.lower(), fields(model), cutoff=0.8)
    inner = section_of(fields(model).get(near or ""))
    if not near or not inner:
        return None
    ours = isinstance(value, Mapping) and any(key in fields(inner) for key in value if isinstance(key, str))
    return near if ours or name.lower() == near or (top and is_strict(inner)) else None


def shown(name: Any) -> str:
    """A name as a message may have it: a key that stands in the place of a name is not repeated."""
    text = redact(str(name))
    return text if len(text) <= _LONGEST_NAME else text[: _LONGEST_NAME - 1] + "…"


def in_words(value: Any) -> str:
    """The kind of a value, as somebody who writes YAML has heard of it."""
    words = {bool: "yes or no", int: "a number", float: "a number", str: "text", list: "a list", NoneType: "nothing"}
    return words.get(type(value), f"a {type(value).__name__}")


def without_userinfo(text: str) -> str:
    """URLs without who logs in there; up to the last @, for passwords that hold one."""
    return _USERINFO.sub("***@", text)
