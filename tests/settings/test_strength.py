"""Production takes what a machine made at random, and nothing that a person made up or copied."""

from __future__ import annotations

import base64
import hashlib
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import settings as run
from hypothesis import strategies as st

from data_layer import Settings
from data_layer.errors import ConfigurationError
from data_layer.settings.azure_location import EMULATOR_KEY
from data_layer.settings.strength import password_weakness, secret_weakness
from tests.test_config import FIT_FOR_PRODUCTION

PRODUCTION: dict[str, Any] = {name.lower(): value for name, value in FIT_FOR_PRODUCTION.items()}
S3 = {"storage_backend": "s3", "aws_s3_bucket": "pictures", "aws_access_key_id": "AKIAX2J7QPLM4TNV6ZRD"}
RANDOM = "b5c1f09e7d3a4826915e0fa7c2d48b63"
OTHER = "QmT4v_x9LrZ2wNc8KpJd5sYb7GfHa3eU"
WAYS_OF_WRITING: list[Callable[[bytes], str]] = [
    bytes.hex,
    lambda value: value.hex().upper(),
    lambda value: base64.b64encode(value).decode(),
    lambda value: base64.urlsafe_b64encode(value).rstrip(b"=").decode(),
    lambda value: base64.b32encode(value).decode(),
    lambda value: str(uuid.UUID(bytes=value[:16], version=4)),
    lambda value: f"jwt-secret-{value.hex()}",
]


def refusals(**values: Any) -> tuple[str, ...]:
    with pytest.raises(ConfigurationError) as caught:
        Settings(_env_file=None, **PRODUCTION | values)
    return caught.value.problems


# Hypothesis prefers small and repeated bytes, which are not random; a hash of them is.
# The shortest are the weakest, and longer ones are slow to measure: so most of them are short.
@given(st.binary(), st.sampled_from([16] * 12 + [17, 20, 24, 32, 48, 64]), st.sampled_from(WAYS_OF_WRITING))
@run(max_examples=150, deadline=None)
def test_nothing_random_is_refused(seed: bytes, length: int, write: Callable[[bytes], str]) -> None:
    secret = write(hashlib.shake_256(seed).digest(length))
    assert secret_weakness(secret, ("db.example.com", "postgres")) is None
    assert password_weakness(secret, ("db.example.com", "postgres")) is None


@pytest.mark.parametrize(
    "secret",
    [
        "x" * 32,
        "ab" * 20,
        "0123456789abcdef0123456789abcdef",
        "abcdefghijklmnopqrstuvwxyz0123456789",
        "zyxwvutsrqponmlkjihgfedcba9876543210",
        "AbCdEfGhIjKlMnOpQrStUvWxYz123456",
        "112233445566778899aabbccddeeff00",
        "aaaabbbbccccddddeeeeffffgggghhhh",
        "1a2b3c4d5e6f7g8h9i0j1k2l3m4n5o6p",
        "0f1e2d3c4b5a69788796a5b4c3d2e1f0",
        "a1b2c3d4e5f6a1b2c3d4e5f6a1b2c3d4",
        "deadbeefdeadbeefdeadbeefdeadbeef",
        "00000000-0000-0000-0000-000000000000",
        "12345678-1234-5678-1234-567812345678",
        "20240101202401022024010320240104",
        "31415926535897932384626433832795",
        "correcthorsecorrecthorsecorrecthorse",
        "iloveyouiloveyouiloveyouiloveyou!!",
        "keyboardcatkeyboardcatkeyboardcat",
        "qwertyuiopasdfghjklzxcvbnm1234567890",
        "qazwsxedcrfvtgbyhnujmikolp1234567",
        "zaq1xsw2cde3vfr4bgt5nhy6mju7ki8l",
        "!@#$%^&*()_+!@#$%^&*()_+!@#$%^&*()",
        "thequickbrownfoxjumpsoverthelazydog",
        "mysuperlongjwtsigningkeyforscreenshots",
        "ScreenshotToCodeSessionKeyForProd",
        "MyCompanyScreenshotApp2024",
        "changeme" * 5,
        "passwordPASSWORDpassword1234567890",
        "your-super-secret-jwt-token-with-at-least-32-characters-long",
        "a-string-secret-at-least-256-bits-long",
        "this-is-a-very-long-secret-key-for-jwt",
        "supersecretkeythatyoushouldreplace123",
        "django-insecure-w3j5k2l8m9n4b7v6c1x0z-q2w3e4r5t6y7u8i9o0p",
        "09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7",
        "192b9bdd22ab9ed4d12e236c78afcb9a393ec15f71bbf5dc987d54727823bcbf",
        EMULATOR_KEY,
        base64.b64encode(b"passwordpasswordpassword1").decode(),
        b"changemechangeme".hex(),
        hashlib.md5(b"password", usedforsecurity=False).hexdigest(),
        hashlib.sha256(b"secret").hexdigest(),
        " ".join(["hunter2"] * 6),
        "ü" * 40,
    ],
)
def test_what_a_person_made_up_is_refused_with_the_remedy(secret: str) -> None:
    for name in ("session_secret", "session_secret_previous", "jwt_secret", "jwt_secret_previous"):
        (problem,) = refusals(**{name: secret})
        assert problem.startswith(f"{name.upper()} ")
        assert problem.endswith("; make one with: openssl rand -hex 32")
        assert secret not in problem
    assert not Settings(_env_file=None, session_secret=secret).is_production, "elsewhere it is convenient"


@given(st.text(st.characters(exclude_categories=["C"]), min_size=1, max_size=6), st.integers(32, 3000))
@example("correct horse ", 9)
@run(max_examples=60, deadline=None)
def test_repetition_is_weak_at_any_length(part: str, times: int) -> None:
    assert secret_weakness(part * times) is not None


def test_a_long_secret_takes_no_longer() -> None:
    """Without the cut zxcvbn would take minutes; the work is counted, not the time."""
    import zxcvbn

    lengths: list[int] = []
    measure = zxcvbn.zxcvbn

    def count(text: str, **rest: Any) -> Any:
        lengths.append(len(text))
        return measure(text, **rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("zxcvbn.zxcvbn", count)
        assert secret_weakness(RANDOM * 20_000) is None
    assert lengths
    assert max(lengths) <= 40


def test_nothing_is_measured_twice() -> None:
    """Measuring is most of what checking settings for production takes."""
    import zxcvbn

    texts: list[str] = []
    measure = zxcvbn.zxcvbn

    def note(text: str, **rest: Any) -> Any:
        texts.append(text)
        return measure(text, **rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("zxcvbn.zxcvbn", note)
        assert secret_weakness(RANDOM) is None
    assert len(texts) == len(set(texts)) == 3, "the whole and its two halves"


def test_a_secret_made_of_names_is_refused() -> None:
    name = "screenshots-primary-7.eu-central-1.example.com"
    (problem,) = refusals(db_host=name, session_secret=name)
    assert problem.startswith("SESSION_SECRET ")


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ({"session_secret": RANDOM, "jwt_secret": RANDOM}, ("SESSION_SECRET", "JWT_SECRET")),
        ({"session_secret": RANDOM, "session_secret_previous": RANDOM}, ("SESSION_SECRET", "SESSION_SECRET_PREVIOUS")),
        ({"session_secret": RANDOM, "storage_signing_secret": RANDOM}, ("SESSION_SECRET", "STORAGE_SIGNING_SECRET")),
        ({"jwt_secret": RANDOM, "db_password": RANDOM}, ("JWT_SECRET", "DB_PASSWORD")),
        ({"jwt_secret": RANDOM, "redis_password": RANDOM}, ("JWT_SECRET", "REDIS_PASSWORD")),
        ({"redis_password": RANDOM, "db_password": RANDOM}, ("DB_PASSWORD", "REDIS_PASSWORD")),
        (S3 | {"aws_secret_access_key": RANDOM, "session_secret": RANDOM}, ("SESSION_SECRET", "AWS_SECRET_ACCESS_KEY")),
        ({"jwt_secret": RANDOM, "db_direct_url": f"postgresql://u:{RANDOM}@h/n"}, ("JWT_SECRET", "DB_DIRECT_URL")),
        ({"session_secret": RANDOM, "jwt_secret": f"{RANDOM}-jwt"}, ("SESSION_SECRET", "JWT_SECRET")),
        ({"session_secret": RANDOM, "jwt_secret": RANDOM.upper()}, ("SESSION_SECRET", "JWT_SECRET")),
    ],
)
def test_one_secret_serves_one_purpose(values: dict[str, Any], names: tuple[str, str]) -> None:
    (problem,) = refusals(**values)
    assert problem.startswith(" and ".join(names))
    assert "own" in problem
    assert RANDOM not in problem


def test_one_login_may_be_written_twice() -> None:
    same = {"db_password": RANDOM, "db_direct_url": f"postgresql://u:{RANDOM}@h/n"}
    sentinels = {"redis_host": None, "redis_sentinel_nodes": "a:1", "redis_sentinel_master": "m"}
    both = {"redis_password": OTHER, "redis_sentinel_password": OTHER}
    assert Settings(_env_file=None, **PRODUCTION | same | sentinels | both).is_production


@pytest.mark.parametrize(
    "password",
    [
        *("postgres", "Postgres", "screenshot", "db.internal", "P@ssw0rd!", "hunter2", "admin123"),
        *("qwerty123456", "letmein2024", "aaaaaaaaaaaaaaaa"),
    ],
)
def test_passwords_of_servers_that_are_guessed(password: str) -> None:
    (problem,) = refusals(db_password=password)
    assert problem.startswith("DB_PASSWORD is easy to guess")
    (problem,) = refusals(redis_password=password)
    assert problem.startswith("REDIS_PASSWORD is easy to guess")
    place = f"{password.replace('@', '%40')}@db.internal"
    (problem,) = refusals(db_host=None, db_password=None, database_url=f"postgresql://u:{place}/n")
    assert problem.startswith("the password in DATABASE_URL is easy to guess")
    (problem,) = refusals(redis_host=None, redis_password=None, redis_url=f"rediss://:{place}")
    assert problem.startswith("the password in REDIS_URL is easy to guess")


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"redis_password": None}, "REDIS_PASSWORD is missing"),
        ({"redis_tls": None}, "REDIS_TLS must be chosen"),
        ({"redis_host": None, "redis_password": None, "redis_url": "rediss://a"}, "REDIS_PASSWORD is missing"),
        ({"redis_host": None, "redis_password": None, "redis_tls": None, "redis_url": f"redis://:{OTHER}@a"},
         "REDIS_TLS must be chosen"),
        ({"redis_host": None, "redis_tls": None, "redis_cluster_nodes": "127.0.0.1:1,a:2"}, "REDIS_TLS must be chosen"),
        ({"rate_limit_max": 0}, "RATE_LIMIT_MAX must not be 0"),
        ({"rate_limit_max": 1_000_000}, "RATE_LIMIT_MAX allows more than 100 requests a second"),
        ({"rate_limit_max": 101, "rate_limit_window": 1000}, "RATE_LIMIT_MAX allows more than 100 requests a second"),
        ({"bcrypt_rounds": 9}, "BCRYPT_ROUNDS must be 10 or more"),
        (S3 | {"aws_access_key_id": "minioadmin", "aws_secret_access_key": "minioadmin"},
         "AWS_SECRET_ACCESS_KEY is easy to guess"),
        (S3 | {"aws_access_key_id": "test", "aws_secret_access_key": "test"}, "AWS_SECRET_ACCESS_KEY is easy to guess"),
        (S3 | {"aws_access_key_id": "rustfsadmin", "aws_secret_access_key": "rustfsadmin"},
         "AWS_SECRET_ACCESS_KEY is easy to guess"),
        (S3 | {"aws_secret_access_key": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"},
         "AWS_SECRET_ACCESS_KEY is a sample"),
        ({"storage_backend": "azure", "azure_storage_connection_string":
          f"BlobEndpoint=https://files.example.com/other;AccountName=other;AccountKey={EMULATOR_KEY}"},
         "AZURE_STORAGE_CONNECTION_STRING leads to the emulator"),
        ({"storage_second_backend": "azure", "azure_storage_connection_string": "UseDevelopmentStorage=true"},
         "AZURE_STORAGE_CONNECTION_STRING leads to the emulator"),
    ],
)  # fmt: skip
def test_places_that_protect_nothing(values: dict[str, Any], problem: str) -> None:
    (found,) = refusals(**values)
    assert found.startswith(problem)


@pytest.mark.parametrize(
    "values",
    [
        {"redis_tls": False},
        {"redis_host": "127.0.0.1:6380", "redis_password": None, "redis_tls": None},
        {"redis_host": "/run/redis.sock", "redis_password": None, "redis_tls": None},
        {"redis_host": None, "redis_tls": None, "redis_url": f"rediss://:{OTHER}@a", "redis_password": None},
        {"session_secret": "dJ4kQ0v9XmR7tZ1yLpWc8N"},
        {"rate_limit_max": 100, "rate_limit_window": 1000},
    ],
)
def test_what_production_takes(values: dict[str, Any]) -> None:
    assert Settings(_env_file=None, **PRODUCTION | values).is_production


def test_tls_is_not_contradicted() -> None:
    with pytest.raises(ConfigurationError, match="REDIS_TLS is true, but REDIS_URL does not begin with rediss://"):
        Settings(_env_file=None, redis_url="redis://a", redis_tls=True)
    with pytest.raises(ConfigurationError, match="REDIS_TLS is false, but REDIS_URL begins with rediss://"):
        Settings(_env_file=None, redis_url="rediss://a", redis_tls=False)
