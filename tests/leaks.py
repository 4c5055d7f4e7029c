"""Looks for secrets in everything that is kept: every row of every table, every key of Redis, every line of the log."""

from __future__ import annotations

import base64
import hashlib
import logging
from collections.abc import Iterable, Iterator
from typing import Self

import redis
from sqlalchemy import text

from data_layer import DataLayer

_TABLES = text("SELECT oid::regclass::text FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace")


class LogLines(logging.Handler):
    """Keeps every line that anybody logs, at every level; with its arguments, fields and tracebacks."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []
        self.setFormatter(logging.Formatter())

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{self.format(record)} {vars(record)!r}")

    def __enter__(self) -> Self:
        self._level = logging.root.level
        logging.root.addHandler(self)
        logging.root.setLevel(logging.DEBUG)
        return self

    def __exit__(self, *_: object) -> None:
        logging.root.removeHandler(self)
        logging.root.setLevel(self._level)


async def places_of(data: DataLayer, secrets: Iterable[str], lines: Iterable[str] = ()) -> list[str]:
    """Where a secret, or a fast hash of it that could be searched for, is to be found; best nowhere."""
    wanted = {spelling: secret for secret in secrets for spelling in _spellings(secret)}
    assert wanted
    kept = [*await _rows(data), *_keys(data), *(("the log", line) for line in lines)]
    assert kept
    return [f"{place}: {content[:200]}" for place, content in kept if any(spelling in content for spelling in wanted)]


def _spellings(secret: str) -> Iterator[str]:
    """As it is, and as others would have stored it."""
    encoded = secret.encode()
    yield secret
    yield encoded.hex()
    yield base64.b64encode(encoded).decode().rstrip("=")
    for digest in (hashlib.md5(encoded), hashlib.sha1(encoded), hashlib.sha256(encoded)):  # noqa: S324  (what others do)
        yield digest.hexdigest()
        yield base64.b64encode(digest.digest()).decode().rstrip("=")


async def _rows(data: DataLayer) -> list[tuple[str, str]]:
    async with data.transaction() as tx:
        tables = (await tx.execute(_TABLES)).scalars().all()
        found = {table: await tx.execute(text(f"SELECT t::text FROM {table} t")) for table in tables}
        return [(table, row) for table, rows in found.items() for row in rows.scalars()]


def _keys(data: DataLayer) -> Iterator[tuple[str, str]]:
    assert data.settings.redis.redis_url
    with redis.Redis.from_url(data.settings.redis.redis_url.get_secret_value(), protocol=3) as client:
        for key in client.scan_iter():
            kind = client.type(key)
            readers = {b"string": client.get, b"hash": client.hgetall, b"set": client.smembers}
            yield "Redis", f"{key!r} {readers.get(kind, client.dump)(key)!r}"
