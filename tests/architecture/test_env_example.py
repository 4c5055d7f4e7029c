"""``.env.example`` lists every setting, and copying it changes none."""

from __future__ import annotations

import runpy
import shutil
from pathlib import Path

import pytest
from dotenv import dotenv_values

from data_layer.config import Settings

from .source import PROJECT

EXAMPLE = PROJECT / ".env.example"


def test_it_is_what_the_settings_say() -> None:
    render = runpy.run_path(str(PROJECT / "tools" / "make_env_example.py"))["render"]
    assert EXAMPLE.read_text(encoding="utf-8") == render(), "run: make env-example"


def test_it_lists_every_setting_once() -> None:
    names = [
        line.partition("=")[0]
        for line in EXAMPLE.read_text(encoding="utf-8").splitlines()
        if "=" in line and line[0] != "#"
    ]
    assert sorted(names) == sorted(name.upper() for name in Settings.fields())


def test_it_holds_no_secret() -> None:
    values = dotenv_values(EXAMPLE)
    secrets = [name.upper() for name, field in Settings.fields().items() if "SecretStr" in str(field.annotation)]
    assert len(secrets) >= 6
    assert {values[name] for name in secrets} == {""}


def test_a_copy_of_it_gives_the_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*Settings.fields(), "node_env"):
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.chdir(tmp_path)
    defaults = Settings()
    shutil.copy(EXAMPLE, tmp_path / ".env")
    assert Settings() == defaults
