"""Retrieval with multilingual-e5-small beside all-MiniLM-L6-v2: hit@1 and hit@5 on public sets and the pool, and the time.

Run from the repository's root: ``python -m benchmarks.embedders SHARED_FOLDER KEPT_FOLDER [SET...]``; what is kept (the
vectors) need not be made by the next run. Both search as an index does by default, question adapter included, and by
vectors alone. Of a set at most ``MAX_QUESTIONS`` are asked; all its documents are searched.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.sets import NAMES, Row, Set, bench, read
from rag.embedding.embedder import Embedder
from rag.evaluation.statistics import bootstrap_interval
from rag.files import append_lines
from rag.loading.reader import load_documents
from rag.search.query import Query
from rag.settings import IndexSettings
from rag.types import Hit
from runners.classification.selection import LabelledRows, choose_classifier
from runners.models.resolve import resolve_model

EMBEDDERS = ("all-minilm-l6-v2", "multilingual-e5-small")
MAX_QUESTIONS = 300
LABELLED = "germeval_offence"
DEFAULT = IndexSettings()
WAYS = {"default": DEFAULT, "vectors alone": replace(DEFAULT, fusion="convex", lexical_weight=0.0)}
TIMED_TEXTS = 300


def main() -> None:
    """Print a table for each set, with paired differences, and the seconds for 1,000 texts."""
    shared, kept = Path(sys.argv[1]), Path(sys.argv[2])
    embedders = [
        Embedder(resolve_model(name).folder, name=name, device="cpu").configured(question_adapter=True)
        for name in EMBEDDERS
    ]
    wanted = sys.argv[3:]
    for found in _sets(shared):
        if wanted and not found.name.startswith(tuple(wanted)):
            continue
        for way, settings in WAYS.items():
            hits = {embedder.name: _hits(found, embedder, settings, kept) for embedder in embedders}
            for depth in (1, 5):
                said = [f"{name} {bootstrap_interval(each[depth]).mean:.3f}" for name, each in hits.items()]
                first, second = (np.array(hits[name][depth]) for name in EMBEDDERS)
                gain = bootstrap_interval((second - first).tolist())
                print(
                    f"{found.name} ({len(found.documents)} documents, {len(found.rows)} questions), {way}, hit@{depth}: "
                    f"{', '.join(said)}; difference {gain.mean:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})",
                    flush=True,
                )
    if not wanted or "labels" in wanted:
        _print_labels(shared / "data" / LABELLED, embedders)
    if not wanted or "time" in wanted:
        _print_times(shared, embedders)


def _sets(shared: Path) -> Iterator[Set]:
    """Yield the sets, with no more than ``MAX_QUESTIONS`` questions each."""
    yield from _pool(shared / "cases" / "houses" / "pool")
    yield _tldr(shared / "data" / "tldr_de")
    for name in ("xquad_es", "xquad_en", "chunk_eval", "hybrid_concierge"):
        assert name in NAMES
        found = read(shared / "data", name)
        # Only chunk_eval has documents so long that the place in them matters.
        spans = name == "chunk_eval"
        rows = [row if spans else replace(row, spans=()) for row in found.rows if row.split in ("", "test")]
        chosen = random.Random(38).sample(rows, min(MAX_QUESTIONS, len(rows)))
        yield replace(found, rows=tuple(chosen))


def _pool(folder: Path) -> Iterator[Set]:
    """Yield the pool in the documents' words and in customers' (both rewordings of each question)."""
    documents = load_documents(folder / "documents").documents
    lines = [
        json.loads(line)
        for name in ("dev", "test")
        for line in (folder / f"{name}.jsonl").read_text("utf-8").splitlines()
    ]
    lines = [line for line in lines if line["answerable"]]
    yield Set(
        "pool, documents' words",
        documents,
        tuple(Row(line["question"], line["doc_id"], (), "") for line in lines),
    )
    yield Set(
        "pool, customers' words",
        documents,
        tuple(Row(text, line["doc_id"], (), "") for line in lines for text in line["wordings"]),
    )


def _tldr(folder: Path) -> Set:
    """Return English descriptions as questions, the German ones of all rows as documents; equal ones are one document."""
    pairs = []
    for name in ("questions", "train"):
        for line in (folder / f"{name}.jsonl").read_text("utf-8").splitlines():
            user, assistant = (message["content"] for message in json.loads(line)["messages"][-2:])
            pairs.append((user, assistant, name == "questions"))
    texts = dict.fromkeys(german for _, german, _ in pairs)
    ids = {text: f"d{n}" for n, text in enumerate(texts)}
    with tempfile.TemporaryDirectory() as spare:
        file = Path(spare) / "documents.jsonl"
        append_lines(file, [{"id": id, "title": "", "text": text} for text, id in ids.items()])
        documents = load_documents(file).documents
    return Set(
        "tldr_de",
        documents,
        tuple(Row(english, ids[german], (), "") for english, german, asked in pairs if asked),
    )


def _hits(found: Set, embedder: Embedder, settings: IndexSettings, kept: Path) -> dict[int, list[float]]:
    """Return by depth whether each question's passage is among the first."""
    with bench(
        replace(found, name=f"{found.name.partition(',')[0]}-{embedder.name}"), embedder, kept
    ) as desk:
        searcher = desk.searcher(desk.cut(DEFAULT), DEFAULT)
        results = searcher.find(
            [row.question for row in found.rows], [Query(k=5)] * len(found.rows), settings
        )
    return {
        depth: [
            float(_found(row, result.hits[:depth])) for row, result in zip(found.rows, results, strict=True)
        ]
        for depth in (1, 5)
    }


def _found(row: Row, hits: Sequence[Hit]) -> bool:
    """Return whether one of the hits is of the gold document, and where spans are long documents' own, overlaps one."""
    in_documents = [hit.chunk for hit in hits if hit.chunk.doc == row.doc]
    if not row.spans:
        return bool(in_documents)
    return any(chunk.start < end and start < chunk.end for chunk in in_documents for start, end in row.spans)


def _print_labels(folder: Path, embedders: Sequence[Embedder]) -> None:
    """Print how often the classifier of a run is right with each embedder, and the paired difference."""
    rows: dict[str, list[tuple[str, str]]] = {}
    for name in ("train", "questions"):
        lines = (folder / f"{name}.jsonl").read_text("utf-8").splitlines()
        turns = [json.loads(line)["messages"][-2:] for line in lines]
        rows[name] = [(user["content"], assistant["content"]) for user, assistant in turns]
    asked, gold = zip(*rows["questions"], strict=True)
    right = []
    for embedder in embedders:
        texts, labels = zip(*rows["train"], strict=True)
        classifier = choose_classifier(LabelledRows.of(texts, labels, embedder))
        names = classifier.head.labels
        best = classifier.scores(asked, embedder.encode(asked)).argmax(axis=1)
        right.append(np.array([float(names[n] == label) for n, label in zip(best, gold, strict=True)]))
        print(
            f"{folder.name} ({len(rows['train'])} rows), {embedder.name}: {right[-1].sum():.0f} of {len(gold)} with "
            f"{classifier.features}; in folds "
            + ", ".join(f"{one.features} {one.accuracy:.3f}" for one in classifier.tried),
            flush=True,
        )
    gain = bootstrap_interval((right[1] - right[0]).tolist())
    print(f"difference {gain.mean:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})", flush=True)


def _print_times(shared: Path, embedders: Sequence[Embedder]) -> None:
    """Print the processor seconds for 1,000 texts: the first passages of xquad_en, in turns."""
    texts = [document.raw[:600] for document in read(shared / "data", "xquad_en").documents][:TIMED_TEXTS]
    for _ in range(2):
        for embedder in embedders:
            started = time.process_time()
            embedder.encode(texts)
            seconds = (time.process_time() - started) * 1000 / len(texts)
            print(
                f"{embedder.name}: {seconds:.1f} processor seconds for 1,000 passages of 600 characters",
                flush=True,
            )


if __name__ == "__main__":
    main()
