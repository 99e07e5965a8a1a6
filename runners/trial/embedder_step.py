"""Carry out an embedder step: pairs, negatives, training, a second index, and the gate on dev questions.

Everything is resumable: a part that is whole and was made from the same inputs is not made again, a training goes on from
its last checkpoint. Nothing here reads a test question but the check that none is among the pairs; the test questions are
compared by :func:`compare_on_test` when the trial is over.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rag.errors import BadInput
from rag.files import canonical_json, sha256_text, write_json
from rag.training.settings import require_training_library
from rag.types import Hit, OnEvent
from runners.arms.retriever import Retriever, index_settings
from runners.arms.training_pairs import PairSet, require_pairs, training_pairs
from runners.data.questions import Question
from runners.models import resolve
from runners.plan.schema import Plan
from runners.plan.steps import EmbedderStep
from runners.resources.device import torch_device
from runners.runs.session import RunContext, obtain_model
from runners.runs.tuned_retrieval import COMPARISON, TRAINING, TUNED_REFUSAL, read_comparison
from runners.trial.refusal_gate import fit_gate_on_dev, log_questions, why_fit_again

WORK = ".training"
"""Folder of the checkpoints, in that of the tuned retriever; it is removed when the training is finished."""


TIMED_STEPS = 2
"""Training steps that a dry run takes."""


def check_embedder_plan(plan: Plan, on_event: OnEvent | None = None) -> None:
    """Raise CannotRun before the first step where a plan tunes a retriever and the extra or the reranker is not here."""
    if plan.embedder_step:
        require_training_library()
        obtain_tuned_reranker(plan, on_event)


def tune_embedder(context: RunContext, step: EmbedderStep, inputs: dict[str, Any]) -> dict[str, Any]:
    """Train the plan's embedder, build its index, and let the gate decide on the dev questions.

    Args:
        context: the run, with its plain index built.
        step: the plan's embedder step.
        inputs: everything that the step depends on.

    Returns:
        What is recorded: the pairs, the trainings, the index, and the gate's decision with its numbers.

    Raises:
        BadInput: there are too few pairs, or a held-out question is among them.
    """
    from rag.index import Index

    made_from = sha256_text(canonical_json(inputs))
    pairs = training_pairs(context.index, context.examples, step.max_pairs, context.plan.seed)
    require_pairs(pairs, (*context.split.dev, *context.split.test))
    if reason := _nothing_to_gain(context):
        return _without_training(context, reason)
    trained = _trained_before(context, made_from) or _train(context, step, pairs, made_from)
    assert context.plan.data.documents is not None
    assert context.plan.index is not None
    report = Index.build(
        context.tuned.index_folder,
        context.plan.data.documents,
        context.tuned.embedder,
        index_settings(context.plan.index),
        context.emit,
    )
    _fit_tuned_refusal(context)
    comparison = _compare_on_dev(context)
    return {**trained, "index": report.to_json(), **comparison}


def _trained_before(context: RunContext, made_from: str) -> dict[str, Any]:
    """Return what the trainings of a step that was interrupted later reported; {} where they must be done (again)."""
    file = context.tuned.folder / TRAINING
    if not file.is_file():
        return {}
    body = dict(json.loads(file.read_text("utf-8")))
    return dict(body["result"]) if body.get("made_from") == made_from else {}


def _train(context: RunContext, step: EmbedderStep, pairs: PairSet, made_from: str) -> dict[str, Any]:
    """Mine negatives, train the embedder and the reranker, and write what they reported."""
    from rag.training.embedder import train_embedder
    from rag.training.pairs import mine_negatives, text_rows
    from rag.training.reranker import train_reranker

    tuned, settings = context.tuned, step.settings(context.plan.seed)
    mined = mine_negatives(context.index, pairs.pairs, step.hard_negatives)
    counts = {**pairs.counts(), "false_negatives": dict(mined.dropped), "short_of_negatives": mined.short}
    context.emit({"event": "retriever.pairs", "reason": pairs.text, **counts})
    rows = text_rows(context.index, mined.pairs, step.hard_negatives)
    context.release()
    work, device = tuned.folder / WORK / made_from[:16], torch_device().type
    (tuned.folder / TRAINING).unlink(missing_ok=True)
    result = train_embedder(
        context.embedder, rows, settings, tuned.embedder_folder, work / "embedder", context.emit, device
    )
    trained: dict[str, Any] = {"pairs": counts, "trained": result.to_json()}
    if reranker := obtain_tuned_reranker(context.plan, context.on_event):
        model, new_head = reranker
        result = train_reranker(
            model.folder,
            rows,
            settings,
            tuned.reranker_folder,
            work / "reranker",
            context.emit,
            device,
            new_head,
        )
        trained["reranker"] = result.to_json()
    write_json(tuned.folder / TRAINING, {"schema": 1, "made_from": made_from, "result": trained})
    shutil.rmtree(tuned.folder / WORK, ignore_errors=True)
    for part in ("tuned", "tuned_retriever"):  # opened with the weights before
        context.__dict__.pop(part, None)
    return trained


def _fit_tuned_refusal(context: RunContext) -> None:
    """Fit the refusal threshold of the tuned index on the dev questions: its cosines are not those of the plain one."""
    threshold = fit_gate_on_dev(context, context.tuned.index, log_questions(context))
    write_json(context.tuned.folder / TUNED_REFUSAL, threshold.to_json())


def _nothing_to_gain(context: RunContext) -> str:
    """Return why no retriever could pass the gate on the dev questions; "" where one could."""
    from rag.training.comparison import nothing_to_gain

    labelled, budget = _labelled_with_budget(context, context.split.dev)
    return nothing_to_gain(_searching(context.retriever), labelled, budget, context.retriever.count_tokens)


def _without_training(context: RunContext, reason: str) -> dict[str, Any]:
    """Write a refusal before any training, and remove what an earlier one left."""
    for folder in (context.tuned.folder, context.tuned.index_folder):
        shutil.rmtree(folder, ignore_errors=True)
    context.tuned.folder.mkdir(parents=True)
    body = {"schema": 1, "accepted": False, "trained": False, "reason": f"nothing was trained: {reason}"}
    write_json(context.tuned.folder / COMPARISON, body)
    context.emit({"event": "retriever.gate", **_gate_of(body)})
    return _gate_of(body)


def _gate_of(body: dict[str, Any]) -> dict[str, Any]:
    return {key: body[key] for key in ("accepted", "reason", "dev", "trained") if key in body}


def _compare_on_dev(context: RunContext) -> dict[str, Any]:
    """Compare the tuned retriever with the plain one on the dev questions, decide, and write both."""
    from rag.training.comparison import decide

    comparison = _compare(context, context.split.dev)
    decision = decide(comparison)
    body = {
        "schema": 1,
        "accepted": decision.accepted,
        "reason": decision.reason,
        "dev": comparison.to_json(),
        "embedder": context.tuned.embedder.fingerprint,
    }
    write_json(context.tuned.folder / COMPARISON, body)
    context.emit({"event": "retriever.gate", **_gate_of(body)})
    return _gate_of(body)


def compare_on_test(context: RunContext) -> dict[str, Any] | None:
    """Compare both retrievers on the test questions, once every arm has answered them; write and return the numbers.

    None for a plan without an embedder step, and where the step has not been carried out.
    """
    body = read_comparison(context.run.path) if context.plan.embedder_step else {}
    if "dev" not in body:
        return None
    questions = [question for question in context.split.test if question.wording_of is None]  # as on dev
    comparison = _compare(context, questions, body["dev"]["budget"])
    write_json(context.tuned.folder / COMPARISON, {**body, "test": comparison.to_json()})
    return dict(comparison.to_json())


def _compare(context: RunContext, questions: Sequence[Question], budget: int | None = None) -> Any:
    """Return the comparison of both retrievers on questions; the budget of tokens is measured on them unless it is given."""
    from rag.training.comparison import compare_retrievers

    labelled, measured = _labelled_with_budget(context, questions, budget)
    return compare_retrievers(
        _searching(context.retriever),
        _searching(context.tuned_retriever),
        labelled,
        measured,
        context.retriever.count_tokens,
        context.plan.seed,
    )


def _labelled_with_budget(
    context: RunContext, questions: Sequence[Question], budget: int | None = None
) -> tuple[Any, int]:
    """Return questions with their gold, and the tokens of passages that both retrievers may show."""
    from rag.evaluation.labelled import label_questions
    from rag.evaluation.retrieval import gold_source_documents
    from rag.training.comparison import token_budget

    step = context.plan.index
    assert step is not None
    labelled = label_questions(questions, gold_source_documents(context.index, questions))
    if budget is None:
        asked = [question.question for question in labelled.questions]
        search, count = _searching(context.retriever), context.retriever.count_tokens
        budget = token_budget(search, asked, step.k, step.context_tokens, count)
    return labelled, budget


def _searching(retriever: Retriever) -> Callable[[Sequence[str]], list[list[Hit]]]:
    from rag.training.comparison import COMPARED_DEPTH

    return lambda questions: retriever.candidates(questions, COMPARED_DEPTH)


def obtain_tuned_reranker(plan: Plan, on_event: OnEvent | None = None) -> tuple[resolve.Model, bool] | None:
    """Return the model that a plan's embedder step tunes a reranker from, and whether it needs a new head.

    None where the plan tunes none. The plan's embedder, named as the reranker, needs a head.
    """
    step = plan.embedder_step
    if step is None or step.reranker is None:
        return None
    if step.reranker.name == plan.embedder.name:
        return obtain_model(plan.embedder, "embedder", on_event), True
    wanted = step.reranker
    return resolve.resolve_model(
        wanted.name, wanted.allow_hub, on_event, recorded=wanted.fingerprint or ""
    ), False


def time_training(context: RunContext, step: EmbedderStep) -> tuple[float, int, int]:
    """Take :data:`TIMED_STEPS` training steps into a temporary folder.

    Returns:
        Seconds of one step, steps of the whole training, and pairs.
    """
    from rag.training.embedder import train_embedder
    from rag.training.pairs import mine_negatives, text_rows

    pairs = training_pairs(context.index, context.examples, step.max_pairs, context.plan.seed)
    require_pairs(pairs, (*context.split.dev, *context.split.test))
    few = pairs.pairs[: TIMED_STEPS * step.batch_size]
    mined = mine_negatives(context.index, few, step.hard_negatives)
    rows = text_rows(context.index, mined.pairs, step.hard_negatives)
    settings = replace(step.settings(context.plan.seed), epochs=1.0)
    with tempfile.TemporaryDirectory(prefix="tunewise-") as folder:
        result = train_embedder(
            context.embedder,
            rows,
            settings,
            Path(folder) / "embedder",
            Path(folder) / WORK,
            None,
            torch_device().type,
        )
    steps = round(step.epochs * -(-len(pairs.pairs) // step.batch_size))
    return result.seconds / max(1, result.steps), max(1, steps), len(pairs.pairs)


def damaged_retriever(context: RunContext) -> str:
    """Return what is missing of a finished embedder step; "" where it is whole."""
    tuned = context.tuned
    body = read_comparison(context.run.path)
    if body and not body.get("trained", True):
        return ""
    needed = [
        tuned.embedder_folder,
        tuned.index_folder,
        tuned.folder / COMPARISON,
        tuned.folder / TUNED_REFUSAL,
    ]
    step = context.plan.embedder_step
    needed += [tuned.reranker_folder] if step and step.reranker else []
    if missing := [path for path in needed if not path.exists()]:
        return f"{missing[0]} is missing"
    try:
        _ = tuned.index
    except BadInput as problem:
        return problem.message
    return why_fit_again(tuned.folder / TUNED_REFUSAL)
