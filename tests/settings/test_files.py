"""Files as editors, people and accidents make them: words that YAML 1.1 misreads, links, pipes, signs in paths."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from mirai_memory import ConfigurationError, MemoryManager, load_settings

CANARY = "cAnArY-sEcReT"


def yaml(text: str | bytes) -> None:
    Path("mirai.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())


def fault() -> str:
    with pytest.raises(ConfigurationError) as caught:
        load_settings()
    [problem] = caught.value.problems
    assert caught.value.__context__ is None
    assert CANARY not in problem
    return problem


# --- what YAML 1.1 makes of plain words -------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["010", "0644", "1:30", "-0_7", "1:30:00", "1:30.5", "9" * 5_000])
@pytest.mark.parametrize("key", ["busy_timeout_ms", "db_path"])
def test_a_number_that_reads_otherwise_than_it_looks_is_refused(text: str, key: str) -> None:
    yaml(f"memory: {{{key}: {text}}}")
    problem = fault()
    assert problem.startswith(f"mirai.yaml: memory.{key}: ")
    assert problem.endswith("write decimal digits, or quote it")


@pytest.mark.parametrize(("text", "value"), [("5", 5), ("0", 0), ("+5", 5), ("1_000", 1_000), ("0x1F", 31), ("5.0", 5)])
def test_a_number_that_reads_as_it_looks_is_one(text: str, value: int) -> None:
    yaml(f"memory: {{busy_timeout_ms: {text}}}")
    assert load_settings().memory.busy_timeout_ms == value


@pytest.mark.parametrize("text", ["no", "off", "5", "1.5", "true", "yes"])
@pytest.mark.parametrize("key", ["model", "base_url"])
def test_what_is_no_text_for_yaml_must_be_quoted(text: str, key: str) -> None:
    yaml(f"models: {{chat: {{{key}: {text}}}}}")
    assert fault().endswith("; text that reads like a number or like yes and no must be quoted")
    yaml(f"models: {{chat: {{model: '{text}'}}}}")
    assert load_settings().models.chat.model == text


@pytest.mark.parametrize("text", ["2024-01-01", "2024-13-45", "2024-01-01 10:00:00", "2024-01-01T10:00:00Z"])
def test_a_date_is_the_text_that_was_written(text: str) -> None:
    yaml(f"models: {{chat: {{model: {text}}}}}\nmemory: {{long_term: {{on_conflict: {{{text}: reject}}}}}}")
    settings = load_settings()
    assert settings.models.chat.model == text
    assert settings.memory.long_term.on_conflict == {text: "reject"}


@pytest.mark.parametrize("name", ["yes", "no", "2024", "1.5", "010", "null"])
def test_a_name_of_a_mapping_that_is_no_text_is_refused(name: str) -> None:
    yaml(f"memory: {{long_term: {{on_conflict: {{{name}: reject}}}}}}")
    assert fault().startswith("mirai.yaml: memory.long_term.on_conflict.")
    yaml(f"memory: {{long_term: {{on_conflict: {{'{name}': reject}}}}}}")
    assert load_settings().memory.long_term.policy(name) == "reject"


def test_what_a_host_writes_in_its_own_sections_is_read_over() -> None:
    deep = "{a: " * 150 + "1" + "}" * 150
    yaml(f"mode: 0644\nat: 1:30\nbig: {'9' * 5_000}\nday: 2024-13-45\nodd: !!int words\nyes: 1\n5: 2\ndeep: {deep}\n")
    assert load_settings().memory.busy_timeout_ms == 10_000


# --- files that are none ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"memory: {db_path: x\x07}", "line 1: holds a control character"),
        (b"a: 1\n\n\0", "line 3: holds a control character"),
        (b"a: !!bool words", "is no YAML (KeyError)"),
        (b"a: !!set {x, [y]}", "line 1"),
        (b"a: !host.own words", "line 1"),
        (("{a: " * 5_000).encode(), "is nested too deeply"),
        (("- " * 100_000).encode(), "is nested too deeply"),
        (b"x: &x [l, l]\ny: &y [*x, *x]\nz: [*y, *y]", "aliases are not allowed"),
        (b"#" * 10_000_000, "is larger than 1000000 bytes"),
        ("memory: {db_path: Память}".encode("cp1251"), "is not UTF-8 (byte 18)"),
        ("memory:".encode("utf-16"), "is not UTF-8 (byte 0)"),
        (b"memory: {}\n---\nmemory: {}", "line 2"),
        (f"memory: {{url: '{CANARY}".encode(), "line 1"),
        (f'memory: {{url: "{CANARY}\\q"}}'.encode(), "line 1"),
        (f"memory: {{url: *{CANARY}}}".encode(), "aliases are not allowed"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_fault(text: bytes, said: str) -> None:
    yaml(text)
    problem = fault()
    assert problem.startswith("mirai.yaml: ")
    assert said in problem


def test_a_link_to_nowhere_and_one_that_goes_round_are_faults() -> None:
    os.symlink("nowhere.yaml", "mirai.yaml")
    assert fault() == "mirai.yaml: cannot be read (No such file or directory)"
    os.unlink("mirai.yaml")
    os.symlink("mirai.yaml", "mirai.yaml")
    assert fault() == "mirai.yaml: cannot be read (Too many levels of symbolic links)"


def test_a_folder_and_a_file_that_may_not_be_read_are_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("mirai.yaml").mkdir()
    assert fault() == "mirai.yaml: cannot be read (Is a directory)"
    Path("mirai.yaml").rmdir()
    yaml("memory: {synchronous: normal}")

    def refuse(path: Path, *arguments: object, **more: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)  # root may read everything
    with pytest.raises(ConfigurationError) as caught:
        load_settings()
    assert "mirai.yaml: cannot be read (Permission denied)" in caught.value.problems


def test_a_name_that_can_be_no_file_is_a_fault() -> None:
    for name in ("a\0b", "x" * 5_000):
        with pytest.raises(ConfigurationError):
            load_settings(name)


def test_a_pipe_is_read_and_has_a_size_too() -> None:
    os.mkfifo("pipe")
    for text, good in (("memory: {synchronous: normal}", True), ("#" * 2_000_000, False)):
        writer = threading.Thread(target=_write, args=(text,))
        writer.start()
        try:
            if good:
                assert load_settings("pipe").memory.synchronous == "normal"
            else:
                with pytest.raises(ConfigurationError, match="is larger than"):
                    load_settings("pipe")
        finally:
            writer.join()


def _write(text: str) -> None:
    with suppress(BrokenPipeError):  # the reader has seen enough
        Path("pipe").write_text(text)


# --- signs in paths and passwords -------------------------------------------------------------------------------------

SIGNS = ["100%.db", "a#b.db", "%20 %s {x} $y.db", "моя память №1.db", "a=b&c?d.db", "it's.db"]


@pytest.mark.parametrize("name", SIGNS)
@pytest.mark.parametrize("place", ["yaml", "environment", ".env"])
def test_signs_in_a_path_are_letters(monkeypatch: pytest.MonkeyPatch, name: str, place: str) -> None:
    if place == "yaml":
        yaml(f'memory: {{db_path: "{name}"}}')
    elif place == ".env":
        Path(".env").write_text(f'MIRAI_MEMORY__DB_PATH="{name}"\n', encoding="utf-8")
    else:
        monkeypatch.setenv("MIRAI_MEMORY__DB_PATH", name)
    with MemoryManager():
        assert Path(name).is_file()


@pytest.mark.parametrize("password", ["p%40ss", "a#b", "100%", "c%23 d", "$HOME", "пароль", "x\\y"])
@pytest.mark.parametrize("place", ["yaml", "environment", ".env"])
def test_signs_in_a_password_are_letters(monkeypatch: pytest.MonkeyPatch, password: str, place: str) -> None:
    url = f"postgresql://alice:{password}@db/memory"
    if place == "yaml":
        yaml(f"memory: {{url: '{url}'}}")
    elif place == ".env":
        Path(".env").write_text(f"MIRAI_MEMORY__URL='{url}'\n", encoding="utf-8")
    else:
        monkeypatch.setenv("MIRAI_MEMORY__URL", url)
    found = load_settings().memory.url
    assert found is not None
    assert found.get_secret_value() == url


def test_a_hash_begins_a_comment_only_after_a_space() -> None:
    yaml("memory: {db_path: a#b.db}  # words")
    assert load_settings().memory.db_path.name == "a#b.db"
    Path(".env").write_text("MIRAI_MEMORY__DB_PATH=c#d.db # words\n", encoding="utf-8")
    assert load_settings().memory.db_path.name == "c#d.db"


PATHS = ["memory.db_path", "memory.long_term.backup_dir", "monitoring.logs.path", "security.api_keys.fallback_file"]


@pytest.mark.parametrize("key", PATHS)
@pytest.mark.parametrize("place", ["yaml", "environment", ".env", "argument"])
def test_the_home_folder_is_known_everywhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, key: str, place: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    assert _path(monkeypatch, key, place, "~/a/b") == tmp_path / "home/a/b"
    assert _path(monkeypatch, key, place, "a/~/b") == (tmp_path if place == "yaml" else Path()) / "a/~/b"
    with pytest.raises(ConfigurationError, match=f"{key}: names no home folder"):
        _path(monkeypatch, key, place, "~nobody-has-this-name/b")


@pytest.mark.parametrize("key", PATHS)
def test_a_relative_path_in_yaml_counts_from_its_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, key: str
) -> None:
    assert _path(monkeypatch, key, "yaml", "a/b") == tmp_path / "a/b"
    assert _path(monkeypatch, key, "yaml", "/a/b") == Path("/a/b")
    assert _path(monkeypatch, key, "environment", "a/b") == Path("a/b")


def _path(monkeypatch: pytest.MonkeyPatch, key: str, place: str, text: str) -> Path:
    names = key.split(".")
    nested: object = text
    for name in reversed(names):
        nested = {name: nested}
    assert isinstance(nested, dict)
    variable = "MIRAI_" + "__".join(names).upper()
    if place == "yaml":
        yaml(str(nested))
    elif place == ".env":
        Path(".env").write_text(f"{variable}={text}\n", encoding="utf-8")
    elif place == "environment":
        monkeypatch.setenv(variable, text)
    found: object = load_settings(**(nested if place == "argument" else {}))
    for name in names:
        found = getattr(found, name)
    assert isinstance(found, Path)
    return found


def test_the_home_folder_in_the_name_of_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    Path("other.yaml").write_text("memory: {synchronous: normal}", encoding="utf-8")
    monkeypatch.setenv("MIRAI_CONFIG", "~/other.yaml")
    assert load_settings().memory.synchronous == "normal"
