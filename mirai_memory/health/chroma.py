"""How far Chroma is, where it is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mirai_memory.chroma_opening import open_link
from mirai_memory.health.probe import Probe

if TYPE_CHECKING:
    from mirai_memory.search.chroma_link import Link


def state(probe: Probe) -> tuple[str, str | None]:
    """What Chroma has, in words, and what is the matter with it; nothing where it is not used."""
    memory = probe.settings.memory
    if probe.manager is not None:
        feeder = probe.manager._tools.chroma
        return ("", None) if feeder is None else _asked(probe, feeder.link)
    link = open_link(probe.url, memory)
    if link is None:
        return "", None
    try:
        return _asked(probe, link)
    finally:
        link.close()


def _asked(probe: Probe, link: Link) -> tuple[str, str | None]:
    from mirai_memory.search.chroma import TAIL, kept
    from mirai_memory.search.chroma_link import Refused, Unavailable

    least = probe.settings.memory.rag.chroma.min_items
    try:
        if not link.is_ready and link.may_hold:
            link.open(timeout_s=probe.patience / 2)
        with probe.begin() as db:
            has, wanted = kept(db, link, least)
    except Unavailable as error:
        return ("Chroma is in use by another process", None) if link.is_held else ("", str(error))
    except Refused as error:
        return "", str(error)
    words = f"Chroma has {min(has, wanted)} of the {wanted} of large owners"
    return words, f"{words}, too few to be asked" if wanted - has > TAIL else None
