"""Keys and passwords taken out of text by their shapes, in time linear in the text, whoever wrote it.

Linear means: a pattern that fails has looked at few characters, or at such that no other attempt looks at again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

HIDDEN = "[redacted]"
_SHORTEST = 4  # a shorter secret would take ordinary words with it

_SHAPES = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"sk-[\w-]{8,}"  # OpenAI, Anthropic and others
    r"|(?:AKIA|ASIA)[0-9A-Z]{16}"
    r"|gh[a-z]_\w{10,}|github_pat_\w{10,}|glpat-[\w-]{10,}"
    r"|xox[a-z]-[\w-]{10,}"
    r"|AIza[\w-]{20,}"
    r"|hf_\w{16,}"
    r")"
    r"|(?<![\w-])eyJ[\w-]++\.[\w-]++(?:\.[\w-]*+)?"  # JSON web tokens
    r"|-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----[^-]*+(?:-----END [A-Z ]{0,40}-----)?",
    re.ASCII,
)
_BEARER = re.compile(r"(?i)(?<![a-z0-9])(bearer\s{1,9})[\w.~+/=-]{6,}", re.ASCII)
# A name, what stands between it and its value, the value: up to the closing quote on its line, or else to a space.
_NAMED = re.compile(
    r"(?i)(passw(?:or)?d|passphrase|pwd|secret|api[_-]?key|(?:access|auth|refresh|id|private)[_-]?(?:key|token)"
    r"|credentials?|authorization)"
    r"(\\*+[\"']?[ \t]*+[=:][ \t]*+(?:(?:bearer|basic|token|digest)[ \t]++)?\\*+)"
    r"(\"[^\"\n]*+\"|'[^'\n]*+'|[^\s&]++)",
    re.ASCII,  # five times as fast: else letters beyond ASCII fold to these
)
# "key" and "token" are ordinary words too: here the value must look like one.
_NAMED_LONG = re.compile(r"(?i)(key|token)(\\*+[\"']?[ \t]*+[=:][ \t]*+\\*+[\"']?)[\w+/=.-]{16,}", re.ASCII)
_URL = re.compile(r"://\S++")

_SECRET_NAME = re.compile(
    r"(?i)(?:^|[_-])(?:api_?key|access_?key|secret_?key|private_?key|token|secret|passw(?:or)?d|passphrase|pwd"
    r"|authorization|credentials?)$"
)


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """The text with ``[redacted]`` for each of ``secrets`` and for whatever looks like a key or a password."""
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    text = _NAMED.sub(rf"\1\2{HIDDEN}", text)
    text = _NAMED_LONG.sub(rf"\1\2{HIDDEN}", text)
    text = _BEARER.sub(rf"\1{HIDDEN}", text)
    text = _SHAPES.sub(HIDDEN, text)
    return _URL.sub(lambda found: _without_password(found[0]), text)


def names_a_secret(name: str) -> bool:
    return _SECRET_NAME.search(name) is not None


def secret_values(extra: Mapping[str, Any]) -> list[str]:
    """What is bound under the name of a secret, the longest first."""
    texts = {str(value) for name, value in extra.items() if value is not None and names_a_secret(name)}
    return sorted((text for text in texts if len(text) >= _SHORTEST), key=len, reverse=True)


def _without_password(url: str) -> str:
    """``://user:password@host``; raw ``/`` and ``@`` in a password are mistakes, but people make them."""
    end = url.rfind("@")
    start = url.find("://")
    while 0 <= start < end:
        start += 3
        colon, slash = url.find(":", start), url.find("/", start)
        if 0 <= colon < end and not 0 <= slash < colon:
            return f"{url[: colon + 1]}{HIDDEN}{url[end:]}"
        start = url.find("://", start)
    return url
