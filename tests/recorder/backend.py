"""A back end that speaks the protocol of Screenshot to Code, as its tests direct it. Written from the facts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

PNG = (
    "data:image/png;base64,"
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAEUlEQVR4nGM4ISeHFTEMLQkAkL9BAbKfPiIAAAAASU"
    "VORK5CYII="
)
SECRETS = {
    "openAiApiKey": "sk-secret-1",
    "openAiBaseURL": "https://user:secret-2@example.com",
    "replicateApiKey": "r8-secret-3",
    "anthropicApiKey": "sk-ant-secret-4",
    "geminiApiKey": "secret-5",
    "screenshotOneApiKey": "secret-6",
    "authToken": "secret-7",
}


def request(prompt: str = "A shop", **changes: Any) -> dict[str, Any]:
    """What the page sends for a create, with all settings spread into it."""
    sent: dict[str, Any] = {
        **SECRETS,
        "generatedCodeConfig": "html_tailwind",
        "codeGenerationModel": "claude-4-5-sonnet",
        "isImageGenerationEnabled": True,
        "editorTheme": "cobalt",
        "unknownOfTomorrow": "secret-8",
        "generationType": "create",
        "inputMode": "image",
        "history": [],
    }
    images = [] if "fileState" in changes else [PNG]
    return sent | {"prompt": {"text": prompt, "images": images, "videos": []}} | changes


def edit(code: str, others: list[str], prompt: str = "Make it blue", **changes: Any) -> dict[str, Any]:
    """What the page sends for an update of a variant with this code, in a version with these codes."""
    return request(
        prompt,
        generationType="update",
        fileState={"path": "index.html", "content": code},
        optionCodes=others,
        **changes,
    )


class Stage:
    """One connection, from inside of the application."""

    def __init__(self, websocket: WebSocket, params: dict[str, Any]) -> None:
        self._websocket = websocket
        self.params = params

    async def say(self, kind: str, variant: int | None = None, value: str | None = None, **more: Any) -> None:
        message: dict[str, Any] = {"type": kind}
        if value is not None:
            message["value"] = value
        if variant is not None:
            message["variantIndex"] = variant
        await self._websocket.send_text(json.dumps(message | more, separators=(",", ":")))

    async def complete(self, *codes: str) -> None:
        """Everything that is said of variants with these codes; one without code fails."""
        await self.say("variantCount", 0, str(len(codes)))
        for index, code in enumerate(codes):
            await self.say("thinking", index, "Let me ", eventId=f"think-{index}")
            await self.say("thinking", index, "see.", eventId=f"think-{index}")
            for end in range(0, len(code) + 7, 7):
                await self.say("setCode", index, code[:end])
        for index, code in enumerate(codes):
            if code:
                await self.say("variantComplete", index)
            else:
                await self.say("variantError", index, f"variant {index} failed")

    async def complete_after(self, pause: asyncio.Event) -> None:
        """``<p>half</p>`` as the only variant, with a pause in the middle of it."""
        await self.say("variantCount", 0, "1")
        await self.say("setCode", 0, "<p>ha")
        await pause.wait()
        for end in range(5, 12):
            await self.say("setCode", 0, "<p>half</p>"[:end])
        await self.say("variantComplete", 0)

    async def fail(self, text: str) -> None:
        await self.say("error", None, text)
        await self._websocket.close(4332)


Play = Callable[[Stage], Awaitable[None]]


class Backend:
    """The application; ``play`` is what happens on the next connections."""

    def __init__(self) -> None:
        self.play: Play = _nothing
        self.lifespan: list[str] = []
        self.was_cancelled = asyncio.Event()
        self.has_ended = asyncio.Event()
        self.received: list[dict[str, Any]] = []
        self.assets: dict[str, bytes] = {}
        self.addresses: list[tuple[str, str | None]] = []
        """Where it was reached, and from where, of its calls and WebSockets."""
        self.application = Starlette(
            routes=[
                Route("/", self._home),
                Route("/api/capabilities", self._capabilities),
                Route("/evals", self._evals),
                Route("/api/export", self._capabilities, methods=["POST"]),
                Route("/local-assets/{name}", self._asset),
                WebSocketRoute("/generate-code", self._generate),
            ],
            lifespan=self._live,
        )

    @asynccontextmanager
    async def _live(self, _app: Starlette) -> AsyncIterator[None]:
        self.lifespan.append("started")
        yield
        self.lifespan.append("stopped")

    async def _home(self, _request: Request) -> Response:
        return PlainTextResponse("Your backend is running correctly.")

    async def _capabilities(self, sent: Request) -> Response:
        self._note_address(sent)
        return JSONResponse({"capable": True})

    async def _evals(self, _request: Request) -> Response:
        return JSONResponse({"detail": "folder is missing"}, 422)

    def _note_address(self, sent: HTTPConnection) -> None:
        self.addresses.append((str(sent.url), None if sent.client is None else sent.client.host))

    async def _asset(self, sent: Request) -> Response:
        content = self.assets.get(sent.path_params["name"])
        return PlainTextResponse("Not Found", 404) if content is None else Response(content, media_type="image/png")

    async def _generate(self, websocket: WebSocket) -> None:
        self._note_address(websocket)
        await websocket.accept()
        params = json.loads(await websocket.receive_text())
        self.received.append(params)
        self.has_ended.clear()
        try:
            await self.play(Stage(websocket, params))
            if websocket.application_state.name == "CONNECTED":
                await websocket.close()
        except asyncio.CancelledError:
            self.was_cancelled.set()
            raise
        finally:
            self.has_ended.set()


async def _nothing(_stage: Stage) -> None:
    pass
