"""Every value that pages show has a word of people, in German too, and no page shows the name that code has for it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import aclosing
from decimal import Decimal
from enum import StrEnum
from html import unescape
from pathlib import Path
from typing import Any

import pytest
import texts_of_services
from fastapi import FastAPI
from markupsafe import Markup
from texts_of_services import UntranslatableError, of_audit_trail, of_doctor

from data_layer import DataLayer, Settings
from data_layer.config import ExaminedSettings
from data_layer.console import words
from data_layer.console.languages import Languages
from data_layer.console.pages import reason_of
from data_layer.database.schema_check import SchemaStatus
from data_layer.entities import AuditLog
from data_layer.entities.enums import AuditAction, AuditCategory, AuditLevel, CodeStack, StorageKind, UserRole
from data_layer.errors import ConflictError, WeakPasswordError
from data_layer.layer.doctor import open_doctor
from data_layer.recorder.tape import _EVENTS
from data_layer.schemas.doctor import Text
from data_layer.schemas.operations import LogLevel, MaintenanceReport
from data_layer.schemas.projects import ProjectDraft
from data_layer.services.accounts.passwords import check_new_password
from data_layer.services.files.cleanup import CleanupReport
from tests.console.conftest import Visitor, visit
from tests.services.accounts.support import PASSWORD

ADMIN = "/console/admin"
SAME_IN_GERMAN = {
    *words.OF_STORAGES.values(),
    *words.OF_VALUES[CodeStack].values(),
    *("API", "Bucket", "Cache", "Container", "Information", "Import", "Mails", "OK", "Pooler", "Python", "Server"),
    *("Status", "System", "Version", "Passkey", "passkey", "ok", "Administration"),
}
CONFIRMED = {"confirmed": "yes"}
NOT_COUNTED = {"is_dry_run", "is_complete", "problems"}
SETTINGS: tuple[dict[str, object], ...] = (
    {},
    {
        "database_url": "postgresql://localhost/x",
        "redis_url": "redis://localhost",
        "storage_backend": "s3",
        "aws_s3_bucket": "bucket",
        "smtp_host": "localhost",
        "mail_from": "a@example.com",
    },
    {"storage_backend": "azure", "azure_storage_account": "account"},
    {"storage_backend": "s3", "aws_s3_bucket": "bucket", "storage_second_backend": "local"},
)


def named(values: type[StrEnum]) -> set[str]:
    return {each.value for each in values}


@pytest.mark.parametrize("kind", words.OF_VALUES, ids=lambda kind: kind.__name__)
def test_each_value_has_a_word(kind: type[StrEnum]) -> None:
    assert words.OF_VALUES[kind].keys() == set(kind)


def test_each_name_has_a_word() -> None:
    assert words.SCHEMA_STATES.keys() == named(SchemaStatus)
    assert words.LOG_LEVELS.keys() == named(LogLevel)
    assert words.OF_STORAGES.keys() == named(StorageKind)
    assert words.EVENT_KINDS.keys() == {each.value for each in _EVENTS}
    assert words.MAINTENANCE.keys() == MaintenanceReport.model_fields.keys() - NOT_COUNTED
    assert words.CLEANUP.keys() <= CleanupReport.model_fields.keys()


@pytest.mark.parametrize("values", SETTINGS, ids=["embedded", "s3", "azure", "moving"])
async def test_whatever_the_doctor_looks_at_has_a_word(
    base_settings: Settings, tmp_path: Path, values: Mapping[str, object]
) -> None:
    settings = base_settings.replaced(data_folder=tmp_path, local_storage_path=tmp_path, **values)
    async with open_doctor(ExaminedSettings(settings), time_limit=1) as doctor:
        names = [name.partition(".") for name in doctor.names]
    for part, _, check in names:
        assert part in words.DOCTOR_PARTS
        assert check in words.DOCTOR_CHECKS


def test_each_word_is_german_in_german() -> None:
    german = Languages().all["de"]
    every: list[Mapping[str, str]] = [*words.OF_VALUES.values()]
    every += [
        value
        for name, value in vars(words).items()
        if name.isupper() and isinstance(value, dict) and name != "OF_VALUES"
    ]
    assert len(every) >= 20
    for known in every:
        for name, english in known.items():
            word = german.word(name, known)
            assert word != english or word in SAME_IN_GERMAN, f"{name}: {english}"


def test_what_the_doctor_says_is_translated_with_its_values() -> None:
    languages = Languages().all
    reason = Text.verbatim("<b>no pg_hba.conf entry</b>")
    text = Text("the replica %(name)s: %(reason)s", {"name": "a<b", "reason": reason})
    assert languages["en"].sentence(text) == "the replica a&lt;b: &lt;b&gt;no pg_hba.conf entry&lt;/b&gt;"
    assert languages["de"].sentence(text) == (
        'das Replikat a&lt;b: <span lang="en">&lt;b&gt;no pg_hba.conf entry&lt;/b&gt;</span>'
    )
    late = Text("no answer within %(seconds)s s", {"seconds": 1234.5})
    assert languages["de"].sentence(late) == "keine Antwort innerhalb von 1.234,5 s"
    assert str(late) == "no answer within 1234.5 s"


def test_each_reason_to_refuse_a_password_has_words() -> None:
    reasons = set()
    for password in ("x" * 5000, "a bell\a in a password", "short", "password1234", "abababababab", "ann@example.com"):
        with pytest.raises(WeakPasswordError) as refused:
            check_new_password(password, minimum=8, personal=("ann@example.com",))
        reasons.add(refused.value.reason)
    assert reasons == words.WEAK_PASSWORDS.keys()


async def test_a_refused_password_is_explained_in_german(data: DataLayer, app: FastAPI) -> None:
    ann = await visit(data, app, "ann")
    fields = {"current": PASSWORD, "new": "kurz"}
    async with aclosing(ann.client):
        answer = await ann.client.post("/console/account/password", data=fields, headers={"accept-language": "de"})
    assert answer.status_code == 422
    assert "Das Passwort braucht mindestens" in answer.text


async def test_what_people_are_refused_for_is_said_in_their_language(data: DataLayer, app: FastAPI) -> None:
    """What browsers let through, such as a name of spaces, and what others have done meanwhile."""
    ann, admin = await visit(data, app, "ann"), await visit(data, app, "admin", UserRole.ADMIN)
    project = await data.projects.create(ann.actor, ProjectDraft(name="Shop"))
    settings = {"name": "Shop", "description": "", "instructions": "", "tags": "", "revision": project.revision}
    people = f"{ADMIN}/people"
    refused: tuple[tuple[Visitor, str, dict[str, Any], str], ...] = (
        (ann, "/console/projects", {"name": " "}, "Der Name fehlt"),
        (ann, f"/console/projects/{project.id}/settings", settings | {"name": " "}, "Der Name fehlt"),
        (ann, "/console/account/profile", {"first_name": " ", "last_name": "L"}, "Der Vorname fehlt"),
        (ann, "/console/account/keys", {"name": " ", "scope": "read"}, "Der Name fehlt"),
        (ann, "/console/account/keys", {"name": "CI"}, "Wählen Sie wenigstens eines"),
        (ann, "/console/account/factors", {}, "Zeigen Sie noch einmal das Passwort"),
        (ann, f"{people}/{admin.id}/suspend", {"reason": "x"}, "hat dieses Recht nicht"),
        (admin, f"{people}/{admin.id}/suspend", {"reason": "x"}, "der letzte aktive Administrator"),
        (admin, f"{people}/{ann.id}/unsuspend", {}, "Der Zustand hat sich inzwischen geändert"),
    )
    async with aclosing(ann.client), aclosing(admin.client):
        for visitor, path, fields, expected in refused:
            answer = await visitor.client.post(path, data=fields | CONFIRMED, headers={"accept-language": "de"})
            assert answer.status_code in {403, 422}, (path, fields)
            assert expected in answer.text, (path, fields)
            assert '<span lang="en">' not in answer.text, (path, fields)
        for query, expected in (({"user": "ann"}, "durch die Id"), ({"after": "x"}, "Diese Seite der Liste")):
            answer = await admin.client.get(f"{ADMIN}/audit", params=query, headers={"accept-language": "de"})
            assert expected in answer.text, query
        english = await ann.client.post("/console/account/keys", data={"name": "CI"})
    assert "scopes must name at least one of" in english.text, "the service's own words are the most exact"


def test_what_has_no_words_of_the_console_is_marked_as_english() -> None:
    said = reason_of(ConflictError("<b>"), Languages().all["de"], shortest_password=8)
    assert said == Markup('<span lang="en">&lt;b&gt;</span>')


def test_amounts_are_written_as_the_language_writes_them() -> None:
    languages = Languages().all
    for amount, english, german in (
        ("0.4538", "$0.4538", "0,4538 $"),
        ("0.5", "$0.50", "0,50 $"),
        ("1234.5", "$1,234.50", "1.234,50 $"),
    ):
        written = [languages[code].money(Decimal(amount), "USD").replace("\xa0", " ") for code in ("en", "de")]
        assert written == [english, german]


async def test_the_doctor_speaks_german(data: DataLayer, app: FastAPI) -> None:
    admin = await visit(data, app, "admin", UserRole.ADMIN)
    async with aclosing(admin.client):
        page = (await admin.client.get(f"{ADMIN}/doctor", headers={"accept-language": "de"})).text
    assert "Zertifikat" in page or "alles bleibt auf diesem Rechner" in page
    assert "darf alle Tabellen lesen und schreiben" in page
    assert '<span lang="en">' not in page, "nothing that is well is in the words of a server"


async def test_entries_are_german_and_those_of_applications_as_they_are(data: DataLayer, app: FastAPI) -> None:
    admin = await visit(data, app, "admin", UserRole.ADMIN)
    async with data.transaction() as tx:
        for description in ("Le client a changé de forfait", "", "Chose a new password"):
            tx.add(AuditLog.user_action(AuditAction.USER_UPDATE_PROFILE, admin.id, description))
    async with aclosing(admin.client):
        page = (await admin.client.get(f"{ADMIN}/audit", headers={"accept-language": "de"})).text
    assert '<span title="Chose a new password">Neues Passwort gewählt</span>' in page
    assert page.count("Sitzung begonnen") == 2, "as an action to choose, and of the entry, which says nothing else"
    assert "<span>Le client a changé de forfait</span>" in page
    assert "<span></span>" in page
    assert "Project-Id-Version" not in page, "what gettext answers to nothing"


def test_services_say_what_translators_can_know(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert {"the last snapshot", "%(name)s is installed", "set it"} <= {said.text for said in of_doctor()}
    assert {"Login failed", "Recorded a generation", "The project is archived now"} <= {
        said.text for said in of_audit_trail()
    }
    monkeypatch.setattr(texts_of_services, "PACKAGE", tmp_path)
    module = tmp_path / "services" / "doctor" / "new.py"
    module.parent.mkdir(parents=True)
    for code, find in (
        ('ok(f"{name} is there")', of_doctor),
        ('warning("%(name)s is there", "see %(file)s", name=name)', of_doctor),
        ('Text("%(name)s is there", {"nmae": name})', of_doctor),
        ('def f(what):\n    AuditLog.user_action(a, b, what)\nf(f"Changed {name}")', of_audit_trail),
        ("record_soon = make_row(a, TEXTS.get(b))", of_audit_trail),
    ):
        module.write_text(code, encoding="utf-8")
        with pytest.raises(UntranslatableError):
            find()


async def test_no_page_shows_the_names_of_code(data: DataLayer, app: FastAPI) -> None:
    admin = await visit(data, app, "admin", UserRole.ADMIN)
    async with data.transaction() as tx:
        for action in AuditAction:
            tx.add(
                AuditLog(
                    action=action,
                    category=AuditCategory.SYSTEM,
                    level=AuditLevel.INFO,
                    user_id=admin.id,
                    description="-",
                )
            )
    async with aclosing(admin.client):
        pages = [
            *[
                f"{ADMIN}/{name}"
                for name in ("people", f"people/{admin.id}", "audit", "files", "system", "maintenance")
            ],
            "/console/account",
            "/console/account/keys",
            "/console/projects",
        ]
        german = {"accept-language": "de"}
        texts = {path: (await admin.client.get(path, headers=german)).text for path in pages}
        texts["run"] = (await admin.client.post(f"{ADMIN}/maintenance", data=CONFIRMED, headers=german)).text
        texts["check"] = (await admin.client.post(f"{ADMIN}/files/check", headers=german)).text
    assert texts[f"{ADMIN}/audit"].count('<span class="badge ">Sicherung eingespielt</span>') == 1
    for path, text in texts.items():
        # Tables of the database are called what they are called.
        plain = re.sub(r'(?s)<(pre|code|title)\b.*?</\1>|<span class="share-name">[^<]*|<!--.*?-->', "", text)
        found = re.findall(r">\s*([a-z]+(?:_[a-z]+)+)\s*<", unescape(plain))
        assert found == [], path
