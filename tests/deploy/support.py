"""What is deployed, read as those who deploy it would."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from data_layer import Settings

PROJECT = Path(__file__).parents[2]
DEPLOY = PROJECT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
PROGRAMS = Path(sys.executable).parent
Object = dict[str, Any]

SETTINGS = {name.upper() for name in Settings.fields()}
OTHER_VARIABLES = {"PATH", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED", "SSL_CERT_FILE"}
"""What the image tells Python and OpenSSL."""


def run(*command: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """A program of the environment, to its end."""
    first, *others = command
    options = {"capture_output": True, "text": True, "timeout": 100} | options
    return subprocess.run([PROGRAMS / first, *others], check=False, **options)


@cache
def kustomized(folder: Path) -> tuple[Object, ...]:
    """The objects of an overlay, as kustomize merges them."""
    result = run("kubectl", "kustomize", folder)
    assert result.returncode == 0, result.stderr
    return tuple(yaml.safe_load_all(result.stdout))


def of_kind(objects: tuple[Object, ...], kind: str) -> dict[str, Object]:
    return {one["metadata"]["name"]: one for one in objects if one["kind"] == kind}


def pods(objects: tuple[Object, ...]) -> Iterator[tuple[str, Object]]:
    """The templates of all pods, by kind and name."""
    for one in objects:
        spec = one.get("spec", {})
        template = spec.get("jobTemplate", {}).get("spec", spec).get("template")
        if template is not None:
            yield f"{one['kind']} {one['metadata']['name']}", template


def accepted(monkeypatch: pytest.MonkeyPatch, variables: Mapping[str, str]) -> Settings:
    """The settings that a process with these variables would have; it is an error if it refuses them."""
    for name in list(os.environ):
        if name.upper() in SETTINGS | {"NODE_ENV"}:
            monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return Settings(_env_file=None)


def instructions(dockerfile: Path) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile and their words, in order."""
    text = re.sub(r"^#.*\n", "", dockerfile.read_text(), flags=re.MULTILINE)
    lines = [line for line in re.sub(r"\\\n\s*", "", text).splitlines() if line.strip()]
    return [(name, words.strip()) for name, _, words in (line.partition(" ") for line in lines)]


def image_environment(dockerfile: Path) -> dict[str, str]:
    """The variables of the last stage."""
    last = _last_stage(instructions(dockerfile))
    return dict(re.findall(r"([A-Z_]+)=(\S+)", " ".join(words for name, words in last if name == "ENV")))


def _last_stage(all_instructions: list[tuple[str, str]]) -> list[tuple[str, str]]:
    start = max(number for number, (name, _) in enumerate(all_instructions) if name == "FROM")
    return all_instructions[start:]


def last_stage(dockerfile: Path) -> list[tuple[str, str]]:
    return _last_stage(instructions(dockerfile))
