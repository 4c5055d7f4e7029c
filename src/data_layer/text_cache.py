"""Results by short texts, for texts that clients choose: a cache with a number of entries has no limit in bytes."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import AnyStr, TypeVar

Result = TypeVar("Result")

LONGEST = 256
"""What is longer is worked out each time."""


def cached_by_text(most: int) -> Callable[[Callable[[AnyStr], Result]], Callable[[AnyStr], Result]]:
    """Keep the results of a function of one text, for as many texts as are given; those used longest ago are dropped.

    Long texts are not kept: names in somebody's JSON may have megabytes.
    """

    def decorate(function: Callable[[AnyStr], Result]) -> Callable[[AnyStr], Result]:
        cached = lru_cache(maxsize=most)(function)

        @wraps(function)
        def call(text: AnyStr) -> Result:
            return cached(text) if len(text) <= LONGEST else function(text)

        return call

    return decorate
