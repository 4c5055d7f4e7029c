"""Numbers for people."""

from __future__ import annotations


def readable_size(count: float) -> str:
    """A number of bytes: 12 MiB, 3.4 GiB."""
    if count >= 2**30:
        return f"{count / 2**30:,.1f} GiB"
    return f"{count / 2**20:,.0f} MiB"
