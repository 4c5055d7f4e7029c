"""deploy/README.md: commands and settings exist, figures add up, and what can be run here is run."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from pydantic import SecretStr

from data_layer import DataLayer, Settings
from data_layer.errors import InvalidSessionError, InvalidTokenError
from data_layer.schemas.actors import SYSTEM
from data_layer.schemas.sessions import NewSession
from tests.cli.support import invoke

from .support import DEPLOY, KUBERNETES, PROGRAMS, SETTINGS, kustomized, of_kind

README = (DEPLOY / "README.md").read_text()
BLOCKS = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)


def test_links_lead_somewhere() -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", README)
    assert [target for target in targets if not (DEPLOY / target).exists()] == []


def test_every_command_exists_with_its_options() -> None:
    lines = [
        line.partition("#")[0] for block in BLOCKS for line in block.splitlines() if line.startswith("data-layer ")
    ]
    lines += re.findall(r"`(data-layer [a-z][^`]*)`", README)
    commands = {line.strip().removeprefix("data-layer ") for line in lines}
    assert {"db rollback 1 --yes --force", "storage check --deep", "health"} <= commands
    for command in commands:
        words = [word for word in command.split() if not word.startswith("-") and not word.isdigit()]
        helped = invoke([*words, "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"})
        assert helped.exit_code == 0, command
        assert all(option in helped.output for option in command.split() if option.startswith("--")), command


def test_every_setting_exists() -> None:
    named = set(re.findall(r"`([A-Z][A-Z_]{5,})(?:=[^`]*)?`", README))
    assert "DB_MAX_CONNECTIONS" in named
    not_ours = {"STORAGE", "MALLOC_ARENA_MAX", "MALLOC_MMAP_THRESHOLD_"}
    assert named - SETTINGS <= not_ours, "the compose file's own, and glibc's"


def test_every_path_that_is_run_exists() -> None:
    for path in re.findall(r"(deploy/[\w./-]+)", README):
        if path != "deploy/compose/.env":
            assert (DEPLOY.parent / path.rstrip(".")).exists(), path


def test_the_secrets_are_what_kubectl_makes_of_the_commands(tmp_path: Path) -> None:
    commands = re.findall(r"(kubectl --namespace data-layer create secret (?:.*\\\n)*.*)", README)
    assert len(commands) == 2
    passwords = {name: f"{name.lower()}-$'\"x" for name in ("SERVICE_PASSWORD", "OWNER_PASSWORD", "REDIS_PASSWORD")}
    made = {}
    for command in commands:
        result = subprocess.run(
            ["/bin/sh", "-euc", f"{command} --dry-run=client --output=yaml"],
            env={"PATH": f"{PROGRAMS}:{os.environ['PATH']}", "HOME": str(tmp_path)} | passwords,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        secret = yaml.safe_load(result.stdout)
        made[secret["metadata"]["name"]] = set(secret["data"])
    assert made == {
        "data-layer": {"DB_PASSWORD", "DB_DIRECT_URL", "REDIS_PASSWORD", "SESSION_SECRET", "JWT_SECRET"},
        "data-layer-owner": {"DB_PASSWORD", "DB_DIRECT_URL"},
    }


def test_the_steps_by_hand_are_those_of_the_script() -> None:
    [by_hand] = [block for block in BLOCKS if "--for=condition=complete" in block]
    script = (KUBERNETES / "roll_out.sh").read_text()
    for words in (
        "delete job data-layer-migration --ignore-not-found",
        "data-layer/step=before",
        "rollout status deployment/data-layer",
    ):
        assert words in by_hand
        assert words in script


def test_the_figures_of_connections_add_up() -> None:
    objects = kustomized(KUBERNETES / "overlays" / "production")
    [settings] = [one["data"] for one in of_kind(objects, "ConfigMap").values()]
    pool, workers = int(settings["DB_MAX_CONNECTIONS"]), int(settings["WORKERS"])
    most = of_kind(objects, "HorizontalPodAutoscaler")["data-layer"]["spec"]["maxReplicas"]
    rows = re.findall(r"^\| [^|]* \| (\d+) \| (\d+) \+ (\d+) \| (\d+) \| (\d+) \|$", README, re.MULTILINE)
    assert len(rows) == 2
    for pods, own, listeners, jobs, total in (tuple(map(int, row)) for row in rows):
        assert (own, listeners, jobs) == (pool, workers, 3 * pool)
        assert pods in {most + 1, 3 + 1}
        assert pods * (own + listeners) + jobs == total


@pytest.mark.parametrize("name", ["session_secret", "jwt_secret"])
async def test_a_secret_changes_in_three_steps_without_anybody_noticing(settings: Settings, name: str) -> None:
    """What one step's pods have made, the pods of the steps before and after it accept."""
    old, new, previous = SecretStr("o" * 31 + "ld"), SecretStr("n" * 31 + "ew"), f"{name}_previous"
    steps = [{name: old}, {name: old, previous: new}, {name: new, previous: old}, {name: new}]
    pods = [settings.replaced(**step) for step in steps]
    async with DataLayer(pods[0]) as data:
        user = await data.accounts.create(
            SYSTEM, email=f"{name}@example.com", first_name="Ann", last_name="Other", password="correct horse battery"
        )
    for earlier, later in ((pods[0], pods[1]), (pods[1], pods[2]), (pods[2], pods[3])):
        async with DataLayer(earlier) as one, DataLayer(later) as two:
            for maker, reader in ((one, two), (two, one)):
                session = await maker.sessions.create(user.id)
                active = await reader.sessions.validate(session.token.get_secret_value())
                tokens = await maker.tokens.issue(active)
                await reader.tokens.verify(tokens.access_token.get_secret_value())
    async with DataLayer(pods[0]) as one, DataLayer(pods[2]) as two:
        made = await two.sessions.create(user.id)
        with pytest.raises((InvalidSessionError, InvalidTokenError)):
            await _use(one, two, made)


async def _use(reader: DataLayer, maker: DataLayer, session: NewSession) -> None:
    """Without the first step, pods of before refuse what those of after have made."""
    active = await reader.sessions.validate(session.token.get_secret_value())
    tokens = await maker.tokens.issue(active)
    await reader.tokens.verify(tokens.access_token.get_secret_value())
