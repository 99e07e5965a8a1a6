"""The handlers for embeddings, searches and cited passages."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any, TypeVar

from fastapi import Request

from rag.backends.files import GenerationReplaced
from rag.embedding.protocol import Encoder
from rag.errors import UsageProblem
from rag.search.filters import Condition, parse_day
from rag.search.query import Query
from rag.text.sanitize import strip_invisible
from rag.text.words import count_noun
from runners.runs.run import RunSession
from runners.serving.http.errors import ApiError, as_api_error
from runners.serving.http.request_models import EmbeddingRequest, SearchRequest
from runners.serving.http.service import EventLoopBridge, Service, unknown_served_model, until_disconnected
from runners.serving.request import ModelJob, RunUnusable, run_errors_as_unusable

CONTEXT_CHARS = 400
"""Characters shown before and after a cited span."""
MAX_PASSAGE_CHARS = 20_000
"""Most characters of one passage."""
Parsed = TypeVar("Parsed")


async def create_embeddings(service: Service, body: EmbeddingRequest, request: Request) -> dict[str, Any]:
    """Embed texts as the index embeds documents, or questions where ``input_type`` says so."""
    body.refuse_unsupported()
    if service.embedder is None:
        raise unknown_served_model(body.model or "(an embedder)", "none that embeds: this run has no index")
    if body.model not in (None, service.embedder):
        raise unknown_served_model(str(body.model), service.embedder)
    texts = [body.input] if isinstance(body.input, str) else body.input
    if not 1 <= len(texts) <= service.limits.inputs or not all(texts):
        raise ApiError(
            400, f"input takes 1 to {count_noun(service.limits.inputs, 'text')}, none empty", param="input"
        )
    if sum(map(len, texts)) > service.limits.characters:
        raise ApiError(413, f"input has more than {service.limits.characters:,} characters", param="input")

    def work(session: RunSession) -> tuple[Any, int] | ApiError:
        with run_errors_as_unusable("the embedder"):
            context = session.context
            arm = session.searched_arm
            embedder: Encoder = context.index_of(arm).encoder if context.plan.index else context.embedder
        if body.dimensions not in (None, embedder.dimension):
            return ApiError(400, f"dimensions: only {embedder.dimension} are made", param="dimensions")
        return embedder.encode(texts, query=body.input_type == "query"), sum(
            map(embedder.count_tokens, texts)
        )

    vectors, tokens = await _run_job(service, work, request)
    as_base64 = body.encoding_format == "base64"
    rows = [
        {
            "object": "embedding",
            "index": index,
            "embedding": base64.b64encode(row.astype("<f4").tobytes()).decode()
            if as_base64
            else row.tolist(),
        }
        for index, row in enumerate(vectors)
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": rows, "model": service.embedder, "usage": usage}


async def search_passages(service: Service, body: SearchRequest, request: Request) -> dict[str, Any]:
    """Search the run's index; the body is that of `tunewise index search --json`, with the generation searched."""
    _require_index(service)
    if not body.query.strip() or len(body.query) > service.limits.characters:
        raise ApiError(400, f"query takes 1 to {service.limits.characters:,} characters", param="query")
    where = _parse_field("where", Condition.parse, *body.where)
    (as_of,) = _parse_field("as_of", parse_day, body.as_of)
    query = Query(k=body.k, where=where, as_of=as_of, expired=body.expired)

    def work(session: RunSession) -> dict[str, Any]:
        with run_errors_as_unusable("the index"):
            index = session.context.index_of(session.searched_arm)
            hits = index.find(body.query, query)
        return {**hits.to_json(), "generation": index.generation}

    response: dict[str, Any] = await _run_job(service, work, request)
    if ignored := body.ignored():
        response["ignored"] = ignored
    return response


def read_passage(service: Service, doc: str, start: int, end: int, generation: int) -> dict[str, Any]:
    """Return the text that a citation names, with `CONTEXT_CHARS` before and after it.

    Args:
        service: the served run.
        doc: the document's id.
        start: first character of the span in the document's text.
        end: the character after the span.
        generation: the generation of the index that the citation was made from.

    Raises:
        ApiError: the index has a newer generation, or there is no such span.
    """
    _require_index(service)
    if not 0 <= start <= end <= start + MAX_PASSAGE_CHARS:
        raise ApiError(
            400, f"start and end must name a span of at most {MAX_PASSAGE_CHARS:,} characters", param="end"
        )
    outdated = ApiError(404, "the documents have been updated since this answer: ask again", code="moved_on")
    try:
        with run_errors_as_unusable("the index"):
            index = service.session.context.index_of(service.session.searched_arm)
            raw = index.raw(doc) if generation == index.generation else None
    except RunUnusable as problem:
        if isinstance(problem.__cause__, GenerationReplaced):
            raise outdated from None
        service.metrics.on_event({"event": "serve.trouble", "reason": problem.reason})
        raise
    if generation != index.generation:
        raise outdated
    if raw is None or end > len(raw):
        raise ApiError(404, "there is no such passage", code="no_passage")
    return {
        "schema": 1,
        "doc": doc,
        "generation": generation,
        "before": strip_invisible(raw[max(0, start - CONTEXT_CHARS) : start]),
        "text": strip_invisible(raw[start:end]),
        "after": strip_invisible(raw[end : end + CONTEXT_CHARS]),
    }


def _parse_field(field: str, parse: Callable[[Any], Parsed], *values: Any) -> tuple[Parsed, ...]:
    """Parse the values of a field; an error names the field, not the option of the command line."""
    try:
        return tuple(map(parse, values))
    except UsageProblem as problem:
        message = problem.message.removeprefix("--as-of ")
        raise ApiError(400, f"{field}: {message}: {problem.hint}", param=field) from None


def _require_index(service: Service) -> None:
    if service.session.plan.index is None:
        raise ApiError(404, "this run has no index", code="no_index")


async def _run_job(service: Service, work: Callable[[RunSession], Any], request: Request) -> Any:
    """Run work on the worker's thread, in its turn, and return its result."""
    bridge = EventLoopBridge(service.limits.seconds)
    job = ModelJob(work, bridge.put, service.limits.seconds)
    service.worker.submit(job)

    def cancel() -> None:
        job.cancelled = True

    result = await until_disconnected(bridge.next(), request.receive, cancel)
    if isinstance(result, Exception):
        cancel()
        raise as_api_error(result)
    return result
