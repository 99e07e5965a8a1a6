"""The formulas of retrieval and serving against published figures, each with the tolerance that it is held to.

    python -m benchmarks.published_retrieval

Constants come from our own measurements, file formats and the sources that they name; two were chosen with these rows in
view (the share of a GPU's peak that embedding reaches, the memory left to the engine). Where a formula misses, the row says
by how much and why. The rows are checked by tests/advisor/costs/test_published_retrieval.py and printed in docs/scale.md.
"""

from __future__ import annotations

from collections.abc import Callable

from advisor.costs.hosting import decoding_seconds
from benchmarks.retrieval_scale import (
    LARGE,
    SMALL,
    Serving,
    cache_token_bytes,
    cache_tokens,
    embedding_seconds,
    hnsw_rows_per_second,
    kmeans_flops,
    weight_bytes_held,
)
from benchmarks.scale import PublishedFigure, card, named_shape, print_figures
from rag.stores.capacity import hnsw_bytes, ivf_bytes
from runners.resources.machine import GIB

FAISS = "https://github.com/facebookresearch/faiss/wiki"
PGVECTOR = "https://github.com/pgvector/pgvector/issues"
VLLM = "https://github.com/vllm-project/vllm"
VLLM_SPEED = "https://buildkite.com/vllm/performance-benchmark/builds/9515"
NIM = "https://docs.nvidia.com/nim/benchmarking/llm/1.0.0/performance/llms.txt"
VECTORCHORD = (
    "https://blog.vectorchord.ai/how-we-made-100m-vector-indexing-in-20-minutes-possible-on-postgresql"
)
SUPABASE = "https://supabase.com/blog/pgvector-fast-builds"
ARTAIN = "https://dev.to/artain/embedding-685-million-texts-in-32-minutes-46o7"
INFINITY = "https://github.com/michaelfeil/infinity/blob/main/docs/docs/benchmarking.md"
FP8_8B = "https://huggingface.co/nvidia/Llama-3.1-8B-Instruct-FP8/tree/main"
QUANTIZE = "https://github.com/ggml-org/llama.cpp/blob/master/tools/quantize/README.md"
M1_MAX = "https://github.com/brand-o/normiebench/issues/40"
M2_ULTRA = "https://github.com/ggml-org/llama.cpp/pull/10238"
Q4_BITS = 4.8944
"""Bits a weight of llama.cpp's Q4_K_M, Llama 3.1 8B (tools/quantize/README.md)."""
MIB = 2**20


def size_figures() -> list[PublishedFigure]:
    """Return the figures about sizes of indexes."""
    padding = "its lists of 95 codes are padded to blocks of 32 for fast scanning, which the formula does not include"
    half = "410 GB with four bytes a value and two rows on a page; 205 GB as halfvec. Which of them they built is not stated"
    rows: list[tuple[str, str, str, float, float, str, float, str]] = [
        (
            "pgvector HNSW, 900 k x 1,280",
            "pgvector 370",
            f"{PGVECTOR}/370",
            7036,
            hnsw_bytes(900_000, 1280) / MIB,
            "MiB",
            0.01,
            "",
        ),
        (
            "pgvector HNSW, 500 k x 1,536",
            "pgvector 688",
            f"{PGVECTOR}/688",
            3906,
            hnsw_bytes(500_000, 1536) / MIB,
            "MiB",
            0.01,
            "",
        ),
        (
            "pgvector HNSW, 1 M x 768, m 24",
            "pgvector 690",
            f"{PGVECTOR}/690",
            3904,
            hnsw_bytes(1_000_000, 768, neighbours=24) / MIB,
            "MiB",
            0.01,
            "",
        ),
        (
            "memory to build pgvector HNSW, 100 M x 768",
            "VectorChord",
            VECTORCHORD,
            200,
            hnsw_bytes(100_000_000, 768) / 1e9,
            "GB",
            1.1,
            half,
        ),
        (
            "FAISS, 1 B codes of 20 bytes",
            "Faiss wiki",
            f"{FAISS}/Indexing-1G-vectors",
            25,
            ivf_bytes(1_000_000_000, 20, 0, 96) / 1e9,
            "GB",
            0.13,
            "ids of 8 bytes are counted here; they say about 25",
        ),
        (
            "FAISS, 1 B x 8 bytes, a million lists searched by HNSW32",
            "Faiss wiki",
            f"{FAISS}/bench_all_ivf_logs-deep1B",
            16.700933580,
            ivf_bytes(1_000_000_000, 8, 1 << 20, 64, graph=True) / 1e9,
            "GB",
            0.02,
            "",
        ),
        (
            "FAISS, 100 M of the same",
            "Faiss wiki",
            f"{FAISS}/bench_all_ivf_logs-deep100M",
            2.301974476,
            ivf_bytes(100_000_000, 8, 1 << 20, 64, graph=True) / 1e9,
            "GB",
            0.08,
            padding,
        ),
        (
            "FAISS, 10 M x 24 bytes, 16,384 lists",
            "Faiss wiki",
            f"{FAISS}/bench_all_ivf_logs-deep10M",
            337.169797,
            ivf_bytes(10_000_000, 24, 16_384, 96, graph=True) / 1e6,
            "MB",
            0.03,
            "",
        ),
        (
            "FAISS, 1 M x 8 bytes, 1,024 lists",
            "Faiss wiki",
            f"{FAISS}/bench_all_ivf_logs-deep1M",
            16.434455,
            ivf_bytes(1_000_000, 8, 1024, 64) / 1e6,
            "MB",
            0.02,
            "",
        ),
    ]
    return [PublishedFigure(*row) for row in rows]


def build_figures() -> list[PublishedFigure]:
    """Return the figures about embedding and about building an index."""
    texts = 685e6 * 30
    a100 = card("A100 80GB")
    seconds = embedding_seconds(texts, SMALL, a100, 8).likely
    price = 8 * (a100.usd_hour or 0.0) * seconds / 3600
    tokens = {name: 1e6 / embedding_seconds(1e6, LARGE, card(name)).likely for name in ("L4", "MI210")}
    million = hnsw_rows_per_second(1e6, 1536)
    rows: list[tuple[str, str, str, float, float, str, float, str]] = [
        (
            "685 M texts through e5-small on 8 A100",
            "Artain",
            ARTAIN,
            32,
            seconds / 60,
            "minutes",
            0.15,
            "30 tokens a text, which is our assumption",
        ),
        (
            "the same, rented",
            "Artain",
            ARTAIN,
            6.75,
            price,
            "USD",
            0.15,
            "their spot price, the list's price here",
        ),
        (
            "bge-large on an L4, TEI",
            "Infinity",
            INFINITY,
            0.54 * 115_000,
            tokens["L4"],
            "tokens/s",
            0.4,
            "the fastest of five engines on this card: .31 of its peak; .20 is taken",
        ),
        (
            "bge-large on an L4, sentence-transformers in fp16",
            "Infinity",
            INFINITY,
            0.17 * 115_000,
            tokens["L4"],
            "tokens/s",
            1.1,
            "the slowest of the five: .10 of the peak",
        ),
        (
            "bge-large on an MI210, Infinity",
            "Infinity",
            INFINITY,
            0.75 * 115_000,
            tokens["MI210"],
            "tokens/s",
            0.35,
            ".29 of the peak",
        ),
        (
            "k-means of 1 M x 256 to 20,000 centroids, 25 rounds",
            "Faiss wiki",
            f"{FAISS}/Low-level-benchmarks",
            128,
            kmeans_flops(1e6, 20_000, 256, 25) / 2e12,
            "T multiply-adds",
            0.01,
            "",
        ),
        (
            "pgvector HNSW, 1 M x 1,536, 16 processes",
            "Supabase",
            SUPABASE,
            1e6 / 325,
            million,
            "rows/s",
            0.55,
            "the formula knows no processes: theirs are between 953 (one) and 3,745 rows/s (32)",
        ),
        (
            "the same, one process",
            "Supabase",
            SUPABASE,
            1e6 / 1049,
            million,
            "rows/s",
            0.7,
            "as above",
        ),
    ]
    return [PublishedFigure(*row) for row in rows]


def memory_figures() -> list[PublishedFigure]:
    """Return the figures about weights and keys and values of served models."""
    large, small = named_shape("llama-3.3-70b-instruct"), named_shape("llama-3.1-8b-instruct")
    distilled = named_shape("deepseek-r1-distill-qwen-14b")
    h100, rtx = card("H100 80GB"), card("RTX 4090")
    eight_bit = weight_bytes_held(large, 1)
    engine = f"{VLLM}/pull/12569"
    small_free = cache_tokens(small, weight_bytes_held(small, 2), h100) * cache_token_bytes(small) / GIB
    nim = Serving(large, eight_bit, h100, 2, 5000, 500, cache_value_bytes=1.0, fast=2.0)
    rows: list[tuple[str, str, str, float, float, str, float, str]] = [
        (
            "Llama 3.1 8B in fp8, files",
            "NVIDIA",
            FP8_8B,
            9.08,
            weight_bytes_held(small, 1) / 1e9,
            "GB",
            0.01,
            "",
        ),
        (
            "Llama 3.1 8B in Q4_K_M, file",
            "llama.cpp",
            QUANTIZE,
            4.58,
            small.params * Q4_BITS / 8 / GIB,
            "GiB",
            0.01,
            "",
        ),
        ("Llama 3.1 70B in 8 bits", "vLLM 12569", engine, 67.72, eight_bit / GIB, "GiB", 0.01, ""),
        (
            "its KV cache on one GPU of 80 GB, .98 taken",
            "vLLM 12569",
            engine,
            1381 * 16,
            cache_tokens(large, eight_bit, h100, 1, 0.98),
            "tokens",
            0.2,
            "3 GiB are left to the engine, which took 4; a small rest of a large whole",
        ),
        (
            "free for the KV cache of 8B in bf16, H100",
            "vLLM 19996",
            f"{VLLM}/issues/19996",
            51.63,
            small_free,
            "GiB",
            0.07,
            "theirs has a draft model too",
        ),
        (
            "R1 Distill Qwen 14B, KV cache on 2 RTX 4090, .98 taken",
            "vLLM 13061",
            f"{VLLM}/issues/13061",
            81_536,
            cache_tokens(distilled, weight_bytes_held(distilled, 2), rtx, 2, 0.98),
            "tokens",
            0.12,
            "",
        ),
        (
            "requests at once, 70B in fp8 on 2 H100, 5,500 tokens",
            "NVIDIA NIM",
            NIM,
            920.9 * 0.09286,
            nim.requests,
            "requests",
            0.05,
            "theirs: tokens a second x time of a token, where more clients change nothing",
        ),
    ]
    return [PublishedFigure(*row) for row in rows]


def answer_figures() -> list[PublishedFigure]:
    """Return the figures about the speed of answers."""
    large, small = named_shape("llama-3.3-70b-instruct"), named_shape("llama-3.1-8b-instruct")
    three = named_shape("llama-3.2-3b-instruct")
    h100, h200 = card("H100 80GB"), card("H200")
    nim = Serving(large, weight_bytes_held(large, 1), h100, 2, 5000, 500, cache_value_bytes=1.0, fast=2.0)
    one = Serving(small, weight_bytes_held(small, 2), h200, 1, 32, 128)
    four = Serving(large, weight_bytes_held(large, 2), h200, 4, 32, 128)
    prompts = (
        "prompts are read at .44 of the peak and caches faster than weights; .40 and .55 are taken for both"
    )
    rows: list[tuple[str, str, str, float, float, str, float, str]] = [
        (
            "70B in fp8 on 2 H100: 5,000 tokens read",
            "NVIDIA NIM",
            NIM,
            406.77,
            1e3 * nim.prompt_seconds,
            "ms",
            0.12,
            "",
        ),
        *(
            (
                f"the same, 500 tokens written for {clients} at once",
                "NVIDIA NIM",
                NIM,
                published,
                nim.tokens_per_second(clients),
                "tokens/s",
                within,
                prompts if within > 0.12 else "",
            )
            for clients, published, within in ((1, 51.67, 0.1), (25, 623.4, 0.2), (50, 814.37, 0.22))
        ),
        (
            "the same, as many at once as there is room for",
            "NVIDIA NIM",
            NIM,
            920.9,
            nim.tokens_per_second(nim.requests),
            "tokens/s",
            0.22,
            prompts,
        ),
        (
            "8B in bf16 on an H200, 8 requests of 32 + 128 tokens",
            "vLLM's benchmark",
            VLLM_SPEED,
            833.421,
            8e3 * 128 / one.tokens_per_second(8),
            "ms",
            0.1,
            "",
        ),
        (
            "70B in bf16 on 4 H200, the same",
            "vLLM's benchmark",
            VLLM_SPEED,
            2077.53,
            8e3 * 128 / four.tokens_per_second(8),
            "ms",
            0.2,
            "what the four exchange for each token is not counted",
        ),
        (
            "llama.cpp, 8B in Q4_K_M on an M1 Max",
            "normiebench",
            M1_MAX,
            46.2,
            1 / decoding_seconds(small.params * Q4_BITS / 8, card("M1 Max 64GB")),
            "tokens/s",
            0.1,
            "",
        ),
        (
            "llama.cpp, Llama 3.2 3B in 16 bits on an M2 Ultra",
            "llama.cpp 10238",
            M2_ULTRA,
            73.29,
            1 / decoding_seconds(2 * three.params, card("M2 Ultra 192GB")),
            "tokens/s",
            0.1,
            "",
        ),
    ]
    return [PublishedFigure(*row) for row in rows]


RETRIEVAL_FIGURES: dict[str, Callable[[], list[PublishedFigure]]] = {
    "sizes": size_figures,
    "building": build_figures,
    "memory of models": memory_figures,
    "answers": answer_figures,
}

if __name__ == "__main__":
    print_figures(RETRIEVAL_FIGURES)
