"""Both sides of the hosted application as they call us, written from the facts: its page, and its back end."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from tests.file_content import picture
from tests.openid.issuer import make_key, sign
from tests.openid.site import Site

SECRET = "7d1f5b0c9a3e48c2b6f0d4e8a1c5973b"
ORIGIN = "https://app.example"
PUBLIC_URL = "https://data.example"


class Clerk:
    """An issuer whose tokens say who somebody is, and neither address nor name."""

    def __init__(self, site: Site) -> None:
        self.url = site.url
        self.key = make_key("first")
        self._site = site
        site.answers["/.well-known/openid-configuration"] = {
            "issuer": site.url,
            "jwks_uri": f"{site.url}/.well-known/jwks.json",
            "authorization_endpoint": f"{site.url}/authorize",
            "token_endpoint": f"{site.url}/token",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
        }
        self.publish()

    def publish(self) -> None:
        self._site.answers["/.well-known/jwks.json"] = {"keys": [self.key.as_dict(private=False)]}

    def rotate(self) -> None:
        """Sign with another key from now on."""
        self.key = make_key(f"{self.key.kid}+")
        self.publish()

    def token(self, sub: str, **claims: Any) -> str:
        """What the page gets for a minute."""
        now = int(time.time())
        values = {"azp": ORIGIN, "iss": self.url, "sub": sub, "sid": "sess", "iat": now, "nbf": now, "exp": now + 60}
        header = {"alg": "RS256", "kid": self.key.kid, "typ": "JWT", "cat": "cl_B7d4PD222AAA"}
        return sign(header, values | claims, self.key)


@contextmanager
def running_clerk() -> Iterator[Clerk]:
    with Site() as site:
        yield Clerk(site)


class Page:
    """The page of one person: a token for each call, JSON in every answer."""

    def __init__(self, client: httpx.AsyncClient, clerk: Clerk, sub: str) -> None:
        self._client, self._clerk, self._sub = client, clerk, sub

    async def send(self, method: str, path: str, body: Any = None, **claims: Any) -> httpx.Response:
        headers = {
            "authorization": f"Bearer {self._clerk.token(self._sub, **claims)}",
            "content-type": "application/json",
            "origin": ORIGIN,
        }
        return await self._client.request(method, path, headers=headers, content=None if body is None else dumps(body))

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        answer = await self.send(method, path, body)
        assert answer.is_success, answer.text
        return answer.json()

    async def projects(self, page: int = 1) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self.call("GET", f"/generations/view?page={page}"))["projects"]
        return found


def dumps(value: Any) -> bytes:
    """JSON as Python's own module writes it: halves of surrogate pairs and NUL are escaped."""
    return json.dumps(value).encode()


def data_url(number: int = 0, size: tuple[int, int] = (60, 40)) -> str:
    content = picture("PNG", size=size, color=(number % 256, 20, 200))
    return "data:image/png;base64," + base64.b64encode(content).decode()


def image_message(images: list[str], text: str) -> dict[str, Any]:
    parts: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": one, "detail": "high"}} for one in images]
    return {"role": "user", "content": [*parts, {"type": "text", "text": text}]}


def page_code(name: str) -> str:
    """What a model has written, with white space at its ends."""
    return f"\n<html><body><h1>{name}</h1></body></html>\n"


class BackEnd:
    """The back end, for one person: it stores each variant once and never repeats a call."""

    def __init__(self, client: httpx.AsyncClient, user_id: str) -> None:
        self.client, self.user_id = client, user_id
        self.headers = {"authorization": f"Bearer {SECRET}", "content-type": "application/json"}

    async def post(self, path: str, body: Any) -> httpx.Response:
        return await self.client.post(path, headers=self.headers, content=dumps(body), timeout=60)

    def stored(self, group: str, index: int, messages: list[dict[str, Any]], code: str, **more: Any) -> dict[str, Any]:
        """The body of a call for one variant; ``index`` counts from 1 as there."""
        other_info = {"generation_type": "create", "variant_index": index} | more.pop("other_info", {})
        return {
            "user_id": self.user_id,
            "prompt": json.dumps(messages),
            "completion": code,
            "duration": 12.5,
            "llm_version": "gpt-5.5 (low thinking)",
            "generation_group_id": group,
            "payment_method": "subscription",
            "stack": "html_tailwind",
            "is_imported_from_code": False,
            "includes_result_image": False,
            "input_mode": "image",
            "llm_usage": {
                "llm_input_tokens": 1000,
                "llm_output_tokens": 500,
                "llm_cache_read_tokens": 10,
                "llm_cache_write_tokens": 0,
                "llm_total_tokens": 1510,
                "llm_cost_usd": 0.0125,
            },
            "other_info": other_info,
            "video_data_url": None,
        } | more

    async def store(self, *arguments: Any, **more: Any) -> str:
        answer = await self.post("/generations/store", self.stored(*arguments, **more))
        assert answer.status_code == 200, answer.text
        generation_id: str = answer.json()["generation_id"]
        assert generation_id
        return generation_id

    async def create(self, group: str, images: list[str], text: str, codes: list[str]) -> list[str]:
        """A request whose variants complete at the same time."""
        messages = [{"role": "system", "content": "You are …"}, image_message(images, text)]
        calls = (self.store(group, index, messages, code) for index, code in enumerate(codes, 1))
        return list(await asyncio.gather(*calls))
