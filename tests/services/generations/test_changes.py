"""The states of a writer, as changes: a follower has one of these states at any moment, whatever is lost."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import uuid4

from hypothesis import given
from hypothesis import strategies as st

from data_layer.entities.enums import GenerationStatus
from data_layer.repositories.generations import StoredVariant
from data_layer.schemas.generation_stream import CodePatch, CodeState
from data_layer.services.generations.followed import MOST_STEPS, FollowedVariant, Position, VariantPosition
from data_layer.services.generations.live import (
    LARGEST_CHANGE,
    MOST_WAITING_EVENTS,
    Change,
    Unpublished,
    common_end,
    common_start,
    pack_entry,
    unpack_entry,
)
from data_layer.services.generations.text import encoded, storable

# Letters that repeat, characters of two to four bytes, what cannot be stored, and halves of a pair.
TEXTS = st.text(st.sampled_from("aab<é€😀\0\ud83d\ude00\ud7ff"), max_size=6)
RUNNING = GenerationStatus.PROCESSING
BEGUN = datetime.now(UTC)


@dataclass
class Writer:
    """What a process would do that writes one variant."""

    code: bytearray = field(default_factory=bytearray)
    sequence: int = 0
    unpublished: Unpublished = field(default_factory=lambda: Unpublished(b"", 0))
    states: dict[int, str] = field(default_factory=lambda: {0: ""})

    def append(self, text: str) -> None:
        self.code += encoded(text)
        if text:
            self.unpublished.note_appended()
        self._count()

    def replace(self, text: str) -> None:
        start, end = common_start(self.code, encoded(text)), common_end(self.code, encoded(text))
        self.unpublished.note_replaced(start, end)
        self.code[:] = encoded(text)
        self._count()

    def take(self) -> Change:
        return sent(self.unpublished.take(0, self.code, self.sequence))

    def stored(self, sequence: int | None = None) -> StoredVariant:
        number = self.sequence if sequence is None else sequence
        return StoredVariant(uuid4(), 0, RUNNING, number, None, self.states[number], BEGUN)

    def _count(self) -> None:
        self.sequence += 1
        self.states[self.sequence] = storable(self.code)[0]


def sent(change: Change) -> Change:
    """As it arrives."""
    entry = unpack_entry(pack_entry("tag", [change]))
    assert entry is not None
    return entry.changes[0]


@dataclass
class Reader:
    """What a reader makes of its news."""

    code: str | None = None
    place: VariantPosition | None = None
    wholes: int = 0

    def read(self, variant: FollowedVariant) -> None:
        news = variant.news(self.place)
        if isinstance(news, CodeState):
            self.code = news.code
            self.wholes += 1
        elif isinstance(news, CodePatch):
            assert self.code is not None
            self.code = news.apply(self.code)
        self.place = VariantPosition(variant.sequence, variant.checksum, 0, variant.tag, has_end=False)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), TEXTS),
        st.tuples(st.just("replace"), TEXTS),
        st.tuples(st.just("continue"), TEXTS),
        st.tuples(st.sampled_from(["publish", "fail", "lose", "store", "read", "resume", "again"]), st.just("")),
    ),
    max_size=40,
)


@dataclass
class Story:
    """A writer, the stream, the database, and readers in a process that may be another one each time."""

    writer: Writer = field(default_factory=Writer)
    log: list[Change] = field(default_factory=list)
    readers: list[Reader] = field(default_factory=lambda: [Reader()])

    def __post_init__(self) -> None:
        self.checkpoint = self.writer.stored()
        self.followed = FollowedVariant(self.checkpoint)

    def write(self, step: str, text: str) -> None:
        match step:
            case "append":
                self.writer.append(text)
            case "replace":
                self.writer.replace(text)
            case "continue":  # As setCode does: the whole code, and some more.
                self.writer.replace(self.writer.code.decode("utf-8", "surrogatepass") + text)

    def publish(self, step: str) -> None:
        if self.writer.sequence == self.writer.unpublished.sequence:
            return
        change = self.writer.take()
        if step != "fail":
            self.log.append(change)
        if step == "publish":
            self.followed.apply("tag", change)
        else:  # "lose": it has arrived, but nobody knows; readers come to it later.
            self.writer.unpublished.put_back(change)

    def go_on(self, step: str) -> None:
        match step:
            case "store":
                self.checkpoint = self.writer.stored()
                self.followed.replace(self.checkpoint)
            case "resume":  # In another process, from the last checkpoint and what is in the stream.
                self.followed = FollowedVariant(self.checkpoint)
                self.apply_all()
            case "again":
                self.apply_all()
            case "read":
                self.readers.append(Reader())
                for reader in self.readers[::2]:
                    reader.read(self.followed)

    def apply_all(self) -> None:
        for change in self.log:
            self.followed.apply("tag", change)


@given(STEPS)
def test_a_reader_has_a_state_of_the_writer(steps: list[tuple[str, str]]) -> None:
    story = Story()
    for step, text in steps:
        story.write(step, text)
        if step in {"publish", "fail", "lose"}:
            story.publish(step)
        story.go_on(step)
        assert not story.followed.is_doubtful
        assert story.followed.code.decode() == story.writer.states[story.followed.sequence]
        for reader in story.readers:
            assert reader.code in {None, *story.writer.states.values()}
    writer = story.writer
    story.followed.replace(StoredVariant(uuid4(), 0, GenerationStatus.COMPLETED, *_last(writer), BEGUN))
    for reader in story.readers:
        reader.read(story.followed)
        assert reader.code == writer.states[writer.sequence]


def _last(writer: Writer) -> tuple[int, None, str]:
    return writer.sequence, None, writer.states[writer.sequence]


@given(st.lists(st.tuples(st.booleans(), TEXTS), min_size=1, max_size=20), st.data())
def test_a_change_continues_every_state_that_it_spans(pieces: list[tuple[bool, str]], data: st.DataObject) -> None:
    writer = Writer()
    for is_whole, piece in pieces:
        writer.replace(piece) if is_whole else writer.append(piece)
    change = writer.take()
    sequence = data.draw(st.integers(0, writer.sequence))
    followed = FollowedVariant(writer.stored(sequence))
    reader = Reader()
    reader.read(followed)
    followed.apply("tag", change)
    assert followed.sequence == writer.sequence
    assert followed.wanted is None
    reader.read(followed)
    assert reader.code == writer.states[writer.sequence]
    assert reader.wholes == 1
    # In another process, from where another reader of the same writer was.
    followed = FollowedVariant(writer.stored(0))
    followed.apply("tag", change)
    there = writer.states[sequence]
    elsewhere = Reader(there, VariantPosition(sequence, zlib.crc32(there.encode()), 0, "tag", has_end=False))
    elsewhere.read(followed)
    assert (elsewhere.code, elsewhere.wholes) == (writer.states[writer.sequence], 0)


@given(st.binary(max_size=12), st.binary(max_size=12))
def test_what_is_the_same_at_both_ends(one: bytes, other: bytes) -> None:
    start, end = common_start(one, other), common_end(one, other)
    assert one[:start] == other[:start]
    assert one[start : start + 1] != other[start : start + 1] or start == len(one) == len(other)
    assert one[len(one) - end :] == other[len(other) - end :]
    reached = end == min(len(one), len(other))
    assert reached or one[len(one) - end - 1] != other[len(other) - end - 1]


def test_the_whole_code_again_and_again_is_small() -> None:
    """As the application sends it: a page of 60 KB in 800 messages, each with all of it so far."""
    page = "".join(f"<li>item {number}</li>\n" for number in range(3300))
    writer, size, received = Writer(), 0, 0
    followed = FollowedVariant(writer.stored())
    for number in range(800):
        whole = page[: len(page) * (number + 1) // 800]
        received += len(whole)
        writer.replace(whole)
        change = writer.take()
        size += len(pack_entry("tag", [change]))
        followed.apply("tag", change)
    assert followed.code.decode() == page
    assert received > 20_000_000
    assert size < 3 * len(page)


def test_an_edit_in_the_middle_is_small() -> None:
    writer = Writer()
    page = "<p>é</p>" * 10_000
    writer.replace(page)
    writer.take()
    writer.replace(page[:40_000] + "<b>new</b>" + page[40_000:])
    change = writer.take()
    assert change.text is not None
    assert len(change.text) < 30


def test_what_another_writer_sent_is_not_applied() -> None:
    """Two processes with one token: the numbers are the same, the texts are not."""
    one, other = Writer(), Writer()
    one.append("abc")
    other.append("abd")
    followed = FollowedVariant(one.stored(0))
    followed.apply("tag", one.take())
    other.take()
    other.append("e")
    followed.apply("other", other.take())
    assert followed.is_doubtful
    assert followed.code == b"abc"
    followed.replace(other.stored(1))
    assert (followed.code, followed.is_doubtful) == (b"abd", False)
    reader = Reader("abc", VariantPosition(1, 0, 0, "tag", has_end=False))
    reader.read(followed)
    assert (reader.code, reader.wholes) == ("abd", 1)


def test_a_gap_is_closed_by_a_checkpoint() -> None:
    writer = Writer()
    followed = FollowedVariant(writer.stored())
    writer.append("a")
    writer.take()  # Lost.
    writer.append("b")
    late = writer.take()
    followed.apply("tag", late)
    assert (followed.code, followed.wanted) == (b"", 2)
    followed.replace(writer.stored(1))
    assert (followed.code, followed.wanted) == (b"a", 2)
    followed.apply("tag", late)
    assert followed.wanted is None
    assert followed.code == b"ab"


def test_memory_is_bounded() -> None:
    writer = Writer()
    followed = FollowedVariant(writer.stored())
    for _ in range(2 * MOST_STEPS):
        writer.append("x")
        followed.apply("tag", writer.take())
    assert len(followed._steps) == MOST_STEPS
    reader = Reader("", VariantPosition(0, 0, 0, "tag", has_end=False))
    reader.read(followed)
    assert (reader.code, reader.wholes) == ("x" * 2 * MOST_STEPS, 1)
    writer.append("y" * (LARGEST_CHANGE + 1))
    large = writer.take()
    assert large.text is None
    followed.apply("tag", large)
    assert followed.wanted == writer.sequence
    for number in range(20_000):
        writer.unpublished.note_events([(number, "thinking", "{}")])
    assert writer.unpublished._events_size <= MOST_WAITING_EVENTS + 300
    writer.append("z")
    change = writer.take()
    assert (list(change.events), change.has_all_events) == ([], False)


@given(
    st.dictionaries(
        st.integers(0, 15),
        st.builds(
            VariantPosition,
            st.integers(0, 2**31 - 1),
            st.integers(0, 2**32 - 1),
            st.integers(0, 2**31 - 1),
            st.sampled_from(["", "0123456789abcdef"]),
            st.booleans(),
        ),
        min_size=1,
    )
)
def test_a_position_comes_back(places: dict[int, VariantPosition]) -> None:
    assert Position.parsed(str(Position(places))) == places


def test_the_second_half_of_a_pair_comes_later() -> None:
    """What was published as a half is one character then, however the rest comes."""
    writer = Writer()
    followed = FollowedVariant(writer.stored())
    reader = Reader()
    for text in ("a\ud83d", "\ude00b", "\ud83d", "\0", "\ude00"):
        writer.append(text)
        followed.apply("tag", writer.take())
        reader.read(followed)
        assert reader.code == writer.states[writer.sequence]
    assert reader.code == "a😀b\ufffd\u2400\ufffd"
    writer.replace("a\ud83d\ude00")
    followed.apply("tag", writer.take())
    reader.read(followed)
    assert (reader.code, reader.wholes) == ("a😀", 1)
