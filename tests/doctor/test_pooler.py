"""Through a real PgBouncer."""

from __future__ import annotations

import pytest

from data_layer.testing.postgresql_server import PostgresqlServer
from tests.database.test_pgbouncer import port, server, url

from .support import Examine

__all__ = ["port", "server", "url"]

pytestmark = pytest.mark.needs_debian


def test_a_pooler_that_the_settings_name(examine: Examine, server: PostgresqlServer, url: str) -> None:
    direct = server.url("test", host="127.0.0.1")
    report = examine(DATABASE_URL=url, DB_PGBOUNCER="true", DB_DIRECT_URL=direct)
    report.says("database.pooler", "ok", "as DB_PGBOUNCER says")
    report.says("database.direct_address", "ok", "without a pooler")
    through = examine(DATABASE_URL=url, DB_PGBOUNCER="true", DB_DIRECT_URL=url)
    through.says("database.direct_address", "failed", "through a pooler too")


def test_a_pooler_that_the_settings_do_not_name(examine: Examine, url: str) -> None:
    report = examine(DATABASE_URL=url)
    report.says("database.login", "failed", "there is a PgBouncer", "set DB_PGBOUNCER=true")
