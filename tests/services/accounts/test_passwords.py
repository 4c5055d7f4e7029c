"""Passwords: every text works, no two fit each other, and everybody waits equally long."""

from __future__ import annotations

import asyncio
import threading
import unicodedata

import bcrypt
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from data_layer.errors import OverloadedError, WeakPasswordError
from data_layer.services.accounts.passwords import MAXIMUM_LENGTH, PasswordHasher, check_new_password, normalize

any_text = st.text(max_size=200)
long_text = st.text(min_size=60, max_size=MAXIMUM_LENGTH)
quick = settings(max_examples=60, deadline=None)


def matches(password: str, other: str, *, rounds: int = 4) -> bool:
    async def compare() -> bool:
        with PasswordHasher(rounds, threads=1) as hasher:
            return await hasher.verify(other, await hasher.hash(password))

    return asyncio.run(compare())


@quick
@given(st.one_of(any_text, long_text))
def test_any_text_of_any_length_fits_itself(password: str) -> None:
    assert matches(password, password)


@quick
@given(any_text, any_text)
def test_different_passwords_never_fit(one: str, other: str) -> None:
    assume(normalize(one) != normalize(other))
    assert not matches(one, other)


@quick
@given(st.text(min_size=72, max_size=90), any_text, any_text)
def test_nothing_is_cut_off_at_the_end(beginning: str, one: str, other: str) -> None:
    """bcrypt itself ends after 72 bytes."""
    assume(normalize(beginning + one) != normalize(beginning + other))
    assert not matches(beginning + one, beginning + other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a\0b", "a\0c"),
        ("a\0", "a"),
        ("é" * 40, "é" * 40 + "x"),
        ("Password", "password"),
        ("ﬁne", "fine"),
        ("x ", "x"),
    ],
)
def test_what_others_confuse_is_different(one: str, other: str) -> None:
    assert not matches(one, other)


@pytest.mark.parametrize("password", ["Zoë\u0301 café", "안녕하세요", "Å\u212b", "a\u00a0b\u3000c"])
def test_other_ways_of_typing_the_same_text_fit(password: str) -> None:
    assert matches(unicodedata.normalize("NFC", password), unicodedata.normalize("NFD", password))
    assert matches(password, password.replace("\u00a0", " ").replace("\u3000", " "))


async def test_the_stored_text() -> None:
    with PasswordHasher(4) as hasher:
        first, second = await hasher.hash("same password"), await hasher.hash("same password")
        assert first != second, "salted"
        assert first.startswith("v1:$2b$04$")
        assert not hasher.needs_rehash(first)
    with PasswordHasher(5) as hasher:
        assert hasher.needs_rehash(first)
        assert await hasher.verify("same password", first)


@pytest.mark.parametrize(
    "stored", [None, "", "v1:", "v1:$2b$", "v1:$2b$xx$abc", "v2:$2b$04$", "plain", "$2b$04$" + "a" * 53]
)
async def test_what_is_no_hash_of_ours_fits_nothing(stored: str | None) -> None:
    with PasswordHasher(4) as hasher:
        assert not await hasher.verify("", stored)
        assert hasher.work == 2**4


@pytest.mark.parametrize("rounds", [4, 5, 7, 8])
async def test_every_answer_costs_the_same_work(rounds: int) -> None:
    """Also for a hash that was made with fewer rounds than are set now."""
    with PasswordHasher(rounds) as old:
        stored = await old.hash("right")
    for password, hashed in [("right", stored), ("wrong", stored), ("any", None), ("x" * (MAXIMUM_LENGTH + 1), stored)]:
        with PasswordHasher(8) as hasher:
            assert await hasher.verify(password, hashed) == (password == "right")
            assert hasher.work == 2**8


async def test_the_event_loop_goes_on() -> None:
    with PasswordHasher(12, threads=1) as hasher:
        hashing = asyncio.create_task(hasher.hash("something"))
        turns = 0
        while not hashing.done():
            turns += 1
            await asyncio.sleep(0)
        assert turns > 10
        assert await hashing


async def test_threads_are_bounded_and_so_is_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    go_on, working, most = threading.Event(), 0, 0
    compute = bcrypt.hashpw

    def slow(password: bytes, salt: bytes) -> bytes:
        nonlocal working, most
        working += 1
        most = max(most, working)
        go_on.wait(30)
        working -= 1
        return compute(password, salt)

    monkeypatch.setattr(bcrypt, "hashpw", slow)
    with PasswordHasher(4, threads=1) as hasher:
        waiting = [asyncio.create_task(hasher.hash(str(number))) for number in range(32)]
        await asyncio.sleep(0)
        with pytest.raises(OverloadedError):
            await hasher.hash("one too many")
        waiting[-1].cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting[-1]
        replacing = asyncio.create_task(hasher.hash("there is room again"))
        go_on.set()
        assert len({*await asyncio.gather(*waiting[:-1], replacing)}) == 32
        assert most == 1


class TestPolicy:
    @pytest.mark.parametrize(
        ("password", "reason"),
        [
            ("short", "8 characters or more"),
            ("", "8 characters or more"),
            ("1234567", "8 characters or more"),
            ("é" * 7, "8 characters or more"),
            ("e\u0301" * 7, "8 characters or more"),
            ("password", "most common"),
            ("PassWord", "most common"),
            ("Password123!", "most common"),
            ("Summer2024!", "most common"),
            ("qwertyuiop", "most common"),
            ("aaaaaaaaaaaa", "repeats"),
            ("abababababab", "repeats"),
            ("bcdefghijkl", "sequence"),
            ("zyxwvutsrqp", "sequence"),
            ("John.Doe1985", "address or the name"),
            ("eva.example@example.com", "address or the name"),
            ("line\nfeed and more", "control character"),
            ("nul\0 and more", "control character"),
            ("half \ud800 a pair", "surrogate"),
            ("unassigned \U000e0fff", "unassigned"),
            ("x" * (MAXIMUM_LENGTH + 1), "1024 characters at most"),
        ],
    )
    def test_refused(self, password: str, reason: str) -> None:
        personal = ("eva.example@example.com", "eva.example", "John", "Doe", "John Doe")
        with pytest.raises(WeakPasswordError, match=reason) as caught:
            check_new_password(password, minimum=8, personal=personal)
        assert caught.value.field == "password"
        assert str(caught.value).startswith("the password ")
        assert len(password) < 9 or password not in str(caught.value)

    @pytest.mark.parametrize(
        "password",
        ["correct horse battery staple", "xk7 Qz!w", "пароль-который-длинный", "🐎🔋📎✅🐴🌍🌱🎈", "Johnny likes tea"],
    )
    def test_accepted(self, password: str) -> None:
        check_new_password(password, minimum=8, personal=("john@example.com", "John", "Doe"))

    def test_the_minimum_is_a_setting(self) -> None:
        check_new_password("fourteen chars", minimum=14)
        with pytest.raises(WeakPasswordError, match="15 characters"):
            check_new_password("fourteen chars", minimum=15)

    @quick
    @given(st.text(max_size=60), st.text(max_size=20))
    def test_the_answer_is_yes_or_a_reason(self, password: str, name: str) -> None:
        try:
            check_new_password(password, minimum=8, personal=(name,))
        except WeakPasswordError:
            return
        assert len(normalize(password)) >= 8
        assert matches(password, password)


def test_the_error_names_the_argument() -> None:
    with pytest.raises(WeakPasswordError, match="the new password needs 8") as raised:
        check_new_password("short", minimum=8, field="new")
    assert raised.value.field == "new"
