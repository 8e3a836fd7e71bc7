"""Somebody else's project: tests that use the plugin, the factories and the contract, and typed code, on the wheel."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import textwrap
import venv
from collections.abc import Sequence
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[1]
CONSUMER = Path(__file__).with_name("consumer")
GUARD = 300

pytestmark = pytest.mark.long


def _run(arguments: Sequence[str | os.PathLike[str]], folder: Path, code: int = 0) -> str:
    # Neither the checkout nor the options of the pytest that runs this reach what is run.
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PYTEST"))}
    done = subprocess.run(arguments, cwd=folder, env=kept, capture_output=True, text=True, timeout=GUARD)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a new environment with the wheel in it; what it depends on is lent by this one."""
    folder = tmp_path_factory.mktemp("consumer")
    _run([sys.executable, "-m", "build", "--wheel", "--outdir", folder, CHECKOUT], folder)
    [wheel] = folder.glob("*.whl")
    venv.create(folder / "venv", with_pip=False, symlinks=os.name != "nt")
    python = folder / "venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check"]
    _run([*pip, "install", "--no-deps", "--no-index", wheel], folder)
    place = _run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], folder).strip()
    lent = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    # A folder named in a .pth file is searched, but the .pth files in it are not read: the checkout stays unknown.
    (Path(place) / "lent.pth").write_text("\n".join(sorted(lent)) + "\n", encoding="utf-8")
    return python


def test_the_wheel_is_what_is_used(python: Path, tmp_path: Path) -> None:
    found = Path(_run([python, "-c", "import mirai_memory; print(mirai_memory.__file__)"], tmp_path).strip())
    assert found.is_relative_to(python.parents[1])


def test_a_project_s_own_tests_run(python: Path, tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\naddopts = -p no:cacheprovider\n")
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["mirai_memory.testing.plugin"]\n')
    (tmp_path / "test_agent.py").write_text((CONSUMER / "agent_tests.py").read_text(encoding="utf-8"), encoding="utf-8")
    words = _run([python, "-m", "pytest", "-q"], tmp_path)
    assert " passed" in words
    assert "skipped" not in words


def _mypy(python: Path, folder: Path, source: str, code: int = 0) -> str:
    (folder / "typed.py").write_text(source, encoding="utf-8")
    (folder / "mypy.ini").write_text("[mypy]\n")  # of this folder, whatever stands above it
    options = ["--strict", "--warn-unused-ignores", "--cache-dir", folder / "cache", "--python-executable", python]
    return _run([sys.executable, "-m", "mypy", *options, "typed.py"], folder, code)


def test_typed_code_is_checked_against_the_wheel(python: Path, tmp_path: Path) -> None:
    source = (CONSUMER / "typed_use.py").read_text(encoding="utf-8")
    assert source.count("# type: ignore[") >= 8
    # In strict mode an ignore where nothing is wrong is an error: each of the wrong uses really is one.
    assert "no issues found" in _mypy(python, tmp_path, source)
    unchecked = source.replace("# type: ignore[", "# was [")
    assert f"Found {source.count('# type: ignore[')} errors" in _mypy(python, tmp_path, unchecked, code=1)


def test_types_are_really_looked_at(python: Path, tmp_path: Path) -> None:
    words = _mypy(
        python,
        tmp_path,
        textwrap.dedent("""
            from mirai_memory import MemoryManager
            from mirai_memory.testing import MessageFactory
            reveal_type(MemoryManager().get_session("x"))
            reveal_type(MessageFactory.create_batch(2, memory=MemoryManager()))
        """),
    )
    assert 'Revealed type is "mirai_memory.entities.Session | None"' in words
    assert 'Revealed type is "list[mirai_memory.entities.Message]"' in words
