"""The keys whose values are so large that they travel on a line of their own."""

from __future__ import annotations

LARGE = 65_536
"""Bytes of a command or a value above which it would hold up the small ones."""
_REMEMBERED = 4096


class LargeKeys(dict[bytes, int]):
    """Keys that had a large value, each with the number of its commands under way on the line for large ones.

    As long as one is under way, all commands on its key have to follow it, so that their order is kept.
    """

    def remember(self, key: bytes) -> None:
        """The value of this key is large."""
        self.setdefault(key, 0)
        if len(self) > _REMEMBERED:
            idle = next((key for key, under_way in self.items() if under_way == 0), None)
            if idle is not None:
                del self[idle]

    def enter(self, key: bytes) -> None:
        """A command on this key goes to the line for large ones."""
        self[key] = self.get(key, 0) + 1

    def leave(self, key: bytes, *, is_small: bool) -> None:
        """That command has ended, and may have shown that the value is small now."""
        self[key] -= 1
        if self[key] == 0 and (is_small or len(self) > _REMEMBERED):
            del self[key]
