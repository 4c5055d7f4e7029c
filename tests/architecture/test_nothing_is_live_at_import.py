"""No engine, no settings, no client at module level; no connection, thread or file by importing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from .source import all_modules

PROGRAMS = ("embedded.start_guardian", "database.migrations.env", "database.migrations.versions.")
"""Modules that are run, not imported."""


def run(*modules: str, folder: Path) -> str:
    program = Path(__file__).with_name("import_everything.py")
    environment = {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, str(program), *modules]
    finished = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout.strip()


def test_importing_every_module_brings_nothing_to_life(tmp_path: Path) -> None:
    modules = [
        f"data_layer.{module.name}".removesuffix(".__init__")
        for module in all_modules()
        if not module.name.startswith(PROGRAMS)
    ]
    assert len(modules) > 50
    assert run(*modules, folder=tmp_path) == ""
    assert list(tmp_path.iterdir()) == []


def test_the_watch_sees_what_it_should(tmp_path: Path) -> None:
    (tmp_path / "lively.py").write_text(
        "import socket, threading, time\n"
        "from data_layer.config import Settings\n"
        "settings = Settings()\n"
        "socket.socket().close()\n"
        "threading.Thread(target=time.sleep, args=(30,), daemon=True).start()\n"
        "open('written', 'w').close()\n"
    )
    report = run("lively", folder=tmp_path)
    for sign in ("socket.__new__", "a thread: ", "an object: Settings", "lively: open ('written', 'w')"):
        assert sign in report
