"""Results by texts that clients choose."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from data_layer.context import _address as address_of_context
from data_layer.entities.changes import is_secret
from data_layer.observability.masking import is_header_name, is_measure, is_secret_name
from data_layer.text_cache import LONGEST, cached_by_text
from data_layer.web.compression import accepted_encodings
from data_layer.web.middleware import _address as address_of_middleware


def test_results_of_short_texts_are_kept_and_those_of_long_ones_are_not() -> None:
    asked: list[str] = []

    @cached_by_text(2)
    def length(text: str) -> int:
        asked.append(text)
        return len(text)

    short, long = "s" * LONGEST, "l" * (LONGEST + 1)
    assert [length(text) for text in (short, long, short, long)] == [256, 257, 256, 257]
    assert asked == [short, long, long]
    for text in ("a", "b", short):
        length(text)
    assert asked[3:] == ["a", "b", short]


@pytest.mark.parametrize(
    ("function", "as_given"),
    [
        *((function, str) for function in (is_secret, is_secret_name, is_measure, is_header_name)),
        *((function, str) for function in (address_of_context, address_of_middleware)),
        (accepted_encodings, str.encode),
    ],
)
def test_what_clients_choose_is_not_kept_if_it_is_long(
    function: Callable[[Any], object], as_given: Callable[[str], Any]
) -> None:
    function(as_given("warm"))
    tracemalloc.start()
    for number in range(100):
        function(as_given(f"{number}" + "x" * 50_000))
    gc.collect()
    kept = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert kept < 1_000_000
