"""What the parts of ``Settings`` have in common."""

from __future__ import annotations

import os
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError, ValidationInfo, field_validator

from data_layer.environment import check_visible, strip
from data_layer.errors import ConfigurationError
from data_layer.settings.values import COMMA_SEPARATED, describe_problem


class SettingsPart(BaseModel):
    """The settings of one thing, frozen and valid on their own; each is named as its environment variable.

    Raises:
        ConfigurationError: with every problem that was found, not only the first.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    harmless: ClassVar[dict[str, Any]] = {}
    """What replaces malformed values whose defaults would also be reported, as missing."""

    def __init__(self, *, _checked: bool = True, **values: Any) -> None:
        if not _checked:
            super().__init__(**values)
            return
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ConfigurationError(*describe_problems(error)) from None
        if problems := self.contradictions():
            raise ConfigurationError(*problems)

    @field_validator("*")
    @classmethod
    def _expand_home(cls, value: Any) -> Any:
        """Expand ~ as shells do; neither files of settings nor manifests expand it."""
        if not isinstance(value, Path):
            return value
        try:
            return value.expanduser()
        except RuntimeError:
            raise ValueError("begins with ~, but there is no such home folder; write the whole path") from None

    # Runs before the validators of the fields' types.
    @field_validator("*", mode="before")
    @classmethod
    def _remove_invisible(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, SecretStr):
            return SecretStr(cls._remove_invisible(value.get_secret_value(), info))
        if isinstance(value, Path):
            return Path(cls._remove_invisible(str(value), info))
        if not isinstance(value, str) or isinstance(value, StrEnum):
            return value
        text = strip(value)
        is_list = COMMA_SEPARATED in cls.model_fields[str(info.field_name)].metadata
        check_visible(COMMA_SEPARATED.func(text) if is_list else text)  # type: ignore[call-arg]
        return text

    def contradictions(self) -> list[str]:
        """Return what makes these settings unusable anywhere, although each value by itself is valid."""
        return []

    @classmethod
    def examine(cls, values: dict[str, Any]) -> tuple[Self, list[str], frozenset[str]]:
        """Read values that may be wrong.

        Returns:
            The part, in which defaults replace malformed values; all problems; the names of the malformed settings.
        """
        malformed, problems = frozenset[str](), list[str]()
        try:
            part = cls(_checked=False, **values)
        except ValidationError as error:
            malformed, problems = malformed_names(error), describe_problems(error)
            part = cls(_checked=False, **values | cls._instead_of(malformed))
        return part, problems + part.contradictions(), malformed

    @classmethod
    def _instead_of(cls, names: frozenset[str]) -> dict[str, Any]:
        return {name: cls.harmless.get(name, cls.model_fields[name].default) for name in names}

    def missing_files(self, *names: str) -> list[str]:
        """Return a problem for each of these settings that names no readable file."""
        files = {name: getattr(self, name) for name in names}
        return [
            f"{name.upper()}: there is no readable file {str(path)!r}"
            for name, path in files.items()
            if path is not None and (path.is_dir() or not os.access(path, os.R_OK))
        ]

    def replaced(self, **changes: Any) -> Self:
        """Return these settings with some changed, validated like any others."""
        return type(self)(**self._given() | changes)

    def unchecked(self, **changes: Any) -> Self:
        """Return these settings with some changed, whose contradictions are of no interest; each value is validated."""
        return type(self)(_checked=False, **self._given() | changes)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:  # noqa: ARG002
        """Return `replaced`: pydantic's own copy would not validate the changes."""
        return self.replaced(**update or {})

    def _given(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.model_fields_set}


def describe_problems(error: ValidationError) -> list[str]:
    """Return one line for each problem, never with the value: it may be a secret."""
    return [describe_problem(problem) for problem in error.errors(include_url=False)]


def malformed_names(error: ValidationError) -> frozenset[str]:
    """Return the names of the settings whose values mean nothing."""
    return frozenset(str(problem["loc"][0]) for problem in error.errors(include_url=False) if problem["loc"])
