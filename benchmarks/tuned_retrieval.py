"""A tuned embedder and reranker against the one before, on questions about documents that were not trained on.

Run from the repository's root, each part with results in a folder of its own:

    python -m benchmarks.tuned_retrieval SETS_FOLDER WORK_FOLDER --sets xquad_en hybrid_concierge --half tune --grid
    python -m benchmarks.tuned_retrieval SETS_FOLDER WORK_FOLDER --sets clapnq_dev tldr_commands dstc11_reviews --half report

``--half tune`` measures on the half of the held-out documents by which settings were chosen, ``--half report`` on the other.
Two of the five sets have no training rows: their questions are divided by document (xquad_en by article) into training and
held-out ones. Every set is searched whole, documents of the training half included.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rag.embedding.embedder import Embedder
from rag.embedding.reranker import Reranker
from rag.evaluation.labelled import label_questions
from rag.files import write_json
from rag.index import Index
from rag.loading.reader import load_documents
from rag.training.comparison import COMPARED_DEPTH, Search, compare_retrievers, decide, token_budget
from rag.training.embedder import train_embedder
from rag.training.pairs import mine_negatives, text_rows
from rag.training.reranker import train_reranker
from rag.training.settings import TuningSettings
from rag.types import Hit
from runners.arms.training_pairs import training_pairs
from runners.data.examples import Example, load_examples
from runners.data.questions import Question, load_questions
from runners.models.resolve import resolve_model
from runners.plan.steps import IndexStep

EMBEDDER = "all-minilm-l6-v2"
SETS = ("xquad_en", "clapnq_dev", "hybrid_concierge", "tldr_commands", "dstc11_reviews")
PASSAGES = IndexStep().k
CONTEXT_TOKENS = IndexStep().context_tokens
GRID: Mapping[str, Mapping[str, Any]] = {
    "1 epoch, no negatives": {"epochs": 1, "hard_negatives": 0},
    "1 epoch": {"epochs": 1, "hard_negatives": 1},
    "3 epochs": {"epochs": 3, "hard_negatives": 1},
    "3 epochs, half original": {"epochs": 3, "hard_negatives": 1, "original_share": 0.5},
    "3 epochs, 5e-5": {"epochs": 3, "hard_negatives": 1, "learning_rate": 5e-5},
    "3 epochs, no negatives": {"epochs": 3, "hard_negatives": 0},
}


@dataclass(frozen=True, slots=True)
class TunedSet:
    """One set: its documents, training examples, and held-out questions about other documents."""

    name: str
    documents: Path
    examples: tuple[Example, ...]
    questions: tuple[Question, ...]


def read_set(data: Path, name: str, half: str) -> TunedSet:
    """Read a set with one half of its held-out questions, tune or report; the halves have different documents."""
    folder = data / name
    questions = tuple(q for q in load_questions(folder / "questions.jsonl") if q.answerable and q.doc_id)
    if (folder / "train.jsonl").is_file():
        examples = load_examples(folder / "train.jsonl").rows
        trained = {str(id) for e in examples for id in [e.meta.get("doc_id"), *(e.meta.get("doc_ids") or [])]}
        rows = [json.loads(line) for line in (folder / "questions.jsonl").read_text("utf-8").splitlines()]
        train_ids = {str(row.get("id")) for row in rows if row.get("split") == "train"}
        questions = tuple(q for q in questions if q.doc_id not in trained and q.id not in train_ids)
    else:
        examples = tuple(_example(q) for q in questions if _side(name, str(q.doc_id)) == "train")
        questions = tuple(q for q in questions if _side(name, str(q.doc_id)) != "train")
    chosen = tuple(q for q in questions if half == "all" or _half(name, str(q.doc_id)) == half)
    return TunedSet(name, folder / "documents.jsonl", tuple(examples), chosen)


def _group(name: str, document: str) -> str:
    return document.partition("p")[0] if name == "xquad_en" else document


def _draw(text: str) -> int:
    return hashlib.sha256(text.encode()).digest()[0]


def _side(name: str, document: str) -> str:
    return "train" if _draw(f"side {_group(name, document)}") % 2 else "held out"


def _half(name: str, document: str) -> str:
    return "tune" if _draw(f"half {_group(name, document)}") % 2 else "report"


def _example(question: Question) -> Example:
    reply = question.answers[0] if question.answers else question.reference or ""
    messages = ({"role": "user", "content": question.question}, {"role": "assistant", "content": reply})
    spans = [{"start": start, "end": end} for start, end in question.spans]
    return Example(
        messages, {"doc_id": question.doc_id, **({"spans": spans} if spans else {})}, question.line
    )  # type: ignore[arg-type]


class SetTrial:
    """The plain index of a set, and what was measured against it."""

    def __init__(self, found: TunedSet, work: Path, max_pairs: int | None = None) -> None:
        """Build the plain index unless it is there."""
        self.set, self.work = found, work / found.name
        self.work.mkdir(parents=True, exist_ok=True)
        self.embedder = Embedder(resolve_model(EMBEDDER).folder, device="cpu")
        self.plain = self._index(self.work / "plain", self.embedder)
        self.labelled = label_questions(found.questions, load_documents(found.documents).documents)
        self._cache: dict[str, list[list[Hit]]] = {}
        self.pairs = training_pairs(self.plain, found.examples, max_pairs)

    def _index(self, folder: Path, embedder: Embedder) -> Index:
        if not (folder / "CURRENT").exists():
            Index.build(folder, self.set.documents, embedder)
        return Index.open(folder, embedder)

    def search(self, index: Index, reranker: Reranker | None = None) -> Search:
        """Return the search of an index, with the first 30 hits in a reranker's order."""

        def run(questions: Sequence[str]) -> list[list[Hit]]:
            hits = index.search_many(list(questions), COMPARED_DEPTH)
            if reranker is None:
                return hits
            return [
                index.rerank(reranker, q, each, IndexStep().rerank)
                for q, each in zip(questions, hits, strict=True)
            ]

        return run

    def tuned(self, name: str, settings: TuningSettings) -> tuple[Index, dict[str, Any]]:
        """Train an embedder, unless it is there, and build its index."""
        folder = self.work / name
        facts = folder / "facts.json"
        if not facts.exists():
            mined = mine_negatives(self.plain, self.pairs.pairs, settings.hard_negatives)
            rows = text_rows(self.plain, mined.pairs, settings.hard_negatives)
            started = time.process_time()
            result = train_embedder(
                self.embedder, rows, settings, folder / "embedder", folder / "work", device="cpu"
            )
            body = {**result.to_json(), "cpu_seconds": round(time.process_time() - started)}
            body |= {"false_negatives": dict(mined.dropped), "short": mined.short}
            write_json(facts, body)
        embedder = Embedder(folder / "embedder", device="cpu")
        return self._index(folder / "index", embedder), json.loads(facts.read_text("utf-8"))

    def reranker(self, name: str, settings: TuningSettings) -> Reranker:
        """Train a reranker from the embedder's own weights with a new head, unless it is there."""
        folder = self.work / name
        if not (folder / "reranker").exists():
            count = max(1, settings.hard_negatives)
            rows = text_rows(self.plain, mine_negatives(self.plain, self.pairs.pairs, count).pairs, count)
            train_reranker(
                self.embedder.folder,
                rows,
                settings,
                folder / "reranker",
                folder / "work",
                device="cpu",
                new_head=True,
            )
        return Reranker(folder / "reranker", device="cpu")

    def compare(self, after: Search) -> dict[str, Any]:
        """Return the paired comparison with the plain index as JSON, with the gate's decision."""
        before = self.search(self.plain)
        count: Callable[[str], int] = self.embedder.count_tokens
        asked = [q.question for q in self.labelled.questions]
        budget = token_budget(before, asked, PASSAGES, CONTEXT_TOKENS, count)
        comparison = compare_retrievers(before, after, self.labelled, budget, count)
        decision = decide(comparison)
        return {**comparison.to_json(), "accepted": decision.accepted, "reason": decision.reason}


def main() -> None:
    """Measure each set with one setting, or with all of the grid."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--sets", nargs="+", default=list(SETS))
    parser.add_argument("--half", choices=("tune", "report", "all"), default="report")
    parser.add_argument("--grid", action="store_true")
    parser.add_argument("--only", nargs="+", default=list(GRID))
    parser.add_argument("--max-pairs", type=int, help="train on only so many pairs, drawn by the seed")
    parser.add_argument("--reranker", action="store_true")
    given = parser.parse_args()
    for name in given.sets:
        trial = SetTrial(read_set(given.data, name, given.half), given.work, given.max_pairs)
        print(
            f"\n{name} ({given.half}): {trial.pairs.text}; {len(trial.labelled.questions)} questions",
            flush=True,
        )
        settings = (
            {label: replace(TuningSettings(), **GRID[label]) for label in given.only} if given.grid else {}
        )
        for label, wanted in (settings or {"default": TuningSettings()}).items():
            key = json.dumps([asdict(wanted), given.max_pairs], sort_keys=True)
            folder = hashlib.sha256(key.encode()).hexdigest()[:10]
            index, facts = trial.tuned(folder, wanted)
            row = {
                "set": name,
                "half": given.half,
                "setting": label,
                **trial.compare(trial.search(index)),
                "facts": facts,
            }
            _record(given.work, row)
            if given.reranker:
                after = trial.search(index, trial.reranker(f"{folder}-reranker", wanted))
                _record(
                    given.work,
                    {
                        "set": name,
                        "half": given.half,
                        "setting": f"{label} + reranker",
                        **trial.compare(after),
                    },
                )


def _record(work: Path, row: Mapping[str, Any]) -> None:
    with (work / "results.jsonl").open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(row) + "\n")
    print(f"  {row['setting']}: {row['reason']}", flush=True)


if __name__ == "__main__":
    main()
