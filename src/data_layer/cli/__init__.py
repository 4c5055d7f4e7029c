"""The commands; thin."""

from __future__ import annotations

import gc
import io
import sys

_INTERRUPTED = 130  # As shells report a program that Ctrl-C has ended.


def main() -> None:
    """Entry point of ``data-layer``."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that cannot show a character is no reason to fail.
            stream.reconfigure(errors="backslashreplace")
    try:
        from data_layer.cli.application import application

        application()
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
    finally:
        # At its end Python would look for garbage among all that was imported, for nothing.
        gc.freeze()
