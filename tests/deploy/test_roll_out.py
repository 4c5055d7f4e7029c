"""deploy/kubernetes/roll_out.sh, with a kubectl that keeps a record instead of talking to a cluster."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from .support import KUBERNETES, PROGRAMS

SCRIPT = KUBERNETES / "roll_out.sh"
KUBECTL = """\
#!/bin/sh
echo "$*" >>"$RECORD"
case "$*" in
*"get job"*)
    # First nothing is known; then what the test wants.
    [ -e "$RECORD.asked" ] && printf %s "$CONDITIONS"
    touch "$RECORD.asked"
    ;;
*logs*) echo "relation is locked" ;;
esac
"""


def _roll_out(
    folder: Path, conditions: str, overlay: str = "production", **variables: str
) -> tuple[int, str, list[str]]:
    program = folder / "kubectl"
    program.write_text(KUBECTL)
    program.chmod(0o755)
    record = folder / "record"
    record.touch()
    result = subprocess.run(
        [shutil.which("sh") or "sh", SCRIPT, overlay, "--context=ours"],
        env={"PATH": f"{folder}:{os.environ['PATH']}", "RECORD": str(record), "CONDITIONS": conditions} | variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    calls = [line for line in record.read_text().splitlines() if "get job" not in line]
    return result.returncode, result.stderr, calls


def test_the_service_follows_the_migration(tmp_path: Path) -> None:
    code, error, calls = _roll_out(tmp_path, "SuccessCriteriaMet Complete")
    overlay = KUBERNETES / "overlays" / "production"
    assert (code, error) == (0, "")
    assert calls == [
        "--namespace data-layer delete job data-layer-migration --ignore-not-found --wait --context=ours",
        f"apply --kustomize {overlay} --selector data-layer/step=before --context=ours",
        f"apply --kustomize {overlay} --context=ours",
        "--namespace data-layer rollout status deployment/data-layer --timeout=10m --context=ours",
    ]


def test_nothing_follows_a_migration_that_failed(tmp_path: Path) -> None:
    code, error, calls = _roll_out(tmp_path, "FailureTarget Failed")
    assert code == 1
    assert "relation is locked" in error
    assert "nothing was rolled out" in error
    assert "rollout" not in "".join(calls)
    assert len([call for call in calls if "apply" in call]) == 1


def test_waiting_has_an_end(tmp_path: Path) -> None:
    code, error, _ = _roll_out(tmp_path, "", ROLLOUT_TIMEOUT="0")
    assert code == 1
    assert "did not work" in error


def test_an_overlay_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    code, _, calls = _roll_out(tmp_path, "Complete", overlay="prodution")
    assert code != 0
    assert calls == []


def test_the_real_kubectl_understands_the_words() -> None:
    for words in (["delete"], ["apply"], ["rollout", "status"], ["logs"], ["get"]):
        helped = subprocess.run([PROGRAMS / "kubectl", *words, "--help"], capture_output=True, text=True, check=True)
        for option in {"apply": ("--kustomize", "--selector"), "delete": ("--ignore-not-found", "--wait")}.get(
            words[0], ()
        ):
            assert option in helped.stdout
