"""Pages of lists: where the next one is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol
from uuid import UUID

from fastapi import Request, Response


class Identified(Protocol):
    """A row of a list."""

    @property
    def id(self) -> UUID:
        """Its id."""


def next_after(rows: Sequence[Identified], limit: int) -> UUID | None:
    """Where the next page begins; None where this one is not full, and so the last."""
    return rows[-1].id if len(rows) == limit else None


def link_to_next(request: Request, response: Response, **cursor: object) -> None:
    """Name the next page in ``Link`` (RFC 8288), relative to this service; not where this page is the last one.

    Args:
        request: the one for this page.
        response: gets the header.
        cursor: the parameter for the position, with the position of the next page; None on the last page.
    """
    if None in cursor.values():
        return
    url = request.url.include_query_params(**cursor)
    response.headers["link"] = f'<{url.path}?{url.query}>; rel="next"'
