"""Tokens for clients that hold no cookie: JWTs for access, bound to a session, and refresh tokens."""

from data_layer.services.tokens.service import TokenService

__all__ = ["TokenService"]
