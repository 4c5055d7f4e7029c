"""The application of FastAPI, without what it would do a second time."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send


class Application(FastAPI):
    """Calls our middlewares first, and what FastAPI's own routes need behind them.

    FastAPI would put three of its own before them, which answer what crashes, limit bodies and trace. Ours do that,
    and each costs every request.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102  (ASGI)
        if self.middleware_stack is None:
            self.middleware_stack = self.build_middleware_stack()
        scope["app"] = self
        await self.middleware_stack(scope, receive, send)

    def build_middleware_stack(self) -> ASGIApp:
        """Put the middlewares around the router, the one that was added last outermost."""
        # It closes the files of forms.
        files_closed = AsyncExitStackMiddleware(self.router)
        app: ASGIApp = ExceptionMiddleware(files_closed, handlers=self.exception_handlers)
        for middleware in reversed(self.user_middleware):
            app = middleware.cls(app, *middleware.args, **middleware.kwargs)
        return app
