from __future__ import annotations

from dataclasses import replace

import pytest

from data_layer.services.accounts import throttle
from tests.services.accounts.support import FIRST_WAIT


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting begins with half a minute instead of a second, so that a slow machine changes no answer."""
    for name in ("PAIR", "NETWORK", "ACCOUNT"):
        monkeypatch.setattr(throttle, name, replace(getattr(throttle, name), first_wait=FIRST_WAIT))
