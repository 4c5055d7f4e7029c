from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.observability.support import events, log_to_memory

log = structlog.get_logger("data_layer.tests")
examples = settings(max_examples=50, deadline=None)
ordinary = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


class Shown:
    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return f"<Shown {self.text}>"


def wrapped_in(kind: str, value: Any, noise: str) -> Any:
    match kind:
        case "value":
            return {noise: value}
        case "key" if isinstance(value, str):
            return {value: noise}
        case "list":
            return [noise, value, 1]
        case "tuple":
            return (value, noise)
        case "text":
            return f"{noise} {value if isinstance(value, str) else json.dumps(str(value))} {noise}"
        case "bytes" if isinstance(value, str):
            return value.encode()
        case "object":
            return Shown(str(value))
        case "error":
            return ValueError(str(value))
        case _:
            return {"a": [value]}


wraps = st.lists(
    st.tuples(st.sampled_from(["value", "key", "list", "tuple", "text", "bytes", "object", "error"]), ordinary),
    max_size=4,
)


def log_everywhere(text: str, wrapping: list[tuple[str, str]]) -> None:
    value: Any = text
    for kind, noise in wrapping:
        value = wrapped_in(kind, value, noise)
    log.info("seen", value=value)
    log.info("seen %s", text, **{text: 1})
    try:
        try:
            raise OSError(text)  # noqa: TRY301
        except OSError as error:
            error.add_note(f"while reading {text}")
            raise ValueError(str(value)) from error
    except ValueError:
        log.exception("failed %s", value)


def strings_in(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [string for item in value.items() for part in item for string in strings_in(part)]
    if isinstance(value, list):
        return [string for part in value for string in strings_in(part)]
    return [value] if isinstance(value, str) else []


def check_that_nothing_shows(secret: str, act: Callable[[], None], **values: Any) -> None:
    stream = log_to_memory(log_format="json", **values)
    act()
    assert len(events(stream)) == 3
    assert not [string for string in strings_in(events(stream)) if secret in string]
    stream = log_to_memory(log_format="console", **values)
    act()
    assert secret not in stream.getvalue()
    assert repr(secret)[1:-1] not in stream.getvalue()


# Control characters are refused in settings, and white space and other invisible ones are removed at their ends.
visible = st.characters(exclude_categories=["C", "Z", "M"])


@examples
@given(rest=st.text(visible, min_size=6, max_size=40), wrapping=wraps)
def test_a_secret_of_the_settings(rest: str, wrapping: list[tuple[str, str]]) -> None:
    secret = f"S3{rest}"
    check_that_nothing_shows(secret, lambda: log_everywhere(secret, wrapping), session_secret=secret)


characters = st.characters(min_codepoint=33, max_codepoint=126)
passwords = st.text(characters, min_size=6, max_size=40).map("S3{}".format)


def in_conninfo(password: str) -> str:
    escaped = password.replace("\\", "\\\\").replace("'", "\\'")
    return f"host=db password='{escaped}' user=bob"


@examples
@given(password=passwords, wrapping=wraps)
def test_the_password_of_an_address(password: str, wrapping: list[tuple[str, str]]) -> None:
    spelled = quote(password, safe="")
    address = f"postgresql://user:{spelled}@db.example.com:5432/name"
    check_that_nothing_shows(spelled, lambda: log_everywhere(address, wrapping))


@examples
@given(password=passwords, wrapping=wraps)
def test_the_password_of_a_conninfo(password: str, wrapping: list[tuple[str, str]]) -> None:
    conninfo = in_conninfo(password)
    check_that_nothing_shows(password, lambda: log_everywhere(conninfo, wrapping))


@examples
@given(
    password=st.one_of(passwords, st.text(min_size=1, max_size=40)),
    name=st.sampled_from(["password", "X-Api-Key", "accessToken", "session_id", "token_hash"]),
    wrapping=wraps,
)
def test_a_value_under_the_name_of_a_secret(password: str, name: str, wrapping: list[tuple[str, str]]) -> None:
    secret = f"S3cr3t{password}"

    def act() -> None:
        value: Any = {name: secret, "n": [(name, secret)]}
        for kind, noise in wrapping:
            value = wrapped_in(kind, value, noise) if kind not in {"text", "object", "error"} else [value]
        log.info("seen", value=value)
        log.info("seen", **{name: secret})
        log.info("seen", **{name: [secret]})

    check_that_nothing_shows(secret, act)
