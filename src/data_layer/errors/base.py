"""The root of all errors, and those that belong to no part in particular."""

from __future__ import annotations

from typing import ClassVar


class DataLayerError(Exception):
    """The root: catching it catches everything that the data layer raises on purpose."""

    code: ClassVar[str] = "data_layer_error"


class ConfigurationError(DataLayerError):
    """The settings cannot be used. ``problems`` holds every problem found, not only the first."""

    code = "configuration_invalid"

    def __init__(self, *problems: str) -> None:
        super().__init__("The configuration cannot be used:\n" + "\n".join(f"  - {problem}" for problem in problems))
        self.problems = problems


class NotInitializedError(DataLayerError):
    """The data layer was used before it was opened or after it was closed."""

    code = "not_initialized"


class EmbeddedServerError(DataLayerError):
    """An embedded PostgreSQL or Valkey could not be started or stopped."""

    code = "embedded_server_failed"


class FolderInUseError(EmbeddedServerError):
    """Another service already runs on the same data folder."""

    code = "folder_in_use"


class WorkerFailedError(DataLayerError):
    """A worker of the service ended by itself; ``code`` is that of its error, if it could say one."""

    code = "worker_failed"

    def __init__(self, message: str, code: str | None = None) -> None:
        super().__init__(message)
        if code is not None:
            vars(self)["code"] = code  # That of an error of another process, whose class is not known here.


class NotFoundError(DataLayerError):
    """No row has this id, or the caller may not know that it exists."""

    code = "not_found"


class OverloadedError(DataLayerError):
    """More passwords wait to be checked than this process can check in time. Try again in a few seconds."""

    code = "overloaded"


class TooManyRequestsError(DataLayerError):
    """A network sent more requests than it may. ``retry_after`` says after how many seconds to try again."""

    code = "too_many_requests"

    def __init__(self, message: str, *, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after
