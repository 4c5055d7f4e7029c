"""deploy/compose: valid, consistent, and accepted by the service."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from data_layer.embedded.binaries import valkey_binary
from data_layer.errors import ConfigurationError

from .support import DEPLOY, PROJECT, SETTINGS, accepted, image_environment, run

COMPOSE = DEPLOY / "compose"
STORAGES = ("local", "s3", "azure")
_VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What make_env.sh writes."""
    folder = tmp_path_factory.mktemp("compose")
    script = shutil.copy(COMPOSE / "make_env.sh", folder)
    shell = shutil.which("sh") or "sh"
    subprocess.run([shell, script], check=True, capture_output=True, timeout=60)
    file = folder / ".env"
    assert file.stat().st_mode & 0o777 == 0o600
    text = file.read_text()
    again = subprocess.run([shell, script], check=True, capture_output=True, text=True, timeout=60)
    assert "nothing was changed" in again.stdout
    assert file.read_text() == text
    # Somebody has begun the file, or an earlier version has made it: what is missing is added.
    file.write_text("APP_HOST=app.example.com\nSAAS_API_SECRET=\nJWT_SECRET=mine")
    subprocess.run([shell, script], check=True, capture_output=True, timeout=60)
    completed = dict(line.split("=", 1) for line in file.read_text().splitlines())
    assert (completed.pop("APP_HOST"), completed["JWT_SECRET"]) == ("app.example.com", "mine")
    assert all(len(value) == 64 for name, value in completed.items() if name != "JWT_SECRET")
    assert completed.keys() == dict(line.split("=", 1) for line in text.splitlines()).keys()
    assert [path.name for path in folder.glob(".env*")] == [".env"]
    return dict(line.split("=", 1) for line in text.splitlines())


@pytest.fixture(params=STORAGES)
def storage(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def _resolved(variables: dict[str, str], file: str = "compose.yaml") -> dict[str, Any]:
    """The file as Compose reads it (Compose specification, "Interpolation" and "Fragments")."""

    def value(match: re.Match[str]) -> str:
        name, kind, word = match.groups()
        if not variables.get(name):
            assert kind == "-", f"{name} is needed: {word}"
        return variables.get(name) or word

    text = (COMPOSE / file).read_text().replace("$$", "\0")
    resolved: dict[str, Any] = yaml.safe_load(_VARIABLE.sub(value, text).replace("\0", "$"))
    return resolved


def _environment(service: dict[str, Any]) -> dict[str, str]:
    """What the process finds: the image's variables, those of files, and the service's own, which win."""
    found = image_environment(DEPLOY / "Dockerfile")
    for name in service["env_file"]:
        lines = (COMPOSE / name).read_text().splitlines()
        found |= dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    # Compose puts an empty value in after it has read the YAML, in which we find none.
    return found | {name: "" if value is None else str(value) for name, value in service["environment"].items()}


def _ours(compose: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: one for name, one in compose["services"].items() if one["image"].startswith("data-layer:")}


@pytest.mark.parametrize("name", ["compose.yaml", "hosted.yaml"])
def test_it_is_valid(name: str) -> None:
    result = run("check-jsonschema", "--builtin-schema", "vendor.compose-spec", COMPOSE / name)
    assert result.returncode == 0, result.stdout


def test_the_service_accepts_what_hosting_for_a_team_adds(
    secrets: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = {
        "SCREENSHOT_TO_CODE": "/srv/screenshot-to-code",
        "APP_HOST": "app.example.com",
        "DATA_HOST": "data.example.com",
        "OIDC_ISSUER": "https://clerk.example.com",
        "CLERK_PUBLISHABLE_KEY": "pk_test_x",
        "OPENAI_API_KEY": "sk-x",
    }
    added = _resolved(secrets | own, "hosted.yaml")
    assert added["services"]["service"]["environment"].keys() <= SETTINGS
    service = _resolved(secrets | own)["services"]["service"]
    service["environment"] |= added["services"]["service"]["environment"]
    settings = accepted(monkeypatch, _environment(service))
    assert settings.is_production
    assert settings.hosted.is_enabled
    assert settings.service.cors_allowed_origins == ("https://app.example.com",)
    back_end = added["services"]["backend"]["environment"]
    assert back_end["BACKEND_SAAS_API_SECRET"] == secrets["SAAS_API_SECRET"]
    assert back_end["BACKEND_SAAS_URL"] == "http://service:3000"
    assert back_end["PLATFORM_OPENAI_API_KEY"] == back_end["OPENAI_API_KEY"] == "sk-x"
    assert added["services"]["backend"]["command"][-2:] == ["--ws-max-size", str(64 * 2**20)]
    page = added["services"]["frontend"]
    assert page["environment"]["VITE_SAAS_BACKEND_URL"] == settings.base_url == "https://data.example.com"
    assert page["environment"]["VITE_IS_DEPLOYED"] == "true"
    # The proxy leads each half to the port on which it listens, and the data to this service.
    proxy = added["configs"]["caddy"]["content"]
    ports = {name: one["command"][one["command"].index("--port") + 1] for name, one in added["services"].items()
             if "--port" in one.get("command", [])}  # fmt: skip
    assert ports.keys() == {"backend", "frontend"}
    assert all(
        f"reverse_proxy {'@backend ' if name == 'backend' else ''}{name}:{port}" in proxy
        for name, port in ports.items()
    )
    assert f"data.example.com {{\n  reverse_proxy service:{settings.service.port}\n}}" in proxy


def test_what_a_team_has_to_set_is_explained(secrets: dict[str, str]) -> None:
    """Each variable without a default is made by make_env.sh, or stands in the table of the page."""
    page = (PROJECT / "docs/how-to/hosted.md").read_text()
    [table] = re.findall(r"## With Compose\n(.*?)\n## ", page, re.DOTALL)
    for name, kind, _ in _VARIABLE.findall((COMPOSE / "hosted.yaml").read_text()):
        if kind == "?" and name not in secrets:
            assert f"`{name}`" in table, name
    for name in re.findall(r"`([A-Z0-9]+(?:_[A-Z0-9]+)+)`", table):
        assert f"${{{name}:" in (COMPOSE / "hosted.yaml").read_text(), f"{name} reaches nobody"
    for name in re.findall(r"--file (\S+)", table):
        assert (PROJECT / name).is_file()


def test_a_missing_secret_is_told_with_the_remedy() -> None:
    with pytest.raises(AssertionError, match="make_env"):
        _resolved({})


def test_every_variable_is_a_setting_and_the_service_accepts_them(
    secrets: dict[str, str], storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    compose = _resolved(secrets | {"STORAGE": storage})
    assert _ours(compose).keys() == {"service", "migration", "storage", "maintenance"}
    for service in _ours(compose).values():
        variables = _environment(service)
        own = {name for name in variables if name not in image_environment(DEPLOY / "Dockerfile")}
        assert own <= SETTINGS
        settings = accepted(monkeypatch, variables)
        assert settings.is_production is (storage == "local"), "emulators are refused in production"
        assert settings.storage.storage_backend == storage
        assert settings.database.db_host in compose["services"]
        assert settings.redis.redis_host in compose["services"]


def test_the_example_of_production_is_refused_with_an_emulator(
    secrets: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for storage in ("s3", "azure"):
        service = _resolved(secrets | {"STORAGE": storage})["services"]["service"]
        with pytest.raises(ConfigurationError):
            accepted(monkeypatch, _environment(service) | {"ENVIRONMENT": "production"})


def test_only_the_service_and_the_servers_of_files_are_reached_from_this_machine(secrets: dict[str, str]) -> None:
    services = _resolved(secrets)["services"]
    published = {name: one["ports"] for name, one in services.items() if "ports" in one}
    # The servers of files too, because signed URLs lead browsers there: from this machine only.
    assert published == {
        "service": ["127.0.0.1:3000:3000"],
        "s3": ["127.0.0.1:8080:8080"],
        "azurite": ["127.0.0.1:10000:10000"],
    }


def test_profiles_are_the_storages(secrets: dict[str, str]) -> None:
    services = _resolved(secrets)["services"]
    profiles = {profile: name for name, one in services.items() for profile in one.get("profiles", [])}
    assert profiles == {"s3": "s3", "azure": "azurite"}
    assert {path.stem for path in (COMPOSE / "storage").iterdir()} == set(STORAGES)


def test_the_service_waits_for_what_it_needs(secrets: dict[str, str]) -> None:
    services = _resolved(secrets)["services"]
    conditions = {name: one["condition"] for name, one in services["service"]["depends_on"].items()}
    assert conditions == {
        "migration": "service_completed_successfully",
        "storage": "service_completed_successfully",
        "cache": "service_healthy",
    }
    for one in services.values():
        for name, wanted in one.get("depends_on", {}).items():
            if wanted["condition"] == "service_healthy" and name != "azurite":  # Its image has a check of its own.
                assert "healthcheck" in services[name]
            assert ("profiles" not in services[name]) or wanted["required"] is False


def test_no_secret_is_written_down_or_given_to_who_does_not_need_it(secrets: dict[str, str]) -> None:
    marked = {name: f"<{name}>" for name in secrets}
    services = _resolved(marked)["services"]
    for name in ("POSTGRES_PASSWORD", "OWNER_PASSWORD"):
        holders = {service for service, one in services.items() if marked[name] in str(one.get("environment"))}
        assert (
            holders
            == {"POSTGRES_PASSWORD": {"database"}, "OWNER_PASSWORD": {"database", "migration", "maintenance"}}[name]
        )
    assert ".env" in (PROJECT / ".gitignore").read_text().split()
    assert "argument" not in services["cache"]["command"]
    for one in services.values():
        assert not any(mark in str(one.get("command")) + str(one.get("healthcheck")) for mark in marked.values())


def test_containers_of_ours_have_no_rights(secrets: dict[str, str]) -> None:
    for name, one in _ours(_resolved(secrets)).items():
        assert one["read_only"] is True, name
        assert one["cap_drop"] == ["ALL"]
        assert one["tmpfs"] == ["/tmp"]  # noqa: S108  (inside a container)


def test_the_s3_server_wants_the_key_that_the_service_has(secrets: dict[str, str], tmp_path: Path) -> None:
    services = _resolved(secrets | {"STORAGE": "s3"})["services"]
    key = _environment(services["service"])
    server = services["s3"]
    assert key["AWS_ENDPOINT_URL"] == "http://s3:8080"
    assert server["command"] == ["serve", "s3", "--addr", ":8080", "/data"]
    assert server["environment"]["RCLONE_AUTH_KEY"] == f'"{key["AWS_ACCESS_KEY_ID"]},{key["AWS_SECRET_ACCESS_KEY"]}"'
    # rclone itself reads it as one pair of keys.
    understood = run(
        "rclone", "serve", "s3", "--addr", "nonsense:port", str(tmp_path), env=os.environ | server["environment"]
    )
    assert "invalid" not in understood.stderr.lower().replace("invalid port", "")


def test_valkey_reads_its_configuration(secrets: dict[str, str], tmp_path: Path) -> None:
    compose = _resolved(secrets)
    [wanted] = compose["services"]["cache"]["configs"]
    file = tmp_path / "valkey.conf"
    file.write_text(compose["configs"][wanted["source"]]["content"] + f"port 0\nunixsocket {tmp_path}/v.sock\n")
    with subprocess.Popen([valkey_binary(), file], stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout
            assert any("ready to accept" in line.lower() for line in server.stdout)
        finally:
            server.kill()


def test_paths_that_are_mounted_exist(secrets: dict[str, str]) -> None:
    compose = _resolved(secrets)
    for one in compose["services"].values():
        for volume in one.get("volumes", []):
            source = volume.split(":")[0]
            assert source in compose["volumes"] if "/" not in source else (COMPOSE / source).is_file()
        if "build" in one:
            context = (COMPOSE / one["build"]["context"]).resolve()
            assert context == PROJECT
            assert (context / one["build"]["dockerfile"]).is_file()
