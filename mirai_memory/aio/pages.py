"""Long lists, read page by page while they are iterated over: no transaction is open between two pages."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

from mirai_memory import _checks
from mirai_memory.entities import Knowledge, Message, Session, Task
from mirai_memory.errors import InvalidInput

Numbered = TypeVar("Numbered", Message, Task, Knowledge)


def page_size(value: int) -> int:
    """Checked when the iteration is made, not when it begins."""
    return _checks.integer("page_size", value, least=1)


async def numbered(page: Callable[[int | None], Awaitable[list[Numbered]]], size: int) -> AsyncIterator[Numbered]:
    """Every entity in order of id; an id holds its place when what it named is deleted."""
    found = await page(None)
    while found:
        for entity in found:
            yield entity
        if len(found) < size:
            return
        found = await page(found[-1].id)


async def sessions(page: Callable[[str | None], Awaitable[list[Session]]], size: int) -> AsyncIterator[Session]:
    """Every session in order; the place of one that is deleted is lost, and the one before it has to do."""
    found, seen = await page(None), list[str]()
    while found:
        for session in found:
            yield session
        if len(found) < size:
            return
        seen += [session.id for session in found]
        found = await _after_the_last(page, seen)


async def _after_the_last(page: Callable[[str | None], Awaitable[list[Session]]], seen: list[str]) -> list[Session]:
    while seen:
        try:
            return await page(seen[-1])
        except InvalidInput:
            seen.pop()
    return await page(None)
