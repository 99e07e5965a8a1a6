"""Words of the second part of docs/scale.md; figures in braces are filled in by scale_retrieval.py."""

from __future__ import annotations

LINKS = {
    "user": "https://sprytnyk.dev/posts/running-lancedb-in-production",
    "lance": "https://www.lancedb.com/blog/how-lancedb-accelerates-vector-search-at-10-billion-scale",
    "chord": "https://blog.vectorchord.ai/scaling-vector-search-to-1-billion-on-postgresql",
}

VERIFIED = """\
## Retrieval and serving

> **What is verified.** On two CPU cores, in the tests: one contract for the files, a real PostgreSQL 17 with
> pgvector, and LanceDB in a folder and behind an S3 API; a build by Ray with two actors on one machine, equal to the
> byte to that of one process; exports, failover and streams with real `llama-server`s. **Not verified**: any GPU,
> vLLM on a GPU, Ray on several machines, a real S3, and indexes above a million chunks. A table
> [below](#what-is-verified-of-retrieval-and-serving) says it part by part. Sizes, times and prices are formulas,
> compared with other people's published figures at the end.

### Which engine for which part
"""

PARTS = (
    (
        "train",
        "this process",
        "torchrun, one machine of 8 GPUs",
        "torchrun from Slurm or SkyPilot, FSDP2 in each machine",
        "[above](#train-on-many-gpus)",
    ),
    (
        "cut and embed",
        "this process",
        "`--engine ray` on the machine's cores or GPUs",
        "`--engine ray` on a cluster, an actor for each GPU, finished parts on object storage",
        "`index build`",
    ),
    (
        "vectors",
        "files: exact, or inverted lists above a million chunks (`--store auto`)",
        "PostgreSQL with pgvector, to about 50 M chunks",
        "LanceDB on object storage; or another engine that imports the Parquet file of `export --to index`",
        "`index build --to`, `index copy --to`",
    ),
    (
        "words",
        "BM25 of the files",
        "the same scores, from lists of words in PostgreSQL",
        "the same scores of what LanceDB's full text index finds",
        "by itself",
    ),
    (
        "write answers",
        "this process, or llama.cpp with a 4-bit file",
        "vLLM, 8B on one GPU; adapters by name",
        "vLLM, 70B in fp8 on 2 GPUs or in 16 bits on 4 (tensor parallel), several such servers",
        "`serve --backend`, [serve](serve.md)",
    ),
    (
        "retrieval, the fence around passages, citations, refusals, limits",
        "`tunewise serve`",
        "`tunewise serve`",
        "several of `tunewise serve` over one index",
        "[serve](serve.md)",
    ),
)

COMMANDS = """\

<!-- not run: other machine -->
```bash
tunewise index build handbook --documents handbook-files
tunewise index build --to "postgresql://me@db.example/docs?index=handbook" --documents handbook-files
tunewise index build handbook --documents s3://bucket/handbook --engine ray --ray-address auto --actor-gpus 1 \\
  --shards s3://bucket/parts
tunewise index copy handbook --to lancedb+s3://bucket/handbook
tunewise serve runs/desk --backend openai:base@http://gpu1:8000/v1,http://gpu2:8000/v1
```

A backend is chosen by size, and by what is there already. Files need no server and are opened in seconds; one machine
holds them, and one writer at a time changes them. PostgreSQL is backed up, secured and joined like the tables next to
it; its HNSW index has to fit the server's memory, when it is built and to be fast, and that sets the limit. LanceDB
needs no server either and leaves the vectors on disk or object storage; a search reads parts of them, so it is slower
and cheaper. Milvus, Qdrant, VectorChord and others have no backend here, because no server of theirs could be tested:
`tunewise export RUN --to index` writes `passages.parquet` (id, text, vector, metadata, fingerprint of the embedder),
which their own tools import; retrieval is theirs then.

`--engine ray` shares out reading, cutting and embedding; one process joins the shards. That took about 20 MiB and, on two
busy cores, 0.9 to 1.6 s per 1,000 documents of two passages, so the memory of that machine ends it: at about 2.3 million
passages in 24 GiB, by extrapolation from 100,000 documents. A larger collection is built in parts, each an index of its own,
until a backend takes shards directly; a billion passages have not been built with this program.
"""

SIZE_TEXT = """\
### What an index takes

Vectors of {dimension} values (all-MiniLM-L6-v2), chunks of {tokens} tokens and about {text:.0f} bytes, cut with a quarter
of overlap. Vectors of twice as many values take {low:.1f} to {high:.1f} times as much in the first eight lines: ids
and links do not grow, and whole rows fill PostgreSQL's pages."""

MEASURED_TEXT = """\
Measured: bytes a chunk of indexes of {chunks:,} chunks of English with {text:.0f} bytes each, built by this program
(`python -m benchmarks.index_sizes`). A test checks that each part is within a tenth of its formula, and each sum
within a twentieth."""

PLAN_TEXT = """\
### From ten thousand to a billion chunks

Memory is what a search should find in memory: for files the exact vectors or their 8-bit codes (mapped: the system
may drop and read them again), for PostgreSQL its HNSW index, for LanceDB its codes of {sub} values a byte. Embedding
by {encoder} takes two operations for each of its {params:.1f} M parameters (without the embedding table) and token,
at {share:.2f} of a GPU's peak ({low:.2f} to {high:.2f}), or at {core:.0f} GFLOP/s on each of {cores} CPU cores in
fp32; a BERT base takes eight times that.

USD: once for embedding on an {gpu} at {price:g} an hour; and each month for a machine with enough memory for that of the
index and a quarter more, {least} GiB at least, at {gib:.2f} a GiB with its disks (Amazon's i7i, as
[VectorChord]({machines}) lists it), and {s3:g} a GB in S3 for LanceDB. PostgreSQL with more than 1.5 TB of memory,
and files and LanceDB above a million chunks, are on paper only."""

BUILD_NOTE = """\
HNSW is built at a rate that falls with its size (3,367 rows a second measured at 100 k, 694 published at 100 M x
768); the range is a factor of two either way. FAISS compares every row with every centroid; a graph over the
centroids or a GPU would be faster, and is not used. LanceDB's build is not counted by a formula: 100,000 rows took
182 s here on busy cores, most of it training that does not grow with the rows and of which this program now does a
quarter, and a user put [700 M rows]({user}) into it, with difficulties when indexing. LanceDB itself says that its
open source path strains [at 10 B]({lance}). VectorChord reports a billion vectors of 96 values [in
PostgreSQL]({chord}), built in 1.8 h on one machine and found in 40 ms at a recall of .95.

**Words cost too.** BM25 is exact on every backend, so a question's words are scored wherever they occur. In
PostgreSQL a word that is in a tenth of the chunks is {ten} to read at 10 M chunks, {fifty} at 50 M, and would be
{billion} at 1 B; rare words cost little."""

FILES_TEXT = """\
### The files, measured

`python -m benchmarks.large_index`: pseudo-random vectors, texts of 60 words, two cores. Private memory is what the
process has itself; mapped pages belong to the files, and the system takes them back when it needs them."""

ANSWER_TEXT = """\
### Answering

Questions of {question:,} tokens with their passages, answers of {reply}. A token takes the time of reading all
weights, and the keys and values of all requests, at {decode:.2f} of the bandwidth; prompts are read at {prefill:.2f}
of the peak, one after the other. Requests at once are as many as fit the KV cache in {share:.2f} of each GPU's memory
less {engine:g} GiB for the engine, {most} at most. USD by the program's list of GPUs, for GPUs that are rented all
month and busy."""

ANSWER_NOTE = """\
One request alone gets the first rate; with as many as there is room for, all together get the second. Retrieval adds
milliseconds. More servers behind `serve --backend` add up, each with the whole model. A CPU or a Mac is taken to
answer one request after the other, and a CPU to read prompts in fp32; integer kernels read them several times faster.
Measured in this process: the demo's 135M model on two cores wrote 26 tokens a second for one client and 52 for eight,
with prompts of 260 tokens and answers of 20 (benchmarks/LOG.md)."""

VERIFICATION = (
    (
        "files",
        "to a million synthetic chunks: opening, memory, updates; kills and damage at small sizes",
        "more chunks; disks slower than this machine's",
    ),
    (
        "PostgreSQL 17 with pgvector 0.8",
        "a real server: contract, filters, two writers, TLS with a test's certificates, a killed server; searches by HNSW "
        "timed at 100 k chunks",
        "more chunks, replicas, poolers between, managed services",
    ),
    (
        "LanceDB",
        "the same contract in a folder and on moto's S3 API; timed at 100 k chunks",
        "a real S3 and its delays, more chunks",
    ),
    (
        "Ray",
        "two actors on one machine: bytes of the index, killed actors, a killed driver",
        "several machines, GPU actors, `--ray-address` of a cluster",
    ),
    (
        "object storage",
        "conditional puts, folders whose manifest comes last, on moto's S3 API",
        "S3, GCS, Azure and other implementations",
    ),
    (
        "llama.cpp",
        "`llama-server` on CPUs: template, tokens and log-probabilities of exports, failover of two servers",
        "GPUs, Metal, 4-bit files that others made",
    ),
    (
        "vLLM",
        "on a CPU, outside the ordinary tests (`--deep`): base and adapters by name",
        "GPUs, tensor parallel, fp8: speed, memory and requests at once are formulas",
    ),
    ("money", "nothing: prices of the day that the lists name", "discounts, traffic, disks, people"),
)

PUBLISHED_TEXT = """\
### Retrieval and serving: the formulas and published figures

`python -m benchmarks.published_retrieval` prints the table, and a test holds each of its {rows} rows to the tolerance
that it names; {near} are within a tenth. Constants are our own measurements, file formats or the source that stands
beside them. Two were chosen with these rows in view: the share of a GPU's peak that embedding reaches, and the
{engine:g} GiB left to the engine. The KV cache of 70B and the time of one token on two H100 are in the table [of
training](#the-formulas-and-published-figures)."""
