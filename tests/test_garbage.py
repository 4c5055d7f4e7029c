"""Python looks for garbage as often as it does by itself, once a process serves."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import gc
gc.set_threshold(1234, 5, 6)  # As some other version of Python has it.
own = gc.get_threshold()
from data_layer.garbage import begin_importing, end_importing
begin_importing()
assert gc.get_threshold()[0] > own[0]
end_importing()
assert gc.get_threshold() == own
assert gc.get_freeze_count() > 0
"""


def test_the_threshold_of_this_python_is_restored() -> None:
    subprocess.run([sys.executable, "-c", PROGRAM], check=True, timeout=30)
