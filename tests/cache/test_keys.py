from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_layer.cache.keys import Namespace, escape_glob, to_milliseconds
from data_layer.errors import InvalidCacheKeyError

PREFIXES = st.text(string.ascii_letters + string.digits + "_.-", min_size=1, max_size=64)
KEYS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=128)


@given(PREFIXES, KEYS)
def test_a_key_comes_back_without_its_prefix(prefix: str, key: str) -> None:
    namespace = Namespace(prefix)
    assert namespace.without_prefix(namespace.key(key)) == key


@given(PREFIXES, PREFIXES, KEYS, KEYS)
def test_no_two_applications_share_a_key(one: str, other: str, key: str, other_key: str) -> None:
    if one != other:
        assert Namespace(one).key(key) != Namespace(other).key(other_key)
        assert Namespace(one).session(key) != Namespace(other).session(other_key)
        # A glob without wildcards before its last character matches what begins with the rest.
        assert not Namespace(other).key(key).startswith(Namespace(one).pattern("*")[:-1].replace(b"\\", b""))


@pytest.mark.parametrize("prefix", ["", ":", "a:b", "a:"])
def test_a_prefix_has_no_colon(prefix: str) -> None:
    with pytest.raises(ValueError, match="prefix"):
        Namespace(prefix)


@given(KEYS, KEYS)
def test_sessions_are_told_apart_by_hash_and_not_shown(one: str, other: str) -> None:
    namespace = Namespace("app")
    assert (namespace.session(one) == namespace.session(other)) == (one == other)
    assert len(namespace.session(one)) == len(b"app:session:") + 64
    assert namespace.describe(namespace.session(one)) == "a session"


def test_escaped_bytes_hold_no_wildcard() -> None:
    assert escape_glob(b"a*b?c[d]\\^e") == rb"a\*b\?c\[d\]\\\^e"
    assert escape_glob("é-_.".encode()) == "é-_.".encode()


def test_a_message_shows_a_key_escaped_and_cut() -> None:
    with pytest.raises(InvalidCacheKeyError) as failure:
        Namespace("app").key("line\n" * 1000)
    assert "\\n" in str(failure.value)
    assert "\n" not in str(failure.value)
    assert len(str(failure.value)) < 250


@given(st.integers(1, 3650 * 24 * 3600 * 1000))
def test_milliseconds_are_exact(milliseconds: int) -> None:
    assert to_milliseconds(milliseconds / 1000) == milliseconds
