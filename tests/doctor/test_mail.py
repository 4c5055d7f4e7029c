"""What the doctor says of the mail server and of the templates."""

from __future__ import annotations

from pathlib import Path

from data_layer.testing.free_ports import free_port

from .support import Examine

PLACE = {"MAIL_FROM": "no-reply@example.com", "PUBLIC_URL": "http://127.0.0.1:3000"}


def test_without_a_server_links_are_printed(examine: Examine) -> None:
    report = examine()
    report.says("mail.configured", "ok", "data-layer mails show")
    assert report.outcomes("mail").keys() == {"configured"}


def test_a_server_that_is_not_there_and_a_template_that_cannot_be_filled(examine: Examine, tmp_path: Path) -> None:
    server = PLACE | {"SMTP_HOST": "127.0.0.1", "SMTP_PORT": str(free_port()), "SMTP_TLS": "none"}
    report = examine(**server)
    report.says("mail.server", "failed", "127.0.0.1")
    assert report.outcomes("mail")["templates"] == {"ok"}
    (tmp_path / "verify_email.txt").write_text("{{ nothing.of.this }}")
    assert examine(**server, MAIL_TEMPLATES=str(tmp_path)).outcomes("mail")["templates"] == {"failed"}
