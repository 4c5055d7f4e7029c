"""Head and body of an answer are one call of the system, and neither waits for the other for longer than a turn."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from data_layer.server.connections import AnswerTransport


class Recording(asyncio.Transport):
    """Remembers the calls of the system that it would make."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[bytes] = []
        self.is_closed = False

    def write(self, data: Any) -> None:
        self.calls.append(bytes(data))

    def writelines(self, list_of_data: Iterable[Any]) -> None:
        self.calls.append(b"".join(list_of_data))

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True


async def test_the_head_is_sent_with_the_body_that_follows_at_once() -> None:
    connection = Recording()
    answer = AnswerTransport(connection, connection.close, has_body=True)
    answer.write(b"head ")
    answer.write(b"body")
    answer.write(b" and more")
    await asyncio.sleep(0)
    assert connection.calls == [b"head body", b" and more"]


async def test_the_head_does_not_wait_for_a_body_that_comes_later() -> None:
    connection = Recording()
    answer = AnswerTransport(connection, connection.close, has_body=True)
    answer.write(b"head of a stream")
    await asyncio.sleep(0)
    assert connection.calls == [b"head of a stream"]
    answer.write(b"event")
    assert connection.calls == [b"head of a stream", b"event"]


async def test_a_head_without_a_body_is_sent_at_once() -> None:
    connection = Recording()
    AnswerTransport(connection, connection.close, has_body=False).write(b"head")
    assert connection.calls == [b"head"]


async def test_closing_sends_what_waits_and_nothing_is_sent_after_the_end() -> None:
    connection = Recording()
    answer = AnswerTransport(connection, connection.close, has_body=True)
    answer.write(b"head")
    answer.close()
    assert (connection.calls, connection.is_closed) == ([b"head"], True)
    AnswerTransport(connection, connection.close, has_body=True).write(b"another head")
    await asyncio.sleep(0)
    assert connection.calls == [b"head"]
