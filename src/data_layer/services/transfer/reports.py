"""Prompt reports of the application: one JSON file for each request to a model, of which some belong to one answer.

A session is what one variant took. Its first request holds the conversation, the later ones also what the model has
done since, and the last page that it wrote as a whole is the code. What it changed of that afterwards in pieces is not
applied: the report then says that the page may not be the last one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import orjson

from data_layer.errors import InvalidFileError
from data_layer.schemas.generations import VariantModel, VariantResult
from data_layer.services.transfer.conversations import Prompt, read_model, read_prompt

NAME = re.compile(
    r"prompt_report_(?P<date>\d{8})_(?P<time>\d{6})_(?P<session>[0-9a-f]{8})_t(?P<turn>\d+)_[a-z0-9]+_[\w.-]+\.json"
)
_ROLES = {"user": "user", "assistant": "assistant", "model": "assistant"}
_WRITES, _CHANGES = "create_file", "edit_file"
LARGEST_REPORT = 64 * 2**20
"""Bytes of one file."""


@dataclass(frozen=True, slots=True)
class Session:
    """What its reports say of one variant.

    Attributes:
        key: the same each time that it is read.
        at: when it began.
        prompt: what was asked for.
        code: the last page that was written as a whole; None where there is none.
        is_changed: the model changed the page afterwards.
        model: the model that made it.
        result: what it cost, all requests together.
    """

    key: str
    at: datetime
    prompt: Prompt
    code: str | None
    is_changed: bool
    model: VariantModel
    result: VariantResult


def sessions_of(files: Sequence[Path]) -> list[list[Path]]:
    """The reports of each session, in the order of their turns; the session that began first comes first."""
    sessions: dict[str, list[tuple[int, Path]]] = {}
    for file in sorted(files, key=_name):
        match = NAME.fullmatch(file.name)
        if match is not None:
            sessions.setdefault(match["session"], []).append((int(match["turn"]), file))
    return [[file for _, file in sorted(reports, key=_turn)] for reports in sessions.values()]


def read_session(files: Sequence[Path]) -> tuple[Session | None, list[tuple[Path, str]]]:
    """Read the reports of one session, one after the other; what could not be read comes with the reason."""
    problems: list[tuple[Path, str]] = []
    first: dict[str, Any] | None = None
    last: Any = None
    usages: list[Mapping[str, Any]] = []
    for file in files:
        try:
            report = _read_report(file)
        except InvalidFileError as error:
            problems.append((file, str(error)))
            continue
        first = first or report
        last = report["request"]
        if isinstance(report.get("usage"), Mapping):
            usages.append(report["usage"])
    match = NAME.fullmatch(files[0].name)
    if first is None or match is None:
        return None, problems
    return _session(match["session"], first, last, usages), problems


def _read_report(file: Path) -> dict[str, Any]:
    try:
        if file.stat().st_size > LARGEST_REPORT:
            raise InvalidFileError(f"has more than {LARGEST_REPORT} bytes")
        report = orjson.loads(file.read_bytes())
    except (OSError, ValueError):
        raise InvalidFileError("is not JSON, or cannot be read") from None
    if not isinstance(report, dict) or "request" not in report:
        raise InvalidFileError("is not a prompt report")
    return report


def _name(file: Path) -> str:
    return file.name


def _turn(report: tuple[int, Path]) -> int:
    return report[0]


def _session(key: str, first: Mapping[str, Any], last: Any, usages: Sequence[Mapping[str, Any]]) -> Session:
    model = read_model(first.get("model") or first.get("api_model_name"))
    conversation = [message for message in _messages(first.get("request")) if message.get("role") in _ROLES.values()]
    code, is_changed = None, False
    for name, arguments in _calls(last):
        if name == _WRITES:
            code, is_changed = _page(arguments) or code, False
        elif name == _CHANGES:
            is_changed = True
    return Session(
        key=key,
        at=_time(first.get("created_at")),
        prompt=read_prompt(conversation),
        code=code,
        is_changed=is_changed and code is not None,
        model=model,
        result=_usage(usages, model),
    )


def _messages(request: Any) -> Iterator[dict[str, Any]]:
    """The messages of a request in one form, of whichever provider."""
    if not isinstance(request, Mapping):
        return
    for name in ("input", "messages", "contents"):
        items = request.get(name)
        if isinstance(items, str):
            yield {"role": "user", "content": items}
        for item in items if isinstance(items, list) else ():
            if isinstance(item, Mapping) and "role" in item:
                parts = item.get("content", item.get("parts"))
                content = parts if isinstance(parts, str) else [_part(part) for part in _list(parts)]
                yield {"role": _ROLES.get(str(item["role"]), "system"), "content": content}


def _part(part: Any) -> dict[str, Any]:
    if not isinstance(part, Mapping):
        return {}
    inline = part.get("inline_data", part.get("source"))
    if isinstance(inline, Mapping) and isinstance(inline.get("data"), str):
        kind = inline.get("mime_type", inline.get("media_type", "image/png"))
        return {"image_url": f"data:{kind};base64,{inline['data']}"}
    return dict(part)


def _calls(request: Any) -> Iterator[tuple[str, Any]]:
    """The tools that the model has used, oldest first."""
    if not isinstance(request, Mapping):
        return
    for name in ("input", "messages", "contents"):
        for item in _list(request.get(name)):
            if not isinstance(item, Mapping):
                continue
            for part in (item, *_list(item.get("content")), *_list(item.get("parts"))):
                if isinstance(part, Mapping):
                    call = part.get("function_call", part)
                    if isinstance(call, Mapping) and isinstance(call.get("name"), str):
                        yield call["name"], call.get("arguments", call.get("input", call.get("args")))


def _page(arguments: Any) -> str | None:
    if isinstance(arguments, str):
        try:
            arguments = orjson.loads(arguments)
        except ValueError:
            return None
    content = arguments.get("content") if isinstance(arguments, Mapping) else None
    return content if isinstance(content, str) and content.strip() else None


def _usage(used: Sequence[Mapping[str, Any]], model: VariantModel) -> VariantResult:
    def total(name: str) -> int | None:
        counts = [usage[name] for usage in used if isinstance(usage.get(name), int) and usage[name] >= 0]
        return sum(counts) if counts and sum(counts) < 2**31 else None

    costs = [_cost(usage.get("cost_usd")) for usage in used]
    known = [cost for cost in costs if cost is not None]
    return VariantResult(
        model=model,
        prompt_tokens=total("input_tokens"),
        completion_tokens=total("output_tokens"),
        cache_read_tokens=total("cache_read"),
        cache_write_tokens=total("cache_write"),
        cost=sum(known, Decimal(0)) if known else None,
    )


def _cost(value: Any) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1_000_000:
        return None
    try:
        return round(Decimal(str(value)), 8)
    except InvalidOperation:
        return None


def _time(text: Any) -> datetime:
    """When a report was written, in the time of the machine that wrote it, which is taken for UTC."""
    try:
        at = datetime.fromisoformat(text)
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        return datetime.now(UTC)


def _list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else ()
