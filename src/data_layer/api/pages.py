"""Pages of lists: where the next one is."""

from __future__ import annotations

from fastapi import Request, Response


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
