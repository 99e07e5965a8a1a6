"""Parts of docs/scale.md on retrieval and serving, every figure computed by the formulas of the benchmarks."""

from __future__ import annotations

import re
from collections.abc import Iterable
from textwrap import wrap

from advisor.costs.hosting import DECODE_SHARE, PREFILL_SHARE
from benchmarks.published_retrieval import Q4_BITS, RETRIEVAL_FIGURES, VECTORCHORD
from benchmarks.retrieval_scale import (
    CACHE_SHARE,
    CHUNK_TOKENS,
    CPU_CORE_FLOPS,
    EMBEDDING_SHARE,
    ENGINE_GIB,
    FILES_MEASURED,
    INDEXES_MEASURED,
    LAPTOP,
    LAPTOP_CORES,
    MACHINE_GIB,
    MACHINE_GIB_MONTH,
    MAX_REQUESTS,
    MINILM,
    OBJECT_GB_MONTH,
    QUESTION_TOKENS,
    REPLY_TOKENS,
    SUB_VECTOR_VALUES,
    ChunkTexts,
    Serving,
    bytes_per_chunk,
    cache_token_bytes,
    cpu_embedding_seconds,
    disk_bytes,
    embedding_seconds,
    hnsw_build_seconds,
    index_parts,
    ivf_build_seconds,
    machine_usd_month,
    posting_bytes_read,
    text_bytes,
    vector_cache_bytes,
    weight_bytes_held,
    words_bytes,
)
from benchmarks.scale import card, named_shape
from rag.stores.capacity import flat_bytes, hnsw_bytes, ivf_bytes
from runners.resources.machine import GIB
from scripts.pages import Part, table
from scripts.scale_text import (
    ANSWER_NOTE,
    ANSWER_TEXT,
    BUILD_NOTE,
    FILES_TEXT,
    LINKS,
    MEASURED_TEXT,
    PLAN_TEXT,
    PUBLISHED_TEXT,
    SIZE_TEXT,
)

SIZES = ((10_000, "10 k"), (1_000_000, "1 M"), (10_000_000, "10 M"), (50_000_000, "50 M"), (10**9, "1 B"))
DIMENSION = 384
VECTOR_KINDS = {
    "flat": "exact vectors with ids (files)",
    "sq8": "8-bit codes in inverted lists (files, beside the exact vectors)",
    "pq": f"codes of a byte for {SUB_VECTOR_VALUES} values in inverted lists",
    "lance": "LanceDB: vectors, and such codes",
    "hnsw": "pgvector: HNSW, vector",
    "hnsw-half": "pgvector: HNSW, halfvec",
    "table": "pgvector: table of vectors",
    "table-half": "pgvector: the same, halfvec",
}
BACKENDS = {"files": "files", "postgresql": "PostgreSQL", "lancedb": "LanceDB"}
PARTS_MEASURED = ("vectors", "vector index", "texts", "words", "vector cache")
CARD = "H100 80GB"
CARDS = 8
"""GPUs that embed where the table says several."""
CORES = 16
"""Cores of a server that builds an index."""


def retrieval_parts() -> dict[str, Part]:
    """Return the generated parts of docs/scale.md on retrieval and serving."""
    return {
        "index-sizes": index_sizes,
        "index-plans": index_plans,
        "files-measured": files_measured,
        "answering": answering,
        "retrieval-figures": retrieval_figures,
    }


def index_sizes() -> list[str]:
    """Return what the parts of an index take by formula, and what was measured."""
    growth = [
        bytes_per_chunk(kind, 2 * DIMENSION) / bytes_per_chunk(kind, DIMENSION) for kind in VECTOR_KINDS
    ]
    return [
        *filled(
            SIZE_TEXT,
            dimension=DIMENSION,
            tokens=CHUNK_TOKENS,
            text=ChunkTexts().text,
            low=min(growth),
            high=max(growth),
        ),
        *table(("part", "bytes a chunk", *(name for _, name in SIZES)), size_rows()),
        "",
        *filled(MEASURED_TEXT, chunks=INDEXES_MEASURED[0].chunks, text=INDEXES_MEASURED[0].texts.text),
        *table(("backend", *PARTS_MEASURED, "all", "all by formula"), measured_rows()),
    ]


def index_plans() -> list[str]:
    """Return memory, disk, times and prices of each number of chunks on the backends that suit it."""
    gpu = card(CARD)
    return [
        *filled(
            PLAN_TEXT,
            sub=SUB_VECTOR_VALUES,
            params=MINILM.params / 1e6,
            encoder=MINILM.name,
            share=EMBEDDING_SHARE.likely,
            low=EMBEDDING_SHARE.low,
            high=EMBEDDING_SHARE.high,
            core=CPU_CORE_FLOPS / 1e9,
            cores=LAPTOP_CORES,
            gpu=CARD,
            price=gpu.usd_hour,
            least=MACHINE_GIB,
            machines=VECTORCHORD,
            gib=MACHINE_GIB_MONTH,
            s3=OBJECT_GB_MONTH,
        ),
        *table(("chunks", "backend", "memory", "disk", "embedding", "index", "USD"), plan_rows()),
        "",
        *filled(
            BUILD_NOTE,
            **LINKS,
            ten=shown_bytes(posting_bytes_read(10_000_000, 0.1)),
            fifty=shown_bytes(posting_bytes_read(50_000_000, 0.1)),
            billion=shown_bytes(posting_bytes_read(10**9, 0.1)),
        )[:-1],
    ]


def answering() -> list[str]:
    """Return speed and price of answers, by model, card and engine."""
    columns = ("model", "on", "engine", "weights, GiB each", "KiB a token", "requests at once")
    rates = ("tokens/s, one", "tokens/s, all at once", "answers an hour")
    prices = ("USD an hour", "USD a month", "USD a 1,000 answers")
    return [
        *filled(
            ANSWER_TEXT,
            question=QUESTION_TOKENS,
            reply=REPLY_TOKENS,
            decode=DECODE_SHARE,
            prefill=PREFILL_SHARE,
            share=CACHE_SHARE,
            engine=ENGINE_GIB,
            most=MAX_REQUESTS,
        ),
        *table((*columns, *rates, *prices), answer_rows()),
        "",
        *filled(ANSWER_NOTE)[:-1],
    ]


def retrieval_figures() -> list[str]:
    """Return how near the formulas are to published figures, in a few sentences."""
    figures = [row for rows in RETRIEVAL_FIGURES.values() for row in rows()]
    near = sum(abs(row.error) <= 0.1 for row in figures)
    return filled(PUBLISHED_TEXT, rows=len(figures), engine=ENGINE_GIB, near=near)[:-1]


def filled(template: str, **values: object) -> list[str]:
    """Return the paragraphs of a template with its figures, as lines."""
    lines: list[str] = []
    for paragraph in template.format(**values).split("\n\n"):
        # a command stays on one line
        text = re.sub("`.*?`", lambda code: code[0].replace(" ", "\0"), " ".join(paragraph.split()))
        wrapped = wrap(text, 120, break_long_words=False, break_on_hyphens=False)
        lines += [*(line.replace("\0", " ") for line in wrapped), ""]
    return lines


def shown_bytes(size: float) -> str:
    """Return a size with its unit, three digits."""
    for limit, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if size >= limit:
            return f"{size / limit:.3g} {unit}"
    return f"{size / 1e3:.3g} kB"


def shown_time(seconds: float) -> str:
    """Return a time with its unit, two digits."""
    for limit, unit in ((86_400 * 2, "days"), (3600, "h"), (60, "min")):
        if seconds >= limit:
            return f"{round_number(seconds / (86_400 if unit == 'days' else limit))} {unit}"
    return f"{seconds:.2g} s"


def round_number(value: float) -> str:
    """Return two digits below a hundred, else whole numbers with a comma."""
    return f"{value:.2g}" if value < 100 else f"{value:,.0f}"


def size_rows() -> Iterable[tuple[str, ...]]:
    """Yield the size of each part of an index, a chunk and at each number of chunks."""
    kinds = [(name, bytes_per_chunk(kind, DIMENSION)) for kind, name in VECTOR_KINDS.items()]
    kinds += [("vectors once more, for rebuilding (files)", vector_cache_bytes(DIMENSION))]
    for backend, name in BACKENDS.items():
        kinds += [
            (f"texts and rows ({name})", text_bytes(backend)),
            (f"words ({name})", words_bytes(backend)),
        ]
    for name, each in kinds:
        yield (name, f"{each:,.0f}", *(shown_bytes(each * chunks) for chunks, _ in SIZES))


def measured_rows() -> Iterable[tuple[str, ...]]:
    """Yield the bytes a chunk that each backend took, by part, and what the formulas give for the same texts."""
    for row in INDEXES_MEASURED:
        formula = index_parts(row.chunks, row.backend, DIMENSION, texts=row.texts)
        cells = (f"{row.parts[part]:,.0f}" if part in row.parts else "–" for part in PARTS_MEASURED)
        name = BACKENDS[row.backend.partition("-")[0]]
        yield (name, *cells, f"{sum(row.parts.values()):,.0f}", f"{sum(formula.values()) / row.chunks:,.0f}")


def plan_rows() -> Iterable[tuple[str, ...]]:
    """Yield what each size needs on the backends that suit it."""
    suited = (
        (10_000, "10 k", ("files",)),
        (1_000_000, "1 M", ("files", "files-ivf", "postgresql")),
        (10_000_000, "10 M", ("files-ivf", "postgresql", "lancedb")),
        (50_000_000, "50 M", ("postgresql", "postgresql-half", "lancedb")),
        (10**9, "1 B", ("postgresql-half", "lancedb")),
    )
    for chunks, name, backends in suited:
        for backend in backends:
            yield (name, *plan_cells(chunks, backend))


def plan_cells(chunks: int, backend: str) -> tuple[str, ...]:
    """Return the cells of one backend at one size, but for the size."""
    kind = backend.removesuffix("-half")
    vectors = "halfvec" if backend.endswith("-half") else "vector"
    names = {"files": "files, exact", "files-ivf": "files, inverted lists", "lancedb": "LanceDB on S3"}
    lists = int(4 * chunks**0.5)
    codes = ivf_bytes(chunks, DIMENSION // SUB_VECTOR_VALUES, 4096, DIMENSION)
    memory = {
        "files": flat_bytes(chunks, DIMENSION),
        "files-ivf": ivf_bytes(chunks, DIMENSION, lists, DIMENSION),
        "postgresql": hnsw_bytes(chunks, DIMENSION, vectors),
        "lancedb": codes,
    }[kind]
    disk = disk_bytes(chunks, kind, DIMENSION, vectors)
    built = {
        "files": "none",
        "files-ivf": f"{shown_time(ivf_build_seconds(chunks, DIMENSION, CORES))}, {CORES} cores",
        "postgresql": hnsw_time(chunks),
        "lancedb": "see below",
    }[kind]
    month = machine_usd_month(memory) + (disk / 1e9 * OBJECT_GB_MONTH if kind == "lancedb" else 0)
    laptop = kind == "files" and 1.25 * memory < LAPTOP.memory_gib * GIB / 2
    tokens = chunks * CHUNK_TOKENS
    gpu = card(CARD)
    one, several = (embedding_seconds(tokens, MINILM, gpu, count) for count in (1, CARDS))
    paid = one.likely / 3600 * (gpu.usd_hour or 0.0)
    gpus = f"{shown_time(one.likely)} on a GPU"
    if one.likely > 3600:
        gpus += f", {shown_time(several.likely)} on {CARDS}"
    on_cpu = shown_time(cpu_embedding_seconds(tokens, MINILM, LAPTOP_CORES))
    return (
        names.get(backend, f"PostgreSQL, {vectors}"),
        shown_bytes(memory),
        shown_bytes(disk),
        f"{on_cpu} on a laptop, {gpus}",
        built,
        "a laptop" if laptop else f"{max(paid, 0.01):.2g} once, {month:,.0f} a month",
    )


def hnsw_time(chunks: int) -> str:
    """Return the range of an HNSW build."""
    time = hnsw_build_seconds(chunks, DIMENSION)
    return f"{shown_time(time.low)} to {shown_time(time.high)}"


def files_measured() -> list[str]:
    """Return the measured sizes and times of folders."""
    columns = (
        "chunks",
        "opened, s",
        "private MiB, opened",
        "private MiB, after 100 searches",
        "mapped MiB",
        "search, ms (p50, p95)",
    )
    rows = (
        (
            f"{row.chunks:,}",
            f"{row.open_s:.2g}",
            f"{row.private_open_mib:,.0f}",
            f"{row.private_mib:,.0f}",
            f"{row.mapped_mib:,.0f}",
            f"{row.p50_ms:.3g}, {row.p95_ms:.3g}",
        )
        for row in FILES_MEASURED
    )
    return [*filled(FILES_TEXT), *table(columns, rows)]


def served_models() -> Iterable[tuple[str, str, str, Serving]]:
    """Yield model, place and engine of each line of the table of answers."""
    tiny, small = named_shape("smollm2-135m-instruct"), named_shape("llama-3.1-8b-instruct")
    large = named_shape("llama-3.3-70b-instruct")
    four_bit = Q4_BITS / 8
    apple = card("M1 Max 64GB")
    yield "135M, 16 bits", LAPTOP.name, "llama.cpp", Serving(tiny, 2.0 * tiny.params, LAPTOP)
    yield "8B, Q4_K_M", LAPTOP.name, "llama.cpp", Serving(small, four_bit * small.params, LAPTOP)
    yield "8B, Q4_K_M", "M1 Max", "llama.cpp", Serving(small, four_bit * small.params, apple)
    for name in ("L4", "L40S", CARD):
        yield "8B, 16 bits", name, "vLLM", Serving(small, weight_bytes_held(small, 2), card(name))
    eight = weight_bytes_held(large, 1)
    yield "70B, fp8", f"2 x {CARD}", "vLLM", Serving(large, eight, card(CARD), 2, fast=2.0)
    yield (
        "70B, fp8, cache in fp8",
        f"2 x {CARD}",
        "vLLM",
        Serving(large, eight, card(CARD), 2, cache_value_bytes=1.0, fast=2.0),
    )
    for count in (4, 8):
        yield (
            "70B, 16 bits",
            f"{count} x {CARD}",
            "vLLM",
            Serving(large, weight_bytes_held(large, 2), card(CARD), count),
        )


def answer_rows() -> Iterable[tuple[str, ...]]:
    """Yield the table of answers; one request at a time where no GPU is rented."""
    for model, place, engine, served in served_models():
        month = served.usd_month
        requests = served.requests if month else 1
        rate = served.tokens_per_second(requests)
        answers = 3600 * rate / served.answer
        hour = served.count * (served.card.usd_hour or 0.0)
        yield (
            model,
            place,
            engine,
            f"{served.weights / served.count / GIB:.3g}",
            f"{cache_token_bytes(served.shape, served.cache_value_bytes) / 1024:.3g}",
            str(requests),
            round_number(1 / served.step_seconds()),
            round_number(rate),
            f"{answers:,.0f}",
            f"{hour:.3g}" if month else "",
            f"{month:,.0f}" if month else "",
            f"{1000 * hour / answers:.2g}" if month else "",
        )
