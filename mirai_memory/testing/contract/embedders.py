"""What every embedder owes, as a test class to inherit.

::

    class TestMyEmbedder(EmbedderContract):
        @pytest.fixture
        def embedder(self):
            return MyEmbedder()
"""

from __future__ import annotations

from mirai_memory.embeddings import Embedder, GuardedEmbedder

__all__ = ["EmbedderContract"]


def _texts() -> dict[str, str]:
    return {
        "empty": "",
        "blank": " \n\t ",
        "one letter": "a",
        "emoji": "👩‍👩‍👧‍👦 ❤️",
        "signs": "?!…—",
        "long": "The lake lies between two hills. " * 2_000,
        "one long word": "ы" * 20_000,
        "ligatures": "\ufdfa" * 2_000,  # each becomes 18 characters in normalisation
        "controls": "".join(map(chr, range(1, 32))),
    }


class EmbedderContract:
    """The tests. A subclass provides ``embedder``, an object with the protocol."""

    def test_it_keeps_the_protocol(self, embedder: Embedder) -> None:
        assert isinstance(embedder, Embedder)
        assert embedder.name == embedder.name != ""
        assert embedder.dim >= 1

    def test_every_text_has_its_vector_in_order(self, embedder: Embedder) -> None:
        texts = ["The cat sleeps on the sofa", "Счета оплачивают в марте", "Foxes live near the lake"]
        guarded = GuardedEmbedder(embedder)
        vectors = guarded.documents(texts)
        assert vectors.shape == (3, embedder.dim)
        for text, vector in zip(texts, vectors, strict=True):
            (alone,) = guarded.documents([text])
            assert float(alone @ vector) > 0.999

    def test_the_same_text_has_the_same_vector(self, embedder: Embedder) -> None:
        guarded = GuardedEmbedder(embedder)
        assert float(guarded.query("two foxes") @ guarded.query("two foxes")) > 0.9999

    def test_an_answer_is_nearer_than_another_text(self, embedder: Embedder) -> None:
        guarded = GuardedEmbedder(embedder)
        answer, other = guarded.documents(["My cat sleeps on the sofa all day", "Invoices are due at the end of March"])
        question = guarded.query("Where does the cat sleep?")
        assert float(answer @ question) > float(other @ question)

    def test_nothing_has_no_vectors(self, embedder: Embedder) -> None:
        assert GuardedEmbedder(embedder).documents([]).shape == (0, embedder.dim)

    def test_any_text_has_a_vector(self, embedder: Embedder) -> None:
        texts = _texts()
        guarded = GuardedEmbedder(embedder, timeout_s=120)
        assert len(guarded.documents(list(texts.values()))) == len(texts)
        for kind in ("empty", "emoji", "long"):
            assert len(guarded.query(texts[kind])) == embedder.dim
