from __future__ import annotations

import pytest

from data_layer.errors import EmbeddedServerError
from data_layer.testing.redis_server import RedisServer


def test_it_leaves_nothing_behind() -> None:
    with RedisServer(unix_socket=True) as server:
        folder = server.folder
        assert server.socket_path.is_socket()
        server.pause()
    assert not folder.exists()
    with pytest.raises(EmbeddedServerError):
        _ = server.folder


def test_a_server_that_does_not_start_says_why() -> None:
    with pytest.raises(EmbeddedServerError, match="did not start"), RedisServer(options=["nonsense yes"]):
        pass


def test_two_run_side_by_side_and_a_restart_keeps_the_port() -> None:
    with RedisServer() as one, RedisServer() as other:
        assert one.port != other.port
        port = one.port
        one.restart()
        assert one.port == port
