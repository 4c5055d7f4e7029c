"""What a process serves: the service alone, or together with somebody's application."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from data_layer.layer import DataLayer


@dataclass(frozen=True, slots=True)
class Served:
    """What the process serves.

    Attributes:
        application: makes it around the open data layer; what it began ends with the block.
        largest_message: bytes of a WebSocket message; None where nothing speaks WebSocket.
    """

    application: Callable[[DataLayer], AbstractAsyncContextManager[ASGIApp]]
    largest_message: int | None = None
