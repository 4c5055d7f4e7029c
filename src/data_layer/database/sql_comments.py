"""A comment in each statement that says which request it belongs to, in the form of sqlcommenter.

See https://google.github.io/sqlcommenter/spec: keys in order, values percent-encoded and in quotes. Correlation ids
come from clients; of an encoded value only letters, digits and ``_.-~%`` are left, so nothing in it can end a comment
or a quote.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from data_layer.context import current_context
from data_layer.database.statements import Sql

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from data_layer.database.statements import Statement

_LONGEST_VALUE = 255


class SqlComments:
    """Writes the comments.

    Args:
        traceparent: tells the current span, in the form of W3C's ``traceparent``, if there is one.
    """

    def __init__(self, traceparent: Callable[[], str | None] | None = None) -> None:
        self.traceparent = traceparent

    def add(self, sql: str, *, has_parameters: bool) -> str:
        """The statement with its comment; without a request to name it stays as it is.

        Args:
            sql: one statement.
            has_parameters: whether the driver looks for placeholders in it, so that a percent sign must be doubled.
        """
        comment = self._comment()
        return f"{sql} {comment.replace('%', '%%') if has_parameters else comment}" if comment else sql

    def add_to_all(self, statements: Sequence[Statement]) -> list[Statement]:
        """The statements with their comments."""
        return [(Sql(sql.name, self.add(sql, has_parameters=values is not None)), values) for sql, values in statements]

    def _comment(self) -> str:
        values: dict[str, Any] = {
            "correlation_id": current_context().correlation_id,
            "traceparent": self.traceparent() if self.traceparent else None,
        }
        pairs = (f"{name}='{_encoded(value)}'" for name, value in values.items() if value)
        text = ",".join(pairs)
        return f"/*{text}*/" if text else ""


def _encoded(value: str) -> str:
    return quote(value[:_LONGEST_VALUE], safe="", errors="replace")
