"""``data.previews``: pages of variants at addresses that need no cookie, for a host of their own."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from data_layer.entities import GeneratedCode
from data_layer.entities.enums import ProjectStatus
from data_layer.errors import InvalidSignatureError, NotFoundError
from data_layer.repositories.unit_of_work import Transactions
from data_layer.schemas.actors import Actor
from data_layer.services.arguments import checks_arguments
from data_layer.services.generations.access import open_code, open_project
from data_layer.services.generations.replay import check_moment, code_at_moment
from data_layer.services.page_images import images_of, live_page
from data_layer.services.permissions import Permission
from data_layer.services.view_counts import ViewCounts

PREVIEW_PATH = "/p/"
"""What the addresses of previews begin with."""

LIFETIME = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class SignedPreview:
    """The address of a page, below its host, and when it ends."""

    path: str
    expires_at: datetime


@checks_arguments
class PreviewService:
    """Signs addresses of pages for people who may see them, and opens the pages for anybody with an address.

    An address shows one variant and works for five minutes, also if the person loses the right to see it meanwhile.
    The page itself can read it; it discloses nothing but the page.

    Args:
        transactions: begins them.
        views: counts who looks.
        secrets: the one to sign with, then older ones.
        base_url: where images are, which the host of pages has not.
    """

    def __init__(
        self, transactions: Transactions, views: ViewCounts, secrets: Sequence[str], *, base_url: str = ""
    ) -> None:
        self._transactions = transactions
        self._base_url = base_url
        self._views = views
        # A key of its own is derived from each, so that a secret that serves other purposes too gives nothing away.
        self._keys = [hmac.digest(secret.encode(), b"data-layer previews", "sha256") for secret in secrets]

    async def sign(
        self, actor: Actor, code_id: UUID, *, at: int | None = None, reason: str | None = None
    ) -> SignedPreview:
        """The address of a variant's page.

        Args:
            actor: the owner of the project.
            code_id: which variant.
            at: as it was so many milliseconds after the variant began; by default as it is when it is opened.
            reason: why, where a moderator looks at somebody else's; it is recorded.

        Raises:
            NotFoundError: the actor has no such variant.
            InvalidValueError: ``at`` is less than 0.
        """
        if at is not None:
            check_moment(at)
        async with self._transactions() as tx:
            await open_code(tx, actor, code_id, Permission.READ_CODE, reason=reason)
        return self._signed(code_id, is_counted=at is None, at=at)

    async def latest(self, actor: Actor, project_id: UUID) -> str:
        """The page of a project's latest version, for a small picture of it: no view is counted.

        Raises:
            NotFoundError: the actor has no such project, or nothing in it is complete.
        """
        async with self._transactions() as tx:
            await open_project(tx, actor, project_id, Permission.READ_CODE)
            code = await tx.codes.latest(project_id)
            if code is None:
                raise _nothing_complete()
            return await live_page(tx, project_id, code.id, code.code)

    async def sign_latest(self, actor: Actor, project_id: UUID) -> SignedPreview:
        """The address of the same page, whose code is not read for it. Opening it counts no view either.

        Raises:
            NotFoundError: see ``latest``.
        """
        async with self._transactions() as tx:
            await open_project(tx, actor, project_id, Permission.READ_CODE)
            code_id = await tx.codes.latest_id(project_id)
        if code_id is None:
            raise _nothing_complete()
        return self._signed(code_id, is_counted=False)

    def _signed(self, code_id: UUID, *, is_counted: bool, at: int | None = None) -> SignedPreview:
        expires_at = datetime.now(UTC).replace(microsecond=0) + LIFETIME
        expires = int(expires_at.timestamp())
        signature = _signature(self._keys[0], code_id, expires, is_counted=is_counted, at=at)
        moment = "" if at is None else f"&at={at}"
        return SignedPreview(f"{PREVIEW_PATH}{code_id}?expires={expires}&signature={signature}{moment}", expires_at)

    async def open(self, code_id: UUID, expires: int, signature: str, *, at: int | None = None) -> str:
        """The page at an address. The view is counted, unless ``sign_latest`` made the address, or it is of a moment.

        Raises:
            GrowthUnknownError: it was not kept how the page grew.
            InvalidSignatureError: the address has ended, or was never signed.
            NotFoundError: the variant or its project is gone.
        """
        given = signature.encode("utf-8", "surrogatepass")
        is_counted = at is None and self._has_signed(given, code_id, expires, is_counted=True, at=None)
        if not is_counted and not self._has_signed(given, code_id, expires, is_counted=False, at=at):
            raise InvalidSignatureError("the address of the preview is not valid; ask for it again")
        if datetime.now(UTC).timestamp() > expires:
            raise InvalidSignatureError("the address of the preview has ended; ask for it again")
        async with self._transactions() as tx:
            code = await tx.codes.get(code_id)
            project = await tx.projects.get(code.project_id)
            growth = None if at is None else (await tx.generations.growths([code_id])).get(code_id)
            images = await images_of(tx, project.id, base=self._base_url)
        if project.status is ProjectStatus.DELETED:
            raise NotFoundError(f"no code has the id {code_id}")
        if at is not None:
            state = await asyncio.to_thread(code_at_moment, code, growth, at)
            return images.page(state, code_id)
        if is_counted:
            self._views.count(GeneratedCode, code_id)
        return images.page(code.code, code_id)

    def _has_signed(self, given: bytes, code_id: UUID, expires: int, *, is_counted: bool, at: int | None) -> bool:
        signed = [_signature(key, code_id, expires, is_counted=is_counted, at=at).encode() for key in self._keys]
        return any(hmac.compare_digest(each, given) for each in signed)


def _signature(key: bytes, code_id: UUID, expires: int, *, is_counted: bool, at: int | None) -> str:
    # What is signed says whether the view counts, and of which moment it is: nobody can change that in the address.
    kind = "" if is_counted else "/uncounted"
    moment = "" if at is None else f"/{at}"
    return hmac.new(key, f"{code_id}/{expires}{kind}{moment}".encode(), hashlib.sha256).hexdigest()


def _nothing_complete() -> NotFoundError:
    return NotFoundError("the project has no version that is complete")
