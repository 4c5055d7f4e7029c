"""Sessions: from logging in to being logged out everywhere."""

from data_layer.services.sessions.copies import SessionCopies
from data_layer.services.sessions.service import SessionService

__all__ = ["SessionCopies", "SessionService"]
