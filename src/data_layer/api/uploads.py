"""Bodies that bring a file: JSON that names it by a URL, or a form (``multipart/form-data``, RFC 7578) that holds it.

A form has one part ``file``, and may have a part ``data`` with the JSON object that would be the body without it. The
file is written to a temporary file while it arrives, so however large it is, little of it is in memory.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Generic, NamedTuple, TypeVar

from fastapi import HTTPException, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.types import Scope

from data_layer.layer import DataLayer
from data_layer.storage import FileContent

JSON_BODY = 28 * 2**20
"""Bytes of JSON with a data URL: a file of 20 MiB in base64, and the rest."""
_FORM = "multipart/form-data"
_AROUND_FILE = 2**20
_LONGEST_DATA = 2**20 - 64 * 1024

Values = TypeVar("Values", bound=BaseModel)


class Sent(NamedTuple, Generic[Values]):
    """What a body holds: the values, and the file of a form with its name and the type that it is said to have."""

    values: Values
    file: FileContent | None
    file_name: str | None
    content_type: str | None


def room_for_file(data: DataLayer, scope: Scope) -> int:
    """Bytes of a body that brings a file: what a form adds to MAX_FILE_SIZE, or 28 MiB of JSON."""
    is_form = any(
        name == b"content-type" and value.lower().startswith(_FORM.encode()) for name, value in scope["headers"]
    )
    return data.settings.storage.max_file_size + _AROUND_FILE if is_form else JSON_BODY


@asynccontextmanager
async def sent_with_file(request: Request, model: type[Values]) -> AsyncIterator[Sent[Values]]:
    """Read a body, for a block that uses the file of a form, which is gone afterwards.

    Raises:
        RequestValidationError: the values do not fit, or the form is not what the module says.
        HTTPException: 400 for what is not a form, 413 where the body is too large, 415 for another type.
    """
    content_type = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if content_type == "application/json" or content_type.endswith("+json"):
        yield Sent(_validated(model, await request.body()), None, None, None)
    elif content_type == _FORM:
        async with request.form(max_files=1, max_fields=1, max_part_size=_LONGEST_DATA) as form:
            file, values = _parts(form)
            # What a client says of a file that it knows nothing of.
            kind = None if file.content_type == "application/octet-stream" else file.content_type
            yield Sent(_validated(model, values), file.file, file.filename or None, kind)
    else:
        raise HTTPException(415, f"send application/json or {_FORM}, not {content_type[:100] or 'nothing'}")


def body_with_file(model: type[BaseModel], example: dict[str, Any]) -> dict[str, Any]:
    """The description of such a body; what the model refers to must be in the answers too."""
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    schema.pop("$defs", None)
    form = {
        "type": "object",
        "additionalProperties": False,
        "required": ["file", "data"] if schema.get("required") else ["file"],
        "properties": {"file": {"type": "string", "format": "binary"}, "data": schema},
    }
    return {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": schema, "example": example},
                _FORM: {"schema": form, "encoding": {"data": {"contentType": "application/json"}}},
            },
        }
    }


def _parts(form: FormData) -> tuple[UploadFile, str | bytes]:
    """The file of a form, and its JSON."""
    parts = dict(form.multi_items())
    file, data = parts.pop("file", None), parts.pop("data", "{}")
    if not isinstance(file, UploadFile):
        raise _unfit("file", "the form must have a part 'file' with a filename")
    if not isinstance(data, str):
        raise _unfit("data", "must be a field, not a file")
    if parts:
        raise _unfit(next(iter(parts)), "the form may have the parts 'file' and 'data' only")
    return file, data


def _validated(model: type[Values], values: str | bytes) -> Values:
    try:
        return model.model_validate_json(values or b"{}")
    except ValidationError as error:
        raise RequestValidationError(_located(error.errors(include_url=False))) from error


def _located(problems: Sequence[Any]) -> list[dict[str, Any]]:
    return [{**problem, "loc": ("body", *problem["loc"])} for problem in problems]


def _unfit(field: str, message: str) -> RequestValidationError:
    return RequestValidationError([{"type": "value_error", "loc": ("body", field), "msg": message, "input": None}])
