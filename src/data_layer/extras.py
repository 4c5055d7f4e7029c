"""Packages that only some applications need, installed by an extra: ``pip install 'data-layer[images]'``."""

from __future__ import annotations

from importlib.util import find_spec

from data_layer.errors import MissingExtraError


def require_extra(extra: str, purpose: str, *modules: str) -> None:
    """Check that what an extra installs is there, before it is imported.

    Args:
        extra: the name of the extra in pyproject.toml
        purpose: what needs it, for the message: "storing an image"
        modules: what will be imported

    Raises:
        MissingExtraError: one of the modules is not installed.
    """
    for module in modules:
        if not is_installed(module):
            raise MissingExtraError(
                f"{purpose} needs {module}, which is not installed; run: pip install 'data-layer[{extra}]'"
            )


def is_installed(module: str) -> bool:
    """Whether a module can be imported."""
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # The package that it is in is missing as well.
        return False
