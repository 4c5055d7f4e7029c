"""What can be seen of a share: by those who manage the project, and by holders of the link."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from pydantic import SecretStr

from data_layer.entities.enums import CodeStack
from data_layer.schemas.base import View


class ShareView(View):
    """A share, without its token. ``version`` and ``variant_index`` are empty where it follows the latest version."""

    id: UUID
    project_id: UUID
    version: int | None
    variant_index: int | None
    expires_at: datetime | None
    revoked_at: datetime | None
    view_count: int
    last_viewed_at: datetime | None
    created_at: datetime

    @property
    def is_following(self) -> bool:
        """Whether it shows the latest version, whichever that is."""
        return self.version is None


class NewShare(View):
    """A share that was just made, with the token for the link, which nobody can read again."""

    share: ShareView
    token: SecretStr


class SharedPage(View):
    """What the link shows: the page, and nothing about its owner, its project or other versions."""

    code: str
    code_stack: CodeStack
