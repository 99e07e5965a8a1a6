"""The work behind ``tunewise index tune``: compare settings on the user's dev questions, print the result, and rebuild the
index with the best one where that was asked for.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advisor.display.progress import watch_progress
from advisor.flags.index import TuneFlags
from advisor.output import emit_result
from advisor.workflows.index_build import (
    keep_on_interrupt,
    load_embedder,
    load_reranker,
    local_index,
    source_documents,
)
from rag.errors import BadInput
from rag.evaluation.gold_documents import match_documents, require_match
from rag.evaluation.labelled import GOLD_KINDS, LabelledQuestions, label_questions
from rag.evaluation.statistics import PairedDifference
from rag.evaluation.synthetic import make_questions
from rag.evaluation.tuning import MIN_QUESTIONS, CandidateScore, IndexTuner, TuningOutcome
from rag.evaluation.workbench import Workbench
from rag.files import write_text, writer_lock
from rag.index import Index
from rag.loading.reader import load_documents
from rag.stores.vector_cache import VectorCache
from rag.text.words import count_noun
from runners.data.questions import load_questions
from runners.data.sampling import split_questions
from runners.data.tabular import read_rows
from runners.plan.data import PlanData

if TYPE_CHECKING:
    from advisor.display.progress import ProgressWatcher
    from rag.evaluation.labelled import QuestionRow
    from rag.types import Chunk

MAX_TUNE_QUESTIONS = 300
"""Most questions to use, drawn by hash: more take time and narrow the intervals little."""
SYNTHETIC_QUESTIONS = 200
"""Questions made from the documents when none are given."""


CANDIDATES_SHOWN = 12
"""Candidates in the table; --json has all."""


def tune_index(flags: TuneFlags) -> None:
    """Compare settings, print the best and by how much, and rebuild the index with it if that was asked for."""
    folder = local_index(flags.index)
    path = source_documents(folder, flags.documents)
    present = Index.open(folder, load_embedder(flags.embedder))
    base, encoder = present.settings, present.encoder
    reranker = load_reranker(flags.reranker) if flags.reranker else None
    documents = load_documents(path)
    with (
        watch_progress(flags.as_json) as watcher,
        keep_on_interrupt(folder),
        writer_lock(folder),
        VectorCache(folder, encoder.fingerprint, encoder.dimension) as cache,
    ):
        for item in documents.skipped:
            watcher.say(f"  skipped {item.path}: {item.reason}")
        on_event = _progress_callback(watcher)
        workbench = Workbench(documents.documents, encoder, cache, reranker, on_event)
        rows, source = (
            _read_questions(flags) if flags.questions else _make_questions(flags, path, workbench.cut(base))
        )
        if flags.questions:
            names = [row.doc_id for row in rows if row.doc_id]
            match = match_documents(names, [document.id for document in documents.documents])
            require_match(match, flags.questions, path)
            for line in match.lines(flags.questions):
                watcher.say(f"  {line}")
        questions = label_questions(rows, documents.documents)
        if not questions.questions:
            raise BadInput(
                f"no question can be judged: {unjudged_reasons(questions)}",
                "give questions with gold: doc_id",
            )
        watcher.begin(f"measuring on {count_noun(len(questions.questions), 'question')}")
        tuner = IndexTuner(workbench, questions.questions, flags.budget, encoder.count_tokens, on_event)
        outcome = tuner.tune(base, reranker=reranker is not None, fusion=flags.questions is not None)
    generation = 0
    if flags.apply and outcome.changed:
        with watch_progress(flags.as_json) as watcher:
            settings = outcome.chosen.candidate.settings
            generation = Index.build(folder, path, encoder, settings, watcher).generation
    if flags.as_json:
        body = outcome_json(outcome, questions, flags.questions is None, flags.budget, generation)
        emit_result(body)
    else:
        print_outcome(outcome, questions, source, flags.budget, generation)


def print_outcome(
    outcome: TuningOutcome, questions: LabelledQuestions, source: str, budget: int, generation: int
) -> None:
    """Print the questions used, the table, the choice, how many passages are enough, and what to do next."""
    print(source)
    for kind, number in questions.kinds.items():
        print(f"  {number} judged by {GOLD_KINDS[kind]}")
    if questions.left_out:
        print(f"  not counted: {unjudged_reasons(questions)}")
    _print_table(outcome, budget)
    print(_verdict(outcome))
    enough, chosen = outcome.depths_by_k[outcome.enough], outcome.chosen
    print(
        f"{outcome.enough} passages are enough: {enough.mean:.3f} with {enough.tokens:.0f} tokens, "
        f"against {chosen.mean:.3f} with {chosen.tokens:.0f}"
    )
    if generation:
        print(f"the index was rebuilt with these settings: generation {generation}")
    elif outcome.changed:
        print("to rebuild the index with these settings: the same command with --apply")
    settings = outcome.chosen.candidate.settings
    print(
        f"for a plan's index step: k: {outcome.enough}, max_chunk_tokens: {settings.max_tokens}, "
        f"overlap: {settings.overlap:g}, fusion: {settings.fusion}, "
        f"lexical_weight: {settings.lexical_weight:g}, context_tokens: {budget}"
    )


def outcome_json(
    outcome: TuningOutcome, questions: LabelledQuestions, synthetic: bool, budget: int, generation: int
) -> dict[str, Any]:
    """Return the outcome as `index tune --json` prints it."""
    candidates = [
        {
            **_candidate_json(measured),
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
        "baseline": _candidate_json(outcome.baseline),
        "chosen": _candidate_json(outcome.chosen),
        "best": None if outcome.best is None else candidates[outcome.best],
        "candidates": candidates,
        "passages": [
            {"k": k, "score": score.mean, "tokens": score.tokens} for k, score in outcome.depths_by_k.items()
        ],
        "enough": outcome.enough,
        "generation": generation or None,
    }


def unjudged_reasons(questions: LabelledQuestions) -> str:
    """Return how many questions cannot be judged, by reason."""
    return ", ".join(f"{number} {reason}" for reason, number in questions.left_out.items())


def _read_questions(flags: TuneFlags) -> tuple[Sequence[QuestionRow], str]:
    """Return the dev questions of the file, and which these are in words; test questions are never read."""
    assert flags.questions is not None
    rows = load_questions(flags.questions)
    test = {line for line, row in read_rows(flags.questions) if row.get("split") == "test"}
    untested = [row for row in rows if row.line not in test]
    share = 1.0 if test or flags.all_dev else PlanData.model_fields["dev_share"].default
    dev = split_questions(untested, share, seed=0, max_dev=MAX_TUNE_QUESTIONS).dev
    selection = (
        "the dev part, as a run divides them" if share < 1 else "those not marked test" if test else "all dev"
    )
    return dev, f"{len(dev)} of {count_noun(len(rows), 'question')} of {flags.questions} ({selection})"


def _make_questions(
    flags: TuneFlags, path: Path, chunks: Sequence[Chunk]
) -> tuple[Sequence[QuestionRow], str]:
    """Return questions made from the documents, and a line about them; write them to a file if that was asked for."""
    questions = make_questions(chunks, SYNTHETIC_QUESTIONS)
    if not questions:
        raise BadInput(
            f"no questions could be made from {path}: that needs plain statements in English",
            "write some questions with their doc_id, one JSON object a line, and give --questions FILE",
        )
    if flags.keep_made:
        rows = (json.dumps(item.to_json(), ensure_ascii=False) for item in questions)
        write_text(flags.keep_made, "".join(f"{row}\n" for row in rows))
    return questions, (
        f"{len(questions)} synthetic questions, made from the documents: they use the documents' own words, "
        "so only chunk size and overlap are tried"
    )


def _progress_callback(watcher: ProgressWatcher) -> Any:
    """Return a callback that shows the candidates on the bar, and beside them what is being embedded."""
    done, total = 0, 1

    def on_event(event: dict[str, Any]) -> None:
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

    return on_event


def _print_table(outcome: TuningOutcome, budget: int) -> None:
    """Print the current settings and the best of the others."""
    head = f"at most {budget} prompt tokens"
    print(f"\n{head:46} {'shown':>6} {'tokens':>7} {'score':>6}  difference, 95 %")
    print(f"{outcome.baseline.candidate!s:46} {_row(outcome.baseline)}  what the index has")
    order = sorted(range(len(outcome.others)), key=lambda index: -outcome.others[index].mean)
    for index in order[:CANDIDATES_SHOWN]:
        gain = _gain(outcome.leads[index])
        print(f"{outcome.others[index].candidate!s:46} {_row(outcome.others[index])}  {gain}")
    if len(order) > CANDIDATES_SHOWN:
        print(f"and {len(order) - CANDIDATES_SHOWN} more with lower scores")
    print()


def _row(measured: CandidateScore) -> str:
    return f"{measured.passages:6.1f} {measured.tokens:7.0f} {measured.mean:6.3f}"


def _gain(lead: PairedDifference) -> str:
    return f"{lead.difference:+.3f} [{lead.low:+.3f}, {lead.high:+.3f}]"


def _verdict(outcome: TuningOutcome) -> str:
    """Return what was chosen, by how much, and how certain that is."""
    if outcome.best is None:
        return "unchanged: no other setting that was tried splits or ranks these documents differently"
    best, lead = outcome.others[outcome.best], outcome.leads[outcome.best]
    margin = f"{_gain(lead)}, p {lead.p:.3f}, corrected for {len(outcome.others)} candidates"
    if outcome.changed:
        return f"chosen: {best.candidate}: {margin}"
    if (asked := len(outcome.baseline.scores)) < MIN_QUESTIONS:
        return (
            f"unchanged: {count_noun(asked, 'question')} can decide nothing, it takes {MIN_QUESTIONS} or more"
        )
    if outcome.baseline.mean == 1:
        return "unchanged: every question gets all of its gold within this budget; a smaller --budget would show differences"
    if lead.difference <= 0:
        return f"unchanged: none of {len(outcome.others)} candidates is better"
    return f"unchanged: nothing is clearly better; nearest is {best.candidate}: {margin}"


def _candidate_json(measured: CandidateScore) -> dict[str, Any]:
    settings = measured.candidate.settings
    return {
        "max_tokens": settings.max_tokens,
        "overlap": settings.overlap,
        "fusion": settings.fusion,
        "lexical_weight": settings.lexical_weight,
        "reranked": measured.candidate.reranked,
        "chunks": measured.chunks,
        "passages": measured.passages,
        "tokens": measured.tokens,
        "score": measured.mean,
    }
