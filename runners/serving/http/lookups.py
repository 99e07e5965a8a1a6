"""Embeddings, searches and the passages that citations open: what needs no answer of a model."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any, TypeVar

from fastapi import Request

from rag.errors import UsageProblem
from rag.index import GenerationReplaced
from rag.text.sanitize import strip_invisible
from runners.runs.run import RunSession
from runners.serving.http.errors import ApiError, as_api_error
from runners.serving.http.request_models import EmbeddingRequest, SearchRequest
from runners.serving.http.service import EventLoopBridge, Service, unknown_served_model, until_disconnected
from runners.serving.request import ModelJob, RunUnusable, run_errors_as_unusable

CONTEXT_CHARS = 400
"""Characters shown before and after a cited span."""
MAX_PASSAGE_CHARS = 20_000
Read = TypeVar("Read")


async def create_embeddings(service: Service, want: EmbeddingRequest, request: Request) -> dict[str, Any]:
    """Embed texts as documents are."""
    want.refuse_unsupported()
    if service.embedder is None:
        raise unknown_served_model(want.model or "(an embedder)", "none that embeds: this run has no index")
    if want.model not in (None, service.embedder):
        raise unknown_served_model(str(want.model), service.embedder)
    texts = [want.input] if isinstance(want.input, str) else want.input
    if not 1 <= len(texts) <= service.limits.inputs or not all(texts):
        raise ApiError(400, f"input takes 1 to {service.limits.inputs} texts, none empty", param="input")
    if sum(map(len, texts)) > service.limits.characters:
        raise ApiError(413, f"input has more than {service.limits.characters:,} characters", param="input")

    def work(session: RunSession) -> tuple[Any, int] | ApiError:
        with run_errors_as_unusable("the embedder"):
            embedder = session.context.embedder
        if want.dimensions not in (None, embedder.dimension):
            return ApiError(400, f"dimensions: only {embedder.dimension} are made", param="dimensions")
        return embedder.encode(texts), sum(map(embedder.count_tokens, texts))

    vectors, tokens = await _done(service, work, request)
    as_text = want.encoding_format == "base64"
    rows = [
        {
            "object": "embedding",
            "index": index,
            "embedding": base64.b64encode(row.astype("<f4").tobytes()).decode() if as_text else row.tolist(),
        }
        for index, row in enumerate(vectors)
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": rows, "model": service.embedder, "usage": usage}


async def search_passages(service: Service, want: SearchRequest, request: Request) -> dict[str, Any]:
    """Search the run's index, as `tunewise index search --json` prints it, with the generation searched."""
    from rag.search.filters import Condition, parse_day
    from rag.search.query import Query

    _needs_index(service)
    if not want.query.strip() or len(want.query) > service.limits.characters:
        raise ApiError(400, f"query takes 1 to {service.limits.characters:,} characters", param="query")
    where, as_of = _read("where", Condition.parse, *want.where), _read("as_of", parse_day, want.as_of)
    query = Query(k=want.k, where=where, as_of=as_of[0], expired=want.expired)

    def work(session: RunSession) -> dict[str, Any]:
        with run_errors_as_unusable("the index"):
            index = session.context.index
            hits = index.find(want.query, query)
        return {**hits.to_json(), "generation": index.generation}

    found: dict[str, Any] = await _done(service, work, request)
    if ignored := want.ignored():
        found["ignored"] = ignored
    return found


def read_passage(service: Service, doc: str, start: int, end: int, generation: int) -> dict[str, Any]:
    """The text that a citation names, with what stands around it; Refusal when the index has moved on."""
    _needs_index(service)
    if not 0 <= start <= end <= start + MAX_PASSAGE_CHARS:
        raise ApiError(
            400, f"start and end must name a span of at most {MAX_PASSAGE_CHARS:,} characters", param="end"
        )
    moved = ApiError(404, "the documents have been updated since this answer: ask again", code="moved_on")
    try:
        with run_errors_as_unusable("the index"):
            index = service.session.context.index
            raw = index.raw(doc) if generation == index.generation else None
    except RunUnusable as problem:
        if isinstance(problem.__cause__, GenerationReplaced):
            raise moved from None
        service.meters.hear({"event": "serve.trouble", "reason": problem.reason})
        raise
    if generation != index.generation:
        raise moved
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


def _read(field: str, read: Callable[[Any], Read], *given: Any) -> tuple[Read, ...]:
    """What a field's values mean; their refusal names the field, not the command line's option."""
    try:
        return tuple(map(read, given))
    except UsageProblem as problem:
        said = problem.message.removeprefix("--as-of ")
        raise ApiError(400, f"{field}: {said}: {problem.hint}", param=field) from None


def _needs_index(service: Service) -> None:
    if service.session.plan.index is None:
        raise ApiError(404, "this run has no index", code="no_index")


async def _done(service: Service, work: Any, request: Request) -> Any:
    """Have something done on the clerk's thread, in its turn."""
    ear = EventLoopBridge(service.limits.seconds)
    errand = ModelJob(work, ear.hear, service.limits.seconds)
    service.clerk.put(errand)

    def leave() -> None:
        errand.left = True

    found = await until_disconnected(ear.next(), request.receive, leave)
    if isinstance(found, Exception):
        leave()
        raise as_api_error(found)
    return found
