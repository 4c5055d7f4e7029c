"""Encrypted connections: only the right server is believed, and only clients with the right certificate are let in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from sqlalchemy import text

from data_layer import DataLayer, Settings
from data_layer.database.address import direct_address
from data_layer.database.migrator import Migrator
from data_layer.errors import ConfigurationError, DatabaseLoginError
from data_layer.testing.postgresql_server import PostgresqlServer
from data_layer.testing.redis_server import TlsFiles
from tests.database.connection_helpers import create_and_migrate, settings_for

Make = Callable[..., DataLayer]

pytestmark = pytest.mark.needs_debian  # PostgreSQL of the wheel is built without TLS.

# The server's certificate is for localhost; 127.0.0.1 is the same server under a wrong name.
RIGHT, WRONG = "localhost", "127.0.0.1"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of an authority, and of another one that nobody trusts."""
    folder = tmp_path_factory.mktemp("tls")
    authority, other = trustme.CA(), trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    other.cert_pem.write_to_path(folder / "other-ca.pem")
    for name, certificate in {
        "server": authority.issue_cert("localhost"),
        "client": authority.issue_cert("bearer@example.com", common_name="bearer"),
        "forged": other.issue_cert("bearer@example.com", common_name="bearer"),
    }.items():
        certificate.cert_chain_pems[0].write_to_path(folder / f"{name}.pem")
        certificate.private_key_pem.write_to_path(folder / f"{name}.key")
        (folder / f"{name}.key").chmod(0o600)
    return folder


@pytest.fixture(scope="module")
def server(
    folder: Path, base_settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PostgresqlServer]:
    files = TlsFiles(folder / "server.pem", folder / "server.key", folder / "ca.pem")
    hba = ("hostssl all bearer,namesake all cert", "hostssl all all all trust")
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    assert programs, "PostgreSQL of Debian is missing: apt install postgresql"
    with PostgresqlServer(programs[-1], hba=hba, tls=files) as server:
        create_and_migrate(server, base_settings, tmp_path_factory.mktemp("server"))
        server.execute("CREATE ROLE bearer LOGIN")
        server.execute("CREATE ROLE namesake LOGIN")
        server.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO bearer", database="test")
        yield server


@pytest.fixture
def make(server: PostgresqlServer, base_settings: Settings, tmp_path: Path) -> Make:
    def make(host: str, user: str = "postgres", query: dict[str, str] | None = None, **values: Any) -> DataLayer:
        url = server.url("test", host=host, user=user, **(query or {}))
        return DataLayer(settings_for(url, base_settings, tmp_path, **values))

    return make


async def is_encrypted(data: DataLayer) -> bool:
    async with data.transaction() as tx:
        answer = await tx.execute(text("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"))
        return bool(answer.scalar_one())


@pytest.mark.parametrize(
    ("host", "mode", "authority"),
    [
        (RIGHT, "verify-full", "ca.pem"),
        (RIGHT, "true", "ca.pem"),
        (RIGHT, "verify-ca", "ca.pem"),
        (WRONG, "verify-ca", "ca.pem"),
        (WRONG, "require", None),
        (WRONG, "prefer", None),
        (WRONG, None, None),
    ],
)
async def test_a_server_that_fits_is_accepted(
    make: Make, folder: Path, host: str, mode: str | None, authority: str | None
) -> None:
    values = {"db_ssl": mode, "db_ssl_ca": authority and folder / authority}
    async with make(host, **{name: value for name, value in values.items() if value}) as data:
        assert await is_encrypted(data)


@pytest.mark.parametrize(
    ("host", "mode", "authority", "reason"),
    [
        (WRONG, "verify-full", "ca.pem", "does not match host name"),
        (WRONG, "true", "ca.pem", "does not match host name"),
        (RIGHT, "verify-full", "other-ca.pem", "certificate verify failed"),
        (RIGHT, "verify-ca", "other-ca.pem", "certificate verify failed"),
        (RIGHT, "verify-full", None, "certificate verify failed"),
        (RIGHT, "true", None, "certificate verify failed"),
        (RIGHT, "disable", None, "no encryption"),
        (RIGHT, "false", None, "no encryption"),
    ],
)
async def test_a_server_that_does_not_fit_is_refused(  # noqa: PLR0917  (the columns of the table)
    make: Make,
    folder: Path,
    host: str,
    mode: str,
    authority: str | None,
    reason: str,
) -> None:
    with pytest.raises(DatabaseLoginError, match=f"{reason}.*DB_SSL"):
        async with make(host, db_ssl=mode, **({"db_ssl_ca": folder / authority} if authority else {})):
            pass


async def test_the_mode_in_the_address_is_honoured(make: Make, folder: Path) -> None:
    trusted = {"sslmode": "verify-full", "sslrootcert": str(folder / "ca.pem")}
    async with make(RIGHT, query=trusted) as data:
        assert await is_encrypted(data)
    with pytest.raises(DatabaseLoginError, match="does not match host name"):
        async with make(WRONG, query=trusted):
            pass
    with pytest.raises(DatabaseLoginError, match="no encryption"):
        async with make(RIGHT, query={"sslmode": "disable"}):
            pass


async def test_without_a_file_the_authorities_of_the_system_are_asked(make: Make) -> None:
    with pytest.raises(DatabaseLoginError, match="certificate verify failed"):
        async with make(RIGHT, query={"sslmode": "verify-full"}):
            pass


async def test_a_client_is_known_by_its_certificate(make: Make, folder: Path) -> None:
    trust = {"db_ssl": "verify-full", "db_ssl_ca": folder / "ca.pem"}
    own = {"db_ssl_cert": folder / "client.pem", "db_ssl_key": folder / "client.key"}
    async with make(RIGHT, "bearer", **trust, **own) as data, data.transaction() as tx:
        assert (await tx.execute(text("SELECT current_user"))).scalar_one() == "bearer"
    forged = {"db_ssl_cert": folder / "forged.pem", "db_ssl_key": folder / "forged.key"}
    for files in ({}, forged):
        with pytest.raises(DatabaseLoginError, match="DB_SSL_CERT and DB_SSL_KEY"):
            async with make(RIGHT, "bearer", **trust, **files):
                pass
    with pytest.raises(DatabaseLoginError, match="refused the user name"):
        async with make(RIGHT, "namesake", **trust, **own):
            pass


async def test_a_key_that_others_may_read_is_refused(make: Make, folder: Path, tmp_path: Path) -> None:
    key = tmp_path / "open.key"
    key.write_bytes((folder / "client.key").read_bytes())
    key.chmod(0o644)
    files = {"db_ssl_ca": folder / "ca.pem", "db_ssl_cert": folder / "client.pem", "db_ssl_key": key}
    with pytest.raises(DatabaseLoginError, match=r"open\.key.* has group or world access.*DB_SSL_KEY"):
        async with make(RIGHT, "bearer", db_ssl="verify-full", **files):
            pass


def test_a_key_without_its_certificate_and_missing_files_are_refused_at_once(folder: Path) -> None:
    with pytest.raises(ConfigurationError, match="DB_SSL_CERT and DB_SSL_KEY belong together"):
        Settings(db_host=RIGHT, db_ssl_key=folder / "client.key")
    with pytest.raises(ConfigurationError, match="DB_SSL_CA: there is no readable file"):
        Settings(db_host=RIGHT, db_ssl_ca=folder / "missing.pem")


def test_migrations_go_by_the_same_rules(server: PostgresqlServer, folder: Path) -> None:
    values: dict[str, Any] = {"db_ssl": "verify-full", "db_ssl_ca": folder / "ca.pem"}
    right = Settings(db_host=RIGHT, db_port=server.port, db_name="test", **values)
    Migrator(direct_address(right.database)).require_current()
    wrong = Settings(db_direct_url=server.url("test", host=WRONG), **values)
    with pytest.raises(DatabaseLoginError, match="does not match host name"):
        Migrator(direct_address(wrong.database)).require_current()
