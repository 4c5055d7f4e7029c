"""What people say a code or an image is worth."""

from __future__ import annotations

from typing import Any

from data_layer.errors import InvalidValueError

LONGEST_FEEDBACK = 2000


def rating_values(*, stars: int | None, is_good: bool | None, words: object) -> dict[str, Any]:
    """The values of the columns ``rating`` and ``feedback``; what is not given is empty, as a rating is one whole.

    Raises:
        InvalidValueError: words too long. The column refuses stars out of range.
    """
    if words is not None and (not isinstance(words, str) or len(words) > LONGEST_FEEDBACK):
        raise InvalidValueError(f"words must be text of at most {LONGEST_FEEDBACK} characters", field="words")
    thumb = None if is_good is None else ("up" if is_good else "down")
    feedback = {name: value for name, value in (("thumb", thumb), ("words", words)) if value is not None}
    return {"rating": stars, "feedback": feedback}
