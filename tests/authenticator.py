"""An authenticator in software: it makes passkeys (ES256) and answers challenges, as a device and its browser would."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import struct
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from webauthn.helpers import encode_cbor

USER_PRESENT, USER_VERIFIED, ATTESTED = 0x01, 0x04, 0x40


def encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


class Passkey:
    """One credential. ``counts``: whether the device counts its signatures, as those that do not sync do."""

    def __init__(self, *, origin: str = "https://service", counts: bool = True) -> None:
        self.origin = origin
        self.counts = counts
        self.count = 0
        self.id = os.urandom(32)
        self.user_handle: str | None = None
        self._key = ec.generate_private_key(ec.SECP256R1())

    def make(self, options: Any, **changes: Any) -> dict[str, Any]:
        """What ``navigator.credentials.create`` resolves to, as JSON."""
        assert any(each["alg"] == -7 for each in options["pubKeyCredParams"])
        self.user_handle = options["user"]["id"]
        numbers = self._key.public_key().public_numbers()
        public = {1: 2, 3: -7, -1: 1, -2: numbers.x.to_bytes(32, "big"), -3: numbers.y.to_bytes(32, "big")}
        attested = bytes(16) + struct.pack(">H", len(self.id)) + self.id + encode_cbor(public)
        data = self._data(changes.get("rp_id", options["rp"]["id"]), ATTESTED) + attested
        client = self._client("webauthn.create", changes.get("challenge", options["challenge"]))
        attestation = encode_cbor({"fmt": "none", "attStmt": {}, "authData": data})
        return self._answer({"clientDataJSON": encoded(client), "attestationObject": encoded(attestation)})

    def answer(self, options: Any, **changes: Any) -> dict[str, Any]:
        """What ``navigator.credentials.get`` resolves to, as JSON."""
        unverified = USER_VERIFIED if changes.get("is_unverified") else 0
        data = self._data(changes.get("rp_id", options["rpId"]), 0, without=unverified)
        client = self._client(changes.get("type", "webauthn.get"), changes.get("challenge", options["challenge"]))
        signature = self._key.sign(data + hashlib.sha256(client).digest(), ec.ECDSA(hashes.SHA256()))
        if changes.get("is_forged"):
            signature = signature[:-1] + bytes([signature[-1] ^ 1])
        parts = {"authenticatorData": data, "clientDataJSON": client, "signature": signature}
        response = {name: encoded(part) for name, part in parts.items()}
        handle = changes.get("user_handle", self.user_handle)
        return self._answer(response if handle is None else response | {"userHandle": handle})

    def _data(self, rp_id: str, flags: int, *, without: int = 0) -> bytes:
        self.count += self.counts
        flags |= (USER_PRESENT | USER_VERIFIED) & ~without
        return hashlib.sha256(rp_id.encode()).digest() + struct.pack(">BI", flags, self.count)

    def _client(self, kind: str, challenge: str) -> bytes:
        return json.dumps({"type": kind, "challenge": challenge, "origin": self.origin}).encode()

    def _answer(self, response: dict[str, str]) -> dict[str, Any]:
        name = encoded(self.id)
        return {"id": name, "rawId": name, "type": "public-key", "response": response, "clientExtensionResults": {}}
