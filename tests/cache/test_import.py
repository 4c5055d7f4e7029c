"""Importing the cache opens nothing and does not pay for redis-py."""

import subprocess
import sys


def test_redis_py_is_imported_with_the_first_open() -> None:
    program = "import sys, data_layer.cache; sys.exit('redis' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
