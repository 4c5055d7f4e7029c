"""The application of FastAPI, without what it would do a second time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

if TYPE_CHECKING:
    from data_layer.web.authentication import People


class Application(FastAPI):
    """Calls our middlewares first, and what FastAPI's own routes need behind them.

    FastAPI would put up to three of its own before them, which answer what crashes, limit bodies and trace. Ours do
    that, and each costs every request.

    Attributes:
        people: what the routes for people work with. Not in ``state``, whose attributes Starlette finds by a function.
    """

    people: People

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102  (ASGI)
        if self.middleware_stack is None:
            self.middleware_stack = self.build_middleware_stack()
        scope["app"] = self
        await self.middleware_stack(scope, receive, send)

    def build_middleware_stack(self) -> ASGIApp:
        """Put the middlewares around what answers errors, the one that was added last outermost."""
        ours, self.user_middleware = self.user_middleware, []
        app: Any = super().build_middleware_stack()
        self.user_middleware = ours
        # What is inside depends on the version: some close the files of forms there, others in each route.
        while not isinstance(app, ExceptionMiddleware):
            app = app.app
        for middleware in reversed(ours):
            app = middleware.cls(app, *middleware.args, **middleware.kwargs)
        answer: ASGIApp = app
        return answer
