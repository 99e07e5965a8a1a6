"""The refusal gate of a run: fitted on its dev questions, their wordings and the log that the plan names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rag.grounding.gate import DevQuestion, GateSettings, fit_gate
from rag.grounding.refusal import RefusalThreshold
from runners.data.log_questions import LogQuestions, load_log_questions
from runners.data.questions import Question, with_wordings
from runners.models.answer_reader import AnswerReader, why_not_english
from runners.plan.schema import RefusalSettings
from runners.runs.session import RunContext

if TYPE_CHECKING:
    from rag.index import Index


def log_questions(context: RunContext) -> LogQuestions | None:
    """Return the questions of the plan's log (``data.wordings``), without those that the test asks; None without a log.

    Raises:
        BadInput: the log is missing or has no question in it.
    """
    path = context.plan.data.wordings
    if path is None:
        return None
    return load_log_questions(path, seed=context.plan.seed).without(context.split.test)


def fit_gate_on_dev(context: RunContext, index: Index, log: LogQuestions | None) -> RefusalThreshold:
    """Return the refusal threshold of an index of the run, fitted as the plan says."""
    dev = dev_questions(context.split.dev)
    texts = log.texts if log else ()
    reason = why_not_english([*(question.question for question in dev), *texts])
    reader = AnswerReader(why_not=reason) if reason else context.answer_reader
    settings = GateSettings(
        gate=context.plan.refusal.gate,
        most_wrong=context.plan.refusal.most_wrong,
        reader=reader.model,
        why_not_read=reader.why_not,
    )
    return fit_gate(index, dev, settings, texts)


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


def gate_inputs(context: RunContext) -> dict[str, Any]:
    """Return what the gate depends on besides index and questions: the plan's settings, where they are not the usual."""
    wanted = context.plan.refusal
    return {} if wanted == RefusalSettings() else {"refusal": wanted.model_dump()}
