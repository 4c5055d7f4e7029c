"""The ``shares`` table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast
from uuid import UUID

from sqlalchemy import Table, func, or_, select

from data_layer.database.statements import DIALECT, NamedQuery, named
from data_layer.entities import GeneratedCode, Generation, Share
from data_layer.entities.code_body import packed_text, text_of
from data_layer.entities.enums import GenerationStatus
from data_layer.repositories.repository import Repository, check_limit
from data_layer.schemas.shares import SharedPage, ShareView

_TABLE = cast("Table", GeneratedCode.__table__).alias("codes")
_CODES = select(_TABLE.c.id.label("code_id"), packed_text(_TABLE).label("code"), _TABLE.c.code_stack).compile(
    dialect=DIALECT
)

# One statement decides and counts, so no view is lost and none is shown without being counted. The update waits for a
# revocation that is being committed, and then finds nothing.
_OPEN = NamedQuery(
    "shares.open",
    f"""
WITH found AS (
    SELECT shares.id, page.code_id, page.code, page.code_stack, shares.project_id
    FROM shares
    JOIN projects ON projects.id = shares.project_id AND projects.status NOT IN ('archived', 'deleted')
    JOIN users ON users.id = projects.user_id AND users.status = 'active'
    JOIN LATERAL (
        {_CODES} JOIN generations ON generations.id = codes.generation_id
        WHERE codes.project_id = shares.project_id AND CASE
            WHEN shares.code_id IS NOT NULL THEN codes.id = shares.code_id
            ELSE codes.status NOT IN ('failed', 'cancelled') AND codes.lease_until IS NULL
                AND codes.code IS DISTINCT FROM ''
        END
        ORDER BY codes.version DESC, codes.variant_index = generations.selected_variant DESC, codes.variant_index
        LIMIT 1
    ) AS page ON true
    WHERE token_hash = %s AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > clock_timestamp())
), counted AS (
    UPDATE shares SET view_count = view_count + 1, last_viewed_at = clock_timestamp()
    FROM found WHERE shares.id = found.id AND shares.revoked_at IS NULL
    RETURNING shares.id
)
SELECT found.id, found.code_id, found.code, found.code_stack, found.project_id
FROM found JOIN counted ON counted.id = found.id
""",  # noqa: S608  (only texts of the models stand in it)
)
_ENDED = (GenerationStatus.FAILED, GenerationStatus.CANCELLED)


class OpenedShare(NamedTuple):
    """A share with the variant that it shows."""

    id: UUID
    code_id: UUID
    page: SharedPage
    project_id: UUID


class ShareRepository(Repository[Share]):
    """Rows of ``shares``."""

    entity = Share

    async def open(self, token_hash: str) -> OpenedShare | None:
        """Return what a link shows, and count the view; ``None`` if there is nothing to show, for whatever reason."""
        [row] = await self._session.run((_OPEN, (token_hash,)))
        return OpenedShare(row[0], row[1], SharedPage(code=text_of(row[2]), code_stack=row[3]), row[4]) if row else None

    async def views(self, project_id: UUID, *, limit: int, after: UUID | None = None) -> Sequence[ShareView]:
        """A page of the shares of a project, those made last first."""
        check_limit(limit)
        names = [name for name in ShareView.model_fields if name not in {"version", "variant_index"}]
        statement = (
            select(*(getattr(Share, name) for name in names), GeneratedCode.version, GeneratedCode.variant_index)
            .outerjoin(GeneratedCode, GeneratedCode.id == Share.code_id)
            .where(Share.project_id == project_id)
            .order_by(Share.id.desc())
            .limit(limit)
        )
        if after is not None:
            statement = statement.where(Share.id < after)
        rows = (await self._session.execute(named("shares.views", statement))).mappings()
        return [ShareView.model_validate(dict(row)) for row in rows]

    async def count_live(self, project_id: UUID) -> int:
        """How many shares of a project are neither revoked nor expired."""
        is_live = or_(Share.expires_at.is_(None), Share.expires_at > func.clock_timestamp())
        statement = select(func.count()).where(Share.project_id == project_id, Share.revoked_at.is_(None), is_live)
        return int((await self._session.execute(named("shares.count_live", statement))).scalar_one())

    async def variant(self, project_id: UUID, version: int, variant_index: int | None) -> tuple[UUID, int] | None:
        """The id and index of a variant that can be shown; without an index the selected one, else the first."""
        code = GeneratedCode
        statement = (
            select(code.id, code.variant_index)
            .join(Generation, Generation.id == code.generation_id)
            .where(code.project_id == project_id, code.version == version)
            .where(code.status.not_in(_ENDED), code.lease_until.is_(None), code.code != "")
            .order_by((code.variant_index == Generation.selected_variant).desc(), code.variant_index)
            .limit(1)
        )
        if variant_index is not None:
            statement = statement.where(code.variant_index == variant_index)
        row = (await self._session.execute(named("shares.variant", statement))).one_or_none()
        return None if row is None else (row.id, row.variant_index)
