"""A finished run's arms on other questions: asked and scored as in the trial, which stays as it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rag.errors import BadInput
from rag.files import canonical_json, disk_full_as_problem, sha256_file, sha256_text, writer_lock
from rag.indexing.generations import current_generation
from rag.types import OnEvent
from runners.data.questions import Question, load_questions
from runners.plan.steps import EvaluateStep
from runners.run_folder import EVALS_FOLDER, INDEX, SCORES, read_journal
from runners.runs import dataset
from runners.runs.dataset import read_data
from runners.runs.run import RunSession, open_session
from runners.trial import step_runner, trial
from runners.trial.trial import ANSWERS, ArmScores

UNCHECKED_NOTE = "whether the run was trained on these questions is not checked"


@dataclass(frozen=True, slots=True)
class EvalQuestions:
    """The questions of a file that are asked, and what ties the file to the run."""

    questions: tuple[Question, ...]
    near: int = 0
    """Questions left out because they nearly repeat training rows."""
    dev: int = 0
    """Questions by which the run made its choices: scores on them flatter."""
    trial: int = 0
    """Questions that the trial asked as well."""
    unchecked: str = ""
    """Why the first three could not be counted; "" where they were."""

    def to_json(self) -> dict[str, Any]:
        """The counts, for a report."""
        counted = {key: value for key, value in asdict(self).items() if key != "questions"}
        return {"asked": len(self.questions), **counted}


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Scores of a run's arms on other questions."""

    folder: Path
    """Where answers and scores are kept."""
    asked: EvalQuestions
    arms: tuple[ArmScores, ...]
    generation: int
    """The index's generation that was asked; 0 without an index."""


def evaluate(
    path: Path, file: Path, arms: Sequence[str] = (), out: Path | None = None, on_event: OnEvent | None = None
) -> Evaluation:
    """Let arms of a finished run (all of them by default) answer the questions of a file, and score the answers.

    Instructions, examples, passages, weights, checks and score weights are the run's. Answers are kept in ``out``, by
    default a folder of the run named after the questions, and none is asked twice from the same index. Raises BadInput
    for a broken or unfinished run or file, an unknown arm, and questions that are among the training rows.
    """
    session = open_session(path, on_event)
    chosen = tuple(dict.fromkeys(map(session.arm, arms))) or session.plan.arms
    if not chosen:
        raise BadInput(f"{path} has no arms to ask", "measure some: evaluate steps in its plan")
    asked = read_eval_questions(session, file)
    folder = out or path / EVALS_FOLDER / f"{file.stem}-{sha256_file(file)[:8]}"
    with writer_lock(folder), disk_full_as_problem(folder):
        for number, arm in enumerate(chosen):
            _answer(session, arm, asked.questions, folder, on_event, (number + 1, len(chosen)))
        found = trial.score_trial(
            session.plan.model_copy(update={"steps": _with_arms(session, chosen)}),
            asked.questions,
            read_journal(folder / ANSWERS),
            lambda q: step_runner.gold_text(session.context, q),
        )
        trial.write_scores(found, folder / SCORES)
    return Evaluation(
        folder, asked, tuple(found), current_generation(path / INDEX) if session.plan.index else 0
    )


def read_eval_questions(session: RunSession, file: Path) -> EvalQuestions:
    """Read questions and hold them against the run's own data, where that is still there.

    BadInput for questions that also occur in the training rows or the instructions; near repeats are left out.
    """
    questions = load_questions(file)
    try:
        examples, split = read_data(session.plan)
    except BadInput as reason:
        return EvalQuestions(questions, unchecked=f"{UNCHECKED_NOTE}: {reason.message}")
    session.context.examples = examples
    lenient = session.plan.data.model_copy(update={"near_repeats": "leave_out"})
    guarded = dataset.guard_questions(
        session.plan.model_copy(update={"data": lenient}), examples, questions, file
    )
    texts = [{q.question for q in half} for half in (split.dev, split.test)]
    dev, test = (sum(q.question in half for q in guarded.questions) for half in texts)
    if not guarded.questions:
        raise BadInput(
            f"{file}: every question nearly repeats a training row", "give questions of another kind"
        )
    return EvalQuestions(guarded.questions, len(guarded.left_out), dev, test)


def _answer(
    session: RunSession,
    arm: EvaluateStep,
    questions: Sequence[Question],
    folder: Path,
    on_event: OnEvent | None,
    at: tuple[int, int],
) -> None:
    """Let an arm answer what it has not answered yet, with each of its seeds' weights."""
    plan = session.plan
    seeds = plan.train_step(arm.weights).seeds if arm.weights else (plan.seed,)
    name = f"evaluate:{arm.arm}"
    if on_event:
        on_event({"event": "step.start", "step": name, "number": at[0], "total": at[1]})
    made_from = {
        "plan": plan.digest(),
        "questions": [asdict(q) for q in questions],
        "generation": current_generation(session.folder.path / INDEX) if arm.retrieval else 0,
    }
    trial.drop_outdated_answers(folder, arm.arm, sha256_text(canonical_json(made_from)))
    kept = {(row["seed"], row["id"]) for row in read_journal(folder / ANSWERS) if row["arm"] == arm.arm}
    for seed in (s for s in seeds if any((s, q.id) not in kept for q in questions)):
        prepared, generator = session.prepare(arm, seed)
        trial.run_arm(
            prepared.plan,
            arm,
            seed,
            questions,
            generator,
            prepared.finder,
            prepared.shots,
            folder / ANSWERS,
            on_event,
        )
    rows = [row for row in read_journal(folder / ANSWERS) if row["arm"] == arm.arm]
    if on_event:
        on_event({"event": "step.end", "step": name, "cut": sum(row["finish"] == "length" for row in rows)})


def _with_arms(session: RunSession, chosen: Sequence[EvaluateStep]) -> tuple[Any, ...]:
    return tuple(s for s in session.plan.steps if not isinstance(s, EvaluateStep) or s in chosen)
