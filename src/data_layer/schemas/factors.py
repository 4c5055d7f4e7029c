"""Second factors: what can be seen of them, and what somebody shows."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import SecretStr

from data_layer.entities.enums import FactorKind
from data_layer.schemas.base import Input, View


class FactorView(View):
    """A factor that counts, without its secret."""

    id: UUID
    kind: FactorKind
    name: str
    last_used_at: datetime | None
    created_at: datetime


class FactorsView(View):
    """The factors of a person, the oldest first, and how many recovery codes are left."""

    factors: tuple[FactorView, ...]
    recovery_codes_left: int


class NewTotp(View):
    """An authenticator app that counts once a code of it was shown. ``uri`` is what its QR code holds."""

    id: UUID
    secret: SecretStr
    uri: SecretStr


class FactorChallenge(View):
    """What a second factor answers within five minutes.

    ``methods`` are ``totp``, ``passkey`` and ``recovery_code``; ``passkey`` holds the options for
    ``navigator.credentials.get``.
    """

    challenge: SecretStr
    methods: tuple[str, ...]
    passkey: Mapping[str, Any] | None
    expires_in: int


class PasskeyChallenge(View):
    """What a new passkey answers within five minutes: ``options`` are for ``navigator.credentials.create``."""

    challenge: SecretStr
    options: Mapping[str, Any]
    expires_in: int


class ConfirmedFactor(View):
    """A factor that counts from now on. ``recovery_codes`` come with the first one, and cannot be had again."""

    factor: FactorView
    recovery_codes: tuple[SecretStr, ...]


class FactorProof(Input):
    """One of: a code of an app, a recovery code, what a passkey answered (as the browser encodes it in JSON)."""

    code: str | None = None
    recovery_code: str | None = None
    passkey: dict[str, Any] | None = None
