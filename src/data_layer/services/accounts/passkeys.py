"""Passkeys (WebAuthn, level 3): what is asked of a browser, and whether its answer is right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import orjson

from data_layer.entities import SecondFactor, User
from data_layer.errors import InvalidSecondFactorError
from data_layer.extras import require_extra

LARGEST_ANSWER = 16 * 1024
_MILLISECONDS = 300_000
_NAME = "Data layer"
_LOOPBACK = frozenset({"127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True)
class PasskeySite:
    """For which domain passkeys are made, and from the pages of which origins they are used."""

    domain: str
    origins: tuple[str, ...]

    @classmethod
    def of(cls, base_url: str, domain: str | None, other_origins: Sequence[str]) -> PasskeySite:
        """Return the site of a service: its own origin, and those of CORS_ALLOWED_ORIGINS below the same domain.

        No browser makes a passkey for an IP address. A service at 127.0.0.1 is the same at localhost, so its passkeys
        are made there.
        """
        parts = urlsplit(base_url)
        host, authority = parts.hostname or "localhost", parts.netloc
        if domain is None and host in _LOOPBACK:
            host, authority = "localhost", "localhost" if parts.port is None else f"localhost:{parts.port}"
        domain = domain or host
        hosts = {origin: urlsplit(origin).hostname or "" for origin in other_origins}
        below = [origin for origin, host in hosts.items() if host == domain or host.endswith(f".{domain}")]
        return cls(domain, (f"{parts.scheme}://{authority}", *below))


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
    from webauthn.helpers.structs import (
        AuthenticatorSelectionCriteria,
        PublicKeyCredentialDescriptor,
        ResidentKeyRequirement,
    )

    options = webauthn.generate_registration_options(
        rp_id=site.domain,
        rp_name=_NAME,
        user_id=user.id.bytes,
        user_name=user.email,
        user_display_name=user.display_name or f"{user.first_name} {user.last_name}",
        challenge=challenge,
        timeout=_MILLISECONDS,
        # So that it also logs in alone, where the device can keep it.
        authenticator_selection=AuthenticatorSelectionCriteria(resident_key=ResidentKeyRequirement.PREFERRED),
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


def options_for_anybody(site: PasskeySite, challenge: bytes) -> dict[str, Any]:
    """Return the options for ``navigator.credentials.get`` by which a passkey logs in alone."""
    require_extra("service", "a passkey", "webauthn")
    import webauthn
    from webauthn.helpers.structs import UserVerificationRequirement

    options = webauthn.generate_authentication_options(
        rp_id=site.domain,
        challenge=challenge,
        timeout=_MILLISECONDS,
        user_verification=UserVerificationRequirement.REQUIRED,
    )
    shown: dict[str, Any] = orjson.loads(webauthn.options_to_json(options))
    return shown


def check_new(site: PasskeySite, answer: dict[str, Any], challenge: bytes) -> NewCredential:
    """Return what to keep of a new passkey. The maker of the device is not asked for ("attestation": none).

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
    return _decoded(answer.get("rawId"))


def _owner_named_by(answer: dict[str, Any]) -> bytes | None:
    """Return for whom a passkey was made, as it says itself."""
    response = answer.get("response")
    return _decoded(response.get("userHandle")) if isinstance(response, dict) else None


def _decoded(name: object) -> bytes | None:
    from webauthn.helpers import base64url_to_bytes

    if not isinstance(name, str) or len(name) > LARGEST_ANSWER:
        return None
    try:
        return base64url_to_bytes(name)
    except ValueError:
        return None


def check_known(
    site: PasskeySite, answer: dict[str, Any], challenge: bytes, factor: SecondFactor, *, owner_id: UUID | None = None
) -> int:
    """Return what the passkey has counted.

    Args:
        site: for which it was made.
        answer: what it has answered.
        challenge: what it should have signed.
        factor: what is kept of it.
        owner_id: that of the factor, where the passkey logs in alone: then it must name its owner itself, and must have
            verified who that is, by a PIN or a finger.

    Raises:
        InvalidSecondFactorError: the answer is not right, or what the passkey counts has gone back, as of a copy.
    """
    import webauthn

    answer = _checked(answer)
    if owner_id is not None and _owner_named_by(answer) != owner_id.bytes:
        raise refused()
    try:
        verified = webauthn.verify_authentication_response(
            credential=answer,
            expected_challenge=challenge,
            expected_rp_id=site.domain,
            expected_origin=list(site.origins),
            credential_public_key=factor.secret,
            credential_current_sign_count=factor.sign_count,
            require_user_verification=owner_id is not None,
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
