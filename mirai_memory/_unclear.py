"""A value of a settings file that is none of ours to guess."""

from __future__ import annotations


class Unclear:
    """A number that YAML 1.1 reads otherwise than people do; no leaf of ours takes it, whatever it wants."""

    def __repr__(self) -> str:
        return "?"
