"""Mails to people with accounts: a queue in PostgreSQL, and what sends from it."""

from data_layer.services.mails.queue import MailQueue
from data_layer.services.mails.service import MailService
from data_layer.services.mails.transport import MailTransport, SmtpTransport

__all__ = ["MailQueue", "MailService", "MailTransport", "SmtpTransport"]
