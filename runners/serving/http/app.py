"""The FastAPI application: its routes, and error handlers that give every error OpenAI's shape.

`create_app` is the entry point. The page at `/` is one file; its Content-Security-Policy allows the page's own style
and script by their hashes, and nothing else.
"""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from sse_starlette.sse import AppStatus

from rag.errors import Problem
from rag.version import __version__
from runners.plan.arm_names import split_arm
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

ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"description": description}
    for status, description in {
        400: "Not understood or not supported.",
        401: "No valid token.",
        404: "No such model or path.",
        413: "Too much.",
        422: "A field of the wrong kind, or an answer of another form than asked for.",
        429: "Too often.",
        503: "The queue is full; Retry-After says when to try again.",
    }.items()
}
"""The error statuses and their descriptions in the OpenAPI document."""


def index_page(
    name: str, goal: str = "", words: Mapping[str, str] | None = None, notice: str = ""
) -> tuple[str, dict[str, str]]:
    """Return the HTML of the page and the headers it is sent with.

    Args:
        name: the name of the run's plan, the page's title.
        goal: what the run is for, as answered in the questionnaire; "" when it was not.
        words: what the models in the list are, a few words for each name.
        notice: what people who ask are told, such as that questions are written to a log; "" for nothing.
    """
    text = Path(__file__).with_name("ask.html").read_text("utf-8")
    headers = page_headers(text)
    # after the hashes: neither style nor script holds a placeholder
    text = text.replace("$name", html.escape(name)).replace("$goal", html.escape(goal))
    text = text.replace("$notice", html.escape(notice))
    items = "".join(
        f"<dt>{html.escape(word)}</dt><dd>{html.escape(meaning)}</dd>"
        for word, meaning in (words or {}).items()
    )
    text = text.replace("$words", items)
    return text, headers


def page_headers(text: str) -> dict[str, str]:
    """Return the headers of a page that is one file: they allow its own style and script, and requests to its server.

    Args:
        text: the HTML, with one style and one script; both as they are sent.
    """
    style, script = (_csp_hash(_tag_content(text, tag)) for tag in ("style", "script"))
    policy = (
        f"default-src 'none'; style-src '{style}'; script-src '{script}'; connect-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'; img-src data:"
    )
    return {"Content-Security-Policy": policy}


def _tag_content(text: str, tag: str) -> str:
    (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.S)
    return str(content)


def _csp_hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def create_app(service: Service, access: AccessRules, words: Mapping[str, str] | None = None) -> AsgiApp:
    """Build the application behind its access checks; it starts and stops the service's worker.

    Args:
        service: the run to serve.
        access: which hosts, origins and tokens are accepted, and the limits of a request.
        words: what the names of arms mean, shown on the page for those that are served.
    """
    # Streams end by themselves: sse_starlette must not cut them off as soon as the server begins to stop.
    AppStatus.disable_automatic_graceful_drain()
    app = FastAPI(
        title="tunewise",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        lifespan=_lifespan(service),
        description="One run, OpenAI-compatible. What is tunewise's own is in `x_tunewise`.",
        responses=ERRORS,
    )
    _add_model_routes(app, service)
    _add_read_routes(app, service, words or {})
    add_error_handlers(app)
    guarded: AsgiApp = LimitsMiddleware(app, access, service.metrics.observe_request)
    if access.origins:
        from fastapi.middleware.cors import CORSMiddleware

        guarded = CORSMiddleware(
            guarded,
            allow_origins=list(access.origins),
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=["Retry-After"],
        )
    return guarded


def _lifespan(service: Service) -> Any:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.worker.start()
        service.metrics.watch_worker(
            lambda: service.worker.waiting, lambda: bool(service.worker.stale_reason)
        )
        service.metrics.watch_questions(lambda: service.session.retrieval.drift)
        servers = service.session.models.obtained.servers
        if servers is not None:
            service.metrics.watch_servers(servers.states)
        yield
        service.worker.stop()

    return lifespan


def _add_model_routes(app: FastAPI, service: Service) -> None:
    """Add the routes that use the run's models."""

    @app.post("/v1/chat/completions")
    async def chat_completions(body: ChatRequest, request: Request) -> Response:
        """Answer a chat, whole or streamed."""
        return await chat.chat_completion(service, body, request)

    @app.post("/v1/completions")
    async def completions(body: CompletionRequest, request: Request) -> Response:
        """Complete a text, or let an arm answer it."""
        return await chat.text_completion(service, body, request)

    @app.post("/v1/embeddings")
    async def embeddings(body: EmbeddingRequest, request: Request) -> dict[str, Any]:
        """Embed texts."""
        return await lookups.create_embeddings(service, body, request)

    @app.post("/v1/search")
    async def search(body: SearchRequest, request: Request) -> dict[str, Any]:
        """Search the index."""
        return await lookups.search_passages(service, body, request)


def _add_read_routes(app: FastAPI, service: Service, words: Mapping[str, str]) -> None:
    """Add the page, and the routes that need no model."""
    plan = service.session.plan
    goal = plan.answers.get("goal")
    arms = [split_arm(model.id) for model in service.models.values() if not model.raw]
    served = {method: words[method] for method, _ in arms if method in words}
    roots = {split_arm(model.id)[1]: model.root for model in service.models.values() if not model.raw}
    served |= {f"@{alias}": f"answered with {root}" for alias, root in roots.items() if alias}
    notice = service.log.notice if service.log else ""
    text, headers = index_page(plan.name, str(goal.value or "") if goal else "", served, notice)

    @app.api_route("/", methods=["GET", "HEAD"], response_class=HTMLResponse, include_in_schema=False)
    async def root() -> HTMLResponse:
        return HTMLResponse(text, headers=headers)

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        """List the models, the default first."""
        return service.models_body()

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        """Describe one model."""
        rows = service.models_body()["data"]
        row: dict[str, Any] | None = next((row for row in rows if row["id"] == name), None)
        if row is None:
            service.find_model(name)  # raises the error for an unknown name
        return row or {}

    @app.get("/v1/passages")
    def passages(doc: str, start: int, end: int, generation: int) -> dict[str, Any]:
        """Return the text that a citation names."""
        return lookups.read_passage(service, doc, start, end, generation)

    @app.head("/health", include_in_schema=False)
    @app.get("/health")
    async def health() -> JSONResponse:
        """Report whether requests are answered."""
        body, healthy = service.health()
        return JSONResponse({**body, "version": __version__}, 200 if healthy else 503)

    @app.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """Return the counters, in Prometheus' format."""
        return Response(service.metrics.render(), media_type=METRICS_CONTENT_TYPE)


def add_error_handlers(app: FastAPI) -> None:
    """Give every error of an application OpenAI's shape."""

    def respond(error: ApiError, **headers: str) -> JSONResponse:
        return JSONResponse(error.body, error.status, {**error.headers, **headers})

    @app.exception_handler(ApiError)
    async def api_error(request: Request, error: ApiError) -> JSONResponse:
        return respond(error)

    @app.exception_handler(Problem)
    async def problem(request: Request, error: Problem) -> JSONResponse:
        return respond(as_api_error(error))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        if first["type"] == "json_invalid":
            return respond(ApiError(400, "the body is not valid JSON", code="invalid_json"))
        field = ".".join(str(part) for part in first["loc"][1:] if not _is_type_name(part))[:200] or None
        message = f"{field or 'the body'}: {first['msg']}"
        return respond(ApiError(422, message, param=field, code=first["type"]))

    @app.exception_handler(HTTPException)
    @app.exception_handler(400)
    @app.exception_handler(404)
    @app.exception_handler(405)
    async def http_error(request: Request, error: Exception) -> JSONResponse:
        status = getattr(error, "status_code", 500)
        message = {404: "there is no such path", 405: "this path does not take that method"}.get(
            status, "the body is not valid JSON" if status == 400 else "the request failed"
        )
        allow = {"Allow": _allowed_methods(app, request)} if status == 405 else {}
        return respond(ApiError(status, message), **allow)

    @app.exception_handler(ClientDisconnected)
    async def disconnected(request: Request, error: ClientDisconnected) -> Response:
        return Response(status_code=499)

    @app.exception_handler(Exception)
    async def bug(request: Request, error: Exception) -> JSONResponse:
        return respond(as_api_error(error))


def _is_type_name(part: int | str) -> bool:
    """Return whether a part of pydantic's error location names a type, as in `stop.list[str].0`, and no field."""
    return isinstance(part, str) and (part == "str" or "[" in part)


def _allowed_methods(app: FastAPI, request: Request) -> str:
    """Return the methods that the request's path takes, for the Allow header."""
    routes: list[Any] = [route for route in app.routes if hasattr(route, "path_regex")]
    per_route = [route.methods or () for route in routes if route.path_regex.match(request.scope["path"])]
    return ", ".join(sorted({method for methods in per_route for method in methods}))
