"""The TypeScript client: it compiles, and a program that uses it works against the service on a line that breaks."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from asyncio.subprocess import PIPE, STDOUT
from pathlib import Path

import pytest
from clients.description import committed
from clients.typescript import NODE, SOURCE, build

from data_layer import __version__
from tests.services.accounts.support import PASSWORD
from tests.support import until

from .conftest import Fault, Line


@pytest.mark.slow
async def test_a_program_works(line: Line, tmp_path: Path) -> None:
    folder = tmp_path / "typescript"
    shutil.copytree(SOURCE, folder, ignore=shutil.ignore_patterns("node_modules", "dist", "api.ts", "creating.ts"))
    shutil.copy(Path(__file__).with_name("story.ts"), folder / "src")
    # The story uses what node has, of which the client itself knows nothing.
    (folder / "src" / "node.d.ts").write_text(NODE_TYPES)
    await asyncio.to_thread(build, folder)
    line.faults = [
        Fault("POST", "/v1/projects", 502, is_done=True),
        Fault("POST", "/v1/projects", 503, headers={"retry-after": "1"}),
        Fault("POST", "/archive", 502),
        Fault("GET", "/events", 0, after=2),
        Fault("GET", "/events", 503),
    ]
    environment = os.environ | {"SERVICE_URL": line.url, "PASSWORD": PASSWORD}
    program = await asyncio.create_subprocess_exec(
        NODE, "dist/story.js", cwd=folder, env=environment, stdout=PIPE, stderr=STDOUT
    )
    ending = asyncio.create_task(send_elsewhere(line))
    output, _ = await program.communicate()
    ending.cancel()
    assert (program.returncode, output.decode()) == (0, "done\n")
    assert line.faults == []
    assert line.count("POST", "/archive") == 1
    assert line.count("GET", "/events") >= 4
    posts = [headers for method, path, headers in line.seen if (method, path) == ("POST", "/v1/projects")]
    assert len({headers["idempotency-key"] for headers in posts[:3]}) == 1
    assert "idempotency-key" not in next(headers for _, path, headers in line.seen if path.endswith("/archive"))
    creating = (folder / "dist" / "creating.js").read_text()
    for path, operations in committed()["paths"].items():
        names = [each["name"] for each in operations.get("post", {}).get("parameters", ())]
        assert (f'"{path}"' in creating) == ("Idempotency-Key" in names)


async def send_elsewhere(line: Line) -> None:
    """As a process does that ends, after the connections that break by themselves."""
    await until(lambda: line.count("GET", "/events") == 3, 100)
    await asyncio.sleep(0.1)
    line.send_elsewhere()


NODE_TYPES = """
declare module "node:assert/strict" {
  type Check = (error: unknown) => boolean;
  interface Assert {
    (value: unknown): asserts value;
    equal(actual: unknown, expected: unknown): void;
    deepEqual(actual: unknown, expected: unknown): void;
    rejects(given: Promise<unknown>, check: Check | (new (...given: never[]) => Error)): Promise<void>;
  }
  const assert: Assert;
  export default assert;
}
declare const process: { env: Record<string, string | undefined> };
"""


def test_the_package_has_the_version_of_the_service_and_no_registry() -> None:
    package = json.loads((SOURCE / "package.json").read_text())
    lock = (SOURCE / "package-lock.json").read_text()
    assert package["version"] == __version__ == json.loads(lock)["version"]
    assert '"resolved"' not in lock
    assert json.loads(lock)["packages"][""]["dependencies"] == package["dependencies"]
    assert json.loads(lock)["packages"][""]["devDependencies"] == package["devDependencies"]
