"""Keys and passwords do not reach a log, by whatever way they come."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mirai_memory._redaction import names_a_secret, redact

LOG = Path("mirai.log")
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl"


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("failed with sk-proj-AbC_123-def456 today", "AbC_123"),
        ("(sk-ant-api03-abcdefgh)", "abcdefgh"),
        ("Authorization: Bearer abc.def-ghi_jkl", "abc.def"),
        ("authorization=bearer abc", "abc"),
        ("'Authorization': 'Basic dXNlcjpwYXNz'", "dXNl"),
        ("sent BEARER abcdef123", "abcdef123"),
        ("AKIAIOSFODNN7EXAMPLE", "IOSFODNN7"),
        ("ghp_0123456789abcdefghij", "0123456789"),
        ("github_pat_0123456789abcdefghij", "0123456789"),
        ("xoxb-123456789012-abc", "123456789012"),
        ("AIzaSyA0123456789abcdefghijklmnopqrstuv", "SyA01234"),
        ("hf_abcdefghijklmnopqrst", "abcdefgh"),
        (f"cookie {JWT} end", "eyJzdWIiOiIxIn0"),
        ("api_key=abc", "abc"),
        ("OPENAI_API_KEY: 'abc def'", "def"),
        ('{"api-key": "abc"}', "abc"),
        (r"{\"password\": \"x7y8z9\"}", "x7y8z9"),
        ("client_secret = abc,def", "def"),
        ("PASSWORD='open end", "open"),
        ("host=h password=hunter2 user=u", "hunter2"),
        ("?token=0123456789abcdef0123&x=1", "0123456789"),
        ("key: QUJDREVGR0hJSktMTU5PUA==", "QUJDREVG"),
        ("postgresql+psycopg://me:hunter2@host:5432/db", "hunter2"),
        ("redis://:hunter2@host", "hunter2"),
        ("postgresql://me:hun@ter/2@host/db", "ter/2"),
        ("https://proxy/?next=postgresql://me:hunter2@host", "hunter2"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIBOgIB\n-----END RSA PRIVATE KEY-----", "MIIBOgIB"),
    ],
)
def test_a_secret_is_taken_out(text: str, secret: str) -> None:
    assert secret in text
    assert secret not in redact(text)
    assert "[redacted]" in redact(text)


@pytest.mark.parametrize(
    "text",
    [
        "task-force uses sk-learn",
        "knowledge 'city' does not exist",
        "key: city, token: end of line",
        "tokens_in=12345678901234567890",
        "https://host:8080/path?mail=a",
        "postgresql://alice@host/db",
        "bearer of news",
        "session 01890a5d-ac96-774b-bcce-b302099a8057 has 12 messages",
        "password:\nthe next line",
    ],
)
def test_ordinary_words_stay(text: str) -> None:
    assert redact(text) == text


def test_what_stands_around_a_secret_stays() -> None:
    text = "host=h password=hunter2 user=u, see postgresql://me:pw@host/db (sk-0123456789)"
    assert redact(text) == ("host=h password=[redacted] user=u, see postgresql://me:[redacted]@host/db ([redacted])")


@pytest.mark.parametrize("name", ["api_key", "OPENAI_API_KEY", "token", "auth_token", "password", "client-secret"])
def test_names_of_secrets(name: str) -> None:
    assert names_a_secret(name)


@pytest.mark.parametrize("name", ["key", "tokens_in", "tokens_out", "user_id", "model", "tokenizer"])
def test_names_of_other_things(name: str) -> None:
    assert not names_a_secret(name)


@pytest.mark.parametrize(
    "unit",
    ["a", "://", "://a:", "://a:@", "eyJ", "eyJa.", "sk-", "password='", 'password="\\"', "key=", "Bearer ", "\\", "="],
)
def test_time_grows_with_the_length_only(unit: str) -> None:
    # A quadratic pattern needs minutes for this.
    redact(unit * (300_000 // len(unit)))


@pytest.mark.parametrize("format", ["json", "text"])
def test_message_extras_and_exceptions_are_redacted(configure: Any, ours: Any, format: str) -> None:
    configure(format=format, fields=("message", "user_id", "api_key", "error_code"))
    bound = ours.bind(api_key="canary-key", user_id="user of canary-key", error_code="sk-canary-0123456789")
    try:
        raise ValueError("postgresql://me:canary-password@host and canary-key")
    except ValueError:
        bound.exception("connecting with {}", "api_key=canary-argument")
    text = LOG.read_text("utf-8")
    assert "canary" not in text
    assert "user of [redacted]" in text
    if format == "json":
        assert json.loads(text)["api_key"] == "[redacted]"
