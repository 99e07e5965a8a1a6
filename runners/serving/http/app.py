"""The app: its routes, and every error in one shape.

The page at `/`: one file, whose policy allows its own style and script by their hashes and nothing else.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from sse_starlette.sse import AppStatus

from rag.errors import Problem
from rag.version import __version__
from runners.serving.http import chat, lookups
from runners.serving.http.errors import ApiError, as_api_error
from runners.serving.http.metrics import METRICS_CONTENT_TYPE
from runners.serving.http.middleware import AccessRules, AsgiApp, LimitsMiddleware
from runners.serving.http.request_models import (
    ChatRequest,
    CompletionRequest,
    EmbeddingRequest,
    SearchRequest,
)
from runners.serving.http.service import ClientDisconnected, Service


def index_page() -> tuple[str, dict[str, str]]:
    """Return the page and the headers it is sent with."""
    text = Path(__file__).with_name("ask.html").read_text("utf-8")
    style, script = (_hash(_inside(text, tag)) for tag in ("style", "script"))
    policy = (
        f"default-src 'none'; style-src '{style}'; script-src '{script}'; connect-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'; img-src data:"
    )
    return text, {"Content-Security-Policy": policy}


def _inside(text: str, tag: str) -> str:
    (found,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.S)
    return str(found)


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"description": what}
    for status, what in {
        400: "Not understood or not supported.",
        401: "No valid token.",
        404: "No such model or path.",
        413: "Too much.",
        422: "A field of the wrong kind, or an answer of another form than asked for.",
        429: "Too often.",
        503: "The queue is full; Retry-After says when to come again.",
    }.items()
}


def create_app(service: Service, house: AccessRules) -> AsgiApp:
    """The guarded app of a service, whose clerk it starts and stops."""
    # Streams end by themselves: they must not be broken off as soon as the server is told to stop.
    AppStatus.disable_automatic_graceful_drain()
    app = FastAPI(
        title="tunewise",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        lifespan=_working(service),
        description="One run, OpenAI-compatible. What is tunewise's own stands in `x_tunewise`.",
        responses=ERRORS,
    )
    _talks(app, service)
    _looks(app, service)
    _errors(app)
    guarded: AsgiApp = LimitsMiddleware(app, house, service.meters.request)
    if house.origins:
        from fastapi.middleware.cors import CORSMiddleware

        guarded = CORSMiddleware(
            guarded,
            allow_origins=list(house.origins),
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=["Retry-After"],
        )
    return guarded


def _working(service: Service) -> Any:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.clerk.start()
        service.meters.watch(lambda: service.clerk.waiting, lambda: bool(service.clerk.stale))
        yield
        service.clerk.stop()

    return lifespan


def _talks(app: FastAPI, service: Service) -> None:
    @app.post("/v1/chat/completions")
    async def chat_completions(want: ChatRequest, request: Request) -> Response:
        """Answer a chat, whole or as it is made."""
        return await chat.chat_completion(service, want, request)

    @app.post("/v1/completions")
    async def completions(want: CompletionRequest, request: Request) -> Response:
        """Go on with a text, or let an arm answer it."""
        return await chat.text_completion(service, want, request)

    @app.post("/v1/embeddings")
    async def embeddings(want: EmbeddingRequest, request: Request) -> dict[str, Any]:
        """Turn texts into vectors."""
        return await lookups.create_embeddings(service, want, request)

    @app.post("/v1/search")
    async def search(want: SearchRequest, request: Request) -> dict[str, Any]:
        """Search the index."""
        return await lookups.search_passages(service, want, request)


def _looks(app: FastAPI, service: Service) -> None:
    text, headers = index_page()

    @app.api_route("/", methods=["GET", "HEAD"], response_class=HTMLResponse, include_in_schema=False)
    async def root() -> HTMLResponse:
        return HTMLResponse(text, headers=headers)

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        """List what can be asked, the default first."""
        return service.models()

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        """Tell of one of them."""
        rows = service.models()["data"]
        found: dict[str, Any] | None = next((row for row in rows if row["id"] == name), None)
        if found is None:
            service.choice(name)
        return found or {}

    @app.get("/v1/passages")
    def passages(doc: str, start: int, end: int, generation: int) -> dict[str, Any]:
        """Return the text that a citation names."""
        return lookups.read_passage(service, doc, start, end, generation)

    @app.head("/health", include_in_schema=False)
    @app.get("/health")
    async def health() -> JSONResponse:
        """Say whether questions are answered."""
        good = service.clerk.alive
        body = {
            "status": "ok" if good else "stopped",
            "waiting": service.clerk.waiting,
            "stale": bool(service.clerk.stale),
            "version": __version__,
        }
        return JSONResponse(body, 200 if good else 503)

    @app.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """Count, in Prometheus' format."""
        return Response(service.meters.text(), media_type=METRICS_CONTENT_TYPE)


def _errors(app: FastAPI) -> None:
    def say(found: ApiError, **more: str) -> JSONResponse:
        return JSONResponse(found.body, found.status, {**found.headers, **more})

    @app.exception_handler(ApiError)
    async def refused(request: Request, error: ApiError) -> JSONResponse:
        return say(error)

    @app.exception_handler(Problem)
    async def problem(request: Request, error: Problem) -> JSONResponse:
        return say(as_api_error(error))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        if first["type"] == "json_invalid":
            return say(ApiError(400, "the body is not valid JSON", code="invalid_json"))
        place = ".".join(str(part) for part in first["loc"][1:] if not _is_kind(part))[:200] or None
        return say(ApiError(422, f"{place or 'the body'}: {first['msg']}", param=place, code=first["type"]))

    @app.exception_handler(HTTPException)
    @app.exception_handler(400)
    @app.exception_handler(404)
    @app.exception_handler(405)
    async def plain(request: Request, error: Exception) -> JSONResponse:
        status = getattr(error, "status_code", 500)
        message = {404: "there is no such path", 405: "this path does not take that method"}.get(
            status, "the body is not valid JSON" if status == 400 else "the request failed"
        )
        return say(ApiError(status, message), **({"Allow": _allowed(app, request)} if status == 405 else {}))

    @app.exception_handler(ClientDisconnected)
    async def gone(request: Request, error: ClientDisconnected) -> Response:
        return Response(status_code=499)

    @app.exception_handler(Exception)
    async def bug(request: Request, error: Exception) -> JSONResponse:
        return say(as_api_error(error))


def _is_kind(part: int | str) -> bool:
    """Whether a part of a fault's place names one of a field's kinds, as in `stop.list[str].0`, and no field."""
    return isinstance(part, str) and (part == "str" or "[" in part)


def _allowed(app: FastAPI, request: Request) -> str:
    """The methods that a path takes."""
    routes: list[Any] = [route for route in app.routes if hasattr(route, "path_regex")]
    found = [route.methods or () for route in routes if route.path_regex.match(request.scope["path"])]
    return ", ".join(sorted({method for methods in found for method in methods}))
