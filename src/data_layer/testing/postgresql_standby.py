"""A real standby of a ``PostgresqlServer``: follows it by streaming, can be held back, and can take its place."""

from __future__ import annotations

import time
from collections.abc import Mapping

from data_layer.errors import EmbeddedServerError
from data_layer.testing.postgresql_server import PostgresqlServer

_PATIENCE_SECONDS = 30


class PostgresqlStandby(PostgresqlServer):
    """A copy of a running server that follows it, for a ``with`` block inside the other one's.

    Args:
        primary: the server to follow.
        name: what the primary calls it, for ``synchronous_standby_names``.
        options: further settings, as for ``PostgresqlServer``.
    """

    def __init__(self, primary: PostgresqlServer, name: str, *, options: Mapping[str, str] | None = None) -> None:
        super().__init__(primary.programs, options=options)
        self._primary = primary
        self._name = name

    def hold_back(self) -> None:
        """Receive the log of the primary, and show nothing of it."""
        self.execute("SELECT pg_wal_replay_pause()")
        self._wait_for("SELECT pg_get_wal_replay_pause_state() = 'paused'")

    def let_go(self) -> None:
        """Show what was received, and follow again."""
        self.execute("SELECT pg_wal_replay_resume()")

    def promote(self) -> None:
        """Take the place of the primary, and wait until writes are taken."""
        self.execute(f"SELECT pg_promote(true, {_PATIENCE_SECONDS})")
        self._wait_for("SELECT NOT pg_is_in_recovery()")

    def _creation(self) -> tuple[str, ...]:
        place = f"host={self._primary.folder} port={self._primary.port} user=postgres application_name={self._name}"
        return (
            "pg_basebackup",
            f"--dbname={place}",
            "--write-recovery-conf",
            "--wal-method=stream",
            "--checkpoint=fast",
        )

    def _wait_for(self, question: str) -> None:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not self.execute(question)[0][0]:
            if time.monotonic() > deadline:
                raise EmbeddedServerError(f"the standby did not get there in {_PATIENCE_SECONDS} s: {question}")
            time.sleep(0.01)
