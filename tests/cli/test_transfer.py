"""``data-layer import`` and ``projects export``, as an operator calls them."""

from __future__ import annotations

from pathlib import Path

from .support import Commands


def test_a_project_is_exported_and_brought_to_somebody_else(command: Commands, tmp_path: Path) -> None:
    for address in ("ann@example.com", "bob@example.com"):
        command("users", "create", address, "--without-password", "--verified")
    (tmp_path / "shop.html").write_text("<html><h1>Shop</h1></html>")
    looked = command("import", str(tmp_path), "--user", "ann@example.com", "--dry-run", "--json").json
    assert (looked["is_dry_run"], looked["added"], looked["problems"]) == (True, {"page": 1}, [])
    brought = command("import", str(tmp_path), "--user", "ann@example.com")
    assert "page" in brought.output
    assert "new: page" in brought.errors, "progress stands beside the output"
    (tmp_path / "shop.html").unlink()
    archive = tmp_path / "shop.zip"
    written = command("projects", "export", "shop", "-o", str(archive)).output
    assert written == f"Wrote shop with 1 version, 1 variant, 0 files, 0 images to {archive}\n"
    assert "exists" in command("projects", "export", "shop", "-o", str(archive), code=2).errors
    again = command("projects", "export", "shop", "-o", str(archive), "--force", "--json").json
    assert again["exported"]["variants"] == 1
    for is_known in (False, True):
        report = command("import", str(archive), "-u", "bob@example.com", "--json").json
        assert report["known" if is_known else "added"] == {"project": 1}
    (tmp_path / "what.txt").write_text("?")
    refused = command("import", str(tmp_path), "--user", "bob@example.com", code=1)
    assert "is nothing that is known here" in refused.output
    assert "not_found" in command("import", str(archive), "--user", "nobody@example.com", code=1).errors
