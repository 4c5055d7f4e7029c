"""How pages of code are shown."""

from __future__ import annotations

import tracemalloc

from data_layer.console import differences


def test_pages_that_were_shown_take_a_few_mebibytes() -> None:
    differences._highlighted("<p>warm</p>")
    line = '<div class="card"><a href="#top">a word or two</a></div>\n'
    page = (line * 1000)[: differences.LONGEST_HIGHLIGHTED]
    tracemalloc.start()
    for number in range(16):
        differences._highlighted(f"{number:02}{page[2:]}")
    kept = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert 10 * len(page) < kept < 5 * 2**20
