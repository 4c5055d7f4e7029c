"""Values that break a rule, and changes that contradict what is stored."""

from __future__ import annotations

from data_layer.errors.base import DataLayerError


class InvalidValueError(DataLayerError):
    """A value breaks a rule of its field. ``field`` names it where one field is to blame."""

    code = "invalid_value"

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class ValueTooLongError(InvalidValueError):
    """A text is longer than its column, or a row larger than its limit."""

    code = "value_too_long"


class InvalidTextError(InvalidValueError):
    """A text holds what PostgreSQL cannot store: a NUL character or a lone surrogate."""

    code = "invalid_text"


class IllegalStatusMoveError(InvalidValueError):
    """A status may not follow the one that the row has."""

    code = "illegal_status_move"


class WeakPasswordError(InvalidValueError):
    """A new password is too short, too common, or too close to the person's own data."""

    code = "weak_password"


class ConflictError(DataLayerError):
    """The change contradicts what is stored. ``field`` names the column where one is to blame."""

    code = "conflict"

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class DuplicateError(ConflictError):
    """A value that must be unique is already taken."""

    code = "duplicate"


class MissingReferenceError(ConflictError):
    """A row refers to another one that does not exist."""

    code = "missing_reference"


class StillReferencedError(ConflictError):
    """A row cannot be removed while others refer to it."""

    code = "still_referenced"


class AppendOnlyError(ConflictError):
    """An entry of the audit trail was to be changed or removed, which the database refuses."""

    code = "append_only"


class ChangedMeanwhileError(ConflictError):
    """Somebody else changed the thing since the caller read it. Read it again, and decide again."""

    code = "changed_meanwhile"


class LastAdminError(ConflictError):
    """The change would leave the system without an active administrator."""

    code = "last_admin"


class LastLoginMethodError(ConflictError):
    """The change would leave an account without any way to log in."""

    code = "last_login_method"
