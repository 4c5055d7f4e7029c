"""The ``audit_logs`` table: entries are added and read, never changed."""

from __future__ import annotations

from typing_extensions import override

from data_layer.context import current_context
from data_layer.entities import AuditLog
from data_layer.repositories.repository import AppendRepository


class AuditRepository(AppendRepository[AuditLog]):
    """Rows of ``audit_logs``: added and read, never changed."""

    entity = AuditLog

    @override
    def add(self, entity: AuditLog) -> None:
        """Insert the entry with the transaction; what it does not say itself is taken from the request's context."""
        complete(entity)
        super().add(entity)


def complete(entry: AuditLog) -> None:
    """Fill in from the context of the request who acted and from where, as far as the entry does not say it.

    Where somebody acts on behalf of another user, or with more rights than a user's, ``context`` tells who and as what.
    """
    context = current_context()
    if context.actor_id is not None:
        if entry.user_id is None:
            entry.user_id = context.actor_id
        elif entry.user_id != context.actor_id:
            entry.context.setdefault("actor_id", str(context.actor_id))
        if context.actor_role is not None and context.actor_role != "user":
            entry.context.setdefault("actor_role", str(context.actor_role))
    entry.ip_address = entry.ip_address or context.ip_address
    entry.user_agent = entry.user_agent or context.user_agent
    entry.correlation_id = entry.correlation_id or context.correlation_id
    entry.source = entry.source or context.source
    if entry.session_id is None and context.session_id is not None:
        entry.session_id = str(context.session_id)
