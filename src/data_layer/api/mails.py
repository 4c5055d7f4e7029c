"""Work that follows an answer, so that neither its content nor its time reveals whether an account exists."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from data_layer.observability.log import get_log

log = get_log(__name__)


async def queue_mail(request: Callable[[], Awaitable[object]]) -> None:
    """Have a mail queued; a failure is logged, because nobody waits for it any more: the person asks again."""
    try:
        await request()
    except Exception as error:  # noqa: BLE001  (the answer was sent: there is nobody to raise it to)
        # A traceback may hold the token.
        log.error("mail_not_queued", error=type(error).__name__)  # noqa: TRY400
