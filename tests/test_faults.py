"""The deliberate faults: they fit the sources and cover the promises, and what tries them out is hard to please."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

FAULTS = Path(__file__).with_name("faults")


def _run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(folder / "run.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_every_fault_fits_the_sources() -> None:
    """One that does not is stale: the code that it breaks has moved on, and so must the fault."""
    done = _run(FAULTS, "--stale")
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)


@pytest.mark.long
def test_every_fault_has_its_tests_on_each_engine() -> None:
    done = _run(FAULTS, "--check")
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)


def test_every_promise_has_faults() -> None:
    promises = Counter(line.split()[0] for line in _run(FAULTS, "--list").stdout.splitlines())
    assert set(promises) == set("0123456789")  # 0: rules beside the promises
    assert promises.total() >= 25


# --- a small package of the same name, with faults of every fate ------------------------------------------------------

DOUBLE = """
from mirai_memory.errors import MiraiMemoryError

def double(number, engine=""):
    return 2 * number
"""
TESTS = """
import os
import pytest
from sqlalchemy import create_engine
from mirai_memory.double import double

@pytest.fixture
def four():
    assert double(2) == 4
    return 4

def test_doubling():
    assert double(2) == 4

def test_of_nothing():
    double(2)

def test_with_a_fixture(four):
    assert four == 4

def test_that_is_wrong():
    assert double(2) == 5

@pytest.mark.parametrize("number", [2, 3])
def test_that_does_not_go_on(number):
    if double(number) == 9:
        os._exit(3)
    assert double(number) == 2 * number

@pytest.mark.parametrize("number", [2, 3])
@pytest.mark.parametrize("engine", ["sqlite", "postgres"])
def test_on(engine, number):
    assert double(number, engine) == 2 * number

@pytest.fixture
def sqlite_url():
    return "sqlite://"

def test_in_a_file(sqlite_url):
    assert double(2, sqlite_url[:6]) == 4

def test_that_names_no_engine():
    with create_engine("sqlite://").connect():
        assert double(2, "sqlite") == 4
"""
FATES = {
    # name: (what takes the place of the last line, the test, the verdict)
    "broken": ("return 3 * number", "test_doubling", "caught"),
    "own-error": ("raise MiraiMemoryError", "test_doubling", "caught"),
    "unnoticed": ("return 3 * number", "test_of_nothing", "survived: "),
    "crashing": ("return nothing", "test_doubling", "failed in call by builtins.NameError: "),
    "in-setup": ("return 3 * number", "test_with_a_fixture", "failed in setup by builtins.AssertionError: "),
    "not-imported": ("return 2\nimport nothing_there", "test_doubling", "not run: "),
    "no-python": ("return (", "test_doubling", "mirai_memory/double.py would be no Python: "),
    "unnamed": ("return 3 * number", "test_of_something", "there is no test "),
    "misnamed-case": ("return 3 * number", "test_on[4-sqlite]", "there is no test "),
    "wrong-before": ("return 3 * number", "test_that_is_wrong", "fails without the fault: "),
    "enough": ("return 3 * number", "test_that_does_not_go_on", "caught"),
    "fails-late": ("return 3 * number if number == 3 else nothing", "test_on", "caught"),
    "unknown-engine": ("return 3 * number", "test_on", "there is no engine oracle"),
    "no-reason": ("return 3 * number", "test_in_a_file", "engine and why stand together"),
    "on-both": ("return 3 * number", "test_on", "caught"),
    "on-one-of-both": ("return 3 * number if engine == 'sqlite' else 2 * number", "test_on", "survived: "),
    "on-the-other": ("return 3 * number if engine == 'postgres' else 2 * number", "test_on", "survived: "),
    "on-one-alone": ("return 3 * number if engine == 'sqlite' else 2 * number", "test_on", "caught"),
    "on-one-as-it-may-be": ("return 3 * number if number == 3 else 2 * number", "test_on", "caught"),
    "on-the-wrong-one": ("return 3 * number", "test_in_a_file", "none of its tests is for postgres"),
    "tried-on-one": ("return 3 * number", "test_that_names_no_engine", "not run on postgres"),
    "tried-on-its-own": ("return 3 * number", "test_that_names_no_engine", "caught"),
}
CAUGHT = sum(verdict == "caught" for _, _, verdict in FATES.values())
STALE = {"old": "return 5 * number", "new": "return 2", "test": "test_doubling"}
# Of which engine they say to be. Those that are of both say nothing, the others that no database has a part in them.
SAID = {
    "unknown-engine": "engine = 'oracle'\nwhy = 'x'\n",
    "no-reason": "engine = 'sqlite'\n",
    "on-one-alone": "engine = 'sqlite'\nwhy = 'x'\n",
    "tried-on-its-own": "engine = 'sqlite'\nwhy = 'x'\n",
    **dict.fromkeys(("on-both", "on-one-of-both", "on-the-other", "on-one-as-it-may-be", "fails-late"), ""),
    **dict.fromkeys(("on-the-wrong-one", "tried-on-one"), ""),
}


def _fault(name: str, *, old: str, new: str, test: str) -> str:
    said = SAID.get(name, "engine = 'none'\nwhy = 'x'\n")
    return (
        f"[[fault]]\nname = '{name}'\nwhat = 'x'\n{said}file = 'mirai_memory/double.py'\n"
        f"old = '''{old}'''\nnew = '''{new}'''\ntests = ['tests/test_double.py::{test}']\n"
    )


def _write(folder: Path, files: Iterable[tuple[str, str]]) -> None:
    for name, text in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """The folder of faults of the small package."""
    faults = [_fault(name, old="return 2 * number", new=new, test=test) for name, (new, test, _) in FATES.items()]
    files = {
        "pyproject.toml": "[tool.pytest.ini_options]\naddopts = ['--import-mode=importlib']\n",
        "mirai_memory/__init__.py": "",
        "mirai_memory/errors.py": "class MiraiMemoryError(Exception): ...\n",
        "mirai_memory/double.py": DOUBLE,
        "tests/test_double.py": TESTS,
        "tests/faults/1_all.toml": "\n".join(["promise = 1", *faults, _fault("stale", **STALE)]),
    }
    project = tmp_path / "project"
    _write(project, files.items())
    for file in FAULTS.glob("*.py"):
        shutil.copy(file, project / "tests" / "faults")
    return project / "tests" / "faults"


@pytest.mark.long
def test_only_what_a_named_test_notices_is_caught(small: Path) -> None:
    done = _run(small)
    said = {line.split("  1  ")[1].split()[0]: line for line in done.stdout.splitlines() if "  1  " in line}
    assert set(said) == {*FATES, "stale"}
    wrong = {name: said[name] for name, (_, _, verdict) in FATES.items() if not said[name].startswith(verdict)}
    assert not wrong
    assert "0 times, not once" in said["stale"]
    assert "test_on on postgres" in said["on-one-of-both"]
    assert "test_on on sqlite" in said["on-the-other"]
    assert f"\n{CAUGHT} of {len(FATES) + 1} faults are caught\n" in done.stdout
    assert done.returncode == 1
    assert (small.parent.parent / "mirai_memory" / "double.py").read_text("utf-8") == DOUBLE


@pytest.mark.long
def test_all_caught_is_exit_code_0(small: Path) -> None:
    done = _run(small, "--only", "broken", "--only", "own-error")
    assert done.stdout.endswith("2 of 2 faults are caught\n")
    assert done.returncode == 0


@pytest.mark.parametrize("how", ["--stale", "--check"])
def test_a_stale_fault_is_told_without_a_run(small: Path, how: str) -> None:
    done = _run(small, how, "--only", "broken", "--only", "stale")
    assert done.stdout == "stale: mirai_memory/double.py holds the replaced text 0 times, not once\n"
    assert done.returncode == 1


def test_what_no_test_is_for_is_told_without_a_run(small: Path) -> None:
    names = ("on-both", "misnamed-case", "on-the-wrong-one", "tried-on-one", "no-reason")
    done = _run(small, "--check", *(word for name in names for word in ("--only", name)))
    assert done.stdout.splitlines() == [
        "misnamed-case: there is no test tests/test_double.py::test_on[4-sqlite]",
        "no-reason: engine and why stand together",
        "on-the-wrong-one: none of its tests is for postgres",
    ]
    assert done.returncode == 1


def test_a_name_that_there_is_not_is_a_usage_error(small: Path) -> None:
    assert _run(small, "--only", "nobody").returncode == 2


@pytest.mark.long
def test_an_installed_package_in_the_place_of_the_copy_is_refused(tmp_path: Path) -> None:
    _write(tmp_path, [("pyproject.toml", "[tool.pytest.ini_options]\n"), ("test_x.py", "def test_x(): ...\n")])
    outcomes = tmp_path / "outcomes.json"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "fault_outcomes", "-p", "no:cacheprovider", "-n", "0"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(FAULTS), "FAULT_OUTCOMES": str(outcomes)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode != 0
    assert "is imported, which does not stand in" in done.stderr
