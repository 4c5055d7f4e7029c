"""The slots of a cluster: which one a key belongs to."""

from __future__ import annotations

from binascii import crc_hqx

SLOTS = 16_384


def key_slot(key: bytes) -> int:
    """The slot of a key; only what stands between the first braces counts, if there is something."""
    start = key.find(b"{")
    if start >= 0:
        end = key.find(b"}", start + 1)
        if end > start + 1:
            key = key[start + 1 : end]
    return crc_hqx(key, 0) % SLOTS
