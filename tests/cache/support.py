"""Certificates for servers, and where Debian's Redis is."""

from __future__ import annotations

from pathlib import Path

import trustme

from data_layer.testing.redis_server import TlsFiles
from tests.needs_debian import find_program


def make_certificates(folder: Path, *names: str) -> TlsFiles:
    """A certificate for these names and addresses, from an authority of its own."""
    authority = trustme.CA()
    certificate = authority.issue_cert(*names)
    files = TlsFiles(folder / "certificate.pem", folder / "key.pem", folder / "authority.pem")
    certificate.cert_chain_pems[0].write_to_path(files.certificate)
    certificate.private_key_pem.write_to_path(files.key)
    authority.cert_pem.write_to_path(files.authority)
    return files


def debian_redis() -> str:
    """The path of Debian's redis-server, for tests marked needs_debian."""
    program = find_program("redis-server")
    assert program is not None
    return program
