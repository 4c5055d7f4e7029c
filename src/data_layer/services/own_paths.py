"""Where somebody may be led after something was done: to a path of this host, and nowhere else ("open redirect")."""

from __future__ import annotations

import re

LONGEST_PATH = 1024
_PATH = re.compile(r"/(?![/\\])[\x21-\x5b\x5d-\x7e]*")


def is_own_path(path: str) -> bool:
    """Whether a text is a path of this host, with its query, that no browser takes for another address."""
    return len(path) <= LONGEST_PATH and _PATH.fullmatch(path) is not None
