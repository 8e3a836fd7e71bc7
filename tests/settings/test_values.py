"""Wrong values at every leaf: refused with the name of the leaf, or accepted by a rule that is stated here."""

from __future__ import annotations

import datetime
import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import SecretStr

from mirai_memory import ConfigurationError, Settings, load_settings
from mirai_memory._settings_tree import Leaf, kinds_of, leaves

LEAVES = {leaf.key: leaf for leaf in leaves(Settings)}
VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    5,
    -1,
    10**20,
    10**400,
    5.0,
    1.5,
    -0.0,
    math.nan,
    math.inf,
    "",
    " ",
    "words of no use",
    "yes",
    "5",
    "5.0",
    "1e3",
    "٥",
    "~/x",
    "~nobody-has-this-name/x",
    "a\x00b",
    "\ud800",
    "x" * 20_000,
    "\u202e Кириллица 👩‍👩‍👧",
    "https://models.example/v1",
    b"bytes",
    [],
    [1],
    ["message"],
    ["coding_style"],
    {},
    {"a": "replace"},
    {"a": 1},
    {1: "replace"},
    {"a": {"a": {"a": 1}}},
    datetime.date(2024, 1, 1),
    object(),
)


def _nested(leaf: Leaf, value: Any) -> dict[str, Any]:
    for name in reversed(leaf.path):
        value = {name: value}
    return dict(value)


def _value(settings: Settings, leaf: Leaf) -> Any:
    value: Any = settings.model_dump(by_alias=True)
    for name in leaf.path:
        value = value[name]
    return value


YES, NO = {"true", "yes", "y", "on", "t", "1", "1.0"}, {"false", "no", "n", "off", "f", "0", "0.0", "-0.0"}


def _means(found: Any, given: Any) -> bool:
    """The rules by which a value is read that is not refused."""
    if found is None:
        return given is None
    if isinstance(found, bool):
        return str(given).lower() in (YES if found else NO)
    if isinstance(found, int | float):  # also from text, since a variable holds nothing else
        return not isinstance(given, bool) and float(given) == found
    if isinstance(found, Path):
        return (
            isinstance(given, str) and bool(given.strip()) and "\x00" not in given and found == Path(given).expanduser()
        )
    if isinstance(found, SecretStr):
        return bool(given.strip()) and bool(found.get_secret_value() == given)
    if isinstance(found, tuple):
        return isinstance(given, list) and list(found) == given
    return type(found) is type(given) and bool(found == given)


def _check(leaf: Leaf, given: Any, **overrides: Any) -> None:
    try:
        found = _value(load_settings(**overrides), leaf)
    except ConfigurationError as error:
        problem = " AND ".join(error.problems)
        chained = error.__context__
    else:
        assert _means(found, given), (leaf.key, given, found)
        return
    assert f": {leaf.key}" in problem
    assert not any(words in problem for words in (" AND ", "words of no use", "class '"))
    assert chained is None


@pytest.mark.parametrize("key", LEAVES)
def test_any_value_of_an_argument_is_refused_by_name_or_read_by_a_rule(key: str) -> None:
    for value in VALUES:
        _check(LEAVES[key], value, **_nested(LEAVES[key], value))


@pytest.mark.parametrize("key", LEAVES)
def test_any_value_in_yaml_is_refused_by_name_or_read_by_a_rule(key: str) -> None:
    leaf = LEAVES[key]
    for value in VALUES:
        if value == 10**400 or type(value) is object:  # as digits: below; and nothing that YAML can say
            continue
        if isinstance(value, str) and "\ud800" in value:
            continue
        text = yaml.safe_dump(_nested(leaf, value), allow_unicode=True)
        Path("mirai.yaml").write_text(text, encoding="utf-8")
        # A date is the text that it was written as.
        read: Any = str(value) if isinstance(value, datetime.date) else value
        if leaf.takes_path and isinstance(read, str) and read and not read.startswith("~"):
            read = str(Path.cwd() / read)
        _check(leaf, read)


@pytest.mark.parametrize("place", ["environment", ".env"])
@pytest.mark.parametrize("key", LEAVES)
def test_any_text_in_a_variable_is_refused_by_name_or_read_by_a_rule(
    key: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    leaf = LEAVES[key]
    name = "MIRAI_" + "__".join(leaf.path).upper()
    for value in VALUES:
        if isinstance(value, bytes | datetime.date) or type(value) is object or set("\x00\ud800") & set(str(value)):
            continue  # nothing that a variable can hold
        text = value if isinstance(value, str) else json.dumps(value)
        if place == "environment":
            monkeypatch.setenv(name, text)
        else:
            Path(".env").write_text(f"{name}='{text}'\n", encoding="utf-8")
        is_null = text == "null" and leaf.takes_null
        _check(leaf, None if is_null else _from_json(text) if leaf.takes_json else text)


def _from_json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def test_bytes_of_the_environment_that_are_no_text_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "MIRAI_MODELS__CHAT__MODEL", "\udcff")
    with pytest.raises(ConfigurationError, match=r"models\.chat\.model"):
        load_settings()


@pytest.mark.parametrize("key", [key for key, leaf in LEAVES.items() if not leaf.takes_null])
def test_null_is_refused_where_nothing_is_no_value(key: str) -> None:
    leaf = LEAVES[key]
    Path("mirai.yaml").write_text(yaml.safe_dump(_nested(leaf, None)), encoding="utf-8")
    with pytest.raises(ConfigurationError) as caught:
        load_settings()
    assert str(caught.value) == f"mirai.yaml: {key}: has no value; without the name the default counts"


@pytest.mark.parametrize("key", [key for key, leaf in LEAVES.items() if kinds_of(leaf.info) & {int, float}])
@pytest.mark.parametrize("text", ["true", "yes", "off"])
def test_yes_is_no_number(key: str, text: str) -> None:
    leaf = LEAVES[key]
    Path("mirai.yaml").write_text(yaml.safe_dump(_nested(leaf, "X")).replace("X", text), encoding="utf-8")
    with pytest.raises(ConfigurationError) as caught:
        load_settings()
    assert str(caught.value) == f"mirai.yaml: {key}: must not be yes or no (true, false)"


@pytest.mark.parametrize(("text", "value"), [("yes", True), ("on", True), ("off", False), ("No", False), ("1", True)])
def test_the_words_for_yes_and_no_are_understood(monkeypatch: pytest.MonkeyPatch, text: str, value: bool) -> None:
    Path("mirai.yaml").write_text(f"memory: {{rag: {{background: {text}}}}}", encoding="utf-8")
    assert load_settings().memory.rag.background is value
    monkeypatch.setenv("MIRAI_MEMORY__RAG__BACKGROUND", text)
    assert load_settings().memory.rag.background is value
