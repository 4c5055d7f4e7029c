"""What this process believes of sessions without asking the database."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from data_layer.cache import Cache
from data_layer.repositories.sessions import EndedSessions
from data_layer.services.sessions.hashing import TokenHasher
from data_layer.services.sessions.near_copies import NearCopies
from data_layer.services.sessions.shared_copies import SharedCopies
from data_layer.services.sessions.watermark import Watermark
from data_layer.settings.security import SecuritySettings


class SessionCopies:
    """Copies of sessions in this process and in Redis, and until when they may be believed.

    They exist before the session service, because the transactions of all services forget here what they have ended.

    Args:
        cache: where copies are shared
        settings: the secrets
        clock: seconds that never go back
    """

    def __init__(
        self, cache: Cache, settings: SecuritySettings, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        seals = TokenHasher(settings.session_secret, settings.session_secret_previous, "session copy")
        self.near = NearCopies()
        self.shared = SharedCopies(cache, seals, clock)
        self.watermark = Watermark()

    async def forget(self, ended: Sequence[EndedSessions]) -> None:
        """After the commit: believe no copy of these sessions any more. Other processes learn of it by themselves."""
        ids = [session_id for sessions in ended for session_id in sessions.ids]
        hashes = [token_hash for sessions in ended for token_hash in sessions.hashes]
        self.watermark.give_up(ids)
        self.near.forget(ids)
        await self.shared.remove([*hashes, *map(str, ids)])
