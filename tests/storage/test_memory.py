"""A large file passes through in flat memory, in both directions, on every backend."""

from __future__ import annotations

from pathlib import Path

import pytest

from .streaming_process import BUCKET, MEBIBYTE, growth_of_a_process


@pytest.mark.parametrize("kind", ["local", "s3", "azure"])
def test_128_mebibytes_grow_the_process_by_less_than_64(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str
) -> None:
    where = [str(tmp_path / "uploads")]
    if kind == "s3":
        server = request.getfixturevalue("rclone_server")
        where = [server.address, server.credentials.access_key_id, server.credentials.secret_access_key]
        server.make_bucket(BUCKET)
    elif kind == "azure":
        server = request.getfixturevalue("azurite_server")
        where = [server.connection_string]
        server.make_bucket(BUCKET)
    grown = growth_of_a_process(kind, where, 128 * MEBIBYTE)
    assert grown < 64, f"{grown} MiB"
