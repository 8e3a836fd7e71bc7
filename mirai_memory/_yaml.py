"""Reading one YAML file: keys once, no aliases, plain values only, and every fault said in one line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from mirai_memory._unclear import Unclear
from mirai_memory.errors import ConfigurationError

_MAX_BYTES = 1_000_000
# YAML 1.1 reads 0644 as 420 and 1:30 as 90; nobody who writes settings means that.
_UNCLEAR = re.compile(r"[-+]?0[0-9_]+|.*:.*", re.DOTALL)


class _Loader(yaml.SafeLoader):
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

    def construct_number(self, node: yaml.ScalarNode) -> Any:
        if _UNCLEAR.fullmatch(str(node.value)):
            return Unclear()
        kind = node.tag.rpartition(":")[2]
        try:
            return self.construct_yaml_int(node) if kind == "int" else self.construct_yaml_float(node)
        except (ValueError, IndexError):  # of more digits than Python reads, or of none
            return Unclear()

    def construct_date(self, node: yaml.ScalarNode) -> Any:
        """The text that it was written as: no setting is a date, and many a name looks like one."""
        return self.construct_scalar(node)


_Loader.add_constructor("tag:yaml.org,2002:timestamp", _Loader.construct_date)
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_number)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_number)


def read_yaml(path: Path) -> dict[str, Any]:
    """The sections of the file; an empty file has none. Raises ConfigurationError, which names file and line."""
    text = _read(path)
    try:
        values = yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        problem = f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}" if mark else str(error.problem)
    except yaml.reader.ReaderError as error:
        problem = f"line {text.count(chr(10), 0, error.position) + 1}: holds a control character"
    except RecursionError:
        problem = "is nested too deeply"
    except (yaml.YAMLError, ValueError, LookupError, OverflowError) as error:  # "!!bool words" is a KeyError
        problem = f"is no YAML ({type(error).__name__})"
    else:
        if values is None:
            return {}
        if isinstance(values, dict):
            return {str(key): value for key, value in values.items()}
        problem = f"must hold sections (a mapping), not a {type(values).__name__}"
    raise ConfigurationError(f"{path}: {problem}")


def _read(path: Path) -> str:
    try:
        # The size is that of what is read: a pipe has none before.
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
        problem = f"is larger than {_MAX_BYTES} bytes"
        if len(data) <= _MAX_BYTES:
            return data.decode("utf-8-sig")
    except OSError as error:
        problem = f"cannot be read ({error.strerror or type(error).__name__})"
    except UnicodeDecodeError as error:
        problem = f"is not UTF-8 (byte {error.start})"
    except ValueError:
        problem = "is no name of a file"
    raise ConfigurationError(f"{path}: {problem}")
