"""deploy/kubernetes: what kustomize makes of it is valid, fits together, and is accepted by the service."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from secrets import token_hex
from typing import Any

import kubernetes_validate
import pytest
import yaml

from data_layer.config import Environment

from .support import (
    DEPLOY,
    KUBERNETES,
    SETTINGS,
    Object,
    accepted,
    image_environment,
    kustomized,
    last_stage,
    of_kind,
    pods,
)

COMPONENTS = sorted(path.name for path in (KUBERNETES / "components").iterdir())
WORKER_RESERVE = 12
"""Seconds that the process that watches over several workers has more than they (cli/service.py)."""


@pytest.fixture(params=["staging", "production"])
def objects(request: pytest.FixtureRequest) -> tuple[Object, ...]:
    return kustomized(KUBERNETES / "overlays" / request.param)


@pytest.fixture(params=COMPONENTS)
def with_component(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Object, ...]:
    """The base with one component, whether an overlay uses it or not."""
    return _base_with(tmp_path, request.param)


def _base_with(folder: Path, component: str) -> tuple[Object, ...]:
    # kustomize knows no absolute paths.
    way = "/".join([".."] * len(folder.parts[1:])) + str(KUBERNETES)
    file = {"resources": [f"{way}/base"], "components": [f"{way}/components/{component}"]}
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(file))
    return kustomized(folder)


def _variables(objects: tuple[Object, ...], pod: Object) -> dict[str, str]:
    """What a container finds in its environment; secrets are random."""
    [container] = pod["spec"]["containers"]
    found = image_environment(DEPLOY / "Dockerfile")
    for source in container["envFrom"]:
        found |= of_kind(objects, "ConfigMap")[source["configMapRef"]["name"]]["data"]
    for one in container["env"]:
        if "value" in one:
            found[one["name"]] = one["value"]
        elif not one["valueFrom"]["secretKeyRef"].get("optional"):
            found[one["name"]] = token_hex(32)
    return found


def _validate(objects: tuple[Object, ...]) -> None:
    for one in objects:
        if one["kind"] != "ServiceMonitor":  # No kind of Kubernetes itself; its own test is below.
            kubernetes_validate.validate(one, kubernetes_validate.latest_version(), strict=True)


def test_every_object_is_valid(objects: tuple[Object, ...]) -> None:
    _validate(objects)


def test_every_component_is_valid(with_component: tuple[Object, ...]) -> None:
    _validate(with_component)


def test_everything_is_in_the_namespace_of_the_overlay(objects: tuple[Object, ...]) -> None:
    [namespace] = of_kind(objects, "Namespace")
    assert {one["metadata"].get("namespace") for one in objects if one["kind"] != "Namespace"} == {namespace}


def test_every_variable_is_a_setting(objects: tuple[Object, ...]) -> None:
    for name, pod in pods(objects):
        known = {*_variables(objects, pod), *(one["name"] for one in pod["spec"]["containers"][0]["env"])}
        unknown = known - SETTINGS - {"PATH", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED", "SSL_CERT_FILE"}
        assert not unknown, f"{name}: {unknown}"


@pytest.mark.parametrize("overlay", [*Environment][2:])
def test_the_service_accepts_the_settings(
    overlay: Environment, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    objects = kustomized(KUBERNETES / "overlays" / overlay)
    authority = tmp_path / "ca.pem"
    authority.touch()
    for name, pod in pods(objects):
        variables = _variables(objects, pod)
        mounts = {mount["mountPath"] for mount in pod["spec"]["containers"][0]["volumeMounts"]}
        assert variables["DB_SSL_CA"].rpartition("/")[0] in mounts
        if variables.get("DB_PGBOUNCER") == "true":
            variables["DB_DIRECT_URL"] = (
                f"postgresql://data_layer:{token_hex(8)}@database.example.com/screenshot_to_code"
            )
        settings = accepted(monkeypatch, variables | {"DB_SSL_CA": str(authority)})
        assert settings.general.environment is overlay, name
        assert not settings.database.is_embedded
        assert not settings.redis.is_embedded
        assert settings.service.trusted_proxies, f"{name}: everybody behind the ingress would count as one address"


@pytest.mark.parametrize(
    ("component", "more"), [("s3", {"AWS_S3_BUCKET": "b-1"}), ("azure", {"AZURE_STORAGE_ACCOUNT": "abc"})]
)
def test_each_storage_needs_a_place_and_no_key(
    component: str, more: Mapping[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    objects = _base_with(tmp_path, component)
    own = {"DB_HOST": "database.example.com", "REDIS_HOST": "cache.example.com"}
    for _, pod in pods(objects):
        assert accepted(monkeypatch, _variables(objects, pod) | own | dict(more)).storage.storage_backend == component


def test_the_migration_and_maintenance_act_as_the_owner_and_nobody_else(objects: tuple[Object, ...]) -> None:
    users = {name: _variables(objects, pod)["DB_USERNAME"] for name, pod in pods(objects)}
    assert users == {
        "Deployment data-layer": "data_layer_service",
        "Job data-layer-migration": "data_layer_owner",
        "CronJob data-layer-maintenance": "data_layer_owner",
        "CronJob data-layer-cleanup": "data_layer_service",
    }
    for name, pod in pods(objects):
        secrets = set(re.findall(r"name: (data-layer\S*)", yaml.safe_dump(pod["spec"]["containers"][0]["env"])))
        assert ("data-layer-owner" in secrets) is (users[name] == "data_layer_owner")


def test_no_pod_of_the_service_migrates(objects: tuple[Object, ...]) -> None:
    spec = of_kind(objects, "Deployment")["data-layer"]["spec"]["template"]["spec"]
    assert "initContainers" not in spec
    assert "args" not in spec["containers"][0]
    assert dict(last_stage(DEPLOY / "Dockerfile"))["CMD"] == '["start"]'
    assert [pod["spec"]["containers"][0]["args"] for name, pod in pods(objects) if "migration" in name] == [
        ["db", "migrate"]
    ]


def test_the_first_step_has_all_that_the_migration_needs(objects: tuple[Object, ...]) -> None:
    first = [one for one in objects if one["metadata"]["labels"]["data-layer/step"] == "before"]
    kinds = {one["kind"] for one in first}
    assert kinds == {"Namespace", "ServiceAccount", "ConfigMap", "NetworkPolicy", "Job"}
    assert {one["metadata"]["labels"]["data-layer/step"] for one in objects} == {"before", "service"}
    waves = {one["kind"]: one["metadata"].get("annotations", {}).get("argocd.argoproj.io/sync-wave") for one in objects}
    assert {kind: wave for kind, wave in waves.items() if wave} == dict.fromkeys(kinds, "-1") | {"Namespace": "-2"}


def test_selectors_find_the_pods_of_the_service_and_only_them(objects: tuple[Object, ...]) -> None:
    labels = {name: pod["metadata"]["labels"] for name, pod in pods(objects)}

    def found(selector: Mapping[str, str]) -> set[str]:
        return {name for name, own in labels.items() if selector.items() <= own.items()}

    deployment = of_kind(objects, "Deployment")["data-layer"]["spec"]
    selectors = [
        deployment["selector"]["matchLabels"],
        of_kind(objects, "Service")["data-layer"]["spec"]["selector"],
        of_kind(objects, "PodDisruptionBudget")["data-layer"]["spec"]["selector"]["matchLabels"],
        *(
            constraint["labelSelector"]["matchLabels"]
            for constraint in deployment["template"]["spec"]["topologySpreadConstraints"]
        ),
    ]
    assert all(found(selector) == {"Deployment data-layer"} for selector in selectors)
    policy = of_kind(objects, "NetworkPolicy")["data-layer"]["spec"]["podSelector"]["matchLabels"]
    assert found(policy) == set(labels)


def test_ports_lead_to_the_process(objects: tuple[Object, ...]) -> None:
    pod = of_kind(objects, "Deployment")["data-layer"]["spec"]["template"]
    [container] = pod["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    variables = _variables(objects, pod)
    assert ports == {"http": int(variables["PORT"]), "metrics": int(variables["METRICS_PORT"])}
    assert {variables["HOST"], variables["METRICS_HOST"]} == {"0.0.0.0"}  # noqa: S104  (inside a pod)
    probes = [container[name]["httpGet"] for name in ("startupProbe", "livenessProbe", "readinessProbe")]
    assert [(probe["path"], probe["port"]) for probe in probes] == [
        ("/livez", "http"),
        ("/livez", "http"),
        ("/readyz", "http"),
    ]
    service = of_kind(objects, "Service")["data-layer"]["spec"]["ports"]
    assert {port["targetPort"] for port in service} == set(ports)
    allowed = of_kind(objects, "NetworkPolicy")["data-layer"]["spec"]["ingress"]
    assert {port["port"] for rule in allowed for port in rule["ports"]} == set(ports)


def test_prometheus_finds_the_metrics() -> None:
    objects = kustomized(KUBERNETES / "overlays" / "production")
    monitor = of_kind(objects, "ServiceMonitor")["data-layer"]["spec"]
    service = of_kind(objects, "Service")["data-layer"]
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert monitor["endpoints"][0]["port"] in {port["name"] for port in service["spec"]["ports"]}


def test_nothing_is_open_that_is_not_needed(objects: tuple[Object, ...]) -> None:
    policies = of_kind(objects, "NetworkPolicy")
    assert policies["default-deny"]["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    egress = {port["port"] for rule in policies["data-layer"]["spec"]["egress"] for port in rule["ports"]}
    for _, pod in pods(objects):
        variables = _variables(objects, pod)
        nodes = re.findall(r":(\d+)", variables.get("REDIS_CLUSTER_NODES", ":6379"))
        assert {int(variables.get("DB_PORT", 5432)), 443, 53, *map(int, nodes)} <= egress


def test_a_pod_is_given_the_time_that_the_service_takes(objects: tuple[Object, ...]) -> None:
    pod = of_kind(objects, "Deployment")["data-layer"]["spec"]["template"]
    variables = _variables(objects, pod)
    needed = float(variables["SHUTDOWN_DELAY"]) + float(variables["SHUTDOWN_TIMEOUT"]) + WORKER_RESERVE
    assert pod["spec"]["terminationGracePeriodSeconds"] >= needed
    readiness = pod["spec"]["containers"][0]["readinessProbe"]
    assert readiness["timeoutSeconds"] > 5, "more than the service takes to find out (PROBE_SECONDS)"


def test_replicas(objects: tuple[Object, ...]) -> None:
    base = kustomized(KUBERNETES / "base")
    assert of_kind(base, "Deployment")["data-layer"]["spec"]["replicas"] == 3
    deployment = of_kind(objects, "Deployment")["data-layer"]["spec"]
    scalers = of_kind(objects, "HorizontalPodAutoscaler")
    if not scalers:
        assert deployment["replicas"] == 2
        return
    scaler = scalers["data-layer"]["spec"]
    assert "replicas" not in deployment, "each rollout would undo what the autoscaler did"
    assert scaler["minReplicas"] == 3
    assert scaler["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": "data-layer"}
    assert deployment["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}


def test_pods_keep_the_restricted_standard(objects: tuple[Object, ...]) -> None:
    """Pod Security Standards, profile "restricted", control by control."""
    for name, pod in pods(objects):
        spec = pod["spec"]
        [container] = spec["containers"]
        context: dict[str, Any] = {**spec["securityContext"], **container["securityContext"]}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys(), name
        assert context["runAsNonRoot"] is True
        assert context["runAsUser"] == int(dict(last_stage(DEPLOY / "Dockerfile"))["USER"].partition(":")[0])
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert "privileged" not in context
        assert not any("hostPort" in port for port in container.get("ports", []))
        assert all({"emptyDir", "configMap"} & volume.keys() for volume in spec["volumes"])
        # What the standard does not ask for.
        assert context["readOnlyRootFilesystem"] is True
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False
        assert {"memory"} <= container["resources"]["limits"].keys()
    [namespace] = of_kind(objects, "Namespace").values()
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_what_must_be_writable_is(objects: tuple[Object, ...]) -> None:
    folder = image_environment(DEPLOY / "Dockerfile")["DATA_FOLDER"]
    for _, pod in pods(objects):
        mounts = {
            mount["mountPath"] for mount in pod["spec"]["containers"][0]["volumeMounts"] if "readOnly" not in mount
        }
        assert mounts == {"/tmp", folder}  # noqa: S108  (inside a pod)


def test_secrets_are_only_named(objects: tuple[Object, ...]) -> None:
    assert not of_kind(objects, "Secret")
    secret = re.compile("PASSWORD|SECRET|_URL$|CONNECTION_STRING|ACCESS_KEY")
    settings = [name for one in of_kind(objects, "ConfigMap").values() for name in one["data"]]
    assert not [name for name in settings if secret.search(name)]
    for _, pod in pods(objects):
        assert not [one for one in pod["spec"]["containers"][0]["env"] if secret.search(one["name"]) and "value" in one]


def test_every_secret_that_is_named_is_made_in_the_readme(objects: tuple[Object, ...]) -> None:
    text = (DEPLOY / "README.md").read_text()
    made = {
        (name, key)
        for name, words in re.findall(r"create secret generic (\S+) ((?:.*\\\n)*.*)", text)
        for key in re.findall(r"--from-literal=(\w+)=", words)
    }
    for _, pod in pods(objects):
        for one in pod["spec"]["containers"][0]["env"]:
            if "valueFrom" in one and not (reference := one["valueFrom"]["secretKeyRef"]).get("optional"):
                assert (reference["name"], reference["key"]) in made


def test_jobs_end(objects: tuple[Object, ...]) -> None:
    job = of_kind(objects, "Job")["data-layer-migration"]["spec"]
    crons = [one["spec"] for one in of_kind(objects, "CronJob").values()]
    assert all(cron["concurrencyPolicy"] == "Forbid" for cron in crons)
    for spec in [job, *(cron["jobTemplate"]["spec"] for cron in crons)]:
        assert spec["activeDeadlineSeconds"] <= 3600
        assert spec["template"]["spec"]["restartPolicy"] == "Never"
