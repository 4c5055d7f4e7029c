"""The servers: PostgreSQL, Valkey, an S3 server behind a proxy, the service; and the settings that lead to them."""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Self

from data_layer import DataLayer, Settings
from data_layer.testing.postgresql_server import PostgresqlServer
from data_layer.testing.redis_server import RedisServer
from data_layer.testing.storage_servers import MotoServer
from tests.operations.chaos.load import Rows
from tests.operations.chaos.plan import Plan
from tests.service.support import Service
from tests.storage.proxy import Proxy
from tests.support import make_project, make_user

_DATABASE = "chaos"
_BUCKET = "chaos"
_USERS = 4
_PROJECTS = 16


class Servers:
    """Everything that runs beside the replicas, for an ``async with`` block."""

    proxy: Proxy | None = None

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with self._stack as stack:
            self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="chaos-")))
            self.postgresql, self.redis, storage = await asyncio.gather(
                asyncio.to_thread(stack.enter_context, PostgresqlServer()),
                asyncio.to_thread(stack.enter_context, RedisServer()),
                asyncio.to_thread(stack.enter_context, MotoServer()),
            )
            if self._plan.storage == "s3":
                storage.make_bucket(_BUCKET)
                self.proxy = await stack.enter_async_context(Proxy(storage.port))
                self._credentials = storage.credentials
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def settings(self, name: str) -> dict[str, Any]:
        """Those of one process, which PostgreSQL knows by this name."""
        values = self._plan.settings | {
            "database_url": self.postgresql.url(_DATABASE, host="127.0.0.1", application_name=name),
            "redis_url": self.redis.url,
            "storage_backend": self._plan.storage,
            "local_storage_path": str(self.folder / "uploads"),
            "audit_spill_folder": str(self.folder / "audit-spill"),
            "data_folder": str(self.folder / f"data-{name}"),
        }
        if self.proxy is not None:
            values |= {
                "aws_endpoint_url": self.proxy.address,
                "aws_s3_bucket": _BUCKET,
                "aws_access_key_id": self._credentials.access_key_id,
                "aws_secret_access_key": self._credentials.secret_access_key,
            }
        return values

    async def prepare(self) -> Rows:
        """Make the tables, and the rows that the load works on."""
        users = [make_user(email=f"chaos-{number}@example.com") for number in range(_USERS)]
        projects = [make_project(users[number % _USERS]) for number in range(_PROJECTS)]
        async with (
            DataLayer(Settings(**self.settings("prepare")), prepare=True) as data,
            data.transaction() as tx,
        ):
            for entity in (*users, *projects):
                tx.add(entity)
        owners = [(project.id, number % _USERS) for number, project in enumerate(projects)]
        return Rows([user.id for user in users], owners)

    def start_service(self) -> Service:
        """The service, as its operators start it."""
        environment: dict[str, Any] = {name.upper(): str(value) for name, value in self.settings("service").items()}
        service = self._stack.enter_context(Service(self.folder, "start", **environment))
        service.wait_until_ready()
        return service

    def execute(self, sql: str) -> list[tuple[Any, ...]]:
        """Plain SQL in the database of the replicas."""
        return self.postgresql.execute(sql, database=_DATABASE)

    def clients(self) -> dict[str, int]:
        """How many connections the replicas have, as PostgreSQL and Valkey see it."""
        sql = "SELECT application_name, count(*) FROM pg_stat_activity WHERE datname = %s GROUP BY 1"
        found = dict(self.postgresql.execute(sql, _DATABASE))
        lines = str(self.redis.execute("CLIENT", "LIST")).splitlines()
        return found | {"redis": sum("name=data-layer" in line for line in lines)}
