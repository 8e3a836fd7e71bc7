"""Settings: arguments > environment > ``.env`` > ``mirai.yaml`` > defaults; read once, frozen, typos reported.

``mirai.yaml`` belongs to the host application and may hold other sections; below ``memory`` and ``monitoring.logs``
every name is checked.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from mirai_memory._yaml import read_yaml
from mirai_memory.entities import OnConflict
from mirai_memory.errors import ConfigurationError

PREFIX, DELIMITER = "MIRAI_", "__"
# Variables of ours that are no leaves of the tree.
OUTSIDE_THE_TREE = frozenset({"MIRAI_CONFIG", "MIRAI_USER", "MIRAI_TEST_PG_URL"})

Preference = Literal["coding_style", "communication_tone", "favorite_tools", "project_context"]
PREFERENCES: tuple[Preference, ...] = ("coding_style", "communication_tone", "favorite_tools", "project_context")
LogField = Literal[
    "timestamp",
    "level",
    "module",
    "message",
    "model",
    "tokens_in",
    "tokens_out",
    "latency_ms",
    "attempt_number",
    "error_code",
    "user_id",
]
LOG_FIELDS: tuple[LogField, ...] = get_args(LogField)
# Paths below, written relative in YAML, count from its folder.
_PATHS = ("memory.db_path", "monitoring.logs.path")
_SECTIONS = ("memory", "monitoring")  # with nothing below it, such a name is null in YAML, and means the defaults

_Count = Annotated[int, Field(ge=1, le=1_000_000_000)]
_Days = Annotated[float, Field(ge=0, le=1_000_000)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class _SharedSection(_Section):
    """A section that the host application may use too: names that are not ours are none of our business."""

    model_config = ConfigDict(extra="ignore")


class ShortTermSettings(_Section):
    max_messages: _Count = 12
    ttl_hours: Annotated[float, Field(gt=0, le=1_000_000)] = 24


class LongTermSettings(_Section):
    enabled: bool = True
    retention_days: _Days = 90
    on_conflict: dict[str, OnConflict] = {"default": "replace"}

    def policy(self, category: str) -> OnConflict:
        """What a new value does to the current one in this category."""
        return self.on_conflict.get(category, self.on_conflict.get("default", "replace"))


class UserPreferencesSettings(_Section):
    enabled: bool = True
    remember: tuple[Preference, ...] = PREFERENCES


class MemorySettings(_Section):
    enabled: bool = True
    backend: Literal["sqlite", "postgresql"] = "sqlite"
    db_path: Path = Path("data/mirai_memory.db")
    url: SecretStr | None = None
    schema_: Annotated[str, Field(alias="schema", pattern=r"^[a-z_][a-z0-9_]{0,62}$")] = "mirai_memory"
    synchronous: Literal["full", "normal"] = "full"
    busy_timeout_ms: Annotated[int, Field(ge=0, le=3_600_000)] = 10_000
    max_content_chars: Annotated[int, Field(ge=1, le=100_000_000)] = 1_000_000
    short_term: ShortTermSettings = ShortTermSettings()
    long_term: LongTermSettings = LongTermSettings()
    user_preferences: UserPreferencesSettings = UserPreferencesSettings()

    @model_validator(mode="after")
    def _postgresql_needs_a_url(self) -> MemorySettings:
        if self.backend == "postgresql" and self.url is None:
            raise ValueError("backend postgresql needs memory.url")
        return self


class RotateSettings(_Section):
    enabled: bool = True
    max_bytes: Annotated[int, Field(ge=1_000, le=1_000_000_000_000)] = 10_485_760
    backup_count: Annotated[int, Field(ge=0, le=10_000)] = 5


class LogSettings(_Section):
    path: Path = Path("/tmp/mirai.log")
    level: Literal["TRACE", "DEBUG", "INFO", "SUCCESS", "WARNING", "ERROR", "CRITICAL"] = "INFO"
    format: Literal["json", "text"] = "json"
    rotate: RotateSettings = RotateSettings()
    fields: tuple[LogField, ...] = LOG_FIELDS


class MonitoringSettings(_SharedSection):
    logs: LogSettings = LogSettings()


class Settings(BaseSettings):
    """The settings of one memory; ``load_settings`` makes them."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter=DELIMITER,
        env_file=".env",
        env_file_encoding="utf-8",
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
    )
    memory: MemorySettings = MemorySettings()
    monitoring: MonitoringSettings = MonitoringSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        file = _current_file.get() or _File.find(None)
        return init_settings, env_settings, dotenv_settings, InitSettingsSource(settings_cls, dict(file.values))


class _File:
    """One YAML file, read and checked; no file is an empty one."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.values: dict[str, Any] = read_yaml(path) if path else {}
        _report_near_misses(self.values, path)
        self.values = {key: {} if value is None and key in _SECTIONS else value for key, value in self.values.items()}
        for name in _PATHS:
            self._place(*name.split("."))

    def _place(self, *names: str) -> None:
        """Make a relative path count from the file's folder."""
        section: Any = self.values
        for name in names[:-1]:
            section = section.get(name) if isinstance(section, dict) else None
        value = section.get(names[-1]) if isinstance(section, dict) else None
        if self.path and isinstance(section, dict) and isinstance(value, str) and value != ":memory:":
            section[names[-1]] = str(self.path.resolve().parent / Path(value).expanduser())

    @classmethod
    def find(cls, path: str | os.PathLike[str] | None) -> _File:
        named = path or os.environ.get("MIRAI_CONFIG")
        if named:
            return cls(Path(named))
        return cls(Path("mirai.yaml") if Path("mirai.yaml").exists() else None)


_current_file: ContextVar[_File | None] = ContextVar("mirai_memory_settings_file", default=None)


def load_settings(path: str | os.PathLike[str] | None = None, **overrides: Any) -> Settings:
    """The settings from ``path`` (else ``$MIRAI_CONFIG``, else ``./mirai.yaml``), the environment and ``overrides``.

    ``overrides`` are sections as nested dicts: ``load_settings(memory={"short_term": {"max_messages": 20}})``.
    Raises ConfigurationError, which names the file or variable, the key and the rule.
    """
    file = _File.find(path)
    _report_unknown_variables()
    token = _current_file.set(file)
    try:
        return Settings(**overrides)
    except ValidationError as error:
        problems = [_describe(item, overrides, file) for item in error.errors(include_input=False, include_url=False)]
    except SettingsError as error:
        problems = [f"{_unparsable_variable(error)}: lists and objects in the environment are written as JSON"]
    finally:
        _current_file.reset(token)
    raise ConfigurationError("; ".join(problems))


def _report_near_misses(values: Mapping[str, Any], path: Path | None) -> None:
    for key in values:
        if key not in Settings.model_fields:
            near = difflib.get_close_matches(key.lower(), list(Settings.model_fields), n=1, cutoff=0.8)
            if near:
                raise ConfigurationError(f"{path}: unknown section {key!r}; did you mean {near[0]!r}?")


def _report_unknown_variables() -> None:
    known = set(_variables())
    dotenv = DotEnvSettingsSource(Settings, env_file=".env", env_file_encoding="utf-8").env_vars
    for place, names in (("environment", os.environ), (".env", dotenv)):
        for name in sorted(map(str.upper, names)):
            inside = any(name == leaf or name.startswith(leaf + DELIMITER) for leaf in known)
            if name.startswith(PREFIX) and not inside and name not in OUTSIDE_THE_TREE:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"; did you mean {near[0]}?" if near else ""
                raise ConfigurationError(f"{place}: unknown variable {name}{hint}")


def _variables(model: type[BaseModel] = Settings, prefix: str = PREFIX) -> Iterator[str]:
    """The names of every variable that sets a section or a leaf; those of mappings take any name below them."""
    for field, info in model.model_fields.items():
        name = prefix + (info.alias or field).upper()
        nested = info.annotation
        if isinstance(nested, type) and issubclass(nested, BaseModel):
            yield from _variables(nested, name + DELIMITER)
        else:
            yield name


def _describe(error: Any, overrides: Mapping[str, Any], file: _File) -> str:
    path = [str(part) for part in error["loc"]]
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        message = "unknown name"
    return f"{_origin(path, overrides, file)}: {'.'.join(path)}: {message}"


def _origin(path: list[str], overrides: Mapping[str, Any], file: _File) -> str:
    variable = PREFIX + DELIMITER.join(path).upper()
    sources: list[tuple[str, Callable[[], Mapping[str, Any]]]] = [
        ("argument", lambda: overrides),
        (f"variable {variable}", lambda: EnvSettingsSource(Settings)()),
        (f"variable {variable} in .env", lambda: DotEnvSettingsSource(Settings, env_file=".env")()),
        (str(file.path), lambda: file.values),
    ]
    for name, values in sources:
        if _holds(values(), path):
            return name
    return "settings"


def _holds(values: Any, path: list[str]) -> bool:
    for part in path:
        if not isinstance(values, Mapping):
            return True
        if part not in values:
            return False
        values = values[part]
    return True


def _unparsable_variable(error: SettingsError) -> str:
    # pydantic-settings names the section only; the variable is the one below it that is no JSON.
    section = str(error).split('"')[1].upper() if '"' in str(error) else ""
    names = [name for name in os.environ if name.upper().startswith(PREFIX + section)]
    names = [name for name in names if os.environ[name].lstrip().startswith(("{", "["))] or names
    return "variable " + (names[0] if len(names) == 1 else f"{PREFIX}{section}...")
