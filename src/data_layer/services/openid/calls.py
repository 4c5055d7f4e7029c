"""Calls of issuers, whose addresses come from the settings and from the issuers themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import orjson

from data_layer.errors import IssuerError, IssuerUnavailableError

if TYPE_CHECKING:
    from httpx import AsyncClient, Request

_LARGEST = 512 * 1024
_OK, _CREATED = 200, 201
_TOO_MANY, _FIRST_SERVER_ERROR = 429, 500
_HEADERS = {"accept": "application/json", "accept-encoding": "identity", "user-agent": "data-layer"}


class IssuerCalls:
    """Asks issuers for JSON objects.

    The operator chooses the issuer, which may be inside of the own network, so addresses need not be public as those
    that ``services.fetching`` fetches. An issuer that is hostile could log in as anybody anyway; what it cannot do is
    send us elsewhere (redirects are not followed, nor plain HTTP where the issuer itself is HTTPS), hold us up (one
    limit of time for everything), or fill the memory (512 KiB, uncompressed). Certificates are verified; proxies of
    the environment are used, because clusters often reach the internet by one.

    Args:
        time_limit: seconds for a call, from looking up the name to the last byte.
    """

    def __init__(self, time_limit: float) -> None:
        self._time_limit = time_limit

    async def get(self, url: str, *, bearer: str | None = None) -> dict[str, Any]:
        """Return the JSON object at an address.

        Raises:
            IssuerUnavailableError: no answer came in time, or the issuer says that it cannot answer now.
            IssuerError: the answer is anything else than an object.
        """
        return self._expect_object(url, *await self._get(url, bearer))

    async def get_list(self, url: str, *, bearer: str) -> list[Any]:
        """Return the JSON array at an address; see ``get``."""
        status, value = await self._get(url, bearer)
        if status != _OK or not isinstance(value, list):
            raise _unusable(url, status)
        return value

    async def post(
        self, url: str, form: Mapping[str, str], *, basic: tuple[str, str] | None = None
    ) -> tuple[int, dict[str, Any]]:
        """Send a form, and return the status with the JSON object of the answer, which may be an error of OAuth.

        Args:
            url: where to.
            form: what.
            basic: client id and secret for the header, form-encoded as RFC 6749 wants them (2.3.1).

        Raises:
            IssuerError: see ``get``; statuses of clients' errors are returned.
        """
        login = None if basic is None else (quote(basic[0], safe=""), quote(basic[1], safe=""))
        request = self._client.build_request("POST", url, data=dict(form), headers=_HEADERS)
        if login is not None:
            request.headers["authorization"] = _basic(*login)
        status, value = await self._send(url, request)
        if not isinstance(value, dict):
            raise _unusable(url, status)
        return status, value

    async def close(self) -> None:
        """Close connections."""
        if "_client" in vars(self):
            await self._client.aclose()

    @cached_property
    def _client(self) -> AsyncClient:
        """Made when it is first needed: importing httpx and reading certificates costs a tenth of a second."""
        import httpx

        return httpx.AsyncClient(follow_redirects=False, timeout=self._time_limit)

    async def _get(self, url: str, bearer: str | None) -> tuple[int, Any]:
        headers = _HEADERS if bearer is None else _HEADERS | {"authorization": f"Bearer {bearer}"}
        return await self._send(url, self._client.build_request("GET", url, headers=headers))

    async def _send(self, url: str, request: Request) -> tuple[int, Any]:
        import httpx

        try:
            async with asyncio.timeout(self._time_limit):
                response = await self._client.send(request, stream=True)
                try:
                    body = bytearray()
                    async for piece in response.aiter_raw():
                        body += piece
                        if len(body) > _LARGEST:
                            raise IssuerError(f"{_host(url)} sent more than {_LARGEST} bytes")
                finally:
                    await response.aclose()
        except TimeoutError:
            raise IssuerUnavailableError(
                f"{_host(url)} did not answer within {self._time_limit:g} seconds; see whether the issuer is well"
            ) from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise IssuerUnavailableError(f"{_host(url)} cannot be reached ({type(error).__name__})") from None
        status = response.status_code
        if status >= _FIRST_SERVER_ERROR or status == _TOO_MANY:
            raise IssuerUnavailableError(f"{_host(url)} answered with the status {status}", status=status)
        try:
            return status, orjson.loads(bytes(body))
        except orjson.JSONDecodeError:
            raise _unusable(url, status) from None

    def _expect_object(self, url: str, status: int, value: object) -> dict[str, Any]:
        if status != _OK or not isinstance(value, dict):
            raise _unusable(url, status)
        return value


def _unusable(url: str, status: int) -> IssuerError:
    what = "something that is not JSON of the expected kind" if status in {_OK, _CREATED} else f"the status {status}"
    return IssuerError(f"{_host(url)} answered {urlsplit(url).path} with {what}", status=status)


def _host(url: str) -> str:
    return urlsplit(url).netloc


def _basic(name: str, secret: str) -> str:
    from base64 import b64encode

    return f"Basic {b64encode(f'{name}:{secret}'.encode()).decode()}"
