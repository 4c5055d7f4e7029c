"""``make bench-bodies``: what a history of 20 edits of real pages of about 40 KB takes, and how fast it is read.

Pages are HTML files of installed packages and of the system's documentation. Each edit changes what people ask for:
classes, texts, a section added, removed or moved, a part written again. Texts are stored in PostgreSQL as they are
(compressed by TOAST with pglz or lz4), and as bodies compressed with zstd: alone, with the version before as
dictionary and a whole copy every five versions, and with the last whole copy as dictionary.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import random
import re
import statistics
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import zstandard
from rich.console import Console
from rich.table import Table
from sqlalchemy import text as sql_text

from data_layer import DataLayer, GeneratedCode, GenerationProvider, Project, Settings, User
from data_layer.schemas.actors import SYSTEM
from data_layer.testing.postgresql_server import PostgresqlServer

EDITS = 20
SMALLEST, LARGEST = 28_000, 60_000
LEVEL = 6
CHAIN = 5
RENEWAL = 0.4
FOLDERS = (Path(sysconfig.get_paths()["purelib"]), Path("/usr/share/doc"))
PROGRAMS = Path("/usr/lib/postgresql/15/bin")  # Debian's, because the embedded server has no lz4.
CLASSES = ("rounded-lg shadow", "bg-slate-50", "text-xl font-semibold", "grid grid-cols-3 gap-6", "mt-8 px-4 hidden")
console = Console()


def real_pages(folders: list[Path], count: int) -> list[str]:
    """HTML files of the right size, each once, those whose hash is smallest."""
    found: dict[str, str] = {}
    for path in (each for folder in folders for each in folder.rglob("*.html")):
        if path.is_file() and SMALLEST <= path.stat().st_size <= LARGEST:
            page = path.read_bytes().decode(errors="replace").replace("\0", "")
            found[hashlib.sha256(page.encode()).hexdigest()] = page
    return [page for _, page in sorted(found.items())[:count]]


class Editor:
    """Edits a page as a language model does on request; reproducible by its seed."""

    def __init__(self, seed: int, others: list[str]) -> None:
        self._random = random.Random(seed)  # noqa: S311  (no secrets here)
        self._others = others

    def history(self, page: str) -> list[str]:
        """The page and what each edit made of it."""
        versions = [page]
        kinds = (self._classes, self._texts, self._add, self._remove, self._move, self._rewrite)
        for _ in range(EDITS):
            page = versions[-1]
            for change in self._random.choices(kinds, weights=(4, 5, 4, 2, 2, 1), k=self._random.randint(1, 3)):
                page = change(page)
            versions.append(page)
        return versions

    def _classes(self, page: str) -> str:
        """Other classes for up to twenty elements of one kind."""
        tag, added = self._random.choice(("p", "div", "a", "li", "h2", "span")), self._random.choice(CLASSES)
        return re.sub(rf"<{tag}(?=[ >])", f'<{tag} data-class="{added}"', page, count=self._random.randint(3, 20))

    def _texts(self, page: str, share: float = 0.02) -> str:
        """Words of some paragraphs in another order, with new ones between them."""

        def change(match: re.Match[str]) -> str:
            if self._random.random() > share:
                return match[0]
            words = match[1].split(" ")
            self._random.shuffle(words)
            words.append(f"{self._random.getrandbits(40):x}")
            return f">{' '.join(words)}<"

        return re.sub(r">([^<>]{12,})<", change, page)

    def _rewrite(self, page: str) -> str:
        """A third of all texts."""
        return self._texts(page, 0.33)

    def _add(self, page: str) -> str:
        """A section that this page has never had."""
        at, other = self._place(page), self._random.choice(self._others)
        start = self._place(other)
        return page[:at] + other[start : start + self._random.randint(400, 2500)] + page[at:]

    def _remove(self, page: str) -> str:
        at = self._place(page)
        return page[:at] + page[at + self._random.randint(300, 2000) :]

    def _move(self, page: str) -> str:
        at, size = self._place(page), self._random.randint(500, 3000)
        rest, section = page[:at] + page[at + size :], page[at : at + size]
        to = self._place(rest)
        return rest[:to] + section + rest[to:]

    def _place(self, page: str) -> int:
        """The beginning of an element somewhere in the page."""
        return max(page.find("<", self._random.randrange(len(page) * 9 // 10)), 0)


@dataclass(frozen=True)
class Body:
    """A stored text: its number, the number of the text that is its dictionary, and its bytes."""

    number: int
    base: int | None
    data: bytes


def compressed(text: bytes, dictionary: bytes | None, level: int = LEVEL) -> bytes:
    """The text as one frame of zstd."""
    raw = zstandard.ZstdCompressionDict(dictionary, dict_type=zstandard.DICT_TYPE_RAWCONTENT) if dictionary else None
    return zstandard.ZstdCompressor(level=level, dict_data=raw).compress(text)


def restored(data: bytes, dictionary: bytes | None) -> bytes:
    """The text of a frame."""
    raw = zstandard.ZstdCompressionDict(dictionary, dict_type=zstandard.DICT_TYPE_RAWCONTENT) if dictionary else None
    return zstandard.ZstdDecompressor(dict_data=raw).decompress(data)


def alone(texts: list[bytes]) -> Iterator[Body]:
    """Each text by itself."""
    return (Body(number, None, compressed(text, None)) for number, text in enumerate(texts))


def chained(texts: list[bytes]) -> Iterator[Body]:
    """The version before is the dictionary; every fifth is whole, so that reading costs at most four steps."""
    for number, text in enumerate(texts):
        base = number - 1 if number % CHAIN else None
        yield Body(number, base, compressed(text, None if base is None else texts[base]))


def starred(texts: list[bytes]) -> Iterator[Body]:
    """The last whole copy is the dictionary, until the text has become too different from it: one step."""
    base, size = None, 0
    for number, text in enumerate(texts):
        whole = compressed(text, None)
        difference = whole if base is None else compressed(text, texts[base])
        if base is None or len(difference) > size * RENEWAL:
            base, size = number, len(whole)
            yield Body(number, None, whole)
        else:
            yield Body(number, base, difference)


STRATEGIES: dict[str, Callable[[list[bytes]], Iterator[Body]]] = {
    "zstd alone": alone,
    "zstd, chain of 4": chained,
    "zstd, star": starred,
}

TABLES = """
CREATE TABLE pglz (history int, number int, code text COMPRESSION pglz, PRIMARY KEY (history, number));
CREATE TABLE lz4 (history int, number int, code text COMPRESSION lz4, PRIMARY KEY (history, number));
CREATE TABLE external (history int, number int, code text, PRIMARY KEY (history, number));
ALTER TABLE external ALTER code SET STORAGE EXTERNAL;
CREATE TABLE bodies (
    strategy text, history int, sha256 bytea, base bytea, bytes bytea, PRIMARY KEY (strategy, history, sha256)
);
ALTER TABLE bodies ALTER bytes SET STORAGE EXTERNAL;
"""
SHARE = sql_text("SELECT sum(octet_length(bytes))::float / sum(size) FROM code_bodies")
PLAIN = "SELECT code FROM {} WHERE history = %s AND number = %s"
WHOLE = """
SELECT a.bytes, b.bytes FROM bodies a
LEFT JOIN bodies b ON (b.strategy, b.history, b.sha256) = (a.strategy, a.history, a.base)
WHERE (a.strategy, a.history, a.sha256) = (%s, %s, %s)
"""
CHAINED = """
SELECT a.bytes, b.bytes, c.bytes, d.bytes, e.bytes FROM bodies a
LEFT JOIN bodies b ON (b.strategy, b.history, b.sha256) = (a.strategy, a.history, a.base)
LEFT JOIN bodies c ON (c.strategy, c.history, c.sha256) = (b.strategy, b.history, b.base)
LEFT JOIN bodies d ON (d.strategy, d.history, d.sha256) = (c.strategy, c.history, c.base)
LEFT JOIN bodies e ON (e.strategy, e.history, e.sha256) = (d.strategy, d.history, d.base)
WHERE (a.strategy, a.history, a.sha256) = (%s, %s, %s)
"""


def read_body(connection: psycopg.Connection, strategy: str, history: int, digest: bytes) -> str:
    """A text, made of its chain and verified, as a service returns it."""
    sql = CHAINED if strategy == "zstd, chain of 4" else WHOLE
    row = connection.execute(sql, (strategy, history, digest), binary=True).fetchone()
    assert row is not None
    text: bytes | None = None
    for data in reversed([each for each in row if each is not None]):
        text = restored(data, text)
    assert text is not None
    assert hashlib.sha256(text).digest() == digest
    return text.decode()


class Measured:
    """How one way of storing does.

    Args:
        name: what it is called.
        read: reads a version of a history.
    """

    def __init__(self, name: str, read: Callable[[int, int], object]) -> None:
        self.name = name
        self.read = read
        self.size = 0
        self.writing = 0.0
        self.times: dict[tuple[int, int], list[float]] = {}

    def medians(self) -> list[float]:
        """Milliseconds of each version."""
        return [statistics.median(times) for times in self.times.values()]


def store(connection: psycopg.Connection, histories: list[list[str]]) -> list[Measured]:
    """Store all histories in all ways."""
    ways = []
    for name in ("pglz", "lz4", "external"):
        sql = PLAIN.format(name)
        way = Measured(f"text, {name}", lambda h, n, sql=sql: connection.execute(sql, (h, n)).fetchone())  # type: ignore[misc]
        started = time.perf_counter()
        for history, texts in enumerate(histories):
            for number, text in enumerate(texts):
                connection.execute(f"INSERT INTO {name} VALUES (%s, %s, %s)", (history, number, text))
        way.writing = time.perf_counter() - started
        found = connection.execute(f"SELECT sum(pg_column_size(code)) FROM {name}").fetchone()
        way.size = int(found[0]) if found else 0
        ways.append(way)
    digests = [[hashlib.sha256(text.encode()).digest() for text in texts] for texts in histories]
    for name, strategy in STRATEGIES.items():
        way = Measured(name, lambda h, n, name=name: read_body(connection, name, h, digests[h][n]))  # type: ignore[misc]
        for history, texts in enumerate(histories):
            started = time.perf_counter()
            bodies = list(strategy([text.encode() for text in texts]))
            way.writing += time.perf_counter() - started
            for body in bodies:
                base = None if body.base is None else digests[history][body.base]
                row = (name, history, digests[history][body.number], base, body.data)
                connection.execute("INSERT INTO bodies VALUES (%s, %s, %s, %s, %s) ON CONFLICT DO NOTHING", row)
                way.size += len(body.data)
        ways.append(way)
    return ways


def measure_storage(histories: list[list[str]], rounds: int) -> None:
    """Print what each way takes, and how fast raw psycopg reads it: one after the other, again and again."""
    total = sum(len(text.encode()) for texts in histories for text in texts)
    count = sum(len(texts) for texts in histories)
    with PostgresqlServer(PROGRAMS) as server, psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(TABLES)
        ways = store(connection, histories)
        for _ in range(rounds):
            for place in ((history, number) for history, texts in enumerate(histories) for number in range(len(texts))):
                for way in ways:
                    started = time.perf_counter()
                    way.read(*place)
                    way.times.setdefault(place, []).append((time.perf_counter() - started) * 1000)
    table = Table("stored as", "of the text", "read, ms", "slowest version", "to plain", "making, ms")
    plain = statistics.median(ways[0].medians())
    for way in ways:
        median, worst = statistics.median(way.medians()), max(way.medians())
        figures = f"{way.size / total:.1%}", f"{median:.3f}", f"{worst:.3f}", f"{median / plain:.2f}"
        table.add_row(way.name, *figures, f"{way.writing * 1000 / count:.2f}")
    console.print(table)


async def measure_library(histories: list[list[str]], rounds: int) -> None:
    """Print how fast the library reads packed codes and, in between, the same ones in their rows."""
    with PostgresqlServer(PROGRAMS) as server, tempfile.TemporaryDirectory() as folder:
        settings = Settings(database_url=server.url(), environment="testing", local_storage_path=Path(folder))
        async with DataLayer(settings, prepare=True) as data:
            user = User(email="ada@example.com", first_name="A", last_name="B")
            pairs = []
            async with data.transaction() as tx:
                tx.add(user)
            for texts in histories:
                plain, packed = (Project(user_id=user.id, name=name) for name in ("plain", "packed"))
                async with data.transaction() as tx:
                    tx.add(plain)
                    tx.add(packed)
                for text in texts:
                    codes = [
                        GeneratedCode(project_id=each.id, code=text, provider=GenerationProvider.CLAUDE, model="m")
                        for each in (plain, packed)
                    ]
                    codes[0].writer = "somebody"  # Who may come back, so it is left alone.
                    async with data.transaction() as tx:
                        tx.add(codes[0])
                        tx.add(codes[1])
                    pairs.append([code.id for code in codes])
            started = time.perf_counter()
            report = await data.maintenance.run(SYSTEM)
            seconds = time.perf_counter() - started
            times: tuple[list[float], list[float]] = ([], [])
            for _ in range(rounds):
                for pair in pairs:
                    for kind, code_id in enumerate(pair):
                        started = time.perf_counter()
                        async with data.transaction() as tx:
                            await tx.codes.get(code_id)
                        times[kind].append((time.perf_counter() - started) * 1000)
            async with data.transaction() as tx:
                share = (await tx.execute(SHARE)).scalar_one()
    medians = [statistics.median(each) for each in times]
    console.print(
        f"the library: {report.codes_packed} codes packed in {seconds:.1f} s to {share:.1%}; "
        f"tx.codes.get {medians[0]:.3f} ms in its row, {medians[1]:.3f} ms packed ({medians[1] / medians[0]:.2f})"
    )


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folders", type=Path, nargs="*", default=list(FOLDERS))
    parser.add_argument("--pages", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    pages = real_pages(options.folders, options.pages)
    sizes = sorted(len(page.encode()) for page in pages)
    histories = [Editor(seed, pages).history(page) for seed, page in enumerate(pages)]
    console.print(f"{len(pages)} pages of {sizes[0]} to {sizes[-1]} bytes, {EDITS} edits each")
    measure_storage(histories, options.rounds)
    asyncio.run(measure_library(histories, options.rounds))


if __name__ == "__main__":
    main()
