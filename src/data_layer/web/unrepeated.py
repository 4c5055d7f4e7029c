"""The calls of the hosted application that nobody sends again, and for how many seconds their caller waits for each."""

from __future__ import annotations

from collections.abc import Mapping

STORE = "/generations/store"
STORE_IMAGE_DATA = "/assets/store_image_data"
STORE_IMAGE_URL = "/assets/store_image_url"
HAS_CREDITS = "/credits/has_credits"
"""It is repeated, but not after an answer, and any answer but yes stops what a person does."""

PATIENCE: Mapping[str, float] = {STORE: 10.0, STORE_IMAGE_DATA: 45.0, STORE_IMAGE_URL: 45.0, HAS_CREDITS: 60.0}

HELD_SECONDS: Mapping[str, float] = {
    **{path: seconds - 1 for path, seconds in PATIENCE.items()},
    # Its caller waits for ten seconds, and loses the page whatever it hears then. A request that was sent whole is
    # there also when its caller has gone, and is stored as soon as somebody can.
    STORE: 60.0,
}
"""For how many seconds a call waits for a process that is starting: until its caller is about to give up, so that it
sees the reason; a page for as long as anything is tried for it."""
