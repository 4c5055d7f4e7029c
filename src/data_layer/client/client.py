"""The client: an address, credentials, and the resources of the API."""

from __future__ import annotations

import ssl
from typing import Any, Self

import httpx

from data_layer.client.authentication import Authentication, IssuedTokens, LoginTokens, OnTokens
from data_layer.client.resources import Resources
from data_layer.client.transport import UNSET, Call, Transport, Unset, read_answer
from data_layer.client.values import SecondFactorNeeded
from data_layer.errors import SecondFactorRequiredError

PATIENCE_SECONDS = 30.0
_TIMEOUT = httpx.Timeout(30.0, connect=5.0)

_FACTOR_NEEDED = 200  # A login that is through is a session that was created: 201.


class Client(Resources):
    """A client of the HTTP API, for ``async with``. Its attributes are the resources.

    Args:
        base_url: where the service is, such as ``https://data.example.com``.
        token: of a session, an access token or an API key, which is sent as it is.
        tokens: of an earlier `log_in`; they are renewed in time.
        on_tokens: called with each new pair of tokens, such as to keep it for the next start.
        patience: for how many seconds a request is repeated that fails and may be repeated, and a stream resumed.
        timeout: of a connection, and of each piece of a request and an answer, in seconds.
        verify: whom to trust as the service, for httpx.
        transport: one of httpx, such as for an application in the same process.
    """

    def __init__(
        self,
        base_url: str,
        *,
        token: str | None = None,
        tokens: LoginTokens | None = None,
        on_tokens: OnTokens | None = None,
        patience: float = PATIENCE_SECONDS,
        timeout: float | httpx.Timeout = _TIMEOUT,
        verify: ssl.SSLContext | bool = True,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._http = httpx.AsyncClient(base_url=base_url, timeout=timeout, verify=verify, transport=transport)
        self._authentication = Authentication(token, tokens, on_tokens)
        super().__init__(Transport(self._http, self._authentication, patience))

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(self, *failure: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections. The login lasts; see `log_out`."""
        await self._http.aclose()

    @property
    def tokens(self) -> LoginTokens | None:
        """Those of the login; None without one."""
        return self._authentication.tokens

    async def log_in(
        self, email: str, password: str, *, device_id: str | Unset = UNSET, reactivate: bool = False
    ) -> LoginTokens:
        """Log in. From now on requests carry the tokens, which are renewed in time.

        Raises:
            SecondFactorRequiredError: go on with `finish_log_in`; its `challenge` is a SecondFactorNeeded.
        """
        body = {"email": email, "password": password, "device_id": device_id, "reactivate": reactivate}
        call = Call("POST", "/v1/tokens", body=body, needs_login=False)
        response = await self.transport.respond(call)
        if response.status_code == _FACTOR_NEEDED:
            message = "the password is right; now show a second factor with finish_log_in"
            raise SecondFactorRequiredError(message, challenge=read_answer(SecondFactorNeeded, call, response))
        return self._keep(read_answer(IssuedTokens, call, response).from_now())

    async def finish_log_in(
        self,
        challenge: str,
        *,
        code: str | Unset = UNSET,
        recovery_code: str | Unset = UNSET,
        passkey: dict[str, Any] | Unset = UNSET,
        device_id: str | Unset = UNSET,
    ) -> LoginTokens:
        """Show a second factor: a code of an app, a recovery code, or what a passkey has answered.

        Args:
            challenge: `error.challenge.challenge` of the SecondFactorRequiredError, or that of
                `sessions.begin_passkey_log_in`, which a passkey answers alone.
            code: of an app.
            recovery_code: one of the ten.
            passkey: what it has answered.
            device_id: what the client calls its device.
        """
        factor = {"code": code, "recovery_code": recovery_code, "passkey": passkey}
        body = {"challenge": challenge, "device_id": device_id, **factor}
        call = Call("POST", "/v1/tokens/second-factor", body=body, needs_login=False)
        return self._keep(await self.transport.tokens(call))

    def _keep(self, tokens: LoginTokens) -> LoginTokens:
        self._authentication.replace(tokens)
        return tokens

    async def log_out(self) -> None:
        """End the session that the tokens belong to."""
        await self.transport.respond(Call("DELETE", "/v1/sessions/current"))
        self._authentication.replace(None)
