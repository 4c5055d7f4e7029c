"""The commands; thin."""

from __future__ import annotations


def main() -> None:
    """Entry point of ``data-layer``."""
    from data_layer.cli.application import application

    application()
