"""What a user installs: the wheel, built from the source archive, works away from the checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from mirai_memory import schema

CHECKOUT = Path(__file__).parents[1]
GUARD = 300


def _run(arguments: Sequence[str | os.PathLike[str]], folder: Path, code: int = 0) -> str:
    surroundings = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    surroundings["MIRAI_MONITORING__LOGS__PATH"] = os.fspath(folder.parent / "mirai.log")
    done = subprocess.run(arguments, cwd=folder, env=surroundings, capture_output=True, text=True, timeout=GUARD)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def test_the_editable_install_finds_the_migrations_beside_the_package() -> None:
    assert schema.script_location() == CHECKOUT / "migrations"


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A source archive, and the wheel that is built from it and not from the checkout."""
    out = tmp_path_factory.mktemp("dist")
    _run([sys.executable, "-m", "build", "--no-isolation", "--outdir", out, CHECKOUT], out)
    (sdist,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    return sdist, wheel


@pytest.fixture(scope="module")
def installed(archives: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scripts' folder of a new environment with the wheel in it; what it depends on is lent by this one."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=os.name != "nt")
    scripts = folder / ("Scripts" if os.name == "nt" else "bin")
    wheel = archives[1]
    pip = [sys.executable, "-m", "pip", "--python", scripts / "python", "--disable-pip-version-check"]
    _run([*pip, "install", "--no-deps", "--no-index", wheel], folder)
    # A folder named in a .pth file is searched, but the .pth files in it are not read: the checkout stays unknown.
    place = _run([scripts / "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], folder).strip()
    lent = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (Path(place) / "lent.pth").write_text("\n".join(sorted(lent)) + "\n", encoding="utf-8")
    return scripts


@pytest.mark.long
def test_the_archives_hold_what_they_should(archives: tuple[Path, Path]) -> None:
    sdist, wheel = archives
    names = zipfile.ZipFile(wheel).namelist()
    inside = {name for name in names if not name.split("/")[0].endswith(".dist-info")}
    assert {name.split("/")[0] for name in inside} == {"mirai_memory"}, "nothing of ours stands beside the package"
    revisions = {f"mirai_memory/_migrations/versions/{p.name}" for p in (CHECKOUT / "migrations/versions").glob("*.py")}
    modules = {
        path.relative_to(CHECKOUT).as_posix()
        for path in (CHECKOUT / "mirai_memory").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert modules | revisions | {"mirai_memory/py.typed", "mirai_memory/_migrations/env.py"} <= inside
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc")]
    assert any(name.endswith("/licenses/LICENSE") for name in names)
    with tarfile.open(sdist) as archive:
        packed = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    assert {"pyproject.toml", "alembic.ini", "migrations/env.py", "tests/conftest.py", "README.md"} <= packed


@pytest.mark.long
def test_the_installed_package_is_not_the_checkout(installed: Path, tmp_path: Path) -> None:
    code = "import mirai_memory, mirai_memory.schema as s; print(mirai_memory.__file__); print(s.script_location())"
    package, scripts = map(Path, _run([installed / "python", "-c", code], tmp_path).split("\n")[:2])
    assert CHECKOUT not in package.parents
    assert installed.parent in package.parents
    assert scripts == package.parent / "_migrations"


@pytest.mark.long
def test_the_installed_package_remembers(installed: Path, tmp_path: Path) -> None:
    code = """
from mirai_memory import Knowledge, MemoryManager, Message, schema
with MemoryManager("new folder/память.db") as memory:
    session = memory.create_session("alice")
    memory.add_message(Message(session_id=session.id, role="user", content="a walrus in the bath"))
    memory.add_knowledge(Knowledge(value="walruses bathe", key="bath"))
schema.downgrade("new folder/память.db", revision="base")
with MemoryManager("new folder/память.db") as memory:
    print(len(memory.search_messages("walrus")), len(memory.search_knowledge("walrus")))
print(schema.check("new folder/память.db"))
"""
    assert _run([installed / "python", "-W", "error", "-c", code], tmp_path) == "1 1\n[]\n"


@pytest.mark.long
def test_the_installed_command_line(installed: Path, tmp_path: Path) -> None:
    command = installed / "mirai-memory"
    shown = _run([installed / "python", "-m", "mirai_memory", "--help"], tmp_path)
    assert "db" in shown
    assert _run([command, "--help"], tmp_path) == shown
    database = ("--db", "folder/100% new.db")
    _run([command, "db", "current", *database], tmp_path, code=4)
    assert list(tmp_path.iterdir()) == [], "looking makes nothing"
    _run([command, "db", "upgrade", *database], tmp_path)
    assert _run([command, "db", "current", *database], tmp_path).strip() == schema.HEAD_REVISION
    found = json.loads(_run([command, "db", "current", "--json", *database], tmp_path))
    assert found == {"revision": schema.HEAD_REVISION, "head": schema.HEAD_REVISION}
    _run([command, "db", "check", *database], tmp_path)
    history = json.loads(_run([command, "db", "history", "--json"], tmp_path))
    assert [item["id"] for item in history] == [revision.id for revision in schema.history()]
    _run([command, "db", "downgrade", "base", *database], tmp_path, code=1)
    assert _run([command, "db", "current", *database], tmp_path).strip() == schema.HEAD_REVISION
    _run([command, "db", "downgrade", "base", "--yes", *database], tmp_path)
    assert _run([command, "db", "current", *database], tmp_path).strip() == "none"
    _run([command, "db", "check", *database], tmp_path, code=1)
