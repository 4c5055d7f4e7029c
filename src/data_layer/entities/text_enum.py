"""What the enumerations of the data model have in common."""

from __future__ import annotations

import operator
from enum import StrEnum
from typing import TYPE_CHECKING


class TextEnum(StrEnum):
    """Members that are their text."""

    if not TYPE_CHECKING:
        # An answer is written by asking each member for its value, and Enum's own property is a function in Python: a
        # list of 50 versions asks 350 times.
        value = property(operator.attrgetter("_value_"))
