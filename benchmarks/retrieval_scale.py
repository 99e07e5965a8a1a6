"""Memory, disk, time and money of retrieval and serving by formula, from one laptop to a billion chunks and a 70 B base.

:mod:`benchmarks.published_retrieval` compares these formulas with published figures; docs/scale.md is made from both
(``scripts/scale_retrieval.py``). Nothing here is used by the program itself, but sizes of indexes
(:mod:`rag.stores.capacity`) and the time of a token (:func:`advisor.costs.hosting.decoding_seconds`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from math import log

from advisor.catalog.gpus import GpuFacts
from advisor.costs.hosting import HOURS_PER_MONTH, PREFILL_SHARE, decoding_seconds
from advisor.costs.tokens import Range
from rag.stores.capacity import flat_bytes, heap_bytes, hnsw_bytes, ivf_bytes, value_bytes
from runners.resources.machine import GIB
from runners.resources.model_shape import ModelShape

CHUNK_TOKENS = 200
"""Tokens of a chunk: the default of ``IndexSettings``."""
POSTING_BYTES = 5
"""A chunk in the list of a word in PostgreSQL: offset in its block (2), count (1), length of the chunk (1 or 2)."""
LANCE_POSTING_BYTES = 2.4
"""The same in LanceDB's full text index, which is packed (measured, :data:`INDEXES_MEASURED`)."""
ROW_BYTES = 445
"""A chunk's row in SQLite besides its text: hashes, place, id of the document, index (measured, as above)."""
POSTGRES_ROW_BYTES = 600
"""The same in PostgreSQL, with a tenth of a document's rows (measured, as above)."""
POSTGRES_RAW_SHARE = 0.6
"""What PostgreSQL's compression leaves of a document's text (measured, as above)."""
LANCE_SHARE = 0.58
"""What LanceDB's compression leaves of texts, of their words once more, and of 130 bytes of hashes (measured, as above)."""
STEM_BYTES = 5.5
"""A stemmed word and a blank."""
SUB_VECTOR_VALUES = 8
"""Values that one byte of LanceDB's product quantisation stands for."""

EMBEDDING_SHARE = Range(0.1, 0.2, 0.35)
"""Share of a GPU's peak that embedding reaches; .10 to .31 in published runs (benchmarks/published_retrieval.py)."""
CPU_CORE_FLOPS = 24e9
"""FLOP/s of one virtual core that embeds in fp32 with ONNX: 1.15 M tokens through bge-small in 125.8 s on 16 of them
(Infinity's docs/benchmarking.md, Intel Cascade Lake). A core with bf16 matrix instructions does several times that."""
CORE_ASSIGNMENT_FLOPS = 60e9
"""FLOP/s of one core that assigns vectors to centroids in FAISS: 56e9 while adding, 77e9 while training, measured with
100,000 vectors of 384 values and 1,024 lists, one thread of an AMD EPYC with AVX-512 (2026-11-26)."""
KMEANS_ROUNDS = 10
"""Rounds of k-means for inverted lists (faiss/IndexIVF.cpp)."""
KMEANS_SAMPLE = 256
"""Vectors for each centroid that k-means is trained on at most (faiss/Clustering.h)."""
HNSW_MEASURED = (100_000 * 384, 3367.0)
"""Values (rows x dimension) and rows a second of an HNSW build in PostgreSQL 17 with pgvector 0.8.0, m 16, ef_construction
64, one parallel worker, two busy cores (2026-11-26)."""
HNSW_PUBLISHED = (100_000_000 * 768, 100e6 / (40 * 3600))
"""The same, published: 100 M x 768 in 40 h on 16 cores (VectorChord's blog, a rival)."""
HNSW_SPREAD = (0.5, 2.0)
"""Ends of the range of an HNSW build's time: the number of processes, the log and the memory are not in the formula."""

CACHE_SHARE = 0.9
"""Share of a GPU's memory that vLLM takes (``gpu_memory_utilization``)."""
ENGINE_GIB = 3.0
"""GiB on each GPU that vLLM needs besides weights and cache: activations of the longest pass, CUDA graphs, libraries. Our
assumption; 2.3 to 5.4 follow from three published logs (benchmarks/published_retrieval.py), one with a draft model."""
MAX_REQUESTS = 256
"""Requests that are answered at once at most (vLLM's ``max_num_seqs``)."""
QUESTION_TOKENS = 2000
"""Tokens of a question with its instructions and passages in the tables."""
REPLY_TOKENS = 250

MACHINE_GIB_MONTH = 1087 / 128
"""USD a month for each GiB of memory of a rented machine with local NVMe (Amazon i7i.4xlarge, 16 virtual cores, 128 GiB,
3.75 TB: 1,087 USD; larger and smaller ones in proportion), as VectorChord's blog lists it."""
MACHINE_GIB = 32
"""The smallest machine counted."""
MACHINE_SOURCE = ("blog.vectorchord.ai, 100M vectors in 20 minutes", date(2026, 11, 27))
OBJECT_GB_MONTH = 0.023
"""USD a month for each GB in Amazon S3, first 50 TB (aws.amazon.com/s3/pricing)."""

LAPTOP_CORES = 8
LAPTOP = GpuFacts(
    "laptop CPU",
    16,
    89.6,
    LAPTOP_CORES * CPU_CORE_FLOPS / PREFILL_SHARE / 1e12,
    None,
    "two channels of DDR5-5600",
    date(2026, 11, 27),
    kind="cpu",
)
"""Eight cores and 16 GiB; bandwidth from JEDEC: 5,600 MT/s x 8 bytes x 2; its peak makes prompts as fast as embedding."""


@dataclass(frozen=True, slots=True)
class ChunkTexts:
    """What the texts of an index weigh, for each chunk.

    The defaults are of chunks of 200 tokens, cut with a quarter of overlap: in the four English texts of Chroma's chunking
    evaluation 800 bytes have 173 MiniLM tokens, 130 words and 82 distinct stems.
    """

    text: float = 930.0
    """UTF-8 bytes of the chunk."""
    raw: float = 930.0 * 3 / 4
    """Bytes of its part of the document, which is stored too."""
    words: float = 150.0
    distinct: float = 95.0


@dataclass(frozen=True, slots=True)
class IndexMeasurement:
    """Bytes a chunk of an index that this program built (``python -m benchmarks.index_sizes``)."""

    backend: str
    chunks: int
    texts: ChunkTexts
    parts: Mapping[str, float]


_ENGLISH = ChunkTexts(737.5, 739.3, 117.8, 73.1)
INDEXES_MEASURED: tuple[IndexMeasurement, ...] = (
    IndexMeasurement(
        "files",
        12_500,
        _ENGLISH,
        {"vectors": 1544.0, "texts": 1943.2, "words": 1098.6, "vector cache": 2097.8},
    ),
    IndexMeasurement(
        "postgresql",
        12_500,
        _ENGLISH,
        {"vectors": 1713.1, "vector index": 2048.7, "texts": 1798.3, "words": 371.6},
    ),
    IndexMeasurement("lancedb-exact", 12_500, _ENGLISH, {"vectors": 1536.0, "texts": 1302.8, "words": 190.6}),
)
"""Indexes of 1,250 documents of 1,200 words from Chroma's chunking evaluation, vectors of 384 values, 2026-11-27."""


@dataclass(frozen=True, slots=True)
class FilesMeasurement:
    """One line that ``python -m benchmarks.large_index`` prints, under the same names."""

    chunks: int
    open_s: float
    private_open_mib: float
    private_mib: float
    """Private memory after 100 searches."""
    mapped_mib: float
    p50_ms: float
    p95_ms: float


FILES_MEASURED: tuple[FilesMeasurement, ...] = (
    FilesMeasurement(100_000, 0.17, 27, 49, 178, 16.7, 17.3),
    FilesMeasurement(1_000_000, 0.25, 87, 128, 1563, 137.8, 143.4),
)
"""The files backend at each size measured; docs/scale.md prints them, and says so where there are none."""


@dataclass(frozen=True, slots=True)
class Encoder:
    """An embedder's layers; its embedding table does no arithmetic."""

    name: str
    layers: int
    hidden: int
    inner: int

    @property
    def params(self) -> float:
        """Parameters of the layers: four square matrices of attention and two of the MLP."""
        return self.layers * (4.0 * self.hidden**2 + 2.0 * self.hidden * self.inner)


MINILM = Encoder("all-MiniLM-L6-v2", 6, 384, 1536)
SMALL = Encoder("e5-small, bge-small", 12, 384, 1536)
BASE = Encoder("a BERT base", 12, 768, 3072)
LARGE = Encoder("bge-large", 24, 1024, 4096)


def embedding_flops(tokens: float, encoder: Encoder) -> float:
    """Return the FLOP of embedding: two for each parameter of the layers and token; attention is not counted."""
    return tokens * 2.0 * encoder.params


def embedding_seconds(tokens: float, encoder: Encoder, card: GpuFacts, count: int = 1) -> Range:
    """Return the seconds of embedding on GPUs, FLOP / (count x peak x share)."""
    flops, peak = embedding_flops(tokens, encoder), count * card.tflops * 1e12
    return Range(*(flops / (peak * share) for share in reversed(_ends(EMBEDDING_SHARE))))


def cpu_embedding_seconds(tokens: float, encoder: Encoder, cores: int) -> float:
    """Return the seconds of embedding in fp32 on so many cores."""
    return embedding_flops(tokens, encoder) / (cores * CPU_CORE_FLOPS)


def hnsw_rows_per_second(rows: float, dimension: int) -> float:
    """Return the rows a second of an HNSW build in pgvector, which fall with what the graph holds.

    A power of rows x dimension through one measured and one published build, 3,367 a second at 100 k x 384 and 694 at
    100 M x 768: the exponent is -0.21. Builds of one million x 1,536 lie within a factor of two.
    """
    (small, fast), (large, slow) = HNSW_MEASURED, HNSW_PUBLISHED
    exponent = log(slow / fast) / log(large / small)
    return fast * (rows * dimension / small) ** exponent


def hnsw_build_seconds(rows: float, dimension: int) -> Range:
    """Return the seconds of an HNSW build."""
    likely = rows / hnsw_rows_per_second(rows, dimension)
    return Range(likely * HNSW_SPREAD[0], likely, likely * HNSW_SPREAD[1])


def kmeans_flops(rows: float, centroids: float, dimension: int, rounds: int = KMEANS_ROUNDS) -> float:
    """Return the FLOP of comparing rows with centroids in each round, two for each value."""
    return 2.0 * rows * centroids * dimension * rounds


def inverted_lists(rows: int) -> int:
    """Return FAISS's number of lists: four times the root of the rows, as ``rag.stores.faiss`` has it."""
    return max(1, min(int(4 * rows**0.5), rows // 39))


def ivf_build_seconds(rows: int, dimension: int, cores: int) -> float:
    """Return the seconds of training and filling inverted lists with FAISS, all centroids compared with every row."""
    lists = inverted_lists(rows)
    sample = min(rows, KMEANS_SAMPLE * lists)
    flops = kmeans_flops(sample, lists, dimension) + kmeans_flops(rows, lists, dimension, 1)
    return flops / (cores * CORE_ASSIGNMENT_FLOPS)


def bytes_per_chunk(kind: str, dimension: int) -> float:
    """Return the bytes a chunk of one kind of index over vectors, at a million rows.

    Args:
        kind: flat, sq8, pq (a byte for eight values), hnsw, hnsw-half, table, table-half (vectors in rows of PostgreSQL)
            or lance (the vector, its code and a row id).
        dimension: of the vectors.
    """
    rows = 1_000_000
    lists = inverted_lists(rows)
    codes = dimension // SUB_VECTOR_VALUES
    sizes = {
        "flat": lambda: flat_bytes(rows, dimension),
        "sq8": lambda: ivf_bytes(rows, dimension, lists, dimension),
        "pq": lambda: ivf_bytes(rows, codes, lists, dimension),
        "hnsw": lambda: hnsw_bytes(rows, dimension),
        "hnsw-half": lambda: hnsw_bytes(rows, dimension, "halfvec"),
        "table": lambda: vector_table_bytes(rows, dimension, "vector"),
        "table-half": lambda: vector_table_bytes(rows, dimension, "halfvec"),
        "lance": lambda: rows * (4 * dimension) + ivf_bytes(rows, codes, lists // 4, dimension),
    }
    return sizes[kind]() / rows


def vector_table_bytes(rows: int, dimension: int, vectors: str) -> int:
    """Return the bytes of PostgreSQL's vectors: id (8), document and generation (4 each), the vector with its head (8).

    Indexes of ids and documents add 35 bytes a row (measured, :data:`INDEXES_MEASURED`).
    """
    return heap_bytes(rows, 8 + 8 + 8 + dimension * value_bytes(vectors)) + 35 * rows


def text_bytes(backend: str, texts: ChunkTexts = ChunkTexts()) -> float:
    """Return the bytes a chunk of texts, documents and rows on a backend: files, postgresql or lancedb."""
    return {
        "files": texts.text + texts.raw + ROW_BYTES,
        "postgresql": texts.text + POSTGRES_RAW_SHARE * texts.raw + POSTGRES_ROW_BYTES,
        "lancedb": LANCE_SHARE * (texts.text + texts.raw + STEM_BYTES * texts.words + 130),
    }[backend]


def words_bytes(backend: str, texts: ChunkTexts = ChunkTexts()) -> float:
    """Return the bytes a chunk of what BM25 reads: four a word and eight a distinct one in files, else lists of words."""
    return {
        "files": 4 * texts.words + 8 * texts.distinct + 8,
        "postgresql": POSTING_BYTES * texts.distinct,
        "lancedb": LANCE_POSTING_BYTES * texts.distinct,
    }[backend]


def vector_cache_bytes(dimension: int) -> float:
    """Return the bytes a chunk of the files' cache of vectors: whole rows of 90 bytes and the vector in pages of 4,096."""
    return 4096 / max(1, 4096 // (4 * dimension + 90))


def posting_bytes_read(chunks: int, share: float) -> float:
    """Return the bytes that PostgreSQL reads for one word of a question that occurs in ``share`` of the chunks."""
    return POSTING_BYTES * chunks * share


def index_parts(
    chunks: int, backend: str, dimension: int, vectors: str = "vector", texts: ChunkTexts = ChunkTexts()
) -> dict[str, float]:
    """Return the bytes of each part of an index.

    Args:
        chunks: of the index.
        backend: files (exact), files-ivf (8-bit codes beside the exact vectors), postgresql, lancedb (codes beside the
            vectors) or lancedb-exact.
        dimension: of the vectors.
        vectors: type of the vectors in PostgreSQL.
        texts: what texts weigh.
    """
    kind = backend.partition("-")[0]
    codes = dimension // SUB_VECTOR_VALUES
    stored = {
        "files": flat_bytes(chunks, dimension),
        "postgresql": vector_table_bytes(chunks, dimension, vectors),
        "lancedb": chunks * 4 * dimension,
    }
    index = {
        "files-ivf": ivf_bytes(chunks, dimension, inverted_lists(chunks), dimension),
        "postgresql": hnsw_bytes(chunks, dimension, vectors),
        "lancedb": ivf_bytes(chunks, codes, min(4096, round(chunks**0.5)), dimension),
    }
    return {
        "vectors": float(stored[kind]),
        "vector index": float(index.get(backend, 0)),
        "texts": chunks * text_bytes(kind, texts),
        "words": chunks * words_bytes(kind, texts),
        "vector cache": chunks * vector_cache_bytes(dimension) if kind == "files" else 0.0,
    }


def disk_bytes(chunks: int, backend: str, dimension: int, vectors: str = "vector") -> float:
    """Return the bytes of a whole index, the sum of :func:`index_parts`."""
    return sum(index_parts(chunks, backend, dimension, vectors).values())


def machine_usd_month(memory_bytes: float) -> float:
    """Return USD a month of a machine whose memory holds so many bytes and a quarter more, in steps of a power of two."""
    size = MACHINE_GIB
    while size * GIB < 1.25 * memory_bytes:
        size *= 2
    return size * MACHINE_GIB_MONTH


def weight_bytes_held(shape: ModelShape, block_bytes: float, end_bytes: float = 2.0) -> float:
    """Return the bytes of weights: decoder layers at ``block_bytes`` a weight, embedding and head at ``end_bytes``."""
    return shape.blocks * block_bytes + (shape.params - shape.blocks) * end_bytes


def cache_token_bytes(shape: ModelShape, each: float = 2.0) -> float:
    """Return the bytes of keys and values of one token: 2 x layers x kv heads x head size x bytes of a value."""
    return 2.0 * shape.layers * shape.kv_heads * shape.head_dim * each


def cache_tokens(
    shape: ModelShape,
    weights: float,
    card: GpuFacts,
    count: int = 1,
    share: float = CACHE_SHARE,
    each: float = 2.0,
) -> float:
    """Return the tokens that the KV cache of all GPUs together holds.

    Args:
        shape: the model.
        weights: bytes of all weights.
        card: the GPU.
        count: GPUs that share the model (tensor parallel).
        share: of the memory that the engine takes.
        each: bytes of a value in the cache.
    """
    free = count * (share * card.memory_gib - ENGINE_GIB) * GIB - weights
    return max(0.0, free / cache_token_bytes(shape, each))


@dataclass(frozen=True, slots=True)
class Serving:
    """One model on GPUs of one kind, and the length of its requests."""

    shape: ModelShape
    weights: float
    """Bytes of all weights."""
    card: GpuFacts
    count: int = 1
    prompt: float = QUESTION_TOKENS
    answer: float = REPLY_TOKENS
    cache_value_bytes: float = 2.0
    fast: float = 1.0
    """Peak of the arithmetic over that in bf16: 2 in fp8 on H100, H200 and B200 (NVIDIA's data sheets)."""

    @property
    def requests(self) -> int:
        """Requests whose keys and values fit at once, at most :data:`MAX_REQUESTS`."""
        tokens = cache_tokens(self.shape, self.weights, self.card, self.count, each=self.cache_value_bytes)
        return min(MAX_REQUESTS, int(tokens / (self.prompt + self.answer)))

    def step_seconds(self, requests: int = 1) -> float:
        """Return the seconds of one token of each of so many requests: weights and their caches are read once."""
        tokens = self.prompt + self.answer / 2
        cache = requests * tokens * cache_token_bytes(self.shape, self.cache_value_bytes)
        return decoding_seconds(self.weights + cache, self.card, self.count)

    @property
    def prompt_seconds(self) -> float:
        """Seconds of reading one prompt: two FLOP for each parameter and token, at the share of the peak of a training."""
        peak = self.count * self.fast * self.card.tflops * 1e12
        return 2.0 * self.shape.params * self.prompt / (PREFILL_SHARE * peak)

    def tokens_per_second(self, requests: int) -> float:
        """Return the tokens a second of all requests: prompts are read one after the other, answers written together."""
        each = self.prompt_seconds + self.answer * self.step_seconds(requests) / requests
        return self.answer / each

    @property
    def usd_month(self) -> float | None:
        """USD of the rented GPUs for a month; None without a price."""
        if self.card.usd_hour is None:
            return None
        return self.count * self.card.usd_hour * HOURS_PER_MONTH


def _ends(span: Range) -> tuple[float, float, float]:
    return span.low, span.likely, span.high
