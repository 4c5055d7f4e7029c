"""The commands; thin."""

from __future__ import annotations

import errno
import gc
import io
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from data_layer.garbage import begin_importing

if TYPE_CHECKING:
    from typing_extensions import Buffer

_STDERR = 2
_FAILED = 1
_INTERRUPTED = 130  # As shells report a program that Ctrl-C has ended.


def main() -> None:
    """Entry point of ``data-layer``."""
    begin_importing()
    _open_missing_streams()
    output = _Output(sys.stdout.fileno(), "w", closefd=False)
    # A terminal that cannot show a character must not make a command fail.
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(output), sys.stdout.encoding, "backslashreplace", line_buffering=output.isatty()
    )
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr.reconfigure(errors="backslashreplace")
    code: int | str | None = None
    try:
        from data_layer.cli.application import application

        application()
    except SystemExit as end:
        code = end.code
    except KeyboardInterrupt:
        code = _INTERRUPTED
    except OSError:
        if output.error is None:
            raise
    finally:
        # At its end Python would look for garbage among all that was imported, for nothing.
        gc.freeze()
    with suppress(OSError):
        sys.stdout.flush()
    if output.error is not None:
        _give_output_up(output.error)
        # A reader such as ``head`` may stop early; that is not a failure.
        code = code or (0 if output.error.errno == errno.EPIPE else _FAILED)
    sys.exit(code)


class _Output(io.FileIO):
    """Standard output, which remembers why it cannot be written: on a full disk, for example."""

    error: OSError | None = None

    def write(self, content: Buffer, /) -> int:
        try:
            return super().write(content)
        except OSError as error:
            self.error = error
            raise


def _open_missing_streams() -> None:
    """Without 0, 1 or 2, as after ``<&-``, the next file or socket that is opened would take that number.

    Standard input is empty then, what is written to standard output fails, so that none is lost without a word, and
    messages go nowhere.
    """
    for number, mode in ((0, "r"), (1, "w"), (_STDERR, "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR if number == _STDERR else os.O_RDONLY)
            stream = open(number, mode, encoding="utf-8", closefd=False)  # noqa: SIM115  (for the whole life)
            setattr(sys, ("stdin", "stdout", "stderr")[number], stream)


def _give_output_up(error: OSError) -> None:
    """Say so, except to a reader such as ``head`` that has enough; and keep Python from trying once more at its end."""
    if error.errno != errno.EPIPE:
        with suppress(OSError):
            sys.stderr.write(f"Error: the output cannot be written ({os.strerror(error.errno or 0)})\n")
            sys.stderr.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
