"""`tunewise index tune`: settings compared on the user's dev questions, what came out, and the rebuild."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advisor.indexing import keeping, load_embedder, load_reranker
from advisor.output import emit
from rag.errors import BadInput

if TYPE_CHECKING:
    from advisor.progress import Watcher
    from rag.asked import WithGold
    from rag.types import Chunk

MOST = 300
"""Questions used at most, drawn by hash: more cost time and narrow the intervals little."""
MADE = 200
"""Questions made from the documents when none are given."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What `index tune` was asked for."""

    index: Path
    documents: Path
    questions: Path | None
    embedder: str
    reranker: str
    budget: int
    apply: bool
    all_dev: bool
    keep_made: Path | None
    as_json: bool


def tune_index(wish: Wish) -> None:
    """Measure, say what is best and by how much, and rebuild the index with it where that was asked for."""
    from advisor.index_tuned import outcome_json, print_outcome, reasons
    from advisor.progress import watching
    from rag.asked import ready
    from rag.durable import writer_lock
    from rag.index import Index
    from rag.load.walk import load_documents
    from rag.stores.cache import VectorCache
    from rag.tune import Tuner
    from rag.workbench import Workbench

    encoder = load_embedder(wish.embedder)
    base = Index.open(wish.index, encoder).settings
    reranker = load_reranker(wish.reranker) if wish.reranker else None
    documents = load_documents(wish.documents)
    with (
        watching(wish.as_json) as watcher,
        keeping(wish.index),
        writer_lock(wish.index),
        VectorCache(wish.index, encoder.fingerprint, encoder.dimension) as cache,
    ):
        for item in documents.skipped:
            watcher.say(f"  skipped {item.path}: {item.reason}")
        hear = _hearing(watcher)
        bench = Workbench(documents.documents, encoder, cache, reranker, hear)
        rows, said = _read(wish) if wish.questions else _make(wish, bench.cut(base))
        questions = ready(rows, documents.documents)
        if not questions.questions:
            raise BadInput(
                f"no question can be judged: {reasons(questions)}", "give questions with gold: doc_id"
            )
        watcher.begin(f"measuring on {len(questions.questions)} questions")
        tuner = Tuner(bench, questions.questions, wish.budget, encoder.count_tokens, hear)
        outcome = tuner.tune(base, reranker=reranker is not None, fusion=wish.questions is not None)
    generation = 0
    if wish.apply and outcome.changed:
        with watching(wish.as_json) as watcher:
            settings = outcome.chosen.candidate.settings
            generation = Index.build(wish.index, wish.documents, encoder, settings, watcher).generation
    if wish.as_json:
        body = outcome_json(outcome, questions, wish.questions is None, wish.budget, generation)
        emit(body)
    else:
        print_outcome(outcome, questions, said, wish.budget, generation)


def _read(wish: Wish) -> tuple[Sequence[WithGold], str]:
    """Return the dev questions of the file, and which they are: test questions are never looked at."""
    from runners.data import load_questions
    from runners.plan import Data
    from runners.rows import read_rows
    from runners.split import split_questions

    assert wish.questions is not None
    rows = load_questions(wish.questions)
    test = {line for line, row in read_rows(wish.questions) if row.get("split") == "test"}
    left = [row for row in rows if row.line not in test]
    share = 1.0 if test or wish.all_dev else Data.model_fields["dev_share"].default
    dev = split_questions(left, share, seed=0, max_dev=MOST).dev
    which = (
        "the dev part, as a run divides them" if share < 1 else "those not marked test" if test else "all dev"
    )
    return dev, f"{len(dev)} of {len(rows)} questions of {wish.questions} ({which})"


def _make(wish: Wish, chunks: Sequence[Chunk]) -> tuple[Sequence[WithGold], str]:
    """Return questions made from the documents; they are written down where that was asked for."""
    from rag.durable import write_text
    from rag.quiz import make

    made = make(chunks, MADE)
    if not made:
        raise BadInput(
            f"no questions could be made from {wish.documents}: that needs plain statements in English",
            "write some questions with their doc_id, one JSON object a line, and give --questions FILE",
        )
    if wish.keep_made:
        rows = (json.dumps(each.to_json(), ensure_ascii=False) for each in made)
        write_text(wish.keep_made, "".join(f"{row}\n" for row in rows))
    return made, (
        f"{len(made)} synthetic questions, made from the documents: they use the documents' own words, so only chunk "
        "size and overlap are tried"
    )


def _hearing(watcher: Watcher) -> Any:
    """Show candidates on the bar, and beside them what is being embedded."""
    done, total = 0, 1

    def hear(event: dict[str, Any]) -> None:
        nonlocal done, total
        if event["event"] == "tune.candidate":
            done, total = event["done"], event["total"]
            watcher.advance(done, total, "")
        elif event["event"] == "tune.cut":
            watcher.say(
                f"  {event['number']}/{event['total']}: {event['max_tokens']} tokens, overlap {event['overlap']:g}, "
                f"{event['chunks']} passages"
            )
        elif event["event"] == "embed.batch":
            watcher.advance(done, total, f"embedding {event['done']} of {event['total']} passages")

    return hear
