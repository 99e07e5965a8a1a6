"""Ask a finished run's arms other questions, and score the answers as in the trial, which is not changed.

:func:`evaluate` is the entry point.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rag.errors import BadInput
from rag.files import (
    append_lines,
    canonical_json,
    disk_full_as_problem,
    sha256_file,
    sha256_text,
    writer_lock,
)
from rag.index import newest_generation
from rag.refusal.drift import Drift
from rag.types import OnEvent
from runners.data.questions import Question, count_questions, read_question_file, with_wordings
from runners.lookup.journal import LOOKUPS
from runners.made_from import file_lines, match_files, rows_digest
from runners.plan.backend import LOCAL_BACKEND
from runners.plan.schema import Plan, step_name
from runners.plan.steps import EvaluateStep
from runners.run_folder import EVALS_FOLDER, INDEX, SCORES, TRIAL, read_journal
from runners.runs import dataset
from runners.runs.arm import shows_file
from runners.runs.opened import Opening, OpenRun
from runners.runs.retrieval import refused_arms
from runners.scoring.correctness import references_of
from runners.scoring.scores import missing_form
from runners.selective.routes import is_sure, recorded_sureness, require_route, routed_rows
from runners.trial import step_runner, trial
from runners.trial.refusal_gate import question_drift
from runners.trial.trial import ANSWERS, ArmScores

UNCHECKED_NOTE = "whether the run was trained on these questions is not checked"


@dataclass(frozen=True, slots=True)
class EvalQuestions:
    """The questions of a file that are asked, and how they relate to the run's own data."""

    questions: tuple[Question, ...]
    """What is asked: each question, followed by its wordings."""
    near: int = 0
    """Questions left out because they nearly repeat training rows."""
    dev: int = 0
    """Dev questions of the run, by which it made choices: scores on them are too high."""
    trial: int = 0
    """Questions that the trial asked as well."""
    unchecked: str = ""
    """Why the three counts are missing; "" when they were made."""
    other_form: int = 0
    """Made questions whose answer is not of the form of final answer that the plan's checks ask for."""
    notes: tuple[str, ...] = ()
    """What was noticed of the questions' wordings."""

    def to_json(self) -> dict[str, Any]:
        """Return the counts, for a report."""
        counts = {key: value for key, value in asdict(self).items() if key not in ("questions", "notes")}
        if not self.other_form:  # only where it is not 0: made questions are rare
            del counts["other_form"]
        if wordings := len(self.questions) - count_questions(self.questions):
            counts["wordings"] = wordings
        return {"asked": len(self.questions), **counts}


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Scores of a run's arms on other questions."""

    folder: Path
    """The folder of the answers and scores."""
    asked: EvalQuestions
    arms: tuple[ArmScores, ...]
    generation: int
    """The generation of the index that was searched; 0 without an index."""
    backend: tuple[str, ...] = ()
    """The servers that generated the answers, as a plan names them; () where this process did."""
    drift: Drift | None = None
    """How the questions differ from those that refusals were fitted on; None where they were not compared."""


def evaluate(
    path: Path,
    file: Path,
    arms: Sequence[str] = (),
    out: Path | None = None,
    on_event: OnEvent | None = None,
    backend: Sequence[str] | None = None,
) -> Evaluation:
    """Let arms of a finished run answer the questions of a file, and score the answers.

    Instructions, examples, passages, weights, checks and score weights are the run's. No question is asked
    twice from the same generation of the index.

    Args:
        path: the run folder.
        file: the questions.
        arms: names of the arms; by default all but those whose tuned retriever its gate refused.
        out: the folder of answers and scores; by default a folder of the run named after the questions.
        on_event: receives events.
        backend: the servers that generate, as the values of ``--backend``; None for those of the run's plan, if any.

    Raises:
        BadInput: a broken or unfinished run or file, an unknown arm, or questions that are among the training
            rows.
    """
    session = OpenRun.open(path, Opening(on_event=on_event, backend=backend)).obtain()
    refused = refused_arms(path, session.plan)
    usual = tuple(step for step in session.plan.arms if step.arm not in refused)
    chosen = tuple(dict.fromkeys(map(session.arm, arms))) or usual
    if not chosen:
        raise BadInput(f"{path} has no arms to ask", "measure some: evaluate steps in its plan")
    session.note_difference(chosen)
    asked = read_eval_questions(session, file)
    asked = replace(asked, other_form=_count_other_form(asked.questions, session.plan))
    folder = out or path / EVALS_FOLDER / f"{file.stem}-{sha256_file(file)[:8]}"
    with writer_lock(folder), disk_full_as_problem(folder):
        for position, arm in enumerate(chosen):
            _answer(session, arm, asked.questions, folder, on_event, (position + 1, len(chosen)))
        rows = read_journal(folder / ANSWERS)
        scores = trial.score_trial(
            session.plan.model_copy(update={"steps": _with_arms(session, session.plan.with_routed(chosen))}),
            asked.questions,
            rows,
            lambda q: step_runner.gold_text(session, q),
        )
        named = {arm.arm for arm in chosen}  # a router's arms answered what it needed of them
        scores = [arm for arm in scores if arm.arm in named]
        trial.write_scores(scores, folder / SCORES)
    return Evaluation(
        folder,
        asked,
        tuple(scores),
        newest_generation(path / INDEX) if session.plan.index else 0,
        session.backend.entries,
        question_drift(path, session.plan, rows),
    )


def read_eval_questions(session: OpenRun, file: Path) -> EvalQuestions:
    """Read questions and compare them with the run's own data, if that still exists; near repeats are left out.

    Raises:
        BadInput: questions also occur in the training rows or the instructions.
    """
    read = read_question_file(file, session.plan.data.columns)
    questions, notes = read.questions, tuple(read.notes(file))
    try:
        data = session.data
    except BadInput as reason:
        return EvalQuestions(
            with_wordings(questions), unchecked=f"{UNCHECKED_NOTE}: {reason.message}", notes=notes
        )
    lenient = session.plan.data.model_copy(update={"near_repeats": "leave_out"})
    guarded = dataset.guard_questions(
        session.plan.model_copy(update={"data": lenient}), data.examples, questions, file
    )
    asked = with_wordings(guarded.questions)
    texts_of_split = [{q.question for q in with_wordings(half)} for half in (data.split.dev, data.split.test)]
    dev, test = (sum(q.question in known_texts for q in asked) for known_texts in texts_of_split)
    if not guarded.questions:
        raise BadInput(
            f"{file}: every question nearly repeats a training row", "give questions of another kind"
        )
    match = match_files(session.folder, session.plan, ("examples", "questions", "test_questions"))
    notes += tuple(
        file_lines(match, session.plan, "repeats and dev questions are found by its rows of today")
    )
    return EvalQuestions(asked, len(guarded.left_out), dev, test, notes=notes)


def _count_other_form(questions: Sequence[Question], plan: Plan) -> int:
    """Return how many made questions no reply of the form that the plan asks for can answer rightly."""
    return sum(
        question.made and question.answerable and bool(missing_form(references_of(question), plan.checks))
        for question in questions
    )


def _answer(
    session: OpenRun,
    arm: EvaluateStep,
    questions: Sequence[Question],
    folder: Path,
    on_event: OnEvent | None,
    position: tuple[int, int],
    only: Collection[str] | None = None,
) -> None:
    """Let an arm answer what it has not answered yet, with the weights of each of its seeds.

    ``only`` are the ids of the questions to ask now; None for all.
    """
    plan = session.plan
    seeds = plan.train_step(arm.weights).seeds if arm.weights else (plan.seed,)
    name = f"evaluate:{arm.arm}"
    if on_event:
        on_event({"event": "step.start", "step": name, "number": position[0], "total": position[1]})
    made_from = {
        "plan": plan.digest(),
        "questions": [{**asdict(question), "weight": None} for question in questions],
        "generation": newest_generation(session.folder.path / INDEX) if _searches(plan, arm) else 0,
    }
    if (server := session.backend.model_of(arm)) != plan.servers.model_of(arm):
        made_from["backend"] = server.entry if server else LOCAL_BACKEND
    steps = (name, f"train:{arm.weights}", step_name(plan.embedder_step) if plan.embedder_step else "")
    made_from["trial"] = [(session.folder.recorded(step) or {}).get("inputs") for step in steps]
    made_from["shown"] = rows_digest(session.shown_examples) if shows_file(plan, arm) else ""
    digest = sha256_text(canonical_json(made_from))
    trial.drop_outdated_answers(folder, arm.arm, digest)
    if arm.route:
        _answer_routed(session, arm, questions, folder, on_event, position)
        return
    asked = [question for question in questions if only is None or question.id in only]
    answered = {(row["seed"], row["id"]) for row in read_journal(folder / ANSWERS) if row["arm"] == arm.arm}
    for seed in (s for s in seeds if any((s, q.id) not in answered for q in asked)):
        prepared = session.prepare(arm, seed)
        trial.run_arm(
            prepared.plan,
            arm,
            seed,
            asked,
            session.generator(arm, seed, (folder / LOOKUPS,)),
            prepared.finder,
            prepared.shots,
            folder / ANSWERS,
            on_event,
        )
    rows = [row for row in read_journal(folder / ANSWERS) if row["arm"] == arm.arm]
    if on_event:
        on_event({"event": "step.end", "step": name, "cut": sum(row["finish"] == "length" for row in rows)})


def _searches(plan: Plan, arm: EvaluateStep) -> bool:
    """Return whether an arm, or an arm of a router, searches the index."""
    return arm.retrieval or (arm.route is not None and plan.routed(arm)[1].retrieval)


def _answer_routed(
    session: OpenRun,
    arm: EvaluateStep,
    questions: Sequence[Question],
    folder: Path,
    on_event: OnEvent | None,
    position: tuple[int, int],
) -> None:
    """Let a router answer: its first arm everything, the other one what that is not sure of; neither asks anything twice."""
    first, otherwise = session.plan.routed(arm)
    path = session.folder.path
    cut = require_route(path, path / TRIAL, arm).cut
    _answer(session, first, questions, folder, on_event, position)
    rows = read_journal(folder / ANSWERS)
    unsure = [r["id"] for r in rows if r["arm"] == first.arm and not is_sure(recorded_sureness(r), cut)]
    _answer(session, otherwise, questions, folder, on_event, position, unsure)
    rows = read_journal(folder / ANSWERS)
    seeds = session.plan.train_step(otherwise.weights).seeds if otherwise.weights else (session.plan.seed,)
    known = {(row["seed"], row["id"]) for row in rows if row["arm"] == arm.arm}
    routed = routed_rows(arm, rows, seeds, cut)
    append_lines(folder / ANSWERS, [row for row in routed if (row["seed"], row["id"]) not in known])


def _with_arms(session: OpenRun, chosen: Sequence[EvaluateStep]) -> tuple[Any, ...]:
    return tuple(s for s in session.plan.steps if not isinstance(s, EvaluateStep) or s in chosen)
