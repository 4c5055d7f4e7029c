"""What a process has done before it serves."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import cast

from data_layer import Settings
from data_layer.layer import DataLayer
from data_layer.server.process import LogObserver, Role, ServiceProcess
from data_layer.server.stopping import StopRequest
from data_layer.services.sessions import service as devices


class Opened:
    """A data layer that opens at once."""

    async def open(self) -> None:
        pass


async def test_the_patterns_of_user_agents_are_loaded_before_it_serves(tmp_path: Path) -> None:
    devices.load_patterns.cache_clear()
    settings = Settings(data_folder=tmp_path)
    observer, role = LogObserver(settings.service), Role(folder=tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        process = ServiceProcess(settings, listener, StopRequest(1), observer, role)
        await process._open(cast("DataLayer", Opened()))
    assert devices.has_patterns()
