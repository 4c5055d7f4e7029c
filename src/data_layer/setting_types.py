"""The types of settings: what a variable may hold."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field
from pydantic_settings import NoDecode


def _split(value: Any) -> Any:
    """A list as it is written in a variable: separated by commas; none for an empty one."""
    if not isinstance(value, str):
        return value
    return () if value.lower() == "none" else tuple(part.strip() for part in value.split(",") if part.strip())


Port = Annotated[int, Field(ge=1, le=65535)]
HostName = Annotated[str, Field(pattern=r"^(/.*|\S+)$")]
PlainText = Annotated[str, Field(pattern=r"^[^\x00]+$")]
Seconds = Annotated[float, Field(gt=0, le=3600)]
Milliseconds = Annotated[int, Field(gt=0, le=600_000)]
MediaType = Annotated[str, Field(pattern=r"^[a-z]+/[A-Za-z0-9.+-]+$")]
MediaTypes = Annotated[tuple[MediaType, ...], NoDecode, BeforeValidator(_split)]
PixelSizes = Annotated[tuple[Annotated[int, Field(ge=16, le=4096)], ...], NoDecode, BeforeValidator(_split)]
