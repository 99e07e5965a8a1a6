"""In whose words the questions of public sets are, and how often a draw of a few is taken for the documents' words.

The value and the smallest number of questions in `rag.evaluation.question_words` were chosen on the first half of the sets;
the second was looked at once, afterwards.

    python -m benchmarks.question_words SHARED
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from statistics import fmean
from typing import Any

from rag.evaluation.question_words import DOCUMENTS_WORDS_FROM, gold_sentences, share_in_sentence
from rag.loading.reader import load_documents
from rag.text.words import content_words, sentences
from runners.data.questions import Question, load_questions
from runners.scoring.correctness import gold_texts

CHOSEN_ON = ("xquad_en", "browser_compat", "harbor_desk", "pool dev", "clapnq_dev", "dstc11_reviews")
REPORTED = (
    *("xquad_es", "endoflife_dates", "hybrid_concierge", "chunk_eval", "pool test", "qed_reading"),
    *("mtragun_followups", "harbor_desk customers", "hybrid_concierge spoken", "tldr_commands"),
)
BY_REPLY = ("dstc11_reviews", "mtragun_followups")
"""Sets whose gold is a free reply: the gold sentence is the one of the gold documents with most of its content words."""
SIZES = (5, 10, 20, 30, 40)
DRAWS = 4_000


def main() -> None:
    """Print a line for each set."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shared", type=Path)
    shared = parser.parse_args().shared
    random.seed(0)
    for name in (*CHOSEN_ON, *REPORTED):
        rows = list(_questions(shared, name))
        for wording in range(3):
            asked = [((q.question, *q.wordings)[wording], s) for q, s in rows if wording <= len(q.wordings)]
            shares = [share for text, found in asked if (share := share_in_sentence(text, found)) is not None]
            if shares:
                taken = ["-" if len(shares) < size else f"{_taken(shares, size):.3f}" for size in SIZES]
                print(
                    f"{name} {wording}: {len(shares)} of {len(asked)}, {fmean(shares):.3f}: {' '.join(taken)}"
                )


def _taken(shares: list[float], size: int) -> float:
    return fmean(fmean(random.sample(shares, size)) >= DOCUMENTS_WORDS_FROM for _ in range(DRAWS))


def _questions(shared: Path, name: str) -> Iterator[tuple[Question, list[str]]]:
    """Yield the answerable questions of a set with their gold sentences."""
    kind, _, part = name.partition(" ")
    folder = shared / "cases/houses/pool" if kind == "pool" else shared / "data" / kind
    file = folder / {"spoken": "spoken_dialogues.jsonl", "": "questions.jsonl"}.get(part, f"{part}.jsonl")
    if kind == "harbor_desk":
        folder = Path(str(files("advisor") / kind))
        file = Path(__file__).with_name("harbor_desk_held_out.jsonl") if part else folder / "questions.jsonl"
    if kind == "qed_reading":
        for question in load_questions(file):
            text, _, asked = question.question.rpartition("\n\nQuestion: ")
            yield replace(question, question=asked), gold_sentences(text, asked, gold_texts(question, ""), ())
        return
    path = folder / "documents.jsonl" if (folder / "documents.jsonl").exists() else folder / "documents"
    texts = {document.id.removesuffix(".md"): document.raw for document in load_documents(path).documents}
    metas = [json.loads(line).get("meta", {}) for line in file.read_text("utf-8").splitlines()]
    for question, meta in zip(load_questions(file), metas, strict=True):
        if not question.answerable:
            continue
        if kind in BY_REPLY:
            yield question, _nearest_to_reply(question, meta, texts)
            continue
        text = texts[str(question.doc_id).removesuffix(".md")]
        gold = gold_texts(question, " ".join(text[start:end] for start, end in question.spans))
        yield question, gold_sentences(text, question.question, gold, question.spans)


def _nearest_to_reply(question: Question, meta: Mapping[str, Any], texts: Mapping[str, str]) -> list[str]:
    reply = set(content_words(question.reference or ""))
    found = [s for id in meta["doc_ids"] for s in sentences(texts.get(id, ""))]
    return [max(found, key=lambda s: len(reply & set(content_words(s))))] if found else []


if __name__ == "__main__":
    main()
