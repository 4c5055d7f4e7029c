"""Codes that nobody writes any more are moved into bodies, which are compared with their hashes on request.

===========================  ==========================================================================================
the process dies             what is left
===========================  ==========================================================================================
before the second            nothing has changed; the next round does the same again
transaction
inside it                    the database takes it back: a code is in its row or in a body, never in neither
between two batches          some codes are moved, and the next round goes on with the others
===========================  ==========================================================================================
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from enum import StrEnum
from itertools import takewhile
from uuid import UUID

from data_layer.entities.code_body import BASES, CodeBody, CodePacker, unpacked, whole
from data_layer.errors import DamagedCodeError
from data_layer.repositories.code_bodies import StoredBody, UnpackedCode, WrongCodes
from data_layer.repositories.unit_of_work import Transactions
from data_layer.schemas.base import Value

_BATCH = 50
_BATCH_BYTES = 8 * 2**20
_ORPHANS = 1_000
_PAGE = 20
_MOST_NAMED, _ORPHANS_NAMED = 10_000, 100


class CodeProblem(StrEnum):
    """What can be wrong with a body."""

    DAMAGED = "damaged"
    """Its bytes do not make the text that was stored."""

    BASE_MISSING = "base_missing"
    """The body that it was compressed with is not there, or not whole."""

    MISSING = "missing"
    """A code has neither a text nor a body, or its body is not there."""

    WRONG_SIZE = "wrong_size"
    """A code says another size than its body."""

    WRONG_HASH = "wrong_hash"
    """A code says another hash than that of its text or body, so what is made from it is not found."""


class CodeFinding(Value):
    """What is wrong with a body or with codes, or was until it was repaired, and the versions that it is about.

    ``sha256`` is that of the text, and empty for codes that do not even say it.
    """

    problem: CodeProblem
    project_id: UUID
    sha256: str
    versions: tuple[str, ...] = ()
    is_repaired: bool = False


class BodyName(Value):
    """Which body."""

    project_id: UUID
    sha256: str


class CodeCheckReport(Value):
    """What was compared. ``size`` is that of the texts, ``stored_size`` what their bodies take, both in bytes.

    ``orphans`` are needed by nothing; maintenance removes them. The first 100 of them are named.
    """

    bodies: int
    size: int
    stored_size: int
    orphans: int
    orphan_bodies: tuple[BodyName, ...] = ()
    findings: tuple[CodeFinding, ...] = ()

    @property
    def is_clean(self) -> bool:
        """Whether nothing is wrong, or everything was repaired."""
        return all(finding.is_repaired for finding in self.findings)


async def pack_codes(transactions: Transactions, on_progress: Callable[[str, int], None]) -> int:
    """Move all codes into bodies that can be moved; how many there were."""
    async with transactions() as tx:
        if not await tx.code_bodies.may_pack():
            return 0
    packed = 0
    last: UnpackedCode | None = None
    while True:
        async with transactions() as tx:
            batch = _first_batch(await tx.code_bodies.unpacked(last, _BATCH))
            if not batch:
                return packed
            last = batch[-1]
            codes = await tx.code_bodies.texts([code.id for code in batch])
            bases = await tx.code_bodies.bases(last.project_id, BASES)
        if not codes:
            continue
        # Compressing takes a millisecond for each text of 40 KB, and lets other threads work.
        bodies, ids = await asyncio.to_thread(_packed, codes, bases)
        async with transactions() as tx:
            packed += await tx.code_bodies.move(last.project_id, bodies, ids)
        on_progress("codes_packed", packed)


async def remove_orphans(transactions: Transactions) -> int:
    """Remove the bodies that no code and no other body needs; how many there were."""
    count = 0
    while True:
        async with transactions() as tx:
            removed = await tx.code_bodies.remove_orphans(_ORPHANS)
        count += removed
        # A base whose last difference has just gone is found by the next statement.
        if not removed:
            return count


def _first_batch(codes: Sequence[UnpackedCode]) -> Sequence[UnpackedCode]:
    """The first ones that are of one project and not too large together; at least one."""
    if not codes:
        return codes
    total = 0

    def fits(code: UnpackedCode) -> bool:
        nonlocal total
        total += code.size
        return code is codes[0] or (code.project_id == codes[0].project_id and total <= _BATCH_BYTES)

    return list(takewhile(fits, codes))


def _packed(
    codes: Sequence[tuple[UUID, str]], bases: Sequence[CodeBody]
) -> tuple[list[CodeBody], list[tuple[UUID, bytes, int]]]:
    packer = CodePacker(_readable(bases))
    bodies: dict[bytes, CodeBody] = {}
    ids = []
    for code_id, code in codes:
        data = code.encode()
        digest = hashlib.sha256(data).digest()
        if digest not in bodies:
            bodies[digest] = packer.pack(data)
        ids.append((code_id, digest, len(data)))
    return list(bodies.values()), ids


def _readable(bases: Sequence[CodeBody]) -> dict[bytes, bytes]:
    texts = {}
    for base in bases:
        try:
            texts[base.sha256] = unpacked(base)
        except DamagedCodeError:
            continue  # A check reports it; nothing new is to depend on it.
    return texts


class CodeCheck:
    """One comparison of all bodies with their hashes, and of all codes with what is stored of them.

    Args:
        transactions: where they are.
        repair: store a damaged or missing text again that is found whole elsewhere: in a row, or as a body of another
            project; and correct sizes and hashes of codes.
        on_progress: called with how many bodies were seen.
    """

    def __init__(self, transactions: Transactions, *, repair: bool, on_progress: Callable[[int], None]) -> None:
        self._transactions = transactions
        self._repair = repair
        self._on_progress = on_progress
        self._bodies = self._size = self._stored_size = 0

    async def run(self) -> CodeCheckReport:
        """Compare everything, one page after the other."""
        damaged = [stored async for page in self._pages() for stored in await asyncio.to_thread(_damaged_of, page)]
        # What others were compressed with comes first: they are readable again when it is.
        damaged.sort(key=lambda stored: stored.body.base is not None)
        findings = [await self._finding(stored) for stored in damaged]
        async with self._transactions() as tx:
            wrong = await tx.code_bodies.wrong_codes(_MOST_NAMED)
        # Of a damaged body the size means nothing.
        spoilt = {(stored.project_id, stored.body.sha256) for stored in damaged}
        findings += [await self._wrong(codes) for codes in wrong if (codes.project_id, codes.sha256) not in spoilt]
        async with self._transactions() as tx:
            orphans = await tx.code_bodies.count_orphans()
            named = await tx.code_bodies.orphans(_ORPHANS_NAMED)
        return CodeCheckReport(
            orphan_bodies=tuple(BodyName(project_id=project_id, sha256=sha.hex()) for project_id, sha in named),
            bodies=self._bodies,
            size=self._size,
            stored_size=self._stored_size,
            orphans=orphans,
            findings=tuple(findings),
        )

    async def _pages(self) -> AsyncIterator[Sequence[StoredBody]]:
        last: StoredBody | None = None
        while True:
            async with self._transactions() as tx:
                page = await tx.code_bodies.page(last, _PAGE)
            if not page:
                return
            last = page[-1]
            self._bodies += len(page)
            self._size += sum(stored.body.size for stored in page)
            self._stored_size += sum(len(stored.body.data) for stored in page)
            yield page
            self._on_progress(self._bodies)

    async def _finding(self, stored: StoredBody) -> CodeFinding:
        body = stored.body
        async with self._transactions() as tx:
            places = await tx.code_bodies.places(stored.project_id, body.sha256)
        is_base_missing = body.base is not None and (stored.base is None or stored.base.base is not None)
        return CodeFinding(
            problem=CodeProblem.BASE_MISSING if is_base_missing else CodeProblem.DAMAGED,
            project_id=stored.project_id,
            sha256=body.sha256.hex(),
            versions=tuple(f"{version}.{variant}" for version, variant in places),
            is_repaired=self._repair and await self._repaired(stored),
        )

    async def _wrong(self, codes: WrongCodes) -> CodeFinding:
        return CodeFinding(
            problem=CodeProblem(codes.problem),
            project_id=codes.project_id,
            sha256=codes.sha256.hex() if codes.sha256 else "",
            versions=tuple(f"{version}.{variant}" for version, variant in codes.places),
            is_repaired=self._repair and await self._corrected(codes),
        )

    async def _corrected(self, codes: WrongCodes) -> bool:
        if codes.problem == CodeProblem.MISSING:
            return codes.sha256 is not None and await self._stored_again(codes.project_id, codes.sha256)
        async with self._transactions() as tx:
            await tx.code_bodies.correct(codes)
        return True

    async def _repaired(self, stored: StoredBody) -> bool:
        return await self._stored_again(stored.project_id, stored.body.sha256)

    async def _stored_again(self, project_id: UUID, digest: bytes) -> bool:
        """Store a text again that is whole somewhere; whether it can be read now."""
        async with self._transactions() as tx:
            copies = await tx.code_bodies.copies(digest)
            plain = await tx.code_bodies.plain(digest)
        code = next((code for code in map(_text_of, copies) if code is not None), plain)
        if code is None:
            return False
        # Its own body is among the copies: it is readable again where its base was repaired before.
        async with self._transactions() as tx:
            await tx.code_bodies.replace(project_id, whole(code))
        return True


def _damaged_of(page: Sequence[StoredBody]) -> Sequence[StoredBody]:
    return [stored for stored in page if _text_of(stored) is None]


def _text_of(stored: StoredBody) -> bytes | None:
    try:
        return unpacked(stored.body, stored.base)
    except DamagedCodeError:
        return None
