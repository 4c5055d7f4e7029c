"""How hard a secret is to guess, so that production refuses what somebody made up, or copied from a page.

Strength is measured by zxcvbn, which knows words, names, dates, sequences, repetition and walks over the keyboard.
What a machine made of 128 random bits is never refused, however it is written: hex, Base64, a UUID.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import itertools
import re
import string
from collections.abc import Collection, Iterable, Mapping

HOW_TO_MAKE_ONE = "make one with: openssl rand -hex 32"
_MINIMUM_LENGTH = 32
_TOO_SHORT = f"has under {_MINIMUM_LENGTH} characters"
_MINIMUM_RANDOM_LENGTH = 22  # 128 bits in Base64.
# Decimal exponents of the number of guesses. Of 128 random bits in 22 characters zxcvbn never found fewer than 10^20 in
# 6,000 samples, in 32 hexadecimal digits never fewer than 10^27.
_GUESSES, _GUESSES_OF_SHORT = 20.0, 16.0
_GUESSES_OF_PASSWORD = 8.0  # zxcvbn's "safely unguessable", behind a server that takes its time.
_RANDOM_CHARACTERS, _RANDOM_LETTERS = 9, 16
_SHARE_OF_STEPS = 0.64  # About a quarter in random hexadecimal digits.
_MEASURED_LENGTH = 40  # zxcvbn's time grows with the square of the length.

# Words with which people mark what is to be replaced. None is a chance find in Base64, and none can be in hex.
_PLACEHOLDER = re.compile(
    "change|secret|insecure|example|placeholder|password|passphrase|default|replace|sample|random|develop|production"
)
_SAMPLE_PARTS = ("django-insecure-", "3141592653589793", "2718281828459045", "loremipsum", "supercalifragilistic")
# Random once, and published since: in the documentation of FastAPI, of Flask, of Amazon and of Microsoft.
_PUBLISHED = frozenset(
    {
        "09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7",
        "192b9bdd22ab9ed4d12e236c78afcb9a393ec15f71bbf5dc987d54727823bcbf",
        "wjalrxutnfemi/k7mdeng/bpxrficyexamplekey",
        "eby8vdm02xnocqflquwjpllmetlcdxj1ouzft50usrz6ifsufq2uverz4i6tq/k1szfptotr/kbhbeksogmgw==",
        "eby8vdm02xnocqflquwjpllmetlcdxj1ouzft50usrz6ifsufq2uvercz4i6tq/k1szfptotr/kbhbeksogmgw==",
    }
)
_HASHED_WORDS = ("", "a", "admin", "changeme", "secret", "password", "test", "123456", "hello", "root")


def secret_weakness(secret: str, names: Collection[str] = ()) -> str | None:
    """What keeps a secret from protecting anything, in words that follow its name; None for a good one.

    Args:
        secret: signs or hashes; an attacker who guesses can try without a limit.
        names: what an attacker knows, such as host names.
    """
    if secret.lower() in _PUBLISHED or any(part in secret.lower() for part in _SAMPLE_PARTS):
        return "is a sample that was published"
    if _is_hash_of_a_word(secret):
        return "is the hash of a well-known word"
    if len(secret) < _MINIMUM_RANDOM_LENGTH:
        return _TOO_SHORT
    if _PLACEHOLDER.search(secret.lower()):
        secret = _longest_part_beside_placeholders(secret)
        if len(secret) < _MINIMUM_RANDOM_LENGTH:
            return "is made of words"
    return _weakness_of_long(secret, names) if len(secret) >= _MINIMUM_LENGTH else _weakness_of_short(secret, names)


def _weakness_of_short(secret: str, names: Collection[str]) -> str | None:
    """Under 32 characters only what was made at random is good."""
    guesses, random = _measure(secret, names)
    return _TOO_SHORT if guesses < _GUESSES_OF_SHORT or random < _RANDOM_CHARACTERS else None


def _weakness_of_long(secret: str, names: Collection[str]) -> str | None:
    if _is_walk(secret) or _guesses(secret, names) < _GUESSES:
        return "is easy to guess"
    if not any(character.isdigit() for character in secret) and _measure(secret, names)[1] < _RANDOM_LETTERS:
        return "is made of words"
    other_readings = {_without_runs(secret), *_decoded(secret)} - {secret}
    if any(_guesses(reading, names) < min(_GUESSES, len(reading) / 2) for reading in other_readings):
        return "is easy to guess"
    return None


def _longest_part_beside_placeholders(secret: str) -> str:
    words = _PLACEHOLDER.sub(" ", re.sub(r"[^a-z0-9]", " ", secret.lower())).split()
    return max(words, key=len, default="")


def password_weakness(password: str, names: Collection[str] = ()) -> str | None:
    """The same for a password of a server, which can be tried less often."""
    if password.lower() in _PUBLISHED:
        return "is a sample that was published"
    return "is easy to guess" if _guesses(password, names) < _GUESSES_OF_PASSWORD else None


def shared_secrets(purposes: Mapping[str, Iterable[tuple[str, str]]]) -> list[str]:
    """The problems that one secret serves two purposes, or that one is made from another.

    Args:
        purposes: for each the names of its settings with their values. Of one purpose two settings may hold the same.
    """
    problems = []
    for ours, others in itertools.combinations(purposes.values(), 2):
        for (name, secret), (other_name, other) in itertools.product(ours, others):
            if secret == other:
                problems.append(f"{name} and {other_name} are the same; each needs its own")
            elif min(len(secret), len(other)) >= _MINIMUM_RANDOM_LENGTH and _contains(secret, other):
                problems.append(f"{name} and {other_name} have most in common; each needs its own random value")
    return problems


def _contains(one: str, other: str) -> bool:
    one, other = one.lower(), other.lower()
    return one in other or other in one


def _guesses(text: str, names: Collection[str]) -> float:
    """The decimal exponent of the number of guesses that find it, also where two weak ones are interleaved."""
    whole = _measure(text, names)[0]
    return min(whole, sum(_measure(half, names)[0] for half in (text[::2], text[1::2]))) if len(text) > 1 else whole


def _measure(text: str, names: Collection[str]) -> tuple[float, int]:
    from zxcvbn import zxcvbn

    if not text:
        return 0.0, 0
    result = zxcvbn(text[:_MEASURED_LENGTH], user_inputs=[name for name in names if name])
    random = "".join(part["token"] for part in result["sequence"] if str(part["pattern"]) == "bruteforce")
    return float(result["guesses_log10"]), sum(map(str.isalnum, random))


def _without_runs(text: str) -> str:
    return "".join(character for character, _ in itertools.groupby(text))


def _is_walk(text: str) -> bool:
    """Whether most characters are neighbours of those before them: on a keyboard, in the alphabet, or the same."""
    from zxcvbn.adjacency_graphs import ADJACENCY_GRAPHS

    keys = ADJACENCY_GRAPHS["qwerty"]
    steps = [
        abs(ord(here) - ord(there)) <= 1 or any(there in (key or "") for key in keys.get(here, ()))
        for here, there in itertools.pairwise(text)
    ]
    return sum(steps) > _SHARE_OF_STEPS * len(steps)


def _decoded(secret: str) -> list[str]:
    """What a person wrote before it was encoded, if that is text."""
    texts = []
    for decode in (bytes.fromhex, _from_base64):
        try:
            text = decode(secret).decode("ascii")
        except (ValueError, binascii.Error):
            continue
        if text and all(character in string.printable for character in text):
            texts.append(text)
    return texts


def _from_base64(text: str) -> bytes:
    return base64.b64decode(text.translate({ord("-"): "+", ord("_"): "/"}) + "=" * (-len(text) % 4), validate=True)


def _is_hash_of_a_word(secret: str) -> bool:
    words = [word.encode() for word in _HASHED_WORDS]
    lengths = {32: hashlib.md5, 40: hashlib.sha1, 64: hashlib.sha256, 128: hashlib.sha512}
    make = lengths.get(len(secret))
    return make is not None and secret.lower() in {make(word, usedforsecurity=False).hexdigest() for word in words}
