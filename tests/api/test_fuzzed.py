"""The description of the API holds: schemathesis sends what it allows and what it forbids, as everybody."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from data_layer import Settings
from tests.api.fuzzed import KEY, FuzzedService, findings, fuzzed_service

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "1"))
"""`make fuzz` sends more, and tries everything as everybody."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900 * EXAMPLES)]


@pytest.fixture(scope="module")
def service(migrated: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FuzzedService]:
    settings = migrated.replaced(
        local_storage_path=tmp_path_factory.mktemp("fuzzed"),
        rate_limit_max=1_000_000,
        request_limit_person=0,
        request_limit_address=0,
        session_limit=1000,
    )
    with fuzzed_service(settings) as service:
        yield service


@pytest.mark.parametrize("role", [None, "owner", KEY, "moderator", "administrator"])
def test_what_the_description_says_is_true(service: FuzzedService, role: str | None) -> None:
    """Each operation with its examples, and requests that are valid and that are not.

    `make fuzz` also tries the limits of each value, and what one answer leads to; with
    `ARGUMENTS="-k moderator"` as one of them alone.
    """
    found = findings(service, role, examples=EXAMPLES, everything=EXAMPLES > 1)
    assert not found, "\n".join(found)
