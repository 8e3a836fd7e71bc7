"""Token counts: exact ones are exact for any text, estimated ones stay on the safe side."""

from __future__ import annotations

import random

import pytest

from mirai_memory.errors import MissingExtra
from mirai_memory.tokens import EstimatedTokens, ExactTokens, TokenCounter, default_counter

SAMPLES = {
    "english": "I went hiking with Daria on Sunday; we saw two foxes near the lake, and it rained all afternoon.",
    "russian": "В воскресенье мы с Дарьей ходили в поход: видели двух лисиц у озера, а после обеда шёл дождь.",
    "code": "def parse(line: str) -> dict[str, int]:\n    key, _, value = line.partition('=')\n    return {key: 1}\n",
    "json": '{"id": 48213, "user": {"name": "nina", "tags": ["a", "b"]}, "score": 0.7312, "note": null}',
    "chinese": "星期天我们和达里娅去爬山，在湖边看到了两只狐狸，下午一直在下雨。",
    "japanese": "日曜日にダリアとハイキングに行きました。湖のそばでキツネを二匹見ました。",
    "emoji": "Done ✅ great work 🎉🎉 see you tomorrow 👋🏽 ❤️ 👩‍👩‍👧‍👦",
    "sql": "SELECT id, name FROM users WHERE created_at > '2026-01-01' AND status IN ('new', 'open') ORDER BY id;",
    "url": "https://example.org/projects/billing/issues/4127?tab=comments&sort=newest#note-17",
    "hex": "3f9a77c0d1e24b5586a1fbe09c44d2717d0b6a5e",
}


@pytest.mark.parametrize("kind", SAMPLES)
def test_an_estimate_is_not_below_the_exact_count(kind: str) -> None:
    text = "\n".join([SAMPLES[kind]] * 20)
    assert EstimatedTokens().count(text) >= 0.97 * ExactTokens().count(text)


@pytest.mark.parametrize("kind", sorted(set(SAMPLES) - {"hex"}))
def test_an_estimate_is_not_far_above_it_either(kind: str) -> None:
    text = "\n".join([SAMPLES[kind]] * 20)
    assert EstimatedTokens().count(text) <= 1.8 * ExactTokens().count(text)


def test_mixed_texts_are_estimated_within_a_third() -> None:
    rng = random.Random(7)
    for _ in range(50):
        text = "\n".join(rng.choices(list(SAMPLES.values()), k=12))
        ratio = EstimatedTokens().count(text) / ExactTokens().count(text)
        assert 1.0 <= ratio <= 1.45


@pytest.mark.parametrize("counter", [EstimatedTokens(), ExactTokens()])
@pytest.mark.parametrize(
    "text", ["", " ", "<|endoftext|>", "\n" * 500, "a" * 1_100_000, "é̂" * 1000, "\u200d\ufe0f", "\ud800"]
)
def test_any_text_can_be_counted(counter: TokenCounter, text: str) -> None:
    assert counter.count(text) >= (1 if text else 0)
    assert counter.count("") == 0


def test_counters_keep_the_protocol_and_say_what_they_are() -> None:
    assert isinstance(EstimatedTokens(), TokenCounter)
    assert EstimatedTokens().name == "estimated"
    assert default_counter().name == "o200k_base"  # the extra is installed where the tests run


def test_without_the_package_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"pip install 'mirai-memory\[tokens\]'"):
        ExactTokens()
    assert default_counter().name == "estimated"
