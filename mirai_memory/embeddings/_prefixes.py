"""What models of the E5 family want to stand before a text; without it they find noticeably less."""

from __future__ import annotations

import re

__all__ = ["DOCUMENT", "QUERY", "wants_prefixes"]

QUERY, DOCUMENT = "query: ", "passage: "

# intfloat/e5-base-v2, intfloat/multilingual-e5-large, a folder .../multilingual-e5-small; not the -instruct models.
_E5 = re.compile(r"(?:^|[/\\_-])e5-(?!.*instruct)", re.IGNORECASE)


def wants_prefixes(model: str) -> bool:
    return _E5.search(model) is not None
