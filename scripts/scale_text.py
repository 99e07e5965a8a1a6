"""Words around the tables of docs/scale.md on retrieval; figures in braces are filled in by scale_retrieval.py."""

from __future__ import annotations

LINKS = {
    "user": "https://sprytnyk.dev/posts/running-lancedb-in-production",
    "lance": "https://www.lancedb.com/blog/how-lancedb-accelerates-vector-search-at-10-billion-scale",
    "chord": "https://blog.vectorchord.ai/scaling-vector-search-to-1-billion-on-postgresql",
}

SIZE_TEXT = """\
Vectors of {dimension} values (all-MiniLM-L6-v2), chunks of {tokens} tokens and about {text:.0f} bytes, cut with a quarter
of overlap. Vectors of twice as many values take {low:.1f} to {high:.1f} times as much in the first eight lines: ids
and links do not grow, and whole rows fill PostgreSQL's pages."""

MEASURED_TEXT = """\
Measured: bytes a chunk of indexes of {chunks:,} chunks of English with {text:.0f} bytes each, built by this program
(`python -m benchmarks.index_sizes`). A test checks that each part is within a tenth of its formula, and each sum
within a twentieth."""

PLAN_TEXT = """\
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
`python -m benchmarks.large_index`: pseudo-random vectors, texts of 60 words, two cores. Private memory is what the
process has itself; mapped pages belong to the files, and the system takes them back when it needs them."""

ANSWER_TEXT = """\
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

PUBLISHED_TEXT = """\
Of {rows} published figures {near} are within a tenth of the formulas (`benchmarks/FIGURES.md`,
`python -m benchmarks.published_retrieval`). Constants are our own measurements, file formats or the source that stands
beside them. Two were chosen with these figures in view: the share of a GPU's peak that embedding reaches, and the
{engine:g} GiB left to the engine."""
