"""What is stored encrypted stays readable, and opens for nobody else."""

from __future__ import annotations

from uuid import UUID

import pytest

from data_layer.services.sealing import Seals

SECRET, SUBJECT = "s" * 32, UUID("01890000-0000-7000-8000-000000000001").bytes
NONCE = "000102030405060708090a0b"


@pytest.mark.parametrize(
    ("purpose", "subject", "stored", "content"),
    [
        (
            *("totp", SUBJECT),
            f"{NONCE}5abeec418d3429a2e9cf5a4247c256cd6f4214e856abc0d122658ee1c5b44f23",
            b"JBSWY3DPEHPK3PXP",
        ),
        ("idempotency", SUBJECT + b"key-1", f"{NONCE}4ade47369a74d6888a905ab03fb44d72a926849b", b"kept"),
    ],
)
def test_rows_of_earlier_versions_open(purpose: str, subject: bytes, stored: str, content: bytes) -> None:
    assert Seals(purpose, [SECRET]).open(subject, bytes.fromhex(stored)) == (content, True)


def test_another_purpose_subject_or_secret_opens_nothing() -> None:
    sealed = Seals("totp", [SECRET]).seal(SUBJECT, b"content")
    assert b"content" not in sealed
    assert Seals("totp", ["n" * 32, SECRET]).open(SUBJECT, sealed) == (b"content", False)
    assert Seals("totp", ["n" * 32]).open(SUBJECT, sealed) is None
    assert Seals("idempotency", [SECRET]).open(SUBJECT, sealed) is None
    assert Seals("totp", [SECRET]).open(SUBJECT[::-1], sealed) is None
    assert Seals("totp", [SECRET]).open(SUBJECT, sealed[:20]) is None
