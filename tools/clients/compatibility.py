"""Says which changes of the description of the API (OpenAPI) break clients that were made for an earlier one.

What a client may send must still be taken, and what it is answered must still be what it expects. Clients let fields,
values of enumerations and failures pass that they do not know, so new ones of these break nobody.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from clients.schemas import Schema, resolved

_METHODS = ("get", "put", "post", "delete", "patch")
_FIRST_FAILURE = 400
_LOWER = {"minimum", "exclusiveMinimum", "minLength", "minItems"}
_UPPER = {"maximum", "exclusiveMaximum", "maxLength", "maxItems"}


def breaks(old: Schema, new: Schema) -> list[str]:
    """Each change that breaks clients of the old description, in words."""
    return list(dict.fromkeys(_paths(old, new)))


def may_break(version: str, released: str | None) -> bool:
    """Whether a version may break clients of the last one that was released (semver.org, 4 and 8).

    Args:
        version: the one that is being made.
        released: None before the first release.
    """
    if released is None:
        return True
    now, before = ([int(each) for each in text.split(".")[:2]] for text in (version, released))
    return now[0] > before[0] or (before[0] == 0 and now > before)


def _paths(old: Schema, new: Schema) -> Iterator[str]:
    for path, operations in old["paths"].items():
        for method in _METHODS:
            if method not in operations:
                continue
            name = f"{method.upper()} {path}"
            changed = new["paths"].get(path, {}).get(method)
            if changed is None:
                yield f"{name}: removed"
            else:
                yield from _operation(name, operations[method], changed, old, new)


def _operation(name: str, old: Schema, new: Schema, old_document: Schema, new_document: Schema) -> Iterator[str]:
    sent = _Direction(old_document, new_document, is_answer=False)
    answered = _Direction(new_document, old_document, is_answer=True)
    if old["operationId"] != new["operationId"]:
        yield f"{name}: operationId {old['operationId']} is {new['operationId']} now, so that generated clients differ"
    if new.get("security") and not old.get("security"):
        yield f"{name}: needs a login now"
    yield from _parameters(name, old, new, sent)
    yield from _request(name, old.get("requestBody"), new.get("requestBody"), sent)
    yield from _answers(name, old["responses"], new["responses"], answered)


def _parameters(name: str, old: Schema, new: Schema, sent: _Direction) -> Iterator[str]:
    before, after = (
        {(each["name"], each["in"]): each for each in operation.get("parameters", ())} for operation in (old, new)
    )
    for key, parameter in before.items():
        where = f"{name}: parameter {key[0]}"
        if key not in after:
            yield f"{where}: removed"
            continue
        if after[key].get("required") and not parameter.get("required"):
            yield f"{where}: required now"
        yield from sent.compare(where, parameter["schema"], after[key]["schema"])
    for key, parameter in after.items():
        if key not in before and parameter.get("required"):
            yield f"{name}: parameter {key[0]}: new and required"


def _request(name: str, old: Schema | None, new: Schema | None, sent: _Direction) -> Iterator[str]:
    if new is None:
        if old is not None:
            yield f"{name}: takes no body any more"
        return
    if new.get("required") and not (old or {}).get("required"):
        yield f"{name}: needs a body now"
    for media_type, body in (old or {"content": {}})["content"].items():
        changed = new["content"].get(media_type)
        if changed is None:
            yield f"{name}: takes no {media_type} any more"
        else:
            yield from sent.compare(f"{name}: body", body.get("schema", {}), changed.get("schema", {}))


def _answers(name: str, old: Schema, new: Schema, answered: _Direction) -> Iterator[str]:
    for status in sorted({*old, *new}):
        if int(status) >= _FIRST_FAILURE:
            continue
        where = f"{name}: answer {status}"
        if status not in new:
            yield f"{where}: removed"
            continue
        if status not in old:
            yield f"{where}: new, and no failure"
            continue
        for media_type, body in old[status].get("content", {}).items():
            changed = new[status].get("content", {}).get(media_type)
            if changed is None:
                yield f"{where}: {media_type} removed"
            else:
                yield from answered.compare(where, changed.get("schema", {}), body.get("schema", {}))


@dataclass(frozen=True)
class _Direction:
    """Compares what one side sends with what the other one takes.

    Args:
        sender: the document that describes what is sent: the old one for requests, the new one for answers.
        taker: the document that describes what is understood.
        is_answer: answers may have more fields and values than a client knows.
    """

    sender: Schema
    taker: Schema
    is_answer: bool

    def compare(
        self, where: str, sent: Schema, taken: Schema, seen: frozenset[tuple[str, str]] = frozenset()
    ) -> Iterator[str]:
        """What of the sent values is not taken."""
        pair = (sent.get("$ref", ""), taken.get("$ref", ""))
        if all(pair):
            if pair in seen:
                return
            seen |= {pair}
        possible = _choices(self.taker, taken)
        for choice in _choices(self.sender, sent):
            found = [list(self._one(where, choice, each, seen)) for each in possible]
            if all(found):
                yield from self._nearest(where, choice, possible, found)

    def _nearest(self, where: str, choice: Schema, possible: list[Schema], found: list[list[str]]) -> list[str]:
        """Say it of the alternative of the same kind, where there is one."""
        alike = [each for kind, each in zip(possible, found, strict=True) if _kind(kind) == _kind(choice)]
        if alike:
            return min(alike, key=len)
        known = " or ".join(map(_kind, possible))
        return [
            f"{where}: can be {_kind(choice)} now, was {known}"
            if self.is_answer
            else f"{where}: takes no {_kind(choice)} any more, but {known}"
        ]

    def _one(self, where: str, sent: Schema, taken: Schema, seen: frozenset[tuple[str, str]]) -> Iterator[str]:
        if not taken:
            return
        if _kind(sent) != _kind(taken) and (_kind(sent), _kind(taken)) != ("integer", "number"):
            yield f"{where}: {_kind(sent)} does not fit {_kind(taken)}"
            return
        yield from self._values(where, sent, taken)
        if "items" in sent and "items" in taken:
            yield from self.compare(f"{where}[]", sent["items"], taken["items"], seen)
        elif "items" in taken and not self.is_answer:
            yield f"{where}[]: not anything any more"
        if _kind(sent) == "object":
            yield from self._fields(where, sent, taken, seen)

    def _values(self, where: str, sent: Schema, taken: Schema) -> Iterator[str]:
        if taken.get("format") not in {None, sent.get("format")}:
            yield (
                f"{where}: no {taken['format']} any more" if self.is_answer else f"{where}: only {taken['format']} now"
            )
        if self.is_answer:
            return
        if (values := _values(taken)) is not None:
            gone = [each for each in _values(sent) or ["other values"] if each not in values]
            if gone:
                yield f"{where}: takes {', '.join(map(str, gone))} no more"
        for bound in sorted(_LOWER | _UPPER):
            before, now = sent.get(bound), taken.get(bound)
            if now is not None and (before is None or (now > before if bound in _LOWER else now < before)):
                yield f"{where}: {bound} {now}, was {'nothing' if before is None else before}"
        if taken.get("pattern") not in {None, sent.get("pattern")}:
            yield f"{where}: must fit {taken['pattern']} now"

    def _fields(self, where: str, sent: Schema, taken: Schema, seen: frozenset[tuple[str, str]]) -> Iterator[str]:
        before, now = (sent, taken) if not self.is_answer else (taken, sent)
        for field in before.get("properties", {}):
            if field not in now.get("properties", {}):
                yield f"{where}.{field}: removed"
        for field in taken.get("required", ()):
            if field not in sent.get("required", ()) and field in now.get("properties", {}):
                yield f"{where}.{field}: may be missing now" if self.is_answer else f"{where}.{field}: required now"
        for field, schema in sent.get("properties", {}).items():
            if field in taken.get("properties", {}):
                yield from self.compare(f"{where}.{field}", schema, taken["properties"][field], seen)
        others = sent.get("additionalProperties", True), taken.get("additionalProperties", True)
        if isinstance(others[1], Mapping):
            yield from self.compare(f"{where}.*", others[0] if isinstance(others[0], Mapping) else {}, others[1], seen)
        elif others[1] is False and others[0] is not False and not self.is_answer:
            yield f"{where}: refuses unknown fields now"


def _choices(document: Schema, schema: Schema) -> list[Schema]:
    """The alternatives of a schema, each without references at its top."""
    schema = resolved(document, schema)
    alternatives = schema.get("anyOf") or schema.get("oneOf")
    if alternatives is None:
        return [schema]
    return [each for alternative in alternatives for each in _choices(document, alternative)]


def _kind(schema: Schema) -> str:
    return str(schema.get("type") or ("string" if "const" in schema or "enum" in schema else "anything"))


def _values(schema: Schema) -> list[Any] | None:
    if "const" in schema:
        return [schema["const"]]
    return schema.get("enum")
