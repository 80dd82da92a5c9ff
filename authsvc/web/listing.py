"""One page of a store's list as an answer: cursors opened and sealed, records turned into bodies."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

from authsvc.web.models import Items
from authsvc.web.pages import seal, unseal
from authsvc.web.routes import Call

if TYPE_CHECKING:
    from authsvc.store import Page

R = TypeVar("R")
B = TypeVar("B")


async def page_of(
    call: Call,
    fetch: Callable[..., Awaitable[Page[R]]],
    *scope: str,
    make: Callable[[R], B],
    limit: int,
    cursor: str | None,
    **filters: Any,
) -> Items[B]:
    """Return the page after `cursor` of ``fetch(*scope, limit, cursor, **filters)``; a foreign cursor raises a 422."""
    position = unseal(cursor, path=call.path, filters=filters)
    page = await fetch(*scope, limit=limit, cursor=position, **filters)
    return Items(items=[make(record) for record in page.items], next=seal(page.next, path=call.path, filters=filters))
