"""Threads of a process that serves take memory from few places, so that what one has freed is used by another."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

ARENAS = """
import ctypes, sys, threading
from data_layer.server.process import _return_freed_memory

if sys.argv[1:] == ["limited"]:
    _return_freed_memory()
barrier = threading.Barrier(9)

def allocate():
    kept = [bytes(1000 * number) for number in range(1, 50)]
    barrier.wait()

for _ in range(8):
    threading.Thread(target=allocate).start()
barrier.wait()
library = ctypes.CDLL(None)
library.fdopen.restype = ctypes.c_void_p
library.malloc_info(0, ctypes.c_void_p(library.fdopen(1, b"w")))
library.fflush(None)
"""


def arenas(*arguments: str) -> int:
    """How many there are after eight threads have taken memory at once."""
    command = [sys.executable, "-c", ARENAS, *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return ended.stdout.count("<heap nr=")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has arenas")
def test_threads_share_two_arenas() -> None:
    assert arenas("limited") <= 2
    assert arenas() > 2
