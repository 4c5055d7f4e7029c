"""Mails: each reaches the mail server, once unless a process dies, and what it bears is nowhere else."""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import pytest
import trustme
from pydantic import SecretStr
from sqlalchemy import text
from uuid_utils.compat import uuid7

from data_layer import DataLayer, Settings
from data_layer.entities import Mail
from data_layer.entities.enums import MailKind, MailStatus, UserRole
from data_layer.entities.time_ordered_ids import id_at
from data_layer.errors import ConflictError, DataLayerError, MailServerError, NotFoundError, PermissionDeniedError
from data_layer.schemas.actors import SYSTEM, Actor
from data_layer.schemas.mails import MailView
from data_layer.services.mails import SmtpTransport
from data_layer.settings.mail import MailSettings
from tests.leaks import LogLines, places_of
from tests.mail_server import LOGIN, MailServer, link_of, mail_server, text_of, token_of
from tests.services.accounts.support import PASSWORD, make_account, pass_time
from tests.support import forked, until

EMAIL = "ann@example.com"
NEW_PASSWORD = "another horse and battery"
SENDER = "Screenshots <no-reply@example.org>"


def transport_to(server: MailServer, **values: Any) -> SmtpTransport:
    given = {"smtp_host": "127.0.0.1", "smtp_port": server.port, "smtp_tls": "none", "mail_from": SENDER} | values
    return SmtpTransport(MailSettings(**given))


async def register(data: DataLayer, email: str = EMAIL) -> str:
    """Register somebody by mail; the proof for the device."""
    request = await data.accounts.request_registration(
        email=email, password=PASSWORD, first_name="Visit https://spam.example", last_name="Other", by_mail=True
    )
    assert request.verification is None
    return request.proof


async def ask_for_reset(data: DataLayer, email: str = EMAIL) -> None:
    assert await data.accounts.request_password_reset(email, by_mail=True) is None


async def mails_of(data: DataLayer) -> list[MailView]:
    return list(await data.mails.list(SYSTEM))


async def make_due(data: DataLayer) -> None:
    """Let the time pass until each mail in the queue is tried again."""
    async with data.transaction() as tx:
        await tx.execute(text("UPDATE mails SET next_attempt_at = now() WHERE status = 'queued'"))


@pytest.mark.parametrize("tls", ["starttls", "tls", "none"])
async def test_a_mail_arrives(data: DataLayer, tmp_path: Path, tls: str) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    values: dict[str, Any] = {"smtp_tls": tls}
    if tls != "none":
        values |= {"smtp_tls_ca": tmp_path / "ca.pem", "smtp_username": LOGIN[0], "smtp_password": SecretStr(LOGIN[1])}
    offered: dict[str, Any] = {} if tls == "none" else {tls: context, "needs_login": True}
    async with mail_server(**offered) as server:
        data.mails.send_with(transport_to(server, **values))
        with LogLines() as log:
            proof = await register(data)
            assert server.received == []

            assert await data.mails.deliver_due() == 1

            assert await data.mails.deliver_due() == 0
    [message] = server.received
    assert (server.receivers, server.logins) == ([EMAIL], tls != "none")
    [mail] = await mails_of(data)
    assert (mail.status, mail.attempts, mail.email, mail.last_error) == (MailStatus.SENT, 1, EMAIL, None)
    assert (message["Message-ID"], message["To"]) == (mail.message_id, EMAIL)
    assert parsedate_to_datetime(message["Date"]) == mail.created_at.replace(microsecond=0)
    assert message["Subject"] == "Verify your address"
    assert link_of(message) in text_of(message, "html")
    assert "spam.example" not in message.as_string(), "the name of an address that nobody has verified"
    assert await places_of(data, [token_of(message)], log.lines) == []
    verified = await data.accounts.verify_email(token_of(message), proof=proof)
    assert verified.password_choice is None


async def test_a_server_that_cannot_be_trusted_learns_nothing(data: DataLayer, tmp_path: Path) -> None:
    authority, other = trustme.CA(), trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    contexts = []
    for certificate in (authority.issue_cert("mail.elsewhere.example"), other.issue_cert("127.0.0.1")):
        contexts.append(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        certificate.configure_cert(contexts[-1])
    login = {"smtp_username": LOGIN[0], "smtp_password": SecretStr("wrong"), "smtp_tls_ca": tmp_path / "ca.pem"}
    right = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(right)
    await register(data)
    for offered, wanted in (
        ({"starttls": contexts[0]}, "starttls"),
        ({"tls": contexts[0]}, "tls"),
        ({"tls": contexts[1]}, "tls"),
        ({}, "starttls"),
        ({"tls": right, "needs_login": True}, "tls"),
    ):
        async with mail_server(**offered) as server:
            data.mails.send_with(transport_to(server, smtp_tls=wanted, **login))
            await make_due(data)
            with pytest.raises(MailServerError, match="cannot be used"):
                await data.mails.deliver_due()
        assert (server.received, server.logins) == ([], 0)
    # It is the operator's fault and no mail's: it is sent when that is repaired.
    [mail] = await mails_of(data)
    assert (mail.status, mail.attempts) == (MailStatus.QUEUED, 5)
    assert "535" in str(mail.last_error)
    assert "wrong" not in str(mail.last_error)


async def test_what_a_server_refuses(data: DataLayer) -> None:
    await register(data)
    await register(data, "nobody@example.com")
    quoted: list[str] = []

    async def quote(message: EmailMessage) -> str | None:
        if message["To"] != EMAIL:
            return None
        quoted.append(token_of(message))
        return f"554 5.7.1 spam: {quoted[0]}"

    async with mail_server() as server:
        data.mails.send_with(transport_to(server))
        server.content_reply = quote
        server.refused = {"nobody@example.com": "450 4.2.1 greylisted, try again"}
        with LogLines() as log:
            assert await data.mails.deliver_due() == 0
        later, refused = await mails_of(data)
        assert (refused.status, later.status) == (MailStatus.FAILED, MailStatus.QUEUED)
        assert str(refused.last_error).endswith("554 5.7.1 spam: …")
        assert later.last_error is not None
        assert "450" in later.last_error
        assert later.next_attempt_at > datetime.now(UTC)
        assert await places_of(data, quoted, [line for line in log.lines if "aiosmtpd" not in line]) == []
        assert await data.mails.deliver_due() == 0

        server.refused = {"nobody@example.com": "550 5.1.1 no such user"}
        await make_due(data)
        assert await data.mails.deliver_due() == 0
        assert [mail.status for mail in await mails_of(data)] == [MailStatus.FAILED] * 2
        server.refused, server.content_reply = {}, None
        assert (await data.mails.retry(SYSTEM, refused.id)).status is MailStatus.QUEUED
        assert await data.mails.deliver_due() == 1
        assert token_of(server.received[0]) == quoted[0], "the same link as in the first attempt"
        with pytest.raises(ConflictError, match="was sent"):
            await data.mails.retry(SYSTEM, refused.id)


async def test_a_mail_that_is_late_is_given_up(data: DataLayer) -> None:
    await register(data)
    async with data.transaction() as tx:
        await tx.execute(text("UPDATE mails SET expires_at = now() + interval '1 second'"))
    async with mail_server() as server:
        server.refused = {EMAIL: "450 later"}
        data.mails.send_with(transport_to(server))
        assert await data.mails.deliver_due() == 0
    [mail] = await mails_of(data)
    assert mail.status is MailStatus.FAILED


async def test_a_server_that_says_nothing(data: DataLayer) -> None:
    await register(data)
    never = asyncio.Event()

    async def wait(_message: EmailMessage) -> str | None:
        await never.wait()
        return None

    async with mail_server() as server:
        server.content_reply = wait
        data.mails.send_with(transport_to(server, smtp_timeout=0.2))
        with pytest.raises(MailServerError, match="cannot be used"):
            await data.mails.deliver_due()
        never.set()
    [mail] = await mails_of(data)
    assert mail.status is MailStatus.QUEUED


@pytest.mark.slow
async def test_a_process_that_dies_while_it_sends(data: DataLayer, settings: Settings) -> None:
    """The worst moment: the server has taken the mail, and nobody has recorded that."""
    await register(data)
    children: list[int] = []

    async def kill(_message: EmailMessage) -> str | None:
        if children:
            os.kill(children.pop(), signal.SIGKILL)
        return None

    async with mail_server() as server:
        server.content_reply = kill

        async def send() -> None:
            async with DataLayer(settings) as child:
                child.mails.send_with(transport_to(server))
                await child.mails.deliver_due()

        child = forked(send)
        children.append(child)
        await asyncio.to_thread(os.waitpid, child, 0)
        [mail] = await mails_of(data)
        assert (mail.status, mail.attempts, len(server.received)) == (MailStatus.QUEUED, 1, 1)
        data.mails.send_with(transport_to(server))
        assert await data.mails.deliver_due() == 0, "the lease keeps others away"

        await make_due(data)
        assert await data.mails.deliver_due() == 1

    first, again = server.received
    assert (first["Message-ID"], token_of(first)) == (again["Message-ID"], token_of(again))
    assert (await mails_of(data))[0].status is MailStatus.SENT
    await data.accounts.verify_email(token_of(first))


async def test_a_process_that_lost_its_lease_changes_nothing(data: DataLayer) -> None:
    await register(data)
    async with data.transaction() as tx:
        late = await tx.mails.claim(timedelta(0))
    async with data.transaction() as tx:
        assert await tx.mails.claim(timedelta(minutes=1)) is not None
        assert await tx.mails.claim(timedelta(minutes=1)) is None
    assert late is not None
    async with data.transaction() as tx:
        assert not await tx.mails.finish(late, MailStatus.FAILED, "late")
        assert not await tx.mails.postpone(late, timedelta(0), "late")
    [mail] = await mails_of(data)
    assert (mail.status, mail.last_error) == (MailStatus.QUEUED, None)


async def test_several_send_and_none_twice(data: DataLayer) -> None:
    for number in range(6):
        await register(data, f"user{number}@example.com")
    async with mail_server() as server:
        data.mails.send_with(transport_to(server))
        transports = [transport_to(server) for _ in range(3)]
        sent = await asyncio.gather(*(data.mails._delivery.deliver_due(transport) for transport in transports))
    assert (sum(sent), len(server.receivers), len(set(server.receivers))) == (6, 6, 6)


async def test_a_link_in_a_mail_works(data: DataLayer) -> None:
    """Of two that were asked for before the first was sent, only the last is: the other's link would work no more."""
    await make_account(data)
    await ask_for_reset(data)
    await pass_time(data, 301)
    await ask_for_reset(data)
    await register(data)  # The address is taken.
    async with mail_server() as server:
        data.mails.send_with(transport_to(server))
        assert await data.mails.deliver_due() == 2
        by_subject = {message["Subject"]: message for message in server.received}
        assert by_subject.keys() == {"Choose a new password", "You already have an account"}
        assert "#token" not in link_of(by_subject["You already have an account"])
        reset = by_subject["Choose a new password"]
        await data.accounts.reset_password(token_of(reset), NEW_PASSWORD)
        statuses = [mail.status for mail in await mails_of(data)]
        assert statuses == [MailStatus.SENT, MailStatus.SENT, MailStatus.DROPPED]
        assert await data.mails.link(SYSTEM, (await mails_of(data))[1].id) is None, "it was used"

        await pass_time(data, 301)
        await ask_for_reset(data)
        user = await data.accounts.find(SYSTEM, EMAIL)
        await data.accounts.delete(SYSTEM, user.id)
        assert await mails_of(data) == []
        assert await data.mails.deliver_due() == 0


async def test_nothing_is_queued_for_somebody_who_may_not_get_it(data: DataLayer) -> None:
    await make_account(data)
    await ask_for_reset(data, "nobody@example.com")
    await ask_for_reset(data)
    await ask_for_reset(data)  # Within five minutes.
    assert await data.accounts.request_email_verification(EMAIL, by_mail=True) is None
    assert [mail.kind for mail in await mails_of(data)] == [MailKind.RESET_PASSWORD]


async def test_templates_of_an_operator(settings: Settings, data: DataLayer, tmp_path: Path) -> None:
    await register(data)
    folder = tmp_path / "templates"
    folder.mkdir()
    template = folder / "verify_email.txt"
    template.write_text("Subject: Willkommen, {{ unknown }}\n{{ link }}")
    async with mail_server() as server, DataLayer(settings.replaced(mail_templates=folder, mail_from=SENDER)) as own:
        own.mails.send_with(transport_to(server))
        for wrong in ("Subject: {{ unknown }}", "{{ link }}", "Subject: {% if %}", "Subject: {{ link.x(1) }}", ""):
            template.write_text(wrong)
            await make_due(data)
            own.mails._delivery._renderer._templates = None  # As after another start.
            assert await own.mails.deliver_due() == 0
            [mail] = await mails_of(data)
            assert mail.status is MailStatus.QUEUED
            assert "verify_email.txt" in str(mail.last_error), mail.last_error
            assert "#token" not in str(mail.last_error)
        template.write_text("Subject: Willkommen\r\nBcc: eve@example.com {{ email }}\n\nHier: {{ link }} & gültig")
        await make_due(data)
        own.mails._delivery._renderer._templates = None
        assert await own.mails.deliver_due() == 1
    [message] = server.received
    assert (message["Subject"], message["Bcc"], server.receivers) == ("Willkommen", None, [EMAIL])
    assert "gültig" in text_of(message)
    assert "Verify my address" in text_of(message, "html"), "those that are not replaced stay"


async def test_who_sees_mails(data: DataLayer) -> None:
    admin = await make_account(data, "admin@example.com", role=UserRole.ADMIN)
    moderator = await make_account(data, "moderator@example.com", role=UserRole.MODERATOR)
    await register(data)
    [mail] = await mails_of(data)
    assert await data.mails.list(Actor.user(admin.id, admin.role), status=MailStatus.QUEUED) == [mail]
    for actor in (Actor.user(moderator.id, moderator.role), Actor.user(moderator.id, UserRole.ADMIN)):
        for call in (data.mails.list(actor), data.mails.get(actor, mail.id), data.mails.retry(actor, mail.id)):
            with pytest.raises(PermissionDeniedError):
                await call
    with pytest.raises(PermissionDeniedError, match="never in production"):
        await data.mails.link(Actor.user(admin.id, admin.role), mail.id)
    link = await data.mails.link(SYSTEM, mail.id)
    assert link is not None
    await data.accounts.verify_email(link.partition("#token=")[2])
    for missing in (data.mails.get, data.mails.retry, data.mails.link):
        with pytest.raises(NotFoundError):
            await missing(SYSTEM, uuid7())
    with pytest.raises(ConflictError, match="SMTP_HOST"):
        await data.mails.deliver_due()
    assert await data.mails.list(SYSTEM, after=mail.id) == []
    assert await data.mails.list(SYSTEM, user_id=admin.id) == []


async def test_old_mails_are_removed(data: DataLayer) -> None:
    user = await make_account(data)
    long_ago = datetime.now(UTC) - timedelta(days=31)
    async with data.transaction() as tx:
        for status in MailStatus:
            tx.add(
                Mail(
                    id=id_at(long_ago),
                    user_id=user.id,
                    kind=MailKind.ADDRESS_TAKEN,
                    status=status,
                    message_id="<x@y>",
                    expires_at=long_ago,
                )
            )
    await ask_for_reset(data)
    assert (await data.maintenance.run(SYSTEM, dry_run=True)).mails_removed == 3
    assert (await data.maintenance.run(SYSTEM)).mails_removed == 3
    assert [mail.status for mail in await mails_of(data)] == [MailStatus.QUEUED, MailStatus.QUEUED]


async def test_mails_go_out_while_the_service_runs(data: DataLayer) -> None:
    """At once; and again when the mail server is back, without a word from anybody."""
    async with mail_server() as server:
        port = server.port
        data.mails.send_with(transport_to(server))
        async with data.mails.delivering():
            await register(data)
            await until(lambda: len(server.received) == 1)
    async with mail_server() as server:
        server.content_reply = lambda _message: asyncio.sleep(0.1, None)
        gone = MailServer(port=port)
        data.mails.send_with(transport_to(gone))
        async with data.mails.delivering():
            await register(data, "bob@example.com")
        await make_due(data)
        data.mails.send_with(transport_to(server))
        async with data.mails.delivering():
            await until(lambda: bool(server.received), 10)
        statuses = [mail.status for mail in await mails_of(data)]
    assert statuses == [MailStatus.SENT, MailStatus.SENT], "the end waits for what is under way"


async def test_a_server_is_checked_without_a_mail() -> None:
    async with mail_server() as server:
        await transport_to(server).check()
    with pytest.raises(DataLayerError) as caught:
        await transport_to(server).check()
    assert caught.value.code == "mail_server_unavailable"
    assert str(server.port) in str(caught.value)
