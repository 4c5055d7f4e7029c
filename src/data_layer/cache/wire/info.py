"""What a server tells about itself."""

from __future__ import annotations


def parse_info(answer: bytes) -> dict[str, int | str]:
    """The fields of INFO by their names; whole numbers are numbers."""
    pairs = (line.partition(":") for line in answer.decode(errors="replace").splitlines() if not line.startswith("#"))
    return {name: int(value) if value.isdecimal() else value for name, separator, value in pairs if separator}
