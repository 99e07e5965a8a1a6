"""The refusal gate of a run: fitted on its dev questions, their wordings and the log that the plan names.

:func:`question_drift` compares what a run, an evaluation or a recheck asked with what the gate was fitted on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag.errors import BadInput
from rag.grounding.refusal import DRIFT_SIGNALS, RefusalThreshold
from rag.refusal.drift import Drift, compare_questions
from rag.refusal.gate import DevQuestion, GateSettings, fit_gate
from runners.data.log_questions import LogQuestions, load_log_questions
from runners.data.questions import Question, with_wordings
from runners.models.answer_reader import OTHER_WEIGHTS, AnswerReader, answerability_weights, why_not_english
from runners.plan.gate import RefusalSettings
from runners.plan.schema import Plan
from runners.run_folder import RETRIEVER
from runners.runs.opened import OpenRun
from runners.runs.retrieval import REFUSAL_FILE, TUNED_REFUSAL

if TYPE_CHECKING:
    from rag.index import Index


def log_questions(context: OpenRun) -> LogQuestions | None:
    """Return the questions of the plan's log (``data.wordings``), without those that the test asks; None without a log.

    Raises:
        BadInput: the log is missing or has no question in it.
    """
    path = context.plan.data.wordings
    if path is None:
        return None
    return load_log_questions(path, seed=context.plan.seed).without(context.split.test)


def fit_gate_on_dev(context: OpenRun, index: Index, log: LogQuestions | None) -> RefusalThreshold:
    """Return the refusal threshold of an index of the run, fitted as the plan says."""
    dev = dev_questions(context.split.dev)
    texts = log.texts if log else ()
    reason = why_not_english([*(question.question for question in dev), *texts])
    reader = AnswerReader(why_not=reason) if reason else context.models.answer_reader
    settings = GateSettings(
        gate=context.plan.refusal.gate,
        most_wrong=context.plan.refusal.most_wrong,
        reader=reader.model,
        why_not_read=reader.why_not,
    )
    threshold = fit_gate(index, dev, settings, texts)
    return replace(threshold, reader=answerability_weights()) if threshold.read else threshold


def dev_questions(questions: Sequence[Question]) -> list[DevQuestion]:
    """Return dev questions and their wordings as the gate is fitted on them."""
    return [
        DevQuestion(
            question=form.question,
            doc=form.doc_id,
            answerable=form.answerable,
            group=form.original,
            wording=number,
        )
        for question in questions
        for number, form in enumerate(with_wordings([question]))
    ]


def gate_inputs(context: OpenRun) -> dict[str, Any]:
    """Return what the gate depends on besides index and questions: the plan's settings, where they are not the usual."""
    wanted = context.plan.refusal.model_dump(exclude={"reasons"})
    return {} if wanted == RefusalSettings().model_dump(exclude={"reasons"}) else {"refusal": wanted}


def reader_input(context: OpenRun) -> dict[str, Any]:
    """Return the answerability model by which the run's plain index refuses; {} where passages are not read."""
    threshold = _stored(context.folder.path / REFUSAL_FILE)
    return {"reader": answerability_weights()} if threshold and threshold.read else {}


def why_fit_again(file: Path) -> str:
    """Return why the fitted refusals of a finished step are fitted again, "" where they need not be."""
    try:
        threshold = _stored(file)
    except BadInput as damage:
        return damage.message
    if threshold is None:
        return f"{file.name} is missing"
    return OTHER_WEIGHTS if threshold.read and threshold.reader != answerability_weights() else ""


def _stored(file: Path) -> RefusalThreshold | None:
    if not file.is_file():
        return None
    try:
        body = json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise BadInput(
            f"{file} is damaged: {error}", "fit it again with: tunewise run RUN --resume"
        ) from error
    return RefusalThreshold.from_json(body)


def question_drift(run: Path, plan: Plan, rows: Sequence[Mapping[str, Any]]) -> Drift | None:
    """Compare the questions of a journal with those that the refusals of their search were fitted on.

    One comparison for all arms, over the different questions of those that search with the plan's retriever, or else with
    the tuned one. None with under 20 questions on a side, where nothing was searched, and for files of 0.2.0.

    Args:
        run: the folder with the index and its refusal threshold.
        plan: its plan.
        rows: of the journal.
    """
    files = {"plan": run / REFUSAL_FILE, "tuned": run / RETRIEVER / TUNED_REFUSAL}
    for retriever, file in files.items():
        arms = {step.arm for step in plan.arms if step.retrieval and step.retriever == retriever}
        asked = {str(row["question"]): row["decision"]["signals"] for row in rows if _is_searched(row, arms)}
        if asked and (threshold := _stored(file)):
            values = [[float(signals[name]) for name in DRIFT_SIGNALS] for signals in asked.values()]
            return compare_questions(values, threshold.sample)
    return None


def _is_searched(row: Mapping[str, Any], arms: set[str]) -> bool:
    """Return whether a row of the journal is of one of the arms and has the signals of its search."""
    return row["arm"] in arms and set(DRIFT_SIGNALS) <= set((row.get("decision") or {}).get("signals") or ())
