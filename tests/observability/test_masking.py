from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass
from typing import Any

import pytest
import structlog
from pydantic import BaseModel, SecretStr

from data_layer.observability.masking import Masker, mask_patterns
from tests.observability.support import log_to_memory, only_event

log = structlog.get_logger("data_layer.tests")
Login = namedtuple("Login", ["user", "password"])  # noqa: PYI024  (as older code writes it)


@pytest.mark.parametrize(
    "name",
    [
        *("password", "PASSWORD", "db_password", "passwd", "pwd", "secret", "client_secret", "token", "access_token"),
        *("refreshToken", "authorization", "Authorization", "Proxy-Authorization", "cookie", "Set-Cookie", "api_key"),
        *("X-API-Key", "apiKey", "access_key", "aws_secret_access_key", "AccountKey", "private_key", "credential"),
        *("credentials", "session_id", "sessionId", "connection_string", "password_hash", "token_hash", "signature"),
        *("sig", "jwt", "otp", "auth", "passphrase", "tokens", "reset_password_token_hash", "SESSION_SECRET"),
    ],
)
def test_what_bears_the_name_of_a_secret_is_masked(name: str) -> None:
    for value in ("hunter2", b"hunter2", ["hunter2"], {"a": "hunter2"}, ("x", "hunter2"), 1.5, 8237481):
        masked = Masker().event({name: value, "deep": {"deeper": [{name: value}]}})
        is_number_of_tokens = name == "tokens" and isinstance(value, (int, float))
        expected = value if is_number_of_tokens else "***"
        assert masked == {name: expected, "deep": {"deeper": [{name: expected}]}}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("prompt_tokens", 812), ("max_tokens", 4096), ("token_count", 3), ("cookie_max_age", 60)),
        *(("author", "ada"), ("compass", "north"), ("monkey", "x"), ("key", "images/a.png"), ("passed", 3)),
        *(("password", None), ("has_token", True), ("user_id", "u1"), ("hash", "abc"), ("signal", "TERM")),
    ],
)
def test_harmless_names_stay(name: str, value: Any) -> None:
    assert Masker().event({name: value}) == {name: value}


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        # Addresses
        ("postgresql://bob:hunter2@db:5432/x?a=b", "postgresql://bob:***@db:5432/x?a=b"),
        ("at redis://:hunter2@cache/0, retrying", "at redis://:***@cache/0, retrying"),
        ("amqp://u:p@ss:w/rd?x#y@host", "amqp://u:***@host"),
        ("https://u:hunter2@host/a b@c", "https://u:***@host/a b@c"),
        ('"redis://u:hunter2@h","mail":"a@b"', '"redis://u:***@h","mail":"a@b"'),
        ("redis://u:12345@h", "redis://u:***@h"),
        ("http://localhost:3000/?mail=a@b.com", "http://localhost:3000/?mail=a@b.com"),
        ("https://example.com/a:b", "https://example.com/a:b"),
        ("postgresql://bob@db/x", "postgresql://bob@db/x"),
        # conninfo, queries, calls
        ("host=db password=hunter2 user=bob", "host=db password=*** user=bob"),
        ("host=db password = 'hunter 2\\'s' user=bob", "host=db password = *** user=bob"),
        ("password='it''s' user=bob", "password=*** user=bob"),
        ("password='unterminated and more", "password=***"),
        ("PGPASSWORD=hunter2 psql", "PGPASSWORD=*** psql"),
        ("/cb?code=1&access_token=abc", "/cb?code=1&access_token=***"),
        ("sig=abc%2Bdef%3D", "sig=***"),
        ("https://a.blob.core.windows.net/c?sv=1&sig=ab%3D&se=2", "https://a.blob.core.windows.net/c?sv=1&sig=***"),
        ("https://b.s3.amazonaws.com/k?X-Amz-Signature=abc", "https://b.s3.amazonaws.com/k?X-Amz-Signature=***"),
        ("AccountName=a;AccountKey=abc==;x", "AccountName=a;AccountKey=***"),
        ("Login(user='bob', password='hunter2')", "Login(user='bob', password=***)"),
        ("if token == expected:", "if token == expected:"),
        ("prompt_tokens=812 used", "prompt_tokens=812 used"),
        ("tokens=abc", "tokens=***"),
        # JSON, representations, headers
        ('{"password": "hunter2", "a": 1}', '{"password": ***, "a": 1}'),
        ("{'password': 'hunter2', 'a': 1}", "{'password': ***, 'a': 1}"),
        ('{"token":12345678,"a":1}', '{"token":***,"a":1}'),
        ('"{\\"secret\\": \\"hunter 2\\"}"', '"{\\"secret\\": ***'),
        ("{b'cookie': b'a=hunter2'}", "{b'cookie': ***}"),
        ("Authorization: Basic dXNlcjpodW50ZXIy", "Authorization: ***"),
        ("Cookie: a=1; b=2\nHost: x", "Cookie: ***\nHost: x"),
        ("x-api-key: hunter2", "x-api-key: ***"),
        ("DB_PASSWORD: Field required", "DB_PASSWORD: Field required"),
        ("unexpected token: <", "unexpected token: <"),
        ("credentials={'a': 'hunter 2', 'b': [1, '}']} at db", "credentials=*** at db"),
        ("{'tokens': ['abc', 'd)ef'], 'a': 1}", "{'tokens': ***, 'a': 1}"),
        ("{'secret': ('a', {'b': 'c'}), 'a': 1}", "{'secret': ***, 'a': 1}"),
        ("secret={'a': ['hunter2'", "secret=***"),
        (
            "too short [type=x, input_value='hunter 2', input_type=str]",
            "too short [type=x, input_value=***, input_type=str]",
        ),
        ("{'loc': ('body', 'password'), 'input': 'hunter2'}", "{'loc': ('body', 'password'), 'input': ***}"),
        # Shapes
        ("sent Bearer abc.def-123", "sent Bearer ***"),
        ("bearer   abcdefgh", "bearer   ***"),
        ("Basic dXNlcjpodW50ZXIy", "Basic ***"),
        ("Basic authentication failed", "Basic authentication failed"),
        ("got eyJhbGciOiJI.eyJzdWIiOiIx.c2ln!", "got ***!"),
        ("eyJub3RhdG9rZW4iOjF9", "eyJub3RhdG9rZW4iOjF9"),
        ("id AKIAIOSFODNN7EXAMPLE", "id ***"),
        ("sk-proj-0123456789abcdefghij", "***"),
        ("task-force-of-many-people-1", "task-force-of-many-people-1"),
        ("ghp_0123456789abcdefghij0123", "***"),
        ("$2b$12$" + "a" * 53, "***"),
        ("a -----BEGIN RSA PRIVATE KEY-----\nMII\n-----END RSA PRIVATE KEY----- b", "a *** b"),
        ("-----BEGIN PRIVATE KEY-----\nMII", "***"),
        # PostgreSQL's details
        ("Key (token_hash)=(abc) already exists.", "Key (token_hash)=*** already exists."),
        ("Key (user_id, token)=(1, abc) already", "Key (user_id, token)=*** already"),
        ("Key (email)=(a@b.c) already exists.", "Key (email)=(a@b.c) already exists."),
        ("[SQL: SELECT 1]\n[parameters: ('a', ['b'])]\n(x)", "[SQL: SELECT 1]\n[parameters: ***]\n(x)"),
        ("DETAIL:  Failing row contains (1, a\n(b), c).\nCONTEXT", "DETAIL:  Failing row contains ***\nCONTEXT"),
    ],
)
def test_what_looks_like_a_secret_is_masked(text: str, masked: str) -> None:
    assert mask_patterns(text) == masked
    stream = log_to_memory()
    log.info(text, value=text, deep=[{"a": (text,)}])
    event = only_event(stream)
    assert (event["event"], event["value"], event["deep"]) == (masked, masked, [{"a": [masked]}])


def test_a_masked_text_stays_as_it_is() -> None:
    text = "postgresql://bob:***@db password=*** Bearer *** {'token': '***'}"
    assert mask_patterns(mask_patterns(text)) == mask_patterns(text)


def test_secrets_inside_of_values_that_have_structure() -> None:
    @dataclass
    class Request:
        password: str

    class Body(BaseModel):
        secret: str
        key: SecretStr

    headers = [(b"authorization", b"hunter2"), (b"host", b"example.com"), ["cookie", "a=hunter2"]]
    masked = Masker().event(
        {
            "headers": headers,
            "login": Login("bob", "hunter2"),
            "request": Request("hunter2"),
            "body": Body(secret="hunter2", key=SecretStr("hunter2")),
            "error": ValueError("password=hunter2"),
        }
    )
    assert "hunter2" not in repr(masked)
    assert masked["headers"][1] == ["host", "example.com"]
    assert masked["login"] == {"user": "bob", "password": "***"}


SECRETS: dict[str, Any] = {
    "database_url": "postgresql://app:p%40ss%2Fword-1@db.example.com/app?sslpassword=for-the-key",
    "redis_password": "redis pass'word\\2",
    "redis_host": "localhost",
    "session_secret": "0123456789abcdef" * 4,
}


@pytest.mark.parametrize(
    "secret",
    [
        *("p%40ss%2Fword-1", "p@ss/word-1", "for-the-key", "redis pass'word\\2", "redis%20pass%27word%5C2"),
        *("redis+pass%27word%5C2", "redis pass'word\\\\2", "0123456789abcdef" * 4),
    ],
)
def test_the_secrets_of_the_settings_are_masked_wherever_they_are(secret: str) -> None:
    stream = log_to_memory(**SECRETS)
    log.info("a%sb", secret, value=f"a{secret}b", deep=[{f"a{secret}b": 1}, f"a{secret}b"], raw=secret.encode())
    event = only_event(stream)
    assert (event["event"], event["value"], event["raw"]) == ("a***b", "a***b", "***")
    assert [*event["deep"][0], event["deep"][1]] == ["a***b", "a***b"]


def test_the_host_of_an_address_may_be_seen() -> None:
    stream = log_to_memory(**SECRETS)
    log.info("connected", url=SECRETS["database_url"])
    assert only_event(stream)["url"] == "postgresql://app:***@db.example.com/app?sslpassword=***"


def test_ordinary_words_as_passwords_do_not_garble_the_log() -> None:
    stream = log_to_memory(db_host="localhost", db_username="postgres", db_password="postgres", redis_password="short")
    log.info("a short start of postgresql", dsn="host=localhost password=postgres")
    event = only_event(stream)
    assert event["event"] == "a short start of postgresql"
    assert event["dsn"] == "host=localhost password=***"


def test_a_secret_at_the_edge_of_what_is_kept_is_not_cut_in_two() -> None:
    secret = "0123456789abcdef" * 4
    masker = Masker([secret])
    for length in range(16_384 - 70, 16_384 + 4_096 + 10, 7):
        masked = masker.text(" " * length + secret + " " * 9_000)
        assert "0123" not in masked
        assert masked.endswith("characters)")


def test_fields_that_come_again_and_again_are_looked_at_each_time() -> None:
    secret = "0123456789abcdef" * 2
    masker = Masker([secret])
    for _ in range(2):
        assert masker.event({"id": "plain", "at": 1.5}) == {"id": "plain", "at": 1.5}
    assert masker.event({"id": secret, "at": 2**63}) == {"id": "***", "at": str(2**63)}
    assert masker.event({"id": "password=hunter2", "at": [secret]}) == {"id": "password=***", "at": ["***"]}
    assert masker.event({"id": "f" * 32, "at": "f" * 32}) == {"id": "f" * 32, "at": "f" * 32}
