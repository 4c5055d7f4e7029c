"""How a client proves who sends a request: one bearer token, or a pair of tokens that is renewed in time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from pydantic import Field

from data_layer.client.base import Answer

_EARLY_SECONDS = 30.0
"""How long before its end an access token is renewed: requests and clocks take their time."""


@dataclass(frozen=True, slots=True)
class LoginTokens:
    """What a login gave. Both tokens are secrets.

    Attributes:
        access_token: goes into each request.
        refresh_token: gets the next pair, once.
        expires_at: when the access token ends, in seconds since 1970 by the clock of this machine.
    """

    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    expires_at: float


class IssuedTokens(Answer):
    """Tokens as the service answers them; ``expires_in`` is in seconds."""

    access_token: str = Field(repr=False)
    refresh_token: str = Field(repr=False)
    expires_in: float

    def from_now(self) -> LoginTokens:
        """The tokens of an answer that has just come."""
        return LoginTokens(self.access_token, self.refresh_token, time.time() + self.expires_in)


Refresh = Callable[[str], Awaitable[LoginTokens]]
"""Exchanges a refresh token."""
OnTokens = Callable[[LoginTokens], object]
"""Learns of each new pair, such as to store it."""


class Authentication:
    """The tokens of a client. Requests that need new ones at the same time wait for one renewal.

    Args:
        token: of a session or an API key, or an access token that nobody renews.
        tokens: of an earlier login.
        on_tokens: called with each new pair.
    """

    def __init__(
        self, token: str | None = None, tokens: LoginTokens | None = None, on_tokens: OnTokens | None = None
    ) -> None:
        self._token = token
        self.tokens = tokens
        self._on_tokens = on_tokens
        self._renewing = asyncio.Lock()

    def replace(self, tokens: LoginTokens | None) -> None:
        """Go on with these, or without any."""
        self._token, self.tokens = None, tokens
        if tokens is not None and self._on_tokens is not None:
            self._on_tokens(tokens)

    async def token(self, refresh: Refresh) -> str | None:
        """The token to send, renewed if it is about to end."""
        if self.tokens is None:
            return self._token
        if self.tokens.expires_at - _EARLY_SECONDS < time.time():
            await self.renew(self.tokens.access_token, refresh)
        return self.tokens.access_token

    async def renew(self, refused: str | None, refresh: Refresh) -> bool:
        """Get a new pair, unless another request has got one since this token was refused.

        Returns:
            Whether there is another token now.
        """
        async with self._renewing:
            if self.tokens is None:
                return False
            if self.tokens.access_token == refused:
                self.replace(await refresh(self.tokens.refresh_token))
            return True
