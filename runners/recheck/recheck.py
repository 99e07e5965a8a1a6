"""Measure a finished run again after something changed, on the same questions, beside its old answers.

:func:`recheck` is the entry point. It compares what the run was measured with and what there is now
(:mod:`runners.recheck.inputs`), brings a copy of the index up to date and trains again what must be
(:mod:`runners.recheck.workspace`), and lets every chosen arm answer; a chat that is the same as in the run gets the run's
answer (:mod:`runners.recheck.recorded`). The run itself is not changed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rag.errors import BadInput, UsageProblem
from rag.files import canonical_json, disk_full_as_problem, sha256_text, writer_lock
from rag.refusal.drift import Drift
from rag.text.words import count_noun
from rag.types import OnEvent
from runners.data.questions import Question, load_questions, with_wordings
from runners.data.sampling import QuestionSplit
from runners.made_from import Match, compare, file_lines
from runners.plan.schema import Plan, read_plan
from runners.plan.steps import EvaluateStep, TrainStep
from runners.recheck.asking import ArmAsking
from runners.recheck.inputs import (
    EMBEDDER,
    EXAMPLES,
    QUESTIONS,
    SETTINGS,
    Change,
    RunInputs,
    find_changes,
    measured_inputs,
    present_inputs,
    present_models,
    trained_again,
)
from runners.recheck.lost_gold import DocumentTexts, find_lost_gold, gold_spans_text
from runners.recheck.workspace import (
    RecheckState,
    accept_recheck,
    check_workspace,
    open_base,
    open_measured_index,
    prepare_workspace,
    remove_index,
    update_workspace_index,
)
from runners.report.report_file import read_report
from runners.run_folder import (
    INDEX,
    RECHECKS,
    SCORES,
    TRIAL,
    RunFolder,
    open_run_folder,
    read_journal,
    read_scores,
)
from runners.runs.dataset import RunData, read_data
from runners.runs.opened import OpenRun
from runners.runs.plan_models import ModelSource, ObtainedModels
from runners.runs.requirements import needs_embedder
from runners.trial import step_runner, trial
from runners.trial.refusal_gate import question_drift
from runners.trial.trial import ANSWERS, ArmScores

COMPARED_COLUMNS = ("combined", "seconds", "prompt_tokens", "completion_tokens")
"""Columns of a trial's scores that are no scores by name."""


@dataclass(frozen=True, slots=True)
class RecheckRequest:
    """What is given in place of what the run was measured with, and what is measured; None and () keep what the run has."""

    documents: Path | None = None
    prompt: str | None = None
    examples: Path | None = None
    questions: Path | None = None
    models: tuple[str, ...] = ()
    """Another base model in place of the plan's; of several ``ALIAS=MODEL`` each."""
    plan: Path | None = None
    arms: tuple[str, ...] = ()
    all_arms: bool = False
    ask_all: bool = False
    """Ask every question again, also those whose chat is the same."""
    out: Path | None = None
    count_lost_gold: bool = False
    """Count questions whose gold the documents lost, by their old gold: documents that are not to lose a fact."""
    accept: bool | None = None
    """True: the next recheck is compared with this one. False: the copy of the index is removed at the end, as only an
    accepted recheck needs it. None does neither."""


@dataclass(frozen=True, slots=True)
class RecheckedArm:
    """One arm before and now, on the same questions."""

    arm: str
    before: ArmScores
    now: ArmScores
    asked: frozenset[str]
    """The questions that were asked again, or are refused where they were answered, or the other way round."""
    touched: bool
    """Whether anything that the arm answers with changed."""


@dataclass(frozen=True, slots=True)
class Recheck:
    """The measured part of a recheck."""

    folder: Path
    run: RunFolder
    base: RunFolder
    """What it is compared with: the run, or the recheck that was accepted last."""
    old_plan: Plan
    plan: Plan
    changes: tuple[Change, ...]
    arms: tuple[RecheckedArm, ...]
    carried: tuple[ArmScores, ...]
    """The other arms whose answers nothing touches, by their old answers."""
    stale: tuple[str, ...]
    """The other arms that a change touches and that were not asked."""
    lost_gold: Mapping[str, str] = field(default_factory=dict)
    """Questions whose gold the documents no longer hold, with the reason; in no score unless that was asked for."""
    lost_counted: bool = False
    made: frozenset[str] = frozenset()
    """Questions that were made from documents, not asked by people."""
    questions: int = 0
    """Questions of the run that are still in the file of questions."""
    missing: int = 0
    """Questions of the run that are not, or have other words; they are in no score."""
    notes: tuple[str, ...] = ()
    drift: Drift | None = None
    """How the questions differ from those that refusals were fitted on; None where they were not compared."""

    @property
    def asked(self) -> int:
        """The number of answers that were asked again."""
        return sum(len(arm.asked) for arm in self.arms)


ConfirmTraining = Callable[[Sequence[TrainStep], RunFolder], None]
"""Called with the train steps that must be carried out again, before they start; raises to stop."""


def recheck(
    path: Path,
    request: RecheckRequest,
    confirm_training: ConfirmTraining | None = None,
    on_event: OnEvent | None = None,
) -> Recheck:
    """Measure a finished run again where something changed.

    Args:
        path: the run folder.
        request: what is given in place of the run's own, and which arms are measured.
        confirm_training: called before anything is trained again; None trains without asking.
        on_event: receives events.

    Raises:
        BadInput: the run is not finished or lacks answers, or what is given is broken or leaks test questions.
        UsageProblem: an arm is unknown, or the folder of the recheck holds something else.
        CannotRun: a model cannot be obtained.
    """
    run = open_run_folder(path)
    run.check()
    base = open_base(run)
    old = measured_inputs(base)
    _require_finished(run, base)
    plan = _present_plan(old.plan, request)
    incomplete = run.incomplete_arms()
    rows = [row for row in read_journal(base.path / TRIAL / ANSWERS) if row["arm"] not in incomplete]
    chosen = _chosen_arms(run, plan, rows, request)
    part = plan.model_copy(
        update={"steps": tuple(s for s in plan.steps if not isinstance(s, EvaluateStep) or s in chosen)}
    )
    work = _Work(run, base, old, plan, part, chosen, rows, request, on_event)
    work.notes += [
        f"{arm} is not compared, as it is incomplete: {how_far}" for arm, how_far in incomplete.items()
    ]
    return work.carry_out(confirm_training)


def _require_finished(run: RunFolder, base: RunFolder) -> None:
    """Raise BadInput for a run without a report, scores or answers."""
    resume = f"finish it with: tunewise run {run.path} --resume"
    if not read_report(run.path):
        raise BadInput(f"{run.path} has no report yet, so there is nothing to compare with", resume)
    if not read_journal(base.path / TRIAL / ANSWERS) or not (base.path / TRIAL / SCORES).is_file():
        raise BadInput(f"{base.path} has no answers of its trial", resume)


def _present_plan(old: Plan, request: RecheckRequest) -> Plan:
    """Return the run's plan, or the one that is given, with what the request replaces; models with any weights."""
    plan = read_plan(request.plan) if request.plan else old
    paths = {"documents": request.documents, "examples": request.examples}
    paths["test_questions" if plan.data.test_questions else "questions"] = request.questions
    data = {name: path.absolute() for name, path in paths.items() if path}
    for name, given in data.items():
        if not given.exists():
            raise BadInput(f"there is nothing at {given}", f"correct --{name.removeprefix('test_')}")
    for name in ("documents", "test_questions" if plan.data.test_questions else "questions"):
        place = data.get(name, getattr(plan.data, name))
        if place is not None and not place.exists():
            flag = "--documents PATH" if name == "documents" else "--questions FILE"
            raise BadInput(
                f"the {name.replace('_', ' ')} of the plan, {place}, are not there",
                f"say where they are: {flag}",
            )
    if "documents" in data and plan.index is None:
        raise UsageProblem("this run searches no documents, so --documents changes nothing", "remove it")
    changed: dict[str, Any] = {"data": plan.data.model_copy(update=data)} if data else {}
    if request.prompt is not None:
        changed["prompts"] = plan.prompts.model_copy(update={"system": request.prompt})
    changed |= present_models(plan, request.models)
    changed["embedder"] = plan.embedder.model_copy(update={"fingerprint": None})
    return plan.model_copy(update=changed)


def _chosen_arms(
    run: RunFolder, plan: Plan, rows: Sequence[Mapping[str, Any]], request: RecheckRequest
) -> tuple[EvaluateStep, ...]:
    """Return the arms to measure: those that are named, all, or the one in use with the recommended one."""
    measured = {row["arm"] for row in rows}
    by_name = {step.arm: step for step in plan.arms}
    if request.arms:
        for name in request.arms:
            if name not in by_name or name not in measured:
                if how_far := run.incomplete_arms().get(name):
                    resume = f"finish it with: tunewise run {run.path} --resume"
                    raise BadInput(f"the arm {name} of {run.path} is incomplete, {how_far}", resume)
                known = ", ".join(arm for arm in by_name if arm in measured) or "none"
                raise BadInput(f"{run.path} has not measured an arm {name!r}", f"its arms: {known}")
        names: Collection[str] = request.arms
    elif request.all_arms:
        names = by_name
    else:
        report = read_report(run.path)
        names = [report.verdict.use or "", report.verdict.recommended] if report else []
    named = [step for step in plan.arms if step.arm in names and step.arm in measured]
    chosen = plan.with_routed(named)  # a router's answers are those of its two arms
    if not chosen:
        raise BadInput(
            f"the plan has none of the arms that {run.path} has answers of",
            f"its arms: {', '.join(sorted(measured))}; name them in the plan's steps, or --arm",
        )
    return chosen


@dataclass
class _Work:
    """The steps of one recheck, with what they share."""

    run: RunFolder
    base: RunFolder
    old: RunInputs
    plan: Plan
    part: Plan
    """The plan with the chosen arms alone."""
    chosen: tuple[EvaluateStep, ...]
    rows: list[dict[str, Any]]
    request: RecheckRequest
    on_event: OnEvent | None
    notes: list[str] = field(default_factory=list)

    def carry_out(self, confirm_training: ConfirmTraining | None) -> Recheck:
        """Prepare, ask, score."""
        source = ModelSource(plan=self.part, on_event=self.on_event)
        bases = source.bases()
        embedding = needs_embedder(self.part) and any(
            arm.retrieval or arm.without_model or arm.bank != "fixed" for arm in self.chosen
        )
        embedder = source.embedder() if embedding else None
        searching = self.plan.index is not None and any(arm.retrieval for arm in self.chosen)
        reranker = source.reranker() if searching else None
        obtained = ObtainedModels(bases=bases, embedder=embedder, reranker=reranker)
        new = present_inputs(self.plan, obtained.fingerprints(self.part))
        changes = find_changes(self.old, new)
        known = {name: self.old.files.get(name) for name in new.files}
        self.notes += file_lines(Match(unknown=compare(known, new.files).unknown), self.plan, "")
        again = self._trained_again(new)
        if any(arm.retriever == "tuned" for arm in self.chosen) and any(
            change.kind in (EXAMPLES, EMBEDDER) for change in changes
        ):
            self.notes.append("the tuned retriever is the run's: to tune it again, run the plan again")
        questions, missing = self._questions()
        data = self._data(again, questions, changes)
        state = RecheckState(self._digest(new, questions), new, tuple(again))
        folder = self.request.out or self.run.path / RECHECKS / state.digest[:12]
        check_workspace(folder)
        if again and confirm_training:
            confirm_training(again, self.base)
        with writer_lock(folder), disk_full_as_problem(folder):
            workspace = prepare_workspace(folder, self.base, self.old, state, searching)
            context = OpenRun(workspace, self.plan, obtained, data=data, on_event=self.on_event)
            if searching:
                documents = update_workspace_index(context, self.base, self.old, changes)
                changes = [*([documents] if documents else []), *changes]
            for step in again:
                step_runner.train_arm(context, step)
            lost, gold = self._gold(context, questions, searching)
            asking = ArmAsking(
                context,
                self.base,
                self.old,
                new,
                changes,
                frozenset(step.arm for step in again),
                state.digest,
                gold,
                self.request.ask_all,
                self.rows,
            )
            for position, arm in enumerate(self.chosen):
                asking.answer(arm, (position + 1, len(self.chosen)))
            return self._ended(asking, missing, lost)

    def _ended(self, asking: ArmAsking, missing: int, lost: Mapping[str, str]) -> Recheck:
        """Score, then accept the recheck or remove its index: once its lock is free, another process may begin the same."""
        result = self._result(asking, missing, lost)
        folder = result.folder
        if self.request.accept:
            accept_recheck(self.run.path, folder, datetime.now(UTC).date().isoformat())
        # Not where another process has accepted it meanwhile.
        elif self.request.accept is False and open_base(self.run).path.resolve() != folder.resolve():
            remove_index(folder)
        return result

    def _trained_again(self, new: RunInputs) -> list[TrainStep]:
        """Return the train steps that the chosen arms need and that must be carried out again."""
        needed = {arm.weights for arm in self.chosen if arm.weights}
        steps = trained_again(self.old, new)
        for step in reversed(steps):
            if step.arm in needed and step.start_from:
                needed.add(step.start_from)
        again = [step for step in steps if step.arm in needed]
        for arm in (arm for arm in self.chosen if arm.weights):
            if arm.weights in {step.arm for step in again} or self.plan.servers.model_of(arm):
                continue
            for seed in self.plan.train_step(str(arm.weights)).seeds:
                if not (weights := self.base.adapter(str(arm.weights), seed)).is_dir():
                    raise BadInput(
                        f"{self.base.path} has no weights for the arm {arm.arm} ({weights.name} is missing)",
                        f"finish the run with: tunewise run {self.run.path} --resume",
                    )
        return again

    def _questions(self) -> tuple[tuple[Question, ...], int]:
        """Return the questions of the run's trial as their file has them today, and how many of the trial it lacks."""
        asked = {str(row["id"]): row.get("question") for row in self.rows}
        data = self.plan.data
        present = {
            question.id: question
            for file in (data.questions, data.test_questions)
            if file is not None and file.exists()
            for question in with_wordings(load_questions(file, data.columns))
        }
        documents = read_scores(self.base.path).get("documents") or {}
        questions = tuple(
            replace(present[id], doc_id=documents.get(id, present[id].doc_id))
            for id, text in asked.items()
            if id in present and text in (None, present[id].question)
        )
        if not questions:
            raise BadInput(
                f"none of the {count_noun(len(asked), 'question')} of the trial is in the file of questions",
                "give the file that the run was measured with: --questions FILE",
            )
        return questions, len(asked) - len(questions)

    def _data(
        self, again: Sequence[TrainStep], questions: tuple[Question, ...], changes: Sequence[Change]
    ) -> RunData:
        """Return the examples and dev questions, with the questions to ask as the test.

        Where they are not needed, a problem with them is only noted.
        """
        try:
            read = read_data(self.plan)
        except BadInput as problem:
            fitted = any(change.kind in (EMBEDDER, SETTINGS) for change in changes)
            if again or fitted or any(arm.learns_from_rows and not arm.weights for arm in self.chosen):
                raise
            self.notes.append(f"not checked for leaks, since it is not needed here: {problem.message}")
            return RunData(split=QuestionSplit((), questions))
        test = {question.original for question in questions}
        dev = tuple(q for q in (*read.split.dev, *read.split.test) if q.original not in test)
        return RunData(examples=read.examples, split=QuestionSplit(dev, questions))

    def _digest(self, new: RunInputs, questions: Sequence[Question]) -> str:
        """Return the digest of all that the answers of this recheck depend on."""
        parts = {
            "plan": self.plan.digest(),
            "models": dict(new.models),
            "files": {name: new.files[name] for name in sorted(new.files)},
            "documents": new.documents,
            "base": [self.base.path.name, sha256_text(canonical_json([_asked_as(row) for row in self.rows]))],
            "arms": [arm.arm for arm in self.chosen],
            "questions": [question.id for question in questions],
            "ask_all": self.request.ask_all,
        }
        return sha256_text(canonical_json(parts))

    def _gold(
        self, context: OpenRun, questions: Sequence[Question], searching: bool
    ) -> tuple[dict[str, str], Callable[[Question], str]]:
        """Return the questions whose gold is lost, and what reads the gold spans in the documents of the run."""
        indexed = self.old.plan.index is not None and (self.base.path / INDEX).exists()
        opened = open_measured_index(self.base) if indexed else None
        before = DocumentTexts(opened) if opened else None
        if indexed and before is None and any(question.spans for question in questions):
            self.notes.append(
                "gold spans are not read: the index that the run was measured with no longer exists"
            )
        # Gold is that of the question: it is looked for once, whatever the wordings.
        originals = {question.original: question for question in reversed(questions)}
        gold = [replace(question, id=id) for id, question in reversed(originals.items())]
        lost = find_lost_gold(gold, before, DocumentTexts(context.retrieval.index)) if searching else {}
        return lost, lambda question: gold_spans_text(question, before) if before else ""

    def _result(self, asking: ArmAsking, missing: int, lost: Mapping[str, str]) -> Recheck:
        """Score old and new answers of every arm on the questions whose gold holds."""
        questions = asking.context.split.test
        counted = self.request.count_lost_gold
        held = [question for question in questions if counted or question.original not in lost]
        chosen = {arm.arm for arm in self.chosen}
        rows = [row for row in read_journal(asking.folder / ANSWERS) if row["arm"] in chosen]
        old_plan = self._judging_plan()
        before = {arm.arm: arm for arm in trial.score_trial(old_plan, held, self.rows, asking.gold)}
        now = {arm.arm: arm for arm in trial.score_trial(self.part, held, rows, asking.gold)}
        trial.write_scores(list(now.values()), asking.folder / SCORES)
        asked = {arm.arm: asking.asked_again(arm) for arm in self.chosen}
        if any(change.kind == QUESTIONS for change in asking.changes):
            scores = read_scores(self.base.path)["arms"]
            before |= {
                name: _with_recorded(before[name], scores.get(name, {}), asked[name]) for name in asked
            }
        drift = question_drift(asking.context.folder.path, self.part, rows)
        touched = {name for change in asking.changes for name in change.arms}
        others = [arm for name, arm in before.items() if name not in chosen and arm.combined]
        return Recheck(
            folder=asking.context.folder.path,
            run=self.run,
            base=self.base,
            old_plan=old_plan,
            plan=self.plan,
            changes=tuple(asking.changes),
            arms=tuple(
                RecheckedArm(name, before[name], now[name], asked[name], name in touched)
                for name in (arm.arm for arm in self.chosen)
                if name in before
            ),
            carried=tuple(arm for arm in others if arm.arm not in touched),
            stale=tuple(arm.arm for arm in others if arm.arm in touched),
            lost_gold=lost,
            lost_counted=counted,
            made=frozenset(q.id for q in held if getattr(q, "made", False)),
            questions=len(questions),
            missing=missing,
            notes=(*self.notes, *([drift.text] if drift and drift.sure else [])),
            drift=drift,
        )

    def _judging_plan(self) -> Plan:
        """Return the plan that judges the old answers: checks and weights of today, instructions and arms of then."""
        steps = [step for step in self.plan.steps if not isinstance(step, EvaluateStep)]
        return self.plan.model_copy(
            update={"prompts": self.old.plan.prompts, "steps": (*steps, *self.old.plan.arms)}
        )


def _asked_as(row: Mapping[str, Any]) -> list[Any]:
    """Return what tells an answer of the base from one that another state of it gave to the same question."""
    return [row["arm"], row["seed"], row["id"], row.get("answer")]


def _with_recorded(
    arm: ArmScores, rows: Mapping[str, Mapping[str, float]], asked: Collection[str]
) -> ArmScores:
    """Return an arm's old scores with those that its run recorded for the questions that were asked again.

    Where the file of questions changed, their gold may have followed the documents: the old answers are judged by the gold
    that they were given under. A question whose answer stayed is judged by the corrected gold on both sides.
    """
    scores, combined = list(arm.scores), list(arm.combined)
    for position, question in enumerate(arm.questions):
        if question in asked and question in rows:
            row = dict(rows[question])
            combined[position] = row["combined"]
            scores[position] = {name: value for name, value in row.items() if name not in COMPARED_COLUMNS}
    return replace(arm, scores=tuple(scores), combined=tuple(combined))
