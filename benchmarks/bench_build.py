"""The whole build, from documents to a saved index, against LangChain-FAISS, txtai and LlamaIndex.

Every build is a process of its own, and the builders take turns. The peers get the documents as texts in
memory ("title. text"), come with their defaults, and once more with bfloat16 forced on the same embedder; ours
reads and parses the file, cuts in tokens, keeps texts in SQLite and makes BM25 besides. Seconds are the build's
own, imports and loading the model aside; "cpu" is the processor time of both, which other work on the machine
hardly lengthens when OMP_NUM_THREADS=1; "peak" is the largest memory of the process (and of its worker).
"encode" is sentence-transformers' encode alone in bfloat16, the raw speed of the same model on the same texts.

    python -m benchmarks.bench_build DOCUMENTS.jsonl EMBEDDER --peers VENV/bin/python --rounds 3

The peers live in an environment of their own: torch, sentence-transformers, faiss-cpu, langchain-community,
langchain-huggingface, txtai, llama-index-core, llama-index-vector-stores-faiss, llama-index-embeddings-huggingface.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

Build = Callable[[], object]
OURS = ("ours", "encode")
PEERS = ("langchain", "langchain-bf16", "txtai", "txtai-bf16", "llamaindex", "llamaindex-bf16")


def ours(source: Path, embedder: str, place: Path) -> Build:
    """Return tunewise's build of the file as it is."""
    import bm25s  # noqa: F401
    import faiss  # noqa: F401

    from rag.embedding.embedder import Embedder
    from rag.index import Index

    encoder = Embedder(embedder)
    return lambda: Index.build(place / "index", source, encoder)


def encode(source: Path, embedder: str, place: Path) -> Build:
    """Return sentence-transformers' encode in bfloat16, its best batch size for short texts, nothing saved."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(embedder, device="cpu", model_kwargs={"dtype": "bfloat16"})
    texts = [text for _, text in _texts(source)]
    return lambda: model.encode(texts, batch_size=64, show_progress_bar=False)


def langchain(source: Path, embedder: str, place: Path, dtype: str = "") -> Build:
    """Return LangChain's FAISS store with its HuggingFace embeddings."""
    from langchain_community.vectorstores import FAISS
    from langchain_core.documents import Document
    from langchain_huggingface import HuggingFaceEmbeddings

    given: dict[str, Any] = (
        {"model_kwargs": {"device": "cpu", "model_kwargs": {"dtype": dtype}}} if dtype else {}
    )
    model = HuggingFaceEmbeddings(model_name=embedder, **given)
    documents = [Document(page_content=text, metadata={"id": id}) for id, text in _texts(source)]
    return lambda: FAISS.from_documents(documents, model).save_local(str(place / "index"))


def txtai(source: Path, embedder: str, place: Path, dtype: str = "") -> Build:
    """Return txtai's hybrid index with its content stored."""
    from txtai import Embeddings

    given = {"vectors": {"dtype": dtype}} if dtype else {}
    index = Embeddings(path=embedder, content=True, hybrid=True, gpu=False, **given)
    rows = _texts(source)

    def build() -> None:
        index.index(rows)
        index.save(str(place / "index"))

    return build


def llamaindex(source: Path, embedder: str, place: Path, dtype: str = "") -> Build:
    """Return LlamaIndex's vector index over FAISS."""
    import faiss
    from llama_index.core import Document, StorageContext, VectorStoreIndex
    from llama_index.embeddings.huggingface import HuggingFaceEmbedding
    from llama_index.vector_stores.faiss import FaissVectorStore

    given: dict[str, Any] = {"model_kwargs": {"dtype": dtype}} if dtype else {}
    model = HuggingFaceEmbedding(model_name=embedder, device="cpu", **given)
    documents = [Document(text=text, doc_id=id) for id, text in _texts(source)]

    def build() -> None:
        store = FaissVectorStore(faiss_index=faiss.IndexFlatIP(384))
        context = StorageContext.from_defaults(vector_store=store)
        index = VectorStoreIndex.from_documents(documents, storage_context=context, embed_model=model)
        index.storage_context.persist(str(place / "index"))

    return build


BUILDERS: dict[str, Callable[..., Build]] = {
    "ours": ours,
    "encode": encode,
    "langchain": langchain,
    "txtai": txtai,
    "llamaindex": llamaindex,
}


def _texts(source: Path) -> list[tuple[str, str]]:
    rows = [json.loads(line) for line in source.read_text("utf-8").splitlines()]
    return [(str(row["id"]), f"{row['title']}. {row['text']}") for row in rows]


def one(name: str, source: Path, embedder: str) -> dict[str, float]:
    """Build once in this process; return seconds and peak memory in MiB."""
    kind, _, dtype = name.partition("-")
    given = {"dtype": "bfloat16"} if dtype else {}
    with tempfile.TemporaryDirectory() as place:
        build = BUILDERS[kind](source, embedder, Path(place), **given)
        began, used = time.perf_counter(), _cpu()
        build()
        seconds, cpu = time.perf_counter() - began, _cpu() - used
    peak = max(use.ru_maxrss for use in _usage()) / 1024
    return {"seconds": seconds, "cpu": cpu, "peak": peak}


def _cpu() -> float:
    return sum(use.ru_utime + use.ru_stime for use in _usage())


def _usage() -> list[resource.struct_rusage]:
    return [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]


def main() -> None:
    """Let the builders take turns, a process each; print the medians."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("documents", type=Path)
    parser.add_argument("embedder")
    parser.add_argument("--peers", help="the python of the peers' environment; without it only ours are run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", help="only these builders")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(one(given.one, given.documents, given.embedder)))
        return
    names = [n for n in (*OURS, *(PEERS if given.peers else ())) if not given.only or n in given.only]
    found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for turn in range(given.rounds):
        for name in names:
            python = given.peers if name in PEERS else sys.executable
            command = [python, __file__, str(given.documents), given.embedder, "--one", name]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(f"{name} failed: {done.stderr[-2000:]}")
            found[name].append(json.loads(done.stdout.splitlines()[-1]))
            last = found[name][-1]
            print(f"{turn} {name:16} {last['seconds']:.2f} s, cpu {last['cpu']:.2f} s", flush=True)
    for name, runs in found.items():
        seconds = [run["seconds"] for run in runs]
        print(
            f"{name:16} {median(seconds):7.2f} s ({min(seconds):.2f} to {max(seconds):.2f}), "
            f"cpu {median(run['cpu'] for run in runs):.2f} s, "
            f"peak {max(run['peak'] for run in runs):.0f} MiB"
        )


if __name__ == "__main__":
    main()
