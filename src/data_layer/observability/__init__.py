"""What the operator sees of a running process: its log."""

from __future__ import annotations

from data_layer.observability.configuration import configure_logging

__all__ = ["configure_logging"]
