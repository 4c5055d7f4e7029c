"""The settings of the log: a part of ``Settings``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, Field


def _not_a_folder(path: Path) -> Path:
    if os.path.isdir(os.path.expanduser(path)):  # noqa: PTH111, PTH112  (pathlib raises where there is no such home)
        raise ValueError("is a folder; name a file in it")
    return path


class LogSettings(BaseModel):
    """What is logged, in which shape, and where to besides standard error."""

    # The log
    log_level: Literal["error", "warn", "info", "debug"] = Field(
        "info",
        description="Least severe level that is logged; the command `data-layer logs level` changes it while the "
        "service runs.",
    )
    log_format: Literal["auto", "json", "console"] = Field(
        "auto", description="json, console, or auto: JSON in production and wherever the output is no terminal."
    )
    log_file: Annotated[Path, AfterValidator(_not_a_folder)] | None = Field(
        None, description="File that the service also logs to, besides standard error; its processes share it."
    )
    log_file_max_size: int = Field(
        52_428_800, ge=0, description="Bytes after which LOG_FILE is put aside and begun anew; 0: never."
    )
    log_file_count: int = Field(5, ge=1, le=1000, description="Older files that are kept: LOG_FILE.1 is the youngest.")
