"""How codes grew, whatever was written: each replayed state was one, and the last one is the code that is stored."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from itertools import accumulate, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_layer.services.generations import growth as module
from data_layer.services.generations.growth import (
    LARGEST_REMOVED,
    MOST_CUTS,
    MOST_POINTS,
    MOST_REMOVED,
    Growth,
    beginning_of,
    state_at,
    steps_of,
)
from data_layer.services.generations.text import encoded, is_storable, storable, stored_lengths

BEGUN = datetime(2026, 11, 30, 12, tzinfo=UTC)
BEGUN_AT = int(BEGUN.timestamp() * 1000)
# As in ``test_changes``: letters that repeat, longer characters, what cannot be stored, and halves of a pair.
TEXTS = st.text(st.sampled_from("aab<é€😀\0\ud83d\ude00\ud7ff"), max_size=6)
PLAIN_TEXTS = st.text(st.sampled_from("aab<é€😀"), max_size=6)


class Clock:
    """The time, as far as it has gone on."""

    def __init__(self) -> None:
        self.milliseconds = BEGUN_AT

    def __call__(self) -> int:
        return self.milliseconds * 1_000_000


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time_ns", clock)
    return clock


class Writer:
    """What a process does that writes a variant; ``states`` are all that the code ever was, as stored, by time."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.code = bytearray()
        self.growth = Growth(BEGUN_AT)
        self.states: dict[int, set[str]] = {0: {""}}

    def append(self, text: str) -> None:
        self.code += encoded(text)
        self.growth.note_continued(len(self.code))
        self.note()

    def replace(self, text: str) -> None:
        new = encoded(text)
        if new != self.code:
            self.growth.note_whole(self.code, new)
            self.code[:] = new
            self.note()

    def note(self) -> None:
        at = self.clock.milliseconds - BEGUN_AT
        self.states.setdefault(at, set()).add(storable(self.code)[0])

    def stored(self) -> tuple[str, bytes]:
        return storable(self.code)[0], self.growth.packed(self.code, is_plain=is_storable(self.code))

    def go_on_elsewhere(self) -> None:
        """Another process reads what is stored and goes on."""
        text, packed = self.stored()
        self.code = bytearray(text.encode())
        self.growth = Growth.resumed(packed, bytes(self.code), BEGUN)


def replayed(text: str, packed: bytes) -> list[tuple[int, str]]:
    """The states of a code, each with its time; they are those that ``state_at`` finds, too."""
    steps = steps_of(packed, text.encode())
    assert steps is not None
    states = list(accumulate(steps, lambda state, step: (step.at, step.apply(state[1])), initial=(0, "")))[1:]
    assert [step.length for step in steps] == [len(state) for _, state in states]
    assert [at for at, _ in states] == sorted(at for at, _ in states)
    last_of_moment = dict(states)
    for at, state in last_of_moment.items():
        assert state_at(packed, text.encode(), at) == state
    return states


@given(data=st.data())
@pytest.mark.usefixtures("clock")
def test_each_state_was_one_at_its_moment_and_the_last_one_is_the_code(data: st.DataObject) -> None:
    clock = Clock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "time_ns", clock)
        patch.setattr(module, "MOST_POINTS", 8)
        patch.setattr(module, "MOST_CUTS", data.draw(st.integers(1, 4)))
        patch.setattr(module, "MOST_REMOVED", data.draw(st.sampled_from([4, 1000])))
        patch.setattr(module, "_SHORT", data.draw(st.sampled_from([1, 4, 200])))
        writer = Writer(clock)
        texts = data.draw(st.sampled_from([TEXTS, PLAIN_TEXTS]))
        for action in data.draw(st.lists(st.sampled_from(["append", "append", "replace", "edit", "wait", "move"]))):
            match action:
                case "append":
                    writer.append(data.draw(texts))
                case "replace":
                    writer.replace(data.draw(texts))
                case "edit":
                    now = bytes(writer.code).decode("utf-8", "surrogatepass")
                    start = data.draw(st.integers(0, len(now)))
                    end = data.draw(st.integers(start, len(now)))
                    writer.replace(now[:start] + data.draw(texts) + now[end:])
                case "wait":
                    clock.milliseconds += data.draw(st.integers(1, 300))
                case _:
                    writer.go_on_elsewhere()
        text, packed = writer.stored()
        states = replayed(text, packed)
        assert (states[-1][1] if states else "") == text
        assert len(states) <= 8
        for at, state in states:
            # A pair whose second half comes later makes the character before it the end.
            known = {known for moment, found in writer.states.items() if moment <= at for known in found}
            assert state in known or f"{state}\ufffd" in known
        assert beginning_of(packed) == BEGUN_AT


def test_a_long_code_has_few_points_and_all_of_them_are_its_beginnings(clock: Clock) -> None:
    writer = Writer(clock)
    for number in range(5000):
        clock.milliseconds += 40
        writer.append(f"<p>{number}</p>\n")
    text, packed = writer.stored()
    states = replayed(text, packed)
    assert MOST_POINTS // 2 <= len(states) <= MOST_POINTS
    assert all(text.startswith(state) for _, state in states)
    assert all(state in writer.states[at] for at, state in states)
    # Evenly over the whole time, and small.
    pauses = [later - earlier for (earlier, _), (later, _) in pairwise(states)]
    assert max(pauses) <= 4 * 5000 * 40 / MOST_POINTS
    assert len(packed) < 2000


def test_what_an_edit_removed_is_shown_before_it(clock: Clock) -> None:
    writer = Writer(clock)
    draft = "".join(f'<section id="{number}">Draft {number}</section>\n' for number in range(500))
    writer.append(draft)
    clock.milliseconds += 1000
    writer.replace(draft.replace("Draft 250<", "Final 250<"))
    clock.milliseconds += 1000
    writer.append("</html>")
    clock.milliseconds += 1000
    # The fences that models put around a page: nothing stays at either end.
    before = bytes(writer.code).decode()
    writer.replace(f"<!doctype html>{before[3:-7]}")
    text, packed = writer.stored()
    assert [state for _, state in replayed(text, packed)] == [
        draft,
        draft.replace("Draft 250<", "Final 250<"),
        before,
        text,
    ]
    steps = steps_of(packed, text.encode())
    assert steps is not None
    assert not any(step.is_gap for step in steps)
    assert len(packed) < 1000


def test_what_is_too_large_to_be_kept_is_a_gap(clock: Clock) -> None:
    writer = Writer(clock)
    writer.append("<html>")
    clock.milliseconds += 1000
    writer.append(f"<b>{'x' * (LARGEST_REMOVED + 1)}")
    clock.milliseconds += 1000
    writer.replace("<html><i>")
    text, packed = writer.stored()
    steps = steps_of(packed, text.encode())
    assert steps is not None
    assert [(step.text, step.is_gap) for step in steps] == [("<html>", False), ("<i>", True)]


def test_endless_replacements_stay_within_their_bounds(clock: Clock) -> None:
    writer = Writer(clock)
    letters = random.Random(1)
    writer.append("<html>")
    for _ in range(4 * MOST_CUTS):
        clock.milliseconds += 200
        writer.replace("<html>" + "".join(chr(letters.randrange(0x4E00, 0x9000)) for _ in range(500)))
    text, packed = writer.stored()
    steps = steps_of(packed, text.encode())
    assert steps is not None
    assert (steps[0].text, [step.is_gap for step in steps].count(True)) == ("<html>", 1)
    assert 2 < len(steps) <= MOST_CUTS + 2
    assert len(packed) < MOST_REMOVED + 2000
    assert all(state in writer.states[at] for at, state in replayed(text, packed))


def test_replacements_that_remove_nothing_are_bounded_as_well(clock: Clock) -> None:
    writer = Writer(clock)
    writer.append("<html></html>")
    for _ in range(4 * MOST_POINTS):
        clock.milliseconds += 200
        writer.replace("<html>" + "a" + bytes(writer.code).decode().removeprefix("<html>"))
    text, packed = writer.stored()
    assert len(replayed(text, packed)) <= MOST_CUTS + 2


def test_code_that_a_process_stored_without_points_is_known_afterwards(clock: Clock) -> None:
    writer = Writer(clock)
    writer.append("<html>")
    text, packed = writer.stored()
    # It continues what is known, at a time that nobody knows.
    steps = steps_of(packed, b"<html><body>")
    assert steps is not None
    assert [(step.text, step.is_gap) for step in steps] == [("<html>", False), ("<body>", True)]
    # Another process goes on from there.
    clock.milliseconds += 500
    resumed = Growth.resumed(packed, b"<html><body>", BEGUN)
    clock.milliseconds += 500
    resumed.note_continued(len(b"<html><body>!"))
    again = resumed.packed(b"<html><body>!", is_plain=True)
    assert replayed("<html><body>!", again) == [(0, text), (500, "<html><body>"), (1000, "<html><body>!")]


@pytest.mark.parametrize("code", ["<htm", "<p>Something else</p>", ""])
def test_code_that_was_replaced_without_points_is_not_replayed(clock: Clock, code: str) -> None:
    writer = Writer(clock)
    writer.append("<html>")
    _, packed = writer.stored()
    assert steps_of(packed, code.encode()) is None
    assert state_at(packed, code.encode(), 10_000) is None
    clock.milliseconds += 500
    resumed = Growth.resumed(packed, code.encode(), BEGUN)
    resumed.note_continued(len(code) + 1)
    steps = steps_of(resumed.packed(f"{code}!".encode(), is_plain=True), f"{code}!".encode())
    assert steps is not None
    assert (steps[0].at, steps[0].is_gap) == (500, bool(code))


@given(st.binary(max_size=80), st.integers(0, 200))
def test_damaged_points_say_nothing_and_hurt_nobody(rubbish: bytes, place: int) -> None:
    writer = Writer(Clock())
    writer.append("<html>é")
    writer.replace(f"{'x' * 300}<html>")
    writer.replace("<html>")
    text, packed = writer.stored()
    damaged = packed[: place % len(packed)] + rubbish
    for each in (rubbish, damaged, b"\x01" + rubbish):
        steps = steps_of(each, text.encode())
        state_at(each, text.encode(), 10)
        beginning_of(each)
        if steps:
            assert steps[-1].apply("" if len(steps) == 1 else _last(steps[:-1])) == text


def _last(steps: object) -> str:
    state = ""
    for step in steps:  # type: ignore[attr-defined]  # A sequence of steps.
        state = step.apply(state)
    return state


@given(st.lists(TEXTS, max_size=8))
def test_lengths_of_what_is_stored_are_those_of_its_beginnings(texts: list[str]) -> None:
    code = encoded("".join(texts))
    lengths = [len(encoded("".join(texts[:number]))) for number in range(len(texts) + 1)]
    text, stored = stored_lengths(code, lengths)
    assert text == storable(code)[0]
    for length, stored_length in zip(lengths, stored, strict=True):
        beginning = storable(code[:length])[0]
        found = text.encode()[:stored_length].decode()
        assert found in {beginning, beginning.removesuffix("\ufffd")}
