"""What Prometheus gets from a service that runs, and that the dashboard and the alerts ask for nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from typer import main as cli

from data_layer import Settings
from data_layer.cli.application import application

from .support import Service

MONITORING = Path(__file__).parents[2] / "deploy" / "monitoring"
SEEN_LATER = {
    "data_layer_database_statement_errors_total",
    "data_layer_database_replica_used",
    "data_layer_database_replica_lag_seconds",
}
"""They have no series until a statement has failed, or without replicas."""
FROM_PROMETHEUS = {"job", "instance", "le"}
METRIC = re.compile(r"\b(?:data_layer|process|python)_\w+")
SELECTOR = re.compile(r"\b((?:data_layer|process|python)_\w+)\{([^}]*)\}")
MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')


@dataclass(frozen=True)
class Scrape:
    """Names of samples and of families, those of which there are samples, and the values of their labels."""

    names: set[str]
    sampled: set[str]
    labels: dict[str, dict[str, set[str]]]


def scrape(service: Service) -> Scrape:
    answer = service.get_metrics()
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    names, sampled, labels = set[str](), set[str](), dict[str, dict[str, set[str]]]()
    for family in text_string_to_metric_families(answer.text):
        names |= {f"{family.name}_total"} if family.type == "counter" else {family.name}
        for sample in family.samples:
            sampled.add(sample.name)
            for label, value in sample.labels.items():
                labels.setdefault(sample.name, {}).setdefault(label, set()).add(value)
    return Scrape(names | sampled, sampled, labels)


@pytest.fixture(scope="module")
def scraped(running: Service) -> Scrape:
    """What it reports after it has loaded examples, looked after its parts, and served some requests."""
    for path in ("/health", "/readyz", "/nothing", "/v1/files/a.png", "/openapi.json"):
        running.get(path)
    return scrape(running)


def expressions() -> Iterator[tuple[str, str]]:
    """Everything that the dashboard and the alerts ask, with where."""
    dashboard = json.loads((MONITORING / "grafana-dashboard.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            yield f"panel {panel['title']}", target["expr"]
    for variable in dashboard["templating"]["list"]:
        yield f"variable {variable['name']}", variable["query"]
    for annotation in dashboard["annotations"]["list"]:
        yield f"annotation {annotation['name']}", annotation["expr"]
    for rule in rules():
        yield f"alert {rule['alert']}", rule["expr"]


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((MONITORING / "alerts.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


@pytest.mark.slow
def test_every_metric_that_is_asked_for_is_reported(scraped: Scrape) -> None:
    asked = {(where, name) for where, expression in expressions() for name in METRIC.findall(expression)}
    assert len(asked) > 60
    assert {(where, name) for where, name in asked if name not in scraped.names} == set()


def family_of(name: str) -> str:
    return re.sub(r"_(total|bucket|count|sum|info)$", "", name)


def test_every_metric_of_ours_is_shown(scraped: Scrape) -> None:
    """One that nobody looks at need not be counted."""
    shown = {family_of(name) for _, expression in expressions() for name in METRIC.findall(expression)}
    assert {family_of(name) for name in scraped.names if name.startswith("data_layer_")} <= shown


def test_every_series_that_is_asked_for_is_reported(scraped: Scrape) -> None:
    wrong = []
    for where, expression in expressions():
        for name, matchers in SELECTOR.findall(expression):
            known = scraped.labels.get(name, {})
            for label, operator, value in MATCHER.findall(matchers):
                if label in FROM_PROMETHEUS or name in SEEN_LATER:
                    continue
                if label not in known or (operator == "=" and value not in known[label]):
                    wrong.append(f"{where}: {name} has no {label}={value}")
    assert not wrong, "\n".join(wrong)


def test_work_of_the_service_is_in_it(scraped: Scrape) -> None:
    statements = scraped.labels["data_layer_database_statement_seconds_count"]["statement"]
    assert {"health.probe", "schema.revisions", "transaction.commit"} <= statements
    assert {"/health", "/v1/files/{key}", "unmatched"} <= scraped.labels["data_layer_http_requests_total"]["route"]
    families = {family_of(name) for name in scraped.sampled}
    assert {family_of(name) for name in scraped.names} - families == {family_of(name) for name in SEEN_LATER}


def test_every_alert_says_what_it_means_and_what_to_do() -> None:
    assert len(rules()) > 15
    names = [rule["alert"] for rule in rules()]
    assert len(names) == len(set(names))
    for rule in rules():
        assert set(rule["annotations"]) == {"summary", "description", "runbook"}, rule["alert"]
        assert all(len(text) > 20 for text in rule["annotations"].values()), rule["alert"]
        assert rule["labels"]["severity"] in {"page", "ticket"}, rule["alert"]


def test_what_runbooks_name_exists() -> None:
    settings, commands = {name.upper() for name in Settings.fields()}, cli.get_command(application)
    for rule in rules():
        text = " ".join(rule["annotations"].values())
        named = set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", text))
        assert named <= settings, f"{rule['alert']}: {named - settings}"
        for command in re.findall(r"`data-layer ([a-z ]+)`", text):
            found: Any = commands
            for word in command.split():
                found = found.commands[word]


def test_only_metrics_are_at_that_address(running: Service) -> None:
    for path in ("/", "/health", "/docs", "/metrics/x"):
        assert running.get_metrics(path).status_code == 404
    assert running.get("/metrics").status_code == 404


def test_a_taken_port_is_named(running: Service, new_folder: Path) -> None:
    with Service(new_folder, METRICS_PORT=str(running.metrics_port)) as second:
        said = second.fail()
    assert f"cannot listen on 127.0.0.1:{running.metrics_port} (Address already in use)" in said
    assert "METRICS_PORT" in said
    assert "ENABLE_METRICS=false" in said
    assert not (new_folder / ".data-layer").exists(), "nothing was started for it"


@pytest.mark.slow
def test_they_can_be_switched_off(folder: Path, running: Service) -> None:
    off: dict[str, Any] = {"ENABLE_METRICS": "false", "METRICS_PORT": str(running.metrics_port)}
    with Service(folder, **off) as service:
        service.wait_until_ready()
        assert service.get("/health").status_code == 200
        assert service.end() == 0, service.output
