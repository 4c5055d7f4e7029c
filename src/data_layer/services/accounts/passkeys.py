"""Passkeys (WebAuthn, level 3): what is asked of a browser, and whether its answer is right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import orjson

from data_layer.entities import SecondFactor, User
from data_layer.errors import InvalidSecondFactorError
from data_layer.extras import require_extra

LARGEST_ANSWER = 16 * 1024
_MILLISECONDS = 300_000
_NAME = "Data layer"


@dataclass(frozen=True, slots=True)
class PasskeySite:
    """For which domain passkeys are made, and from the pages of which origins they are used."""

    domain: str
    origins: tuple[str, ...]

    @classmethod
    def of(cls, base_url: str, domain: str | None, other_origins: Sequence[str]) -> PasskeySite:
        """Return the site of a service: its own origin, and those of CORS_ALLOWED_ORIGINS below the same domain."""
        parts = urlsplit(base_url)
        domain = domain or parts.hostname or "localhost"
        hosts = {origin: urlsplit(origin).hostname or "" for origin in other_origins}
        below = [origin for origin, host in hosts.items() if host == domain or host.endswith(f".{domain}")]
        return cls(domain, (f"{parts.scheme}://{parts.netloc}", *below))


@dataclass(frozen=True, slots=True)
class NewCredential:
    """What is kept of a passkey that was just made."""

    credential_id: bytes
    public_key: bytes
    sign_count: int


def options_for_new(site: PasskeySite, user: User, challenge: bytes, known: Sequence[SecondFactor]) -> dict[str, Any]:
    """Return the options for ``navigator.credentials.create``; a device that has one of the known makes none."""
    require_extra("service", "a passkey", "webauthn")
    import webauthn  # Here because only the extra has it.
    from webauthn.helpers.structs import PublicKeyCredentialDescriptor

    options = webauthn.generate_registration_options(
        rp_id=site.domain,
        rp_name=_NAME,
        user_id=user.id.bytes,
        user_name=user.email,
        user_display_name=user.display_name or f"{user.first_name} {user.last_name}",
        challenge=challenge,
        timeout=_MILLISECONDS,
        exclude_credentials=[PublicKeyCredentialDescriptor(id=each.credential_id or b"") for each in known],
    )
    shown: dict[str, Any] = orjson.loads(webauthn.options_to_json(options))
    return shown


def options_for_known(site: PasskeySite, challenge: bytes, known: Sequence[SecondFactor]) -> dict[str, Any]:
    """Return the options for ``navigator.credentials.get``."""
    require_extra("service", "a passkey", "webauthn")
    import webauthn
    from webauthn.helpers.structs import PublicKeyCredentialDescriptor

    options = webauthn.generate_authentication_options(
        rp_id=site.domain,
        challenge=challenge,
        timeout=_MILLISECONDS,
        allow_credentials=[PublicKeyCredentialDescriptor(id=each.credential_id or b"") for each in known],
    )
    shown: dict[str, Any] = orjson.loads(webauthn.options_to_json(options))
    return shown


def check_new(site: PasskeySite, answer: dict[str, Any], challenge: bytes) -> NewCredential:
    """Return what to keep of a new passkey. Who made the device is not asked ("attestation": none).

    Raises:
        InvalidSecondFactorError: the answer is not right.
    """
    require_extra("service", "a passkey", "webauthn")
    import webauthn

    answer = _checked(answer)
    try:
        verified = webauthn.verify_registration_response(
            credential=answer,
            expected_challenge=challenge,
            expected_rp_id=site.domain,
            expected_origin=list(site.origins),
        )
    except Exception as error:
        # The answer is a stranger's, and the library raises more than its own errors for what does not make sense.
        raise refused() from error
    return NewCredential(verified.credential_id, verified.credential_public_key, verified.sign_count)


def credential_id_of(answer: dict[str, Any]) -> bytes | None:
    """Return which passkey an answer claims to come from."""
    from webauthn.helpers import base64url_to_bytes

    name = answer.get("rawId")
    if not isinstance(name, str) or len(name) > LARGEST_ANSWER:
        return None
    try:
        return base64url_to_bytes(name)
    except ValueError:
        return None


def check_known(site: PasskeySite, answer: dict[str, Any], challenge: bytes, factor: SecondFactor) -> int:
    """Return what the passkey has counted.

    Raises:
        InvalidSecondFactorError: the answer is not right, or what the passkey counts has gone back, as of a copy.
    """
    import webauthn

    answer = _checked(answer)
    try:
        verified = webauthn.verify_authentication_response(
            credential=answer,
            expected_challenge=challenge,
            expected_rp_id=site.domain,
            expected_origin=list(site.origins),
            credential_public_key=factor.secret,
            credential_current_sign_count=factor.sign_count,
        )
    except Exception as error:
        raise refused() from error
    return verified.new_sign_count


def _checked(answer: dict[str, Any]) -> dict[str, Any]:
    try:
        size = len(orjson.dumps(answer))
    except (orjson.JSONEncodeError, RecursionError):
        raise refused() from None
    if size > LARGEST_ANSWER:
        raise refused()
    return answer


def refused() -> InvalidSecondFactorError:
    """Return the one answer to every proof that is not right."""
    return InvalidSecondFactorError("the second factor is not right, or was used before; try again")
