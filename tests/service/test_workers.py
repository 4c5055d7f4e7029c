"""Several workers: one port, one pool, one message; what dies is replaced, and nothing outlives its supervisor."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.embedded.support import parent_of, processes_of, wait_for

from .support import PAUSE, Service

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
LONG = 60
# Imported by every Python that finds it: a signal that nobody uses keeps the event loop from turning.
HANGING = "import signal, time\nsignal.signal(signal.SIGWINCH, lambda *_: time.sleep(600))\n"
FORWARDED = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


@pytest.fixture(scope="module")
def service(module_folder: Path, prepared: dict[str, str]) -> Iterator[Service]:
    """Two workers, which every test leaves running, be it others."""
    (module_folder / "sitecustomize.py").write_text(HANGING)
    connections = {"DB_MAX_CONNECTIONS": "5", "DB_MIN_CONNECTIONS": "5"}
    others = {"MAINTENANCE_INTERVAL": "1", "WORKER_TIMEOUT": "20", "PYTHONPATH": str(module_folder)}
    environment: dict[str, Any] = prepared | connections | others
    with Service(module_folder, "start --workers 2", **environment) as service:
        service.wait_until_ready()
        yield service
        assert service.end() == 0, service.output
        assert workers_of(service) == []
    assert "Traceback" not in service.output


def workers_of(service: Service) -> list[int]:
    """The process numbers of its workers, that of number 0 first."""
    found = processes_of(service.folder)
    mine = [pid for pid, command in found.items() if "data_layer.cli work" in command]
    return sorted(mine, key=lambda pid: found[pid])


def both(service: Service) -> list[int]:
    """Its two workers, once both are ready."""

    def are_ready() -> bool:
        ready = {event["pid"] for event in service.events if event["event"] == "worker_ready"}
        return len(workers_of(service)) == 2 and ready.issuperset(workers_of(service))

    assert wait_for(are_ready, LONG, pause=PAUSE), service.output
    return workers_of(service)


def test_they_share_the_port_and_the_connections(service: Service, prepared: dict[str, str]) -> None:
    workers = both(service)
    assert [parent_of(pid) for pid in workers] == [service.process.pid] * 2
    with psycopg.connect(prepared["DATABASE_URL"], autocommit=True) as connection:

        def connections() -> list[tuple[object, ...]]:
            return connection.execute(
                "SELECT application_name, state, query FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            ).fetchall()

        # All of the pool were opened at the start; none listens for ended sessions before the first session is seen.
        assert wait_for(lambda: len(connections()) == 5, LONG), connections()


def test_a_killed_worker_is_replaced_while_the_other_serves(service: Service) -> None:
    victim, other = both(service)
    ended = len([event for event in service.events if event["event"] == "worker_ended"])
    os.kill(victim, signal.SIGKILL)
    event = service.wait_for_event("worker_ended", ended + 1)[-1]
    assert event["number"] == 0
    assert f"process {victim}) ended by SIGKILL" in event["reason"]
    assert event["restart_seconds"] > 0
    for _ in range(20):
        assert service.get("/readyz").status_code == 200, "the other one answers"
    first, second = both(service)
    assert first != victim
    assert second == other


def test_a_worker_whose_event_loop_hangs_is_replaced(service: Service) -> None:
    first, victim = both(service)
    os.kill(victim, signal.SIGWINCH)
    event = service.wait_for_event("worker_hangs")[-1]
    assert event["pid"] == victim
    assert event["seconds"] == 20
    assert wait_for(lambda: victim not in workers_of(service), LONG)
    assert both(service)[0] == first


def test_signals_are_handed_on_and_end_nobody(service: Service) -> None:
    """That they arrive is tested with workers that write them down, in tests/server/test_supervisor.py."""
    before = both(service)
    started = len([event for event in service.events if event["event"] == "worker_started"])
    for number in FORWARDED:
        os.kill(service.process.pid, number)
    # The question whether a worker is alive is asked every few seconds; one that a signal had ended would be replaced.
    maintained = len([event for event in service.events if event["event"] == "maintenance_finished"])
    service.wait_for_event("maintenance_finished", maintained + 2)
    assert both(service) == before
    assert len([event for event in service.events if event["event"] == "worker_started"]) == started


def test_one_of_them_runs_maintenance(service: Service) -> None:
    service.wait_for_event("maintenance_finished", 2)
    problems = [event for event in service.events if event["event"] == "maintenance_failed"]
    assert problems == []


def test_killing_the_supervisor_ends_the_workers(new_folder: Path, prepared: dict[str, Any]) -> None:
    with Service(new_folder, "start --workers 2", **prepared, TMPDIR=str(new_folder)) as service:
        service.wait_until_ready()
        workers = workers_of(service)
        assert workers
        assert list(new_folder.glob("data-layer-*"))
        os.kill(service.process.pid, signal.SIGKILL)
        assert wait_for(lambda: not workers_of(service), LONG), service.output
        assert not list(new_folder.glob("data-layer-*")), "their private folder goes too"


def test_what_keeps_all_from_starting_is_said_once(new_folder: Path, own_servers: dict[str, Any]) -> None:
    with Service(new_folder, "start --workers 3", **own_servers) as service:
        said = service.fail()
    assert said.count("data-layer db create") == 1
    assert said.count("worker_started") == 1
    assert said.rstrip().splitlines()[-1].startswith("Error (database_missing): ")


def test_a_share_that_is_too_small_is_refused(new_folder: Path) -> None:
    with Service(new_folder, "start --workers 3", DB_MAX_CONNECTIONS="5") as service:
        said = service.fail()
    assert "DB_MAX_CONNECTIONS (5) is too small for 3 WORKERS" in said
    assert "set it to 6, or WORKERS to 2" in said


def test_with_embedded_servers(folder: Path) -> None:
    with Service(folder, "start", WORKERS="2") as service:
        service.wait_until_ready()
        both(service)
        assert service.get("/health").json()["overall"] is True
        with Service(folder, "start") as second:
            assert f"process {service.process.pid}" in second.fail(), "the supervisor is the one service of the folder"
        assert service.end(signal.SIGINT, group=True) == 0, service.output
        assert not processes_of(folder)


def test_while_no_worker_is_ready_the_supervisor_answers(
    new_folder: Path, prepared: dict[str, Any], silent_server: int
) -> None:
    nowhere: dict[str, Any] = {
        "DATABASE_URL": f"postgresql://u@127.0.0.1:{silent_server}/x",
        "DB_CONNECT_TIMEOUT": "600",
    }
    with Service(new_folder, "start --workers 2", **prepared | nowhere) as service:
        service.wait_until_it_answers()
        assert service.get("/readyz").json() == {"ready": False, "reason": "starting"}
        assert service.end() == 128 + signal.SIGTERM
        assert service.output.rstrip().endswith("Stopped before it was ready.")
        assert workers_of(service) == []


def metric(service: Service, name: str, *labels: str) -> float:
    """The sum of the samples with this name and these labels at METRICS_PORT."""
    text = service.get_metrics().text
    lines = (line.rsplit(" ", 1) for line in text.splitlines() if line.startswith((f"{name} ", f"{name}{{")))
    return sum(float(value) for sample, value in lines if all(label in sample for label in labels))


def test_metrics_are_those_of_all_workers_and_never_fall(service: Service) -> None:
    requests, ready = "data_layer_http_requests_total", 'route="/livez"'
    victim, _ = both(service)
    assert wait_for(lambda: metric(service, "data_layer_workers") == 2, LONG)
    assert metric(service, "data_layer_workers_wanted") == 2
    assert metric(service, "data_layer_database_pool_max_connections") == 5, "the shares together are the whole"
    before = metric(service, requests, ready)
    for _ in range(20):
        assert service.get("/livez").status_code == 200
    assert metric(service, requests, ready) == before + 20
    os.kill(victim, signal.SIGKILL)
    while victim in workers_of(service) or len(both(service)) < 2:
        assert metric(service, requests, ready) == before + 20
    assert wait_for(lambda: metric(service, "data_layer_workers") == 2, LONG)
    assert service.get("/livez").status_code == 200
    assert metric(service, requests, ready) == before + 21
