"""What the values that the service answers have in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, PrivateAttr


class Answer(BaseModel):
    """A value of the API: it cannot be changed, and lets pass the fields that a newer service sends."""

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())

    _etag: str | None = PrivateAttr(None)

    @property
    def etag(self) -> str | None:
        """The ETag that came with it, for ``if_match``; None where there was none."""
        return self._etag

    def remember(self, etag: str | None) -> None:
        """Note the ETag of the answer."""
        self._etag = etag
