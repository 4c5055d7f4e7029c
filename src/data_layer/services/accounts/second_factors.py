"""What somebody shows beside the password: asked for, checked, and used up.

A code of an app works once: the factor keeps the time step of the last one, and takes only later ones. The answer of a
passkey works once: the factor keeps when the last challenge that it answered was made, and takes only later ones. A
recovery code is removed when it is used. The rows are locked, so that two logins at once cannot use one code.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

from pydantic import SecretStr

from data_layer.entities import SecondFactor, User
from data_layer.entities.enums import FactorKind
from data_layer.errors import InvalidValueError
from data_layer.observability.log import get_log
from data_layer.repositories.unit_of_work import UnitOfWork
from data_layer.schemas.factors import FactorChallenge, FactorProof
from data_layer.services.accounts import challenges, passkeys, totp
from data_layer.services.accounts.challenges import LIFETIME, Challenges, PendingChallenge
from data_layer.services.accounts.passkeys import PasskeySite, refused
from data_layer.services.sealing import Seals
from data_layer.settings.security import SecuritySettings

log = get_log(__name__)

RECOVERY_CODES = 10
_CODE_BYTES = 10  # 80 bits: as base32 sixteen characters, too many to be guessed from their hash.
_LONGEST_CODE = 64


class SecondFactors:
    """Checks second factors within a transaction.

    Args:
        settings: the secrets.
        site: for which domain passkeys are made.
    """

    def __init__(self, settings: SecuritySettings, site: PasskeySite) -> None:
        self.challenges = Challenges(settings)
        self._seals = Seals("totp", settings.session_secrets())
        self.site = site

    def ask(
        self,
        purpose: str,
        user: User,
        factors: Sequence[SecondFactor],
        *,
        password_hash: str | None,
        reactivate: bool = False,
    ) -> FactorChallenge:
        """Return what these factors of somebody answer."""
        challenge, signed = self.challenges.make(purpose, user.id, password_hash=password_hash, reactivate=reactivate)
        known = [factor for factor in factors if factor.kind is FactorKind.PASSKEY]
        kinds = [kind.value for kind in FactorKind if any(factor.kind is kind for factor in factors)]
        return FactorChallenge(
            challenge=SecretStr(challenge),
            methods=(*kinds, "recovery_code"),
            passkey=passkeys.options_for_known(self.site, signed, known) if known else None,
            expires_in=LIFETIME,
        )

    async def use(self, tx: UnitOfWork, user_id: UUID, proof: FactorProof, pending: PendingChallenge | None) -> str:
        """Use a proof up, and return what it was.

        Args:
            tx: the transaction; when the proof is refused it must not be committed.
            user_id: whose.
            proof: exactly one.
            pending: the challenge, which a passkey has answered. One for anybody takes nothing but a passkey that has
                verified its owner: it counts as both factors.

        Raises:
            InvalidSecondFactorError: the proof is not right, or was used before.
            InvalidValueError: there is not exactly one.
        """
        kind = kind_of(proof)
        is_alone = pending is not None and pending.user_id is None
        factors = await tx.second_factors.confirmed(user_id, lock=True)
        if is_alone and proof.passkey is None:
            raise refused()
        if proof.code is not None:
            self._use_code(factors, proof.code)
        elif proof.recovery_code is not None:
            if not await tx.second_factors.use_code(user_id, hash_code(user_id, proof.recovery_code)):
                raise refused()
        elif pending is not None and proof.passkey is not None:
            self._use_passkey(factors, proof.passkey, pending, owner_id=user_id if is_alone else None)
        else:
            raise refused()
        return kind

    async def owner_of(self, tx: UnitOfWork, proof: FactorProof) -> UUID:
        """Return whose passkey claims to have answered; nothing is verified.

        Raises:
            InvalidSecondFactorError: it is not a passkey, or nobody has it.
        """
        credential_id = None if proof.passkey is None else passkeys.credential_id_of(proof.passkey)
        factor = None if credential_id is None else await tx.second_factors.find_one(credential_id=credential_id)
        if factor is None:
            raise refused()
        return factor.user_id

    def seal_secret(self, factor_id: UUID, secret: str) -> bytes:
        """Encrypt what an app shares with us."""
        return self._seals.seal(factor_id.bytes, secret.encode())

    def accept_code(self, factor: SecondFactor, code: str) -> bool:
        """Use a code of an app up; whether it is right."""
        opened = self._seals.open(factor.id.bytes, factor.secret)
        if opened is None:
            log.warning("second_factor_unreadable", factor_id=factor.id)
            return False
        secret, is_present = opened
        step = totp.matching_step(secret.decode(), code, now=challenges.now(), after=factor.last_counter)
        if step is None:
            return False
        factor.last_counter = step
        factor.last_used_at = datetime.now(UTC)
        if not is_present:  # SESSION_SECRET was changed.
            factor.secret = self._seals.seal(factor.id.bytes, secret)
        return True

    def _use_code(self, factors: Sequence[SecondFactor], code: str) -> None:
        apps = [factor for factor in factors if factor.kind is FactorKind.TOTP]
        if not any(self.accept_code(app, code) for app in apps):
            raise refused()

    def _use_passkey(
        self,
        factors: Sequence[SecondFactor],
        answer: dict[str, object],
        pending: PendingChallenge,
        *,
        owner_id: UUID | None,
    ) -> None:
        known = {factor.credential_id: factor for factor in factors if factor.kind is FactorKind.PASSKEY}
        factor = known.get(passkeys.credential_id_of(answer) or b"")
        if factor is None or pending.issued_at <= factor.last_counter:
            raise refused()
        factor.sign_count = passkeys.check_known(
            self.site, answer, pending.bytes_for_passkey, factor, owner_id=owner_id
        )
        factor.last_counter = pending.issued_at
        factor.last_used_at = datetime.now(UTC)


def kind_of(proof: FactorProof) -> str:
    """Return which of the three a proof is.

    Raises:
        InvalidValueError: it is not exactly one.
    """
    given = [name for name in ("code", "recovery_code", "passkey") if getattr(proof, name) is not None]
    if len(given) != 1:
        raise InvalidValueError("show one of: code, recovery_code, passkey", field="proof")
    return given[0]


def new_codes() -> list[str]:
    """Return ten recovery codes, as they are shown."""
    codes = [base64.b32encode(secrets.token_bytes(_CODE_BYTES)).decode().lower() for _ in range(RECOVERY_CODES)]
    return ["-".join(code[at : at + 4] for at in range(0, len(code), 4)) for code in codes]


def hash_code(user_id: UUID, code: str) -> str:
    """Return what the database keeps of a recovery code; case, spaces and hyphens do not matter."""
    plain = "".join(character for character in code[:_LONGEST_CODE].lower() if character not in " -")
    return hashlib.sha256(b"recovery code\0" + user_id.bytes + plain.encode("utf-8", "surrogatepass")).hexdigest()
