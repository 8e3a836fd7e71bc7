"""Reading ``.env`` of the working folder, which other programs use too."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import NamedTuple

from dotenv import dotenv_values

from mirai_memory.errors import ConfigurationError

DOTENV = ".env"
_MAX_BYTES = 1_000_000
_OURS = re.compile(r"(?mi)^[ \t]*(?:export[ \t]+)?(MIRAI_\w+)")


class DotEnv(NamedTuple):
    """The variables of the file; None is one without ``=``. ``lost`` are names of ours on lines that are no setting."""

    variables: dict[str, str | None]
    lost: tuple[str, ...] = ()


def read_dotenv(path: Path | None = None) -> DotEnv:
    """The variables; a missing file has none. Raises ConfigurationError, which names the file and the fault."""
    path = path or Path(DOTENV)
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
        # A byte order mark would become a part of the first name.
        text = data.decode("utf-8-sig")
    except FileNotFoundError:
        return DotEnv({})
    except OSError as error:
        problem = f"cannot be read ({error.strerror or type(error).__name__})"
    except UnicodeDecodeError as error:
        problem = f"is not UTF-8 (byte {error.start})"
    else:
        if len(data) > _MAX_BYTES:
            raise ConfigurationError(f"{path}: is larger than {_MAX_BYTES} bytes")
        variables = dotenv_values(stream=io.StringIO(text))
        return DotEnv(variables, tuple(sorted({name for name in _OURS.findall(text) if name not in variables})))
    raise ConfigurationError(f"{path}: {problem}")
