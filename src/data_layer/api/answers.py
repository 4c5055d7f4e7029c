"""What middleware learns of an answer that passes through it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import Message, Send


class AnswerStatus:
    """Sends messages on and remembers the status: 500 where there is none, because clients are told so then."""

    def __init__(self, send: Send) -> None:
        self.code = 500
        self._send = send

    async def send(self, message: Message) -> None:
        """Send a message on."""
        if message["type"] == "http.response.start":
            self.code = message["status"]
        await self._send(message)
