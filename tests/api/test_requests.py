"""What every request gets: an id, a line in the log, and answers of one shape that tell nothing about the inside."""

from __future__ import annotations

import io
import json
import re
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from data_layer.observability import configure_logging
from tests.observability.conftest import *  # noqa: F403

if TYPE_CHECKING:
    import httpx
    from fastapi import FastAPI
