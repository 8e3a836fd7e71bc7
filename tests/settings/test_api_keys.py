"""API keys: where they are looked for, in which order, and that they stay where they are."""

from __future__ import annotations

import json
import os
import pickle
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mirai_memory import ConfigurationError, InvalidInput, load_settings
from mirai_memory._api_keys import find_key
from mirai_memory.config import ApiKeySettings
from mirai_memory.logging import logger

KEY = "sk-cAnArY0123456789"
FILE = Path("configs/api_keys.json")


@pytest.fixture(autouse=True)
def _no_keys_of_the_developer(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.upper().endswith("_API_KEY"):
            monkeypatch.delenv(name)


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    """What the package's logger says from now on."""
    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(message.record["message"]), level="WARNING")
    logger.enable("mirai_memory")
    yield lines
    logger.disable("mirai_memory")
    logger.remove(sink)


def keys(**values: Any) -> ApiKeySettings:
    return load_settings(security={"api_keys": values}).security.api_keys


def in_file(content: Any, mode: int = 0o600, path: Path = FILE) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    path.chmod(mode)


def fault(api_keys: ApiKeySettings, provider: str = "openai") -> str:
    """What both questions answer; neither the error nor what hangs on it has a key or the text around it."""
    for ask in (api_keys.get_api_key, api_keys.locate):
        with pytest.raises(ConfigurationError) as caught:
            ask(provider)
        error = caught.value
        assert KEY not in "".join(traceback.format_exception(error))
        assert KEY not in repr([error.args, vars(error)])
        assert error.__context__ is None
    return str(error)


# --- places -----------------------------------------------------------------------------------------------------------


def test_the_environment_comes_before_dotenv_and_dotenv_before_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    api_keys = keys()
    assert api_keys.locate() is None
    in_file({"openai": "from-file"})
    assert api_keys.get_api_key().get_secret_value() == "from-file"
    assert api_keys.locate() == "openai in configs/api_keys.json"
    Path(".env").write_text("OPENAI_API_KEY=from-dotenv\n", encoding="utf-8")
    assert api_keys.get_api_key().get_secret_value() == "from-dotenv"
    assert api_keys.locate() == "OPENAI_API_KEY in .env"
    monkeypatch.setenv("OPENAI_API_KEY", "from-environment")
    assert api_keys.get_api_key().get_secret_value() == "from-environment"
    assert api_keys.locate() == "the environment variable OPENAI_API_KEY"
    # Looked up each time: what was there before is not remembered.
    monkeypatch.delenv("OPENAI_API_KEY")
    Path(".env").unlink()
    FILE.unlink()
    assert api_keys.locate() is None


def test_the_file_alone_where_the_settings_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "from-environment")
    api_keys = keys(source="file")
    assert api_keys.locate() is None
    with pytest.raises(ConfigurationError, match=r"source is file, and there is no \"openai\" in the JSON object of"):
        api_keys.get_api_key()
    in_file({"openai": "from-file"})
    assert api_keys.get_api_key().get_secret_value() == "from-file"


def test_a_missing_key_is_an_error_that_names_all_three_places() -> None:
    with pytest.raises(ConfigurationError) as caught:
        keys(env_var="MY_KEY", fallback_file="keys.json").get_api_key()
    for place in ("the environment variable MY_KEY", "MY_KEY in .env", '"openai" in the JSON object of keys.json'):
        assert place in str(caught.value)


@pytest.mark.parametrize("text", ["", " ", "\t\n"])
def test_an_empty_variable_is_none(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", text)
    Path(".env").write_text("OPENAI_API_KEY=\n", encoding="utf-8")
    in_file({"openai": "from-file"})
    assert keys().get_api_key().get_secret_value() == "from-file"


@pytest.mark.parametrize("place", ["environment", ".env", "file"])
def test_space_around_a_key_is_no_part_of_it(monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    if place == "environment":
        monkeypatch.setenv("OPENAI_API_KEY", f" {KEY}\r\n")
    elif place == ".env":
        Path(".env").write_text(f"OPENAI_API_KEY='  {KEY} '\n", encoding="utf-8")
    else:
        in_file({"openai": f"\n{KEY} "})
    assert keys().get_api_key().get_secret_value() == KEY


@pytest.mark.parametrize("place", ["environment", ".env", "file"])
@pytest.mark.parametrize("inside", ["а", " ", "\n", "\x7f", "\udc80"])
def test_what_can_be_no_key_is_refused_where_it_stands(
    monkeypatch: pytest.MonkeyPatch, place: str, inside: str
) -> None:
    if place == "environment":
        monkeypatch.setenv("OPENAI_API_KEY", KEY + inside + KEY)
        expected = "the environment variable OPENAI_API_KEY"
    elif place == ".env":
        inside = inside.replace("\udc80", "ж")  # as UTF-8 there is none
        Path(".env").write_text(f"OPENAI_API_KEY='{KEY}{inside}{KEY}'\n", encoding="utf-8")
        expected = "OPENAI_API_KEY in .env"
    else:
        in_file({"openai": KEY + inside + KEY})
        expected = "openai in configs/api_keys.json"
    assert fault(keys()) == f"{expected}: holds spaces or letters that no key has"


# --- providers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("provider", "variable"),
    [
        ("anthropic", "ANTHROPIC_API_KEY"),
        ("Anthropic", "ANTHROPIC_API_KEY"),
        ("sentence-transformers", "SENTENCE_TRANSFORMERS_API_KEY"),
        ("z.ai", "Z_AI_API_KEY"),
        ("openai", "MY_KEY"),
        ("OpenAI", "MY_KEY"),
    ],
)
def test_each_provider_has_a_variable_and_env_var_is_openai_s(
    monkeypatch: pytest.MonkeyPatch, provider: str, variable: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "not-asked-for")
    api_keys = keys(env_var="MY_KEY")
    assert api_keys.locate(provider) is None
    in_file({variable: "by-variable"})
    assert api_keys.get_api_key(provider).get_secret_value() == "by-variable"
    in_file({variable: "by-variable", provider.lower(): "by-name"})
    assert api_keys.get_api_key(provider).get_secret_value() == "by-name"
    monkeypatch.setenv(variable, "from-environment")
    assert api_keys.get_api_key(provider).get_secret_value() == "from-environment"


@pytest.mark.parametrize("provider", ["", " ", "a b", "../x", "OPENAI=1", "а", "x" * 65, None, 5, ["openai"]])
def test_a_provider_is_a_name(provider: Any) -> None:
    for ask in (keys().get_api_key, keys().locate):
        with pytest.raises(InvalidInput, match="provider"):
            ask(provider)


# --- the file ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "must be a JSON object"),
        (b"{", "must be a JSON object"),
        (json.dumps([KEY]).encode(), "must be a JSON object"),
        (json.dumps(KEY).encode(), "must be a JSON object"),
        (f"openai: {KEY}".encode(), "must be a JSON object"),
        (f'{{"openai": "{KEY}",}}'.encode(), "must be a JSON object"),
        (b"[" * 100_000, "must be a JSON object"),
        (b'{"openai": ' + b"9" * 5_000 + b"}", "must be a JSON object"),
        (f'{{"openai": "{KEY}"}}'.encode("utf-16"), "is not UTF-8 (byte 0)"),
        (b'{"openai": "\xff"}', "is not UTF-8 (byte 12)"),
        (b" " * 1_100_000, "is larger than 1000000 bytes"),
        (json.dumps({"openai": ""}).encode(), "openai: must be a key, a text that is not empty"),
        (json.dumps({"openai": " "}).encode(), "openai: must be a key"),
        (json.dumps({"openai": None}).encode(), "openai: must be a key"),
        (json.dumps({"openai": [KEY]}).encode(), "openai: must be a key"),
        (json.dumps({"openai": {"key": KEY}}).encode(), "openai: must be a key"),
        (b'{"openai": 5}', "openai: must be a key"),
    ],
)
def test_a_file_that_holds_no_keys_is_refused(content: bytes, said: str) -> None:
    in_file(content)
    message = fault(keys())
    assert message.startswith("configs/api_keys.json: ")
    assert said in message


def test_a_file_with_a_byte_order_mark_and_other_keys_is_read() -> None:
    in_file(b"\xef\xbb\xbf" + json.dumps({"other": 5, "openai": KEY}).encode())
    assert keys().get_api_key().get_secret_value() == KEY


def test_what_is_no_file_is_refused_and_not_waited_for() -> None:
    FILE.mkdir(parents=True)
    assert fault(keys()) == "configs/api_keys.json: cannot be read (Is a directory)"
    FILE.rmdir()
    os.mkfifo(FILE)
    assert fault(keys()) == "configs/api_keys.json: is no plain file"
    FILE.unlink()
    os.symlink("api_keys.json", FILE)
    assert fault(keys()) == "configs/api_keys.json: cannot be read (Too many levels of symbolic links)"


def test_a_broken_file_matters_only_where_it_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    in_file(b"{")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    Path(".env").mkdir()
    assert keys_without_dotenv().get_api_key().get_secret_value() == KEY
    monkeypatch.delenv("OPENAI_API_KEY")
    assert fault(keys_without_dotenv()) == ".env: cannot be read (Is a directory)"


def keys_without_dotenv() -> ApiKeySettings:
    return ApiKeySettings()


def test_a_relative_path_in_yaml_counts_from_its_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    Path("app").mkdir()
    Path("app/mirai.yaml").write_text("security: {api_keys: {fallback_file: ключи.json}}", encoding="utf-8")
    in_file({"openai": KEY}, path=Path("app/ключи.json"))
    found = load_settings("app/mirai.yaml").security.api_keys
    monkeypatch.chdir("/")
    assert found.fallback_file == tmp_path / "app/ключи.json"
    assert found.get_api_key().get_secret_value() == KEY


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX")
@pytest.mark.parametrize(("mode", "is_open"), [(0o600, False), (0o400, False), (0o640, True), (0o604, True)])
def test_a_file_that_others_can_read_is_warned_of(mode: int, is_open: bool, warnings: list[str]) -> None:
    in_file({"openai": KEY}, mode)
    api_keys = keys()
    assert ("others can read" in str(api_keys.locate())) is is_open
    assert warnings == []
    assert api_keys.get_api_key().get_secret_value() == KEY
    assert warnings == (["configs/api_keys.json holds API keys, and others can read it: chmod 600"] * is_open)


# --- secrecy ----------------------------------------------------------------------------------------------------------


def test_a_key_is_neither_kept_nor_shown(monkeypatch: pytest.MonkeyPatch, warnings: list[str]) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    in_file({"openai": KEY}, 0o644)
    settings = load_settings()
    for source in ("env", "file"):
        api_keys = keys(source=source)
        key = api_keys.get_api_key()
        assert key.get_secret_value() == KEY
        assert KEY not in f"{key} {key!r} {api_keys.locate()}"
        shown = [repr(api_keys), str(api_keys), str(api_keys.model_dump()), api_keys.model_dump_json()]
        assert KEY not in str(shown)
        assert KEY.encode() not in pickle.dumps(api_keys)
    settings.security.api_keys.get_api_key()
    assert KEY not in repr(find_key(settings.security.api_keys, "openai"))
    assert KEY not in repr(settings) + settings.model_dump_json()
    assert KEY.encode() not in pickle.dumps(settings)
    assert len(warnings) == 1
    assert KEY not in warnings[0]
    # What was unpickled elsewhere looks there.
    monkeypatch.setenv("OPENAI_API_KEY", "another")
    again = pickle.loads(pickle.dumps(settings))  # noqa: S301 - our own
    assert again.security.api_keys.get_api_key().get_secret_value() == "another"
