"""What the rest of the library uses: the embedded servers of one folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

from data_layer.embedded.binaries import postgresql_binary, valkey_binary
from data_layer.embedded.folders import FileLock, explain, lock_for_service, prepare_folder
from data_layer.embedded.link import STOP_SECONDS, GuardianLink, connect


@dataclass(frozen=True, slots=True)
class EmbeddedAddresses:
    """Where the servers listen; None for one that was not asked for."""

    database_url: str | None
    redis_url: str | None


class EmbeddedServers:
    """This process's share in the PostgreSQL and the Valkey of a folder.

    Any number of processes may share them; they stop with the last user, also when that is killed. Only the owner can
    read the folder or reach the servers, so there are no passwords.

    Args:
        folder: made if missing, and closed to everybody but its owner. Everything stays in it between runs.
        postgresql: whether PostgreSQL is needed.
        valkey: whether Valkey is needed.
        database_name: the database in ``database_url``. It is not created.
    """

    def __init__(self, folder: Path, *, postgresql: bool, valkey: bool, database_name: str) -> None:
        self._folder = folder
        self._wants_postgresql = postgresql
        self._wants_valkey = valkey
        self._database_name = database_name
        self._service_lock: FileLock | None = None
        self._link: GuardianLink | None = None
        self._addresses: EmbeddedAddresses | None = None

    async def __aenter__(self) -> EmbeddedAddresses:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self, *, exclusive: bool = False) -> EmbeddedAddresses:
        """Attach to the servers, starting what does not run yet. A second call returns the same addresses.

        After an error nothing of this object runs or is locked.

        Args:
            exclusive: be the one service of this folder. Others may still attach without it.

        Raises:
            FolderInUseError: ``exclusive``, and another one is the service of this folder.
            EmbeddedServerError: the folder cannot be used, or a server is not installed or does not start.
        """
        try:
            request = self._request()
            folder = prepare_folder(self._folder)
            if exclusive and self._service_lock is None:
                self._service_lock = lock_for_service(folder)
            if self._addresses is None:
                self._addresses = await self._reach(folder, request)
        except OSError as error:
            await self.stop()
            raise explain(error, self._folder) from error
        except BaseException:
            await self.stop()
            raise
        return self._addresses

    async def stop(self) -> None:
        """Leave the servers. If nobody else uses them, return when they have ended, at most 8 seconds later.

        Raises:
            EmbeddedServerError: they have not ended by then.
        """
        link, self._link, self._addresses = self._link, None, None
        try:
            if link is not None:
                await link.leave(STOP_SECONDS)
        finally:
            if link is not None:
                link.close()
            if self._service_lock is not None:
                self._service_lock.release()
                self._service_lock = None

    async def _reach(self, folder: Path, request: dict[str, str]) -> EmbeddedAddresses:
        if not request:
            return EmbeddedAddresses(None, None)
        self._link, answer = await connect(folder, request)
        return self._read_addresses(answer)

    def _request(self) -> dict[str, str]:
        request = {}
        if self._wants_postgresql:
            postgresql_binary("initdb")
            request["postgresql"] = str(postgresql_binary("postgres").parent)
        if self._wants_valkey:
            request["valkey"] = str(valkey_binary())
        return request

    def _read_addresses(self, answer: dict[str, str]) -> EmbeddedAddresses:
        database_url = redis_url = None
        if self._wants_postgresql:
            host = quote(answer["postgresql"], safe="")
            database_url = f"postgresql://postgres@/{quote(self._database_name, safe='')}?host={host}"
        if self._wants_valkey:
            redis_url = f"unix://{quote(answer['valkey'])}"
        return EmbeddedAddresses(database_url, redis_url)
