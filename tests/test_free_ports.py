from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import pytest

from data_layer.testing import free_ports
from data_layer.testing.free_ports import free_port

NUMBER = 20


def some_ports(first: int, last: int) -> list[int]:
    free_ports._FIRST, free_ports._LAST = first, last
    return [free_port() for _ in range(NUMBER)]


def test_no_port_is_given_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not to another process either, before a server listens there."""
    first = free_port()
    last = min(first + 3 * NUMBER, free_ports._LAST)
    monkeypatch.setattr(free_ports, "_FIRST", last - 3 * NUMBER)
    monkeypatch.setattr(free_ports, "_LAST", last)
    ports = [first, *(free_port() for _ in range(NUMBER))]
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as other:
        ports += other.submit(some_ports, last - 3 * NUMBER, last).result()
    assert len(set(ports)) == 2 * NUMBER + 1
