"""Reading one YAML file: keys once, no aliases, plain values only, and every fault said in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from mirai_memory.errors import ConfigurationError

_MAX_BYTES = 1_000_000


class _UniqueKeys(yaml.SafeLoader):
    """YAML lets the last of two equal keys win in silence; here they are an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key is no plain text", key_node.start_mark)
            key = key_node.value
            if key in seen and key_node.tag != "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(None, None, "the same key stands twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        # Aliases of aliases grow without bound ("billion laughs"), and settings have no use for them.
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.constructor.ConstructorError(None, None, "aliases are not allowed", mark)
        return super().compose_node(parent, index)


def read_yaml(path: Path) -> dict[str, Any]:
    """The sections of the file; an empty file has none. Raises ConfigurationError, which names file and line."""
    try:
        large = path.stat().st_size > _MAX_BYTES
        text = "" if large else path.read_text(encoding="utf-8-sig")
        values = yaml.load(text, _UniqueKeys)  # noqa: S506 - a SafeLoader
    except OSError as error:
        problem = f"cannot be read ({error.strerror or type(error).__name__})"
    except UnicodeDecodeError as error:
        problem = f"is not UTF-8 (byte {error.start})"
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        problem = f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}" if mark else str(error.problem)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        problem = f"is no YAML ({type(error).__name__})"
    else:
        if large:
            raise ConfigurationError(f"{path}: is larger than {_MAX_BYTES} bytes")
        if values is None:
            return {}
        if isinstance(values, dict):
            return {str(key): value for key, value in values.items()}
        problem = f"must hold sections (a mapping), not a {type(values).__name__}"
    raise ConfigurationError(f"{path}: {problem}")
