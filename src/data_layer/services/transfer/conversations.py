"""What is known of how the application talks to models: the messages that it writes, and what it calls the models.

It is an outside protocol, which changes without asking us; nothing of it stands in another module. Pages and prompts
are hostile: they are searched in linear time, without regular expressions that go back.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from data_layer.entities.enums import GenerationProvider
from data_layer.schemas.generations import VariantModel
from data_layer.schemas.lineage import EarlierTurn

_CLOSING_TAG = re.compile(r"</(\w{1,40})>\Z")
_MODEL = re.compile(r"(?P<provider>gpt|o\d|claude|gemini)", re.IGNORECASE)
_PROVIDERS = {"claude": GenerationProvider.CLAUDE, "gemini": GenerationProvider.GEMINI}


@dataclass(frozen=True, slots=True)
class Prompt:
    """A conversation with the model, read.

    Attributes:
        text: what is asked for now.
        full_text: the same as the model saw it, where that is more.
        media: the data URLs and addresses of what is shown with it.
        shown: a hash of these.
        base_code: the code that it changes, without white space at its ends.
        earlier: the turns before, oldest first.
    """

    text: str | None = None
    full_text: str | None = None
    media: tuple[str, ...] = ()
    shown: str | None = None
    base_code: str | None = None
    earlier: tuple[EarlierTurn, ...] = ()


def read_prompt(messages: Any) -> Prompt:
    """Read the messages of a conversation; what does not look like one is an empty prompt.

    A conversation is a system message, then a user's, and for a change what the assistant has answered with the next
    user's message after it. A page that was reopened comes in the user's message itself.
    """
    turns: list[tuple[str | None, tuple[str, ...], str | None]] = []
    for message in messages if isinstance(messages, list) else ():
        if not isinstance(message, Mapping):
            continue
        text, media = _read_content(message.get("content"))
        if message.get("role") == "user":
            turns.append((text, media, None))
        elif message.get("role") == "assistant" and turns and turns[-1][2] is None:
            turns[-1] = (*turns[-1][:2], _code_of(text))
    if not turns:
        return Prompt()
    last, media, _ = turns[-1]
    earlier = tuple(
        EarlierTurn(prompt=_request_of(text), code=code, shown=_hash_of(shown)) for text, shown, code in turns[:-1]
    )
    base = _current_file(last) or next((turn.code for turn in reversed(earlier) if turn.code is not None), None)
    request = _request_of(last)
    full = None if request == last else last
    return Prompt(text=request, full_text=full, media=media, shown=_hash_of(media), base_code=base, earlier=earlier)


def read_model(name: Any) -> VariantModel:
    """Read the name of a model, such as ``gpt-5.5 (low thinking)``."""
    given = name[:100] if isinstance(name, str) and name else "unknown"
    text = given.replace("\0", "").encode(errors="replace").decode()
    match = _MODEL.match(text)
    if match is None:
        return VariantModel(name=text)
    return VariantModel(provider=_PROVIDERS.get(match["provider"].lower(), GenerationProvider.OPENAI), name=text)


def _read_content(content: Any) -> tuple[str | None, tuple[str, ...]]:
    if isinstance(content, str):
        return content, ()
    texts, media = [], []
    for part in content if isinstance(content, list) else ():
        if not isinstance(part, Mapping):
            continue
        if isinstance(part.get("text"), str):
            texts.append(part["text"])
        url = part.get("image_url", part.get("video_url"))
        url = url.get("url") if isinstance(url, Mapping) else url
        if isinstance(url, str):
            media.append(url)
    return "\n".join(texts) if texts else None, tuple(media)


def _hash_of(media: tuple[str, ...]) -> str:
    digest = hashlib.sha256()
    for url in media:
        digest.update(hashlib.sha256(url.encode(errors="replace")).digest())
    return digest.hexdigest()


def _code_of(answer: str | None) -> str | None:
    """The code in an answer of the assistant."""
    text = (answer or "").strip()
    if text.startswith("<file ") and text.endswith("</file>"):
        text = _inside(text, "file") or ""
    return text.strip() or None


def _current_file(text: str | None) -> str | None:
    """The page that a person has reopened."""
    found = _inside(text or "", "current_file")
    return None if found is None else found.strip() or None


def _request_of(text: str | None) -> str | None:
    """What a person has written: without the page that is changed, and without the ids of assets."""
    if text is None:
        return None
    found = _inside(text, "change_request")
    return _without_assets((text if found is None else found).strip()) or None


def _inside(text: str, tag: str) -> str | None:
    """What stands between the first opening and the last closing tag."""
    opening = text.find(f"<{tag}")
    start = text.find(">", opening) + 1 if opening >= 0 else 0
    end = text.rfind(f"</{tag}>")
    return text[start:end] if 0 < start <= end else None


def _without_assets(text: str) -> str:
    """The text without a block of ids of assets at its end."""
    match = _CLOSING_TAG.search(text, max(0, len(text) - 50))
    if match is None or "asset" not in match[1]:
        return text
    start = text.rfind(f"<{match[1]}")
    return text if start < 0 else text[:start].rstrip()
