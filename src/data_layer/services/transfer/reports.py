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

from data_layer.schemas.generations import VariantModel, VariantResult
from data_layer.services.transfer.conversations import Prompt, read_model, read_prompt

NAME = re.compile(
    r"prompt_report_(?P<date>\d{8})_(?P<time>\d{6})_(?P<session>[0-9a-f]{8})_t(?P<turn>\d+)_[a-z0-9]+_[\w.-]+\.json"
)
_ROLES = {"user": "user", "assistant": "assistant", "model": "assistant"}
_WRITES, _CHANGES = "create_file", "edit_file"


@dataclass(frozen=True, slots=True)
class Session:
    """What its reports say of one variant.

    Attributes:
        key: the same each time that it is read.
        at: when it began.
        prompt: what was asked for.
        code: the last page that was written as a whole; None where there is none.
        is_changed: the model changed the page afterwards.
        model: who made it.
        result: what it cost, all requests together.
    """

    key: str
    at: datetime
    prompt: Prompt
    code: str | None
    is_changed: bool
    model: VariantModel
    result: VariantResult


def read_sessions(files: Sequence[Path]) -> tuple[list[Session], list[tuple[Path, str]]]:
    """Read reports, and put together what belongs together; what could not be read comes with the reason."""
    sessions: dict[str, list[tuple[int, dict[str, Any]]]] = {}
    problems: list[tuple[Path, str]] = []
    for file in sorted(files):
        match = NAME.fullmatch(file.name)
        try:
            report = orjson.loads(file.read_bytes())
        except (OSError, ValueError):
            problems.append((file, "is not JSON, or cannot be read"))
            continue
        if match is None or not isinstance(report, dict) or "request" not in report:
            problems.append((file, "is not a prompt report"))
            continue
        sessions.setdefault(match["session"], []).append((int(match["turn"]), report))
    return [_session(key, sorted(reports, key=_turn)) for key, reports in sessions.items()], problems


def _turn(report: tuple[int, dict[str, Any]]) -> int:
    return report[0]


def _session(key: str, reports: list[tuple[int, dict[str, Any]]]) -> Session:
    first, last = reports[0][1], reports[-1][1]
    model = read_model(first.get("model") or first.get("api_model_name"))
    conversation = [message for message in _messages(first.get("request")) if message.get("role") in _ROLES.values()]
    code, is_changed = None, False
    for name, arguments in _calls(last.get("request")):
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
        result=_usage([report for _, report in reports], model),
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


def _usage(reports: Sequence[Mapping[str, Any]], model: VariantModel) -> VariantResult:
    used = [usage for usage in (report.get("usage") for report in reports) if isinstance(usage, Mapping)]

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
    except (TypeError, ValueError):
        return datetime.now(UTC)
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at


def _list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else ()
