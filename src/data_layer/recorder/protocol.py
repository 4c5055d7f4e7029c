"""The WebSocket of Screenshot to Code: everything that is known of it, and the only place that knows it.

State of July 2026. The browser sends one message and never another one; the application answers with many, each about
one variant, and closes. Nothing in it names a project, a version or a parent.

A request carries the person's API keys. Only the fields that are named here are read, so a secret of a future version
stays out as well. The seven that are known are read too, to be removed from what the application says: an error may
repeat the header that it could not send.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import Any

import orjson

from data_layer.entities.enums import CodeStack, InputMode, RequestType
from data_layer.errors import InvalidValueError
from data_layer.schemas.generations import VariantModel, VariantResult
from data_layer.services.files.sources import decode_data_url
from data_layer.services.transfer.conversations import read_model

GENERATE_PATH = "/generate-code"
ASSETS_PATH = "/local-assets/"

APPLICATION_ERROR = 4332
"""Close code: the application has sent ``error`` and gives up."""
CANCELLED = 4333
"""Close code: the person has pressed Cancel. Sent by the page; any other code of its side means a lost connection."""

MOST_VARIANTS = 16

_SECRETS = (
    "openAiApiKey",
    "openAiBaseURL",
    "replicateApiKey",
    "anthropicApiKey",
    "geminiApiKey",
    "screenshotOneApiKey",
    "authToken",
)
_SHORTEST_SECRET = 6
"""Anything shorter would take words out of texts."""
_REMOVED = "[removed]"

ASSET_TOOLS = frozenset({"generate_images", "remove_background", "edit_image", "extract_assets", "save_assets"})
"""Tools whose results name images by their addresses."""

_OPTIONS = (
    "codeGenerationModel",
    "isImageGenerationEnabled",
    "isAssetExtractionEnabled",
    "editorTheme",
    "selectedDesignSystemId",
)
_LONGEST_OPTION = 200
_LONGEST_ELEMENT = 256 * 1024
_MOST_MEDIA = 16
_MOST_TURNS = 400
_MOST_CODES = 16


@dataclass(frozen=True, slots=True)
class Media:
    """An image or a video of a prompt."""

    content_type: str
    content: bytes

    @property
    def is_video(self) -> bool:
        """Whether it is a video."""
        return self.content_type.startswith("video/")


@dataclass(frozen=True, slots=True)
class Request:
    """What a person has asked for, without secrets.

    Attributes:
        media: the images of the prompt, then its videos.
        spoken: the prompt as the conversation has it, which names the selected element too.
        earlier: what the person has said before, oldest first, and the code that answered it where that is known.
        base_code: the code that is changed; to the byte that of the variant which was open.
        base_variants: the codes of all variants of that version.
        secrets: what must not be kept of what the application says.
    """

    generation_type: RequestType
    input_mode: InputMode
    code_stack: CodeStack
    prompt: str = ""
    full_prompt: str | None = None
    selected_element: str | None = None
    media: tuple[Media, ...] = ()
    spoken: str = ""
    earlier: tuple[tuple[str, str | None], ...] = ()
    base_code: str | None = None
    base_variants: tuple[str, ...] = ()
    design_system: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    secrets: tuple[str, ...] = field(default=(), repr=False)


class Kind(StrEnum):
    """What a message of the application is about."""

    VARIANT_COUNT = "variantCount"
    VARIANT_MODELS = "variantModels"
    STATUS = "status"
    THINKING = "thinking"
    ASSISTANT = "assistant"
    TOOL_START = "toolStart"
    TOOL_RESULT = "toolResult"
    SET_CODE = "setCode"
    CHUNK = "chunk"
    VARIANT_COMPLETE = "variantComplete"
    VARIANT_ERROR = "variantError"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Message:
    """A message of the application."""

    kind: Kind
    variant: int | None = None
    text: str | None = None
    data: dict[str, Any] = field(default_factory=dict)
    event_id: str | None = None


def parse_request(text: str | bytes) -> Request | None:
    """The request in the first message of a page; None where it is something else."""
    sent = _loads(text)
    if sent is None:
        return None
    prompt = _dict(sent.get("prompt"))
    is_update = sent.get("generationType") == "update"
    state = _dict(sent.get("fileState"))
    earlier = _conversation(sent.get("history"))
    text = _text(prompt.get("text")) or ""
    spoken = earlier.pop()[0] if earlier and earlier[-1][1] is None else text
    media = [*_media(prompt.get("images")), *_media(prompt.get("videos"))][:_MOST_MEDIA]
    options = {name: sent[name] for name in _OPTIONS if _is_option(sent.get(name))}
    return Request(
        generation_type=RequestType.UPDATE if is_update else RequestType.CREATE,
        input_mode=_choice(InputMode, sent.get("inputMode"), InputMode.IMAGE),
        code_stack=_choice(CodeStack, sent.get("generatedCodeConfig"), CodeStack.HTML_TAILWIND),
        prompt=text,
        full_prompt=_text(prompt.get("fullText")),
        selected_element=(_text(prompt.get("selectedElementHtml")) or "")[:_LONGEST_ELEMENT] or None,
        media=tuple(media),
        spoken=spoken,
        earlier=tuple(earlier),
        base_code=_text(state.get("content")) if is_update else None,
        base_variants=tuple(_texts(sent.get("optionCodes"))[:_MOST_CODES]) if is_update else (),
        design_system=_text(sent.get("designSystem")),
        options=options,
        secrets=_secrets(sent),
    )


def _secrets(sent: dict[str, Any]) -> tuple[str, ...]:
    """The secrets of a request, longest first: one may be a part of another one."""
    found = {(_text(sent.get(name)) or "").strip() for name in _SECRETS}
    return tuple(sorted((each for each in found if len(each) >= _SHORTEST_SECRET), key=len, reverse=True))


def without_secrets(value: Any, secrets: Sequence[str]) -> Any:
    """Any value of JSON without secrets in its texts."""
    match value:
        case str():
            for secret in secrets:
                value = value.replace(secret, _REMOVED)
            return value
        case dict():
            return {name: without_secrets(each, secrets) for name, each in value.items()}
        case list():
            return [without_secrets(each, secrets) for each in value]
    return value


_SET_CODE = re.compile(r'\{\s*"type"\s*:\s*"setCode"\s*,\s*(?:"variantIndex"\s*:\s*(\d{1,3})\s*,)?')
_VARIANT_AT_END = re.compile(r'"variantIndex"\s*:\s*(\d{1,3})\s*(?:,\s*"(?:data|eventId)"\s*:\s*null\s*)*\}\s*\Z')
_TAIL = 120


def code_variant(text: str) -> int | None:
    """Which variant a message gives the whole code of, without reading that; None where only parsing can tell.

    Nothing inside a text can pass for it: there a quotation mark follows a backslash.
    """
    start = _SET_CODE.match(text, 0, _TAIL)
    if start is None:
        return None
    found = start[1] or ((end := _VARIANT_AT_END.search(text, max(0, len(text) - _TAIL))) and end[1])
    return int(found) if found else None


def parse_message(text: str | bytes) -> Message | None:
    """A message of the application; None where it is of no known kind."""
    sent = _loads(text)
    if sent is None or sent.get("type") not in _KINDS:
        return None
    variant = sent.get("variantIndex")
    is_index = isinstance(variant, int) and not isinstance(variant, bool) and 0 <= variant < MOST_VARIANTS
    return Message(
        kind=Kind(sent["type"]),
        variant=variant if is_index else None,
        text=_text(sent.get("value")),
        data=_dict(sent.get("data")),
        event_id=_text(sent.get("eventId")),
    )


def variant_count(message: Message) -> int | None:
    """How many variants ``variantCount`` announces."""
    text = (message.text or "").strip()
    return int(text) if text.isascii() and text.isdigit() and 1 <= int(text[:4]) <= MOST_VARIANTS else None


def variant_models(message: Message) -> Sequence[VariantModel]:
    """Whose models ``variantModels`` names."""
    return [read_model(name) for name in _texts(message.data.get("models"))[:MOST_VARIANTS]]


_KINDS = frozenset(Kind)


USAGE_MARK = "[TOKEN USAGE]"
"""How the line begins that the application prints for each variant, before it says that this is complete."""

_USAGE = re.compile(r"\[TOKEN USAGE\] provider=(\S{1,40}) model=([^|\n]{1,200}?) *\|([^\n]{1,1000})")
_FIGURE = re.compile(r"\b(\w{1,20})=\$?(\d{1,15}(?:\.\d{1,12})?)\b")
_FIGURES = {
    "input": "prompt_tokens",
    "output": "completion_tokens",
    "cache_read": "cache_read_tokens",
    "cache_write": "cache_write_tokens",
}


def parse_usage(text: str) -> VariantResult | None:
    """What a variant has used, as the application prints it; None where it is something else."""
    line = _USAGE.search(text)
    if line is None:
        return None
    given = dict(_FIGURE.findall(line[3]))
    counts = {name: int(given[key]) for key, name in _FIGURES.items() if given.get(key, "").isdigit()}
    if not counts:
        return None
    cost = Decimal(given["cost"]) if "cost" in given else None
    return VariantResult(model=read_model(line[2].strip()), cost=cost, **counts)


def error_message(text: str) -> str:
    """An ``error`` as the application would send it."""
    return orjson.dumps({"type": Kind.ERROR, "value": text}).decode()


def _loads(text: str | bytes) -> dict[str, Any] | None:
    try:
        value = orjson.loads(text)
    except (ValueError, UnicodeError):
        try:
            value = json.loads(text)  # Which also reads halves of surrogate pairs.
        except (ValueError, UnicodeError, RecursionError):
            return None
    return value if isinstance(value, dict) else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _texts(value: object) -> list[str]:
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _choice(kind: Any, value: object, default: Any) -> Any:
    return kind(value) if value in frozenset(kind) else default


def _is_option(value: object) -> bool:
    return isinstance(value, bool) or (isinstance(value, str) and len(value) <= _LONGEST_OPTION)


def _media(urls: object) -> list[Media]:
    """What is in data URLs; what is not one is left out."""
    return [media for url in _texts(urls) if (media := _medium(url)) is not None]


def _medium(url: str) -> Media | None:
    try:
        content, content_type = decode_data_url(url, "image")
    except InvalidValueError:
        return None
    return Media(content_type, content)


def _conversation(history: object) -> list[tuple[str, str | None]]:
    """What the person has said, and the code that answered each; the last one, which has no answer, is this request."""
    said: list[tuple[str, str | None]] = []
    for turn in history[-_MOST_TURNS:] if isinstance(history, list) else ():
        text = _text(_dict(turn).get("text")) or ""
        if _dict(turn).get("role") == "user":
            said.append((text, None))
        elif said and said[-1][1] is None:
            said[-1] = (said[-1][0], text)
    return said
