"""The JSON of answers is made once for the same values, and never taken for that of others."""

from __future__ import annotations

from data_layer.schemas.base import Value
from data_layer.web.routing import WrittenAnswers

LARGE = 5_000


class Page(Value):
    """A page of texts."""

    texts: tuple[str, ...]
    next: int | None


class Writer:
    """Counts what it writes."""

    def __init__(self) -> None:
        self.written = 0

    def __call__(self, value: Value) -> bytes:
        self.written += 1
        return value.model_dump_json().encode()


def page_of(texts: tuple[str, ...], following: int | None = None) -> Page:
    return Page.model_construct(texts=texts, next=following)


def test_the_same_fields_are_written_once() -> None:
    answers, write, texts = WrittenAnswers(), Writer(), ("x" * LARGE,)
    first = answers.json(page_of(texts), write)
    assert answers.json(page_of(texts), write) is first
    assert write.written == 1
    assert answers.json(page_of(texts, 7), write).endswith(b'"next":7}')


def test_what_is_gone_is_not_taken_for_what_has_its_address() -> None:
    answers, write = WrittenAnswers(), Writer()
    for number in range(500):
        page = page_of((f"{number}" * LARGE,))
        assert answers.json(page, write) == page.model_dump_json().encode()


def test_small_answers_are_written_once_too() -> None:
    answers, write, texts = WrittenAnswers(), Writer(), ("x",)
    first = answers.json(page_of(texts), write)
    assert answers.json(page_of(texts), write) is first
    assert write.written == 1


def test_its_room_is_bounded_by_bytes_and_by_values() -> None:
    answers, write = WrittenAnswers(10 * LARGE), Writer()
    for pages in ([page_of((f"{number}" * LARGE,)) for number in range(10)], [page_of((str(n),)) for n in range(20)]):
        for page in pages:
            answers.json(page, write)
        write.written = 0
        answers.json(pages[-1], write)
        assert write.written == 0
        answers.json(pages[0], write)
        assert write.written == 1
    huge = page_of(("x" * 10 * LARGE,))
    answers.json(huge, write)
    answers.json(huge, write)
    assert write.written == 3
