"""`tunewise index tune`: settings compared on the user's dev questions, what came out, and the rebuild.

What `index tune` prints: the table, what was chosen and by how much, or all of it as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advisor.output import emit_result
from advisor.workflows.index_build import keep_on_interrupt, load_embedder, load_reranker
from rag.errors import BadInput

if TYPE_CHECKING:
    from advisor.display.progress import ProgressWatcher
    from rag.evaluation.labelled import QuestionRow
    from rag.types import Chunk

from rag.evaluation.labelled import GOLD_KINDS, LabelledQuestions
from rag.evaluation.statistics import PairedDifference
from rag.evaluation.tuning import MIN_QUESTIONS, CandidateScore, TuningOutcome

MAX_TUNE_QUESTIONS = 300
"""Questions used at most, drawn by hash: more cost time and narrow the intervals little."""
SYNTHETIC_QUESTIONS = 200
"""Questions made from the documents when none are given."""


@dataclass(frozen=True, slots=True)
class TuneRequest:
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


def tune_index(wish: TuneRequest) -> None:
    """Measure, say what is best and by how much, and rebuild the index with it where that was asked for."""
    from advisor.display.progress import watch_progress
    from rag.evaluation.labelled import label_questions
    from rag.evaluation.tuning import IndexTuner
    from rag.evaluation.workbench import Workbench
    from rag.files import writer_lock
    from rag.index import Index
    from rag.loading.reader import load_documents
    from rag.stores.vector_cache import VectorCache

    encoder = load_embedder(wish.embedder)
    base = Index.open(wish.index, encoder).settings
    reranker = load_reranker(wish.reranker) if wish.reranker else None
    documents = load_documents(wish.documents)
    with (
        watch_progress(wish.as_json) as watcher,
        keep_on_interrupt(wish.index),
        writer_lock(wish.index),
        VectorCache(wish.index, encoder.fingerprint, encoder.dimension) as cache,
    ):
        for item in documents.skipped:
            watcher.say(f"  skipped {item.path}: {item.reason}")
        hear = _hearing(watcher)
        bench = Workbench(documents.documents, encoder, cache, reranker, hear)
        rows, said = _read(wish) if wish.questions else _make(wish, bench.cut(base))
        questions = label_questions(rows, documents.documents)
        if not questions.questions:
            raise BadInput(
                f"no question can be judged: {unjudged_reasons(questions)}",
                "give questions with gold: doc_id",
            )
        watcher.begin(f"measuring on {len(questions.questions)} questions")
        tuner = IndexTuner(bench, questions.questions, wish.budget, encoder.count_tokens, hear)
        outcome = tuner.tune(base, reranker=reranker is not None, fusion=wish.questions is not None)
    generation = 0
    if wish.apply and outcome.changed:
        with watch_progress(wish.as_json) as watcher:
            settings = outcome.chosen.candidate.settings
            generation = Index.build(wish.index, wish.documents, encoder, settings, watcher).generation
    if wish.as_json:
        body = outcome_json(outcome, questions, wish.questions is None, wish.budget, generation)
        emit_result(body)
    else:
        print_outcome(outcome, questions, said, wish.budget, generation)


def _read(wish: TuneRequest) -> tuple[Sequence[QuestionRow], str]:
    """Return the dev questions of the file, and which they are: test questions are never looked at."""
    from runners.data.questions import load_questions
    from runners.data.sampling import split_questions
    from runners.data.tabular import read_rows
    from runners.plan.schema import PlanData

    assert wish.questions is not None
    rows = load_questions(wish.questions)
    test = {line for line, row in read_rows(wish.questions) if row.get("split") == "test"}
    left = [row for row in rows if row.line not in test]
    share = 1.0 if test or wish.all_dev else PlanData.model_fields["dev_share"].default
    dev = split_questions(left, share, seed=0, max_dev=MAX_TUNE_QUESTIONS).dev
    which = (
        "the dev part, as a run divides them" if share < 1 else "those not marked test" if test else "all dev"
    )
    return dev, f"{len(dev)} of {len(rows)} questions of {wish.questions} ({which})"


def _make(wish: TuneRequest, chunks: Sequence[Chunk]) -> tuple[Sequence[QuestionRow], str]:
    """Return questions made from the documents; they are written down where that was asked for."""
    from rag.evaluation.synthetic import make_questions
    from rag.files import write_text

    made = make_questions(chunks, SYNTHETIC_QUESTIONS)
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


def _hearing(watcher: ProgressWatcher) -> Any:
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


CANDIDATES_SHOWN = 12
"""Candidates in the table; --json has all."""


def print_outcome(
    outcome: TuningOutcome, questions: LabelledQuestions, said: str, budget: int, generation: int
) -> None:
    """Print which questions judged, the table, the choice, how many passages are enough, and what to do next."""
    print(said)
    for kind, number in questions.kinds.items():
        print(f"  {number} judged by {GOLD_KINDS[kind]}")
    if questions.left_out:
        print(f"  left out: {unjudged_reasons(questions)}")
    _print_table(outcome, budget)
    print(_verdict(outcome))
    enough, all_of_it = outcome.depths_by_k[outcome.enough], outcome.chosen
    print(
        f"{outcome.enough} passages are enough: {enough.mean:.3f} with {enough.tokens:.0f} tokens, "
        f"against {all_of_it.mean:.3f} with {all_of_it.tokens:.0f}"
    )
    if generation:
        print(f"the index was rebuilt with these settings: generation {generation}")
    elif outcome.changed:
        print("to rebuild the index with these settings: the same command with --apply")
    s = outcome.chosen.candidate.settings
    print(
        f"for a plan's index step: k: {outcome.enough}, max_chunk_tokens: {s.max_tokens}, overlap: {s.overlap:g}, "
        f"fusion: {s.fusion}, lexical_weight: {s.lexical_weight:g}, context_tokens: {budget}"
    )


def outcome_json(
    outcome: TuningOutcome, questions: LabelledQuestions, synthetic: bool, budget: int, generation: int
) -> dict[str, Any]:
    """Return the outcome as `index tune --json` prints it."""
    candidates = [
        {
            **_candidate(measured),
            "difference": lead.difference,
            "low": lead.low,
            "high": lead.high,
            "p": lead.p,
        }
        for measured, lead in zip(outcome.others, outcome.leads, strict=True)
    ]
    return {
        "schema": 1,
        "questions": len(questions.questions),
        "judged_by": questions.kinds,
        "left_out": dict(questions.left_out),
        "synthetic": synthetic,
        "budget": budget,
        "changed": outcome.changed,
        "baseline": _candidate(outcome.baseline),
        "chosen": _candidate(outcome.chosen),
        "best": None if outcome.best is None else candidates[outcome.best],
        "candidates": candidates,
        "passages": [{"k": k, "score": m.mean, "tokens": m.tokens} for k, m in outcome.depths_by_k.items()],
        "enough": outcome.enough,
        "generation": generation or None,
    }


def unjudged_reasons(questions: LabelledQuestions) -> str:
    """Say how many questions cannot be judged, and why."""
    return ", ".join(f"{number} {reason}" for reason, number in questions.left_out.items())


def _print_table(outcome: TuningOutcome, budget: int) -> None:
    """Print the settings there are and the best of the others."""
    head = f"at most {budget} prompt tokens"
    print(f"\n{head:46} {'shown':>6} {'tokens':>7} {'score':>6}  difference, 95 %")
    print(f"{outcome.baseline.candidate!s:46} {_row(outcome.baseline)}  what the index has")
    order = sorted(range(len(outcome.others)), key=lambda n: -outcome.others[n].mean)
    for n in order[:CANDIDATES_SHOWN]:
        gain = _gain(outcome.leads[n])
        print(f"{outcome.others[n].candidate!s:46} {_row(outcome.others[n])}  {gain}")
    if len(order) > CANDIDATES_SHOWN:
        print(f"and {len(order) - CANDIDATES_SHOWN} more with lower scores")
    print()


def _row(measured: CandidateScore) -> str:
    return f"{measured.passages:6.1f} {measured.tokens:7.0f} {measured.mean:6.3f}"


def _gain(lead: PairedDifference) -> str:
    return f"{lead.difference:+.3f} [{lead.low:+.3f}, {lead.high:+.3f}]"


def _verdict(outcome: TuningOutcome) -> str:
    """Say what was chosen, by how much, and how sure that is."""
    if outcome.best is None:
        return "kept: nothing else that was tried cuts or ranks these documents in another way"
    best, lead = outcome.others[outcome.best], outcome.leads[outcome.best]
    by = f"{_gain(lead)}, p {lead.p:.3f}, corrected for {len(outcome.others)} candidates"
    if outcome.changed:
        return f"chosen: {best.candidate}: {by}"
    if (asked := len(outcome.baseline.scores)) < MIN_QUESTIONS:
        return f"kept: {asked} questions are too few to change anything, {MIN_QUESTIONS} is the least"
    if outcome.baseline.mean == 1:
        return (
            "kept: every question gets all of its gold within this budget; a smaller --budget would tell more"
        )
    if lead.difference <= 0:
        return f"kept: none of {len(outcome.others)} candidates is better"
    return f"kept: nothing is better beyond noise; nearest is {best.candidate}: {by}"


def _candidate(measured: CandidateScore) -> dict[str, Any]:
    s = measured.candidate.settings
    return {
        "max_tokens": s.max_tokens,
        "overlap": s.overlap,
        "fusion": s.fusion,
        "lexical_weight": s.lexical_weight,
        "reranked": measured.candidate.reranked,
        "chunks": measured.chunks,
        "passages": measured.passages,
        "tokens": measured.tokens,
        "score": measured.mean,
    }
