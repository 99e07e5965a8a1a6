"""Carry out a plan: build the index, train, let every arm answer, score; resumable after any step. See :func:`run`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag.errors import BadInput, CannotRun, UsageProblem
from rag.evaluation.question_words import QuestionWords, gold_sentences, measure_words
from rag.files import append_line, check_manifest, disk_full_as_problem
from rag.types import OnEvent
from runners.arms import classifier, long_context, scored_labels
from runners.data.questions import Question
from runners.inference.servers.spending import check_prices, open_spending, spending_note
from runners.judging.judge import judge_trial
from runners.lookup.generator import check_lookup_arms
from runners.made_from import index_updated, recorded_files
from runners.models import cards
from runners.models.answer_reader import why_not_english
from runners.plan.forecast import OUTDATED
from runners.plan.schema import ArmStep, Plan, Step, read_plan, step_name, write_plan
from runners.plan.steps import NF4, QUANTIZED_ANSWERS, EmbedderStep, EvaluateStep, IndexStep, TrainStep
from runners.report.trial_report import QUESTION_WORDS
from runners.resources import usage
from runners.resources.environment import ENVIRONMENT_EVENT, describe_environment
from runners.resources.machine import Machine, detect_machine
from runners.run_folder import (
    EVENTS,
    INDEX,
    PLAN,
    SCORES,
    TRIAL,
    RunFolder,
    is_run,
    read_journal,
    read_run_plan,
)
from runners.runs import dataset, requirements
from runners.runs.data_notes import notes_event, with_notes
from runners.runs.dataset import RunData, read_data
from runners.runs.endpoint_consent import check_index_hosts
from runners.runs.opened import Opening, OpenRun
from runners.runs.plan_models import ModelSource, ObtainedModels, model_identity, must_stay_local
from runners.runs.retrieval import REFUSAL_FILE, refused_arms
from runners.runs.run import Run
from runners.scoring.correctness import gold_texts
from runners.scoring.gold_check import check_gold, require_gold
from runners.selective.replies import check_replies_plan
from runners.trial import embedder_step, forgetting, refusal_gate, row_guard, step_runner, trial
from runners.trial.remote_arms import (
    PlannedStep,
    RemoteArms,
    complete_or_note,
    first_after_shared,
    one_at_a_time,
    require_tool_models,
)

if TYPE_CHECKING:
    from runners.runs.backend_servers import BackendServers

QUICK_LIMITS = {"max_examples": 120, "max_dev": 16, "max_test": 24}
QUICK_EPOCHS = 1.0
QUICK_PROMPTS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """A plan to carry out.

    Attributes:
        plan: the plan.
        out: the run folder.
        resume: continue after the last finished step.
        overwrite: start again in an existing folder.
        only: the name of the only step to run.
        accept_lost_rows: train arms also when under two thirds of their rows are left or have a passage.
        accept_failing_gold: measure also when many references would not count as right answers.
        data: the plan's data, where it is read already.
    """

    plan: Plan
    out: Path
    resume: bool = False
    overwrite: bool = False
    only: str | None = None
    accept_lost_rows: bool = False
    accept_failing_gold: bool = False
    data: RunData | None = None


def run(
    plan: Plan | Path | str,
    out: Path | str | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    quick: bool = False,
    only: str | None = None,
    on_event: OnEvent | None = None,
    accept_lost_rows: bool = False,
    accept_failing_gold: bool = False,
) -> Run:
    """Carry out a plan into a folder and return the run.

    Args:
        plan: the plan, or the file of one.
        out: the run folder; ``runs/NAME`` by default.
        resume: continue after the last finished step.
        overwrite: start again in an existing folder.
        quick: use fewer rows and questions.
        only: the name of the only step to run.
        on_event: receives the events of the run.
        accept_lost_rows: train arms also when under two thirds of their rows are left or have a passage.
        accept_failing_gold: measure also when many references would not count as right answers.

    Raises:
        UsageProblem: the folder exists, or resume and overwrite are both given.
        BadInput: bad data, held-out questions that occur in the training rows, references that would not count as
            right answers, or too few rows for an arm.
        CannotRun: this machine cannot carry out the plan.
    """
    if resume and overwrite:
        raise UsageProblem("resume and overwrite exclude each other", "choose one")
    plan = plan if isinstance(plan, Plan) else read_plan(Path(plan))
    request = RunRequest(
        plan=quick_plan(plan) if quick else plan,
        out=Path(out) if out is not None else Path("runs") / plan.name,
        resume=resume,
        overwrite=overwrite,
        only=only,
        accept_lost_rows=accept_lost_rows,
        accept_failing_gold=accept_failing_gold,
    )
    return carry_out(request, on_event)


def carry_out(request: RunRequest, on_event: OnEvent | None = None) -> Run:
    """Carry out the plan's steps in a folder, skipping those that are finished there, and return the run.

    Everything is checked before the first step starts. Raises the same errors as :func:`run`.
    """
    plan, out, only, data = request.plan, request.out, request.only, request.data
    named = [(step_name(step), step) for step in plan.steps]
    if only and only not in [name for name, _ in named]:
        raise BadInput(f"the plan has no step {only!r}", f"its steps: {', '.join(name for name, _ in named)}")
    requirements.check_names(plan)
    dataset.require_gold_documents(plan)
    if data is None:
        data = read_data(plan, on_event)
    elif on_event:
        for event in data.events:
            on_event(event)
    gold = check_gold(plan, data.split)
    if not (request.accept_failing_gold or (request.resume and is_run(out))):
        require_gold(gold)
    data = with_notes(plan, data, gold)
    obtained = _obtain_models(plan, out, on_event)
    machine = detect_machine(out)
    notes = requirements.check_requirements(plan, obtained.folders(plan), out, machine)
    asked = (*data.split.dev, *data.split.test)
    classifier.check_classifier_plan(plan, data.examples)
    check_replies_plan(plan, data.examples)
    scored_labels.check_scored_labels(plan, obtained.bases)
    long_context.check_long_context(plan, obtained.bases, obtained.embedder, asked, on_event)
    check_lookup_arms(plan, obtained.bases)
    folder = RunFolder.create(out, plan, request.resume, request.overwrite)
    # The recorded steps differ in their reasons at most: one that was reworded since must not repeat a finished step.
    recorded = read_run_plan(folder.path)
    executed = plan.model_copy(update={"steps": recorded.steps})
    with folder.writing(), closing(obtained.servers) if obtained.servers else nullcontext():
        changed = {key: getattr(plan, key) for key in ("backend", "most_usd", "judge")}
        if any(getattr(recorded, key) != value for key, value in changed.items()):
            folder.unseal()
            write_plan(recorded.model_copy(update=changed), folder.path / PLAN)
        context = OpenRun(folder, executed, obtained, data=data, on_event=one_at_a_time(on_event))
        spending = context.models.spending = open_spending(plan, folder.path)
        _report_start(context, machine, (*notes, spending_note(plan, spending)), only is not None)
        require_tool_models(context, [step for name, step in named if only in (None, name)])
        total = len(named) + bool(forgetting.tuned_arms(plan))
        done, incomplete = _run_steps(context, named, only, total, request.accept_lost_rows)
        # A finished trial is scored again only where its gold was corrected: scores with other gold are kept as they were.
        if only is None and (
            any(done) or _gold_corrected(context) or not (folder.path / TRIAL / SCORES).is_file()
        ):
            _score_arms(context, incomplete)
        if only is None:
            judge_trial(context, partial(step_runner.gold_text, context))
        if only is None and total > len(named):
            _measure_forgetting(context, total)
    return Run(OpenRun(folder, plan, data=data, opening=Opening(on_event=on_event)))


def _obtain_models(plan: Plan, out: Path, on_event: OnEvent | None) -> ObtainedModels:
    """Return the plan's models and the servers of its backend; what stands in the way of one is said before any step."""
    forgetting.check_forgetting_file(plan)
    source = ModelSource(plan=plan, on_event=on_event)
    bases = source.bases()
    requirements.check_keys(plan)
    check_prices(plan)
    check_index_hosts(plan)
    servers = _backend_servers(plan, out, on_event)
    embedder, reranker = source.embedder(), source.reranker()
    embedder_step.check_embedder_plan(plan, on_event)
    judge = source.judge()
    return ObtainedModels(bases=bases, embedder=embedder, reranker=reranker, judge=judge, servers=servers)


def run_plan(plan: Plan, out: Path, on_event: OnEvent | None = None, **options: Any) -> RunFolder:
    """Carry out a plan as :func:`run` does and return the run folder; ``options`` are other fields of a request."""
    return carry_out(RunRequest(plan=plan, out=out, **options), on_event).folder


def _backend_servers(plan: Plan, out: Path, on_event: OnEvent | None) -> BackendServers | None:
    """Return the servers of the plan's backend, None without one.

    Those of arms without trained weights must have their model now, before hours of training; the others when their arm is
    asked, because their weights are trained by then.
    """
    if not plan.backend:
        return None
    from runners.runs.backend_servers import BackendServers

    def note(text: str) -> None:
        event = {"event": "backend.note", "reason": text}
        if (out / EVENTS).exists():  # not before the run folder is made, nor after it was removed
            append_line(out / EVENTS, {"time": round(time.time(), 3), **event})
        if on_event:
            on_event(event)

    servers = BackendServers(plan, plan.servers, must_stay_local(plan), note, out)
    for arm in plan.arms:
        if not arm.weights:
            servers.require(arm)
    return servers


def quick_plan(plan: Plan) -> Plan:
    """Return the same plan with fewer questions and rows and one epoch: minutes instead of a quarter of an hour."""
    data = plan.data.model_copy(
        update={key: min(limit, getattr(plan.data, key) or limit) for key, limit in QUICK_LIMITS.items()}
    )
    quick_forgetting = plan.forgetting.model_copy(
        update={"prompts": min(QUICK_PROMPTS, plan.forgetting.prompts)}
    )
    changed = {"steps": tuple(map(_quick_step, plan.steps)), "forgetting": quick_forgetting}
    return plan.model_copy(update={"data": data, **changed})


def _quick_step(step: Step) -> Step:
    if isinstance(step, EvaluateStep) and (step.chooses_prompt or step.route):
        return step.model_copy(update={"budget": 0})
    if isinstance(step, EmbedderStep):
        return step.model_copy(update={"epochs": min(step.epochs, QUICK_EPOCHS)})
    if not isinstance(step, TrainStep):
        return step
    epochs = min(step.epochs, QUICK_EPOCHS)
    reasons = {**step.reasons, "epochs": f"{epochs:g} because --quick takes one pass"}
    if len(step.seeds) > 1 or "seeds" in reasons:
        reasons["seeds"] = "1 because --quick trains one seed"
    return step.model_copy(update={"epochs": epochs, "seeds": step.seeds[:1], "reasons": reasons})


def _report_start(context: OpenRun, machine: Machine, notes: Sequence[str], one_step: bool) -> None:
    """Write the event that says what the run starts from: plan, split, files, models, leakage, machine and environment.

    With ``one_step`` the others stay as they were made, and so do the files that are known.
    """
    plan, split, obtained = context.plan, context.split, context.models.obtained
    asked = (*split.dev, *split.test)
    leaks = dataset.count_leaks(plan, context.examples, asked, context.data.left_out)
    start = {
        "plan": plan.digest(),
        "split": split.digest,
        "files": {**context.data.files, **(recorded_files(context.folder) if one_step else {})},
        "base": model_identity(obtained.base),
        "models": obtained.fingerprints(plan),
        "overlap": leaks["exact"] + leaks["normalised"] + leaks["same_fact"],
        "leakage": leaks,
        "gpu": machine.gpu_name.value,
        "kernels": plan.kernels,
        **({"backend": obtained.servers.names()} if obtained.servers else {}),
        **_made_counts(context),
    }
    context.emit({"event": "run.start", **start})
    context.emit(notes_event(context.data.notes or ()))
    if obtained.servers and (note := obtained.servers.adapters_note()):
        context.emit({"event": "backend.note", "reason": note})
    if outdated := plan.predicted.get(OUTDATED):
        reason = f"{outdated}: its prediction is shown, but not compared with times and memory"
        context.emit({"event": "plan.note", "reason": reason})
    for note in (*notes, QUANTIZED_ANSWERS if plan.model.quantization == NF4 else ""):
        if note:
            context.emit({"event": "plan.note", "reason": note})
    context.emit({"event": ENVIRONMENT_EVENT, **describe_environment()})


def _made_counts(context: OpenRun) -> dict[str, Any]:
    """Return how many dev questions and training rows were made from documents; {} where none was."""
    split = context.split
    dev, rows = sum(q.made for q in split.dev), sum(row.is_made for row in context.examples)
    if not (dev or rows or any(q.made for q in split.test)):
        return {}
    return {"made": {"dev": dev, "dev_of": len(split.dev), "rows": rows, "rows_of": len(context.examples)}}


def _run_steps(
    context: OpenRun, named: Sequence[tuple[str, Step]], only: str | None, total: int, accepted: bool
) -> tuple[list[bool], dict[str, str]]:
    """Run the steps, or the only one that is named; return of each whether it ran, and why arms are incomplete.

    Endpoints are asked beside the other steps, once what all arms share is made; routers come after both. The rows of arms
    are counted as soon as they can be, those of a hybrid when the index is built, and before anything is trained or asked: a
    run that would stop for them stops early.
    """
    steps = [step for name, step in named if only in (None, name)]
    counted: set[str] = set()
    executed: list[bool] = []
    incomplete: dict[str, str] = {}
    planned = [PlannedStep(number=n, name=name, step=step) for n, (name, step) in enumerate(named)]
    first = first_after_shared(context.plan.steps)

    def run_step(context: OpenRun, each: PlannedStep) -> bool:
        return _run_or_skip(context, each, total)

    remote = RemoteArms(context, planned if only is None else (), run_step)
    try:
        for each in (each for each in planned if only in (None, each.name)):
            if isinstance(each.step, ArmStep):
                uncounted = [s for s in steps if isinstance(s, ArmStep) and s.arm not in counted]
                counted |= set(row_guard.require_rows(context, uncounted, accepted))
            if each.number >= first:
                remote.start()
            if each.name in remote.names:
                continue
            if isinstance(each.step, EvaluateStep) and each.step.route:
                executed += remote.join()
            ran, reason = complete_or_note(context, each, run_step)
            executed.append(ran)
            if reason and isinstance(each.step, EvaluateStep):
                incomplete[each.step.arm] = reason
        executed += remote.join()
    finally:
        remote.stop()
    return executed, incomplete | remote.incomplete


def _run_or_skip(context: OpenRun, planned: PlannedStep, total: int) -> bool:
    """Run a step, or skip it when it is finished; return whether it ran."""
    name, step, number = planned.name, planned.step, planned.number
    inputs = step_runner.step_inputs(context, step)
    context.emit({"event": "step.start", "step": name, "number": number + 1, "total": total})
    done = context.folder.finished(name, inputs)
    damage = _damage(context, step) if done is not None else ""
    if done is not None and not damage:
        context.emit({"event": "step.skip", "step": name})
        return False
    if damage:
        context.emit({"event": "plan.note", "reason": f"{name} is repeated: {damage}"})
    _refuse_updated_index(context, name, step)
    context.folder.unseal()
    with usage.measure_step_contention() as others:
        result = step_runner.run_step(context, step)
    # An endpoint's time does not depend on this processor.
    remote = isinstance(step, EvaluateStep) and not context.models.generates_here(step)
    context.folder.finish(name, inputs, result, 0.0 if remote else others.lost)
    context.emit({"event": "step.end", "step": name, **result})
    return True


def _refuse_updated_index(context: OpenRun, name: str, step: Step) -> None:
    """Raise UsageProblem for a step that would search other documents than the steps before it did."""
    searches = isinstance(step, EvaluateStep) and step.retrieval
    searches |= isinstance(step, TrainStep) and step.rows == "retrieval"
    if searches and index_updated(context.folder):
        path = context.folder.path
        raise UsageProblem(
            f"{path / INDEX} was updated after it was built for this run: {name} would search other documents than the "
            "arms before it, judged by answers that may be outdated",
            f"carry the plan out again, with today's documents and questions: tunewise run {path / PLAN} --out NEW",
        )


def _damage(context: OpenRun, step: Step) -> str:
    """Return why a finished step is repeated though its inputs are the same; "" where it need not be."""
    if isinstance(step, IndexStep):
        return refusal_gate.why_fit_again(context.folder.path / REFUSAL_FILE)
    if isinstance(step, EmbedderStep):
        return embedder_step.damaged_retriever(context)
    if not isinstance(step, TrainStep):
        return ""
    for seed in step.seeds:
        folder = context.folder.adapter(step.arm, seed)
        kind = "adapter" if (folder / "adapter_config.json").is_file() else "model"
        try:
            check_manifest(folder, kind, (cards.CARD_FILE,))
        except BadInput as error:
            return error.message if folder.is_dir() else f"{folder} is missing"
    return ""


def _measure_forgetting(context: OpenRun, number: int) -> None:
    """Measure forgetting, unless it was measured for these weights."""
    name, made_from = forgetting.STEP, forgetting.forgetting_inputs(context)
    context.emit({"event": "step.start", "step": name, "number": number, "total": number})
    if context.folder.finished(name, made_from) is not None:
        context.emit({"event": "step.skip", "step": name})
        return
    context.folder.unseal()
    with disk_full_as_problem(context.folder.path):
        result = forgetting.measure_forgetting(context)
    context.folder.finish(name, made_from, result)
    context.emit({"event": "step.end", "step": name, **result})


def _gold_corrected(context: OpenRun) -> bool:
    """Return whether answers were judged by other gold than there is now; then the run is unsealed, and says so."""
    scored = trial.scored_gold(context.folder.path / TRIAL / SCORES)
    if scored in ("", trial.gold_digest(context.split.test)):
        return False
    context.folder.unseal()
    reason = (
        "the gold of the test questions is another than the answers were judged by: they are judged again"
    )
    context.emit(
        {"event": "trial.judged_again", "reason": f"{reason}; what was chosen on dev questions stays"}
    )
    return True


def _score_arms(context: OpenRun, incomplete: Mapping[str, str]) -> None:
    """Score the answers of all arms but the incomplete ones, and write the scores.

    Raises CannotRun where no arm has all of its answers.
    """
    plan = context.plan
    if not plan.arms:
        return
    folder = context.folder.path / TRIAL
    rows = read_journal(folder / trial.ANSWERS)
    arms = trial.score_trial(plan, context.split.test, rows, partial(step_runner.gold_text, context))
    arms = [arm for arm in arms if arm.arm not in incomplete]
    if not any(arm.questions for arm in arms) and incomplete:
        arms_of: dict[str, list[str]] = {}
        for name in (arm.arm for arm in plan.arms if arm.arm in incomplete):
            arms_of.setdefault(incomplete[name], []).append(name)
        whys = "; ".join(f"{', '.join(names)}: {why}" for why, names in arms_of.items())
        raise CannotRun(
            f"no arm has all of its answers: {whys}",
            f"correct it and go on: tunewise run {context.folder.path} --resume",
        )
    # An arm whose retriever its gate refused has no answers, and so no scores.
    arms = [arm for arm in arms if arm.questions or arm.arm not in refused_arms(context.folder.path, plan)]
    trial.write_scores(arms, folder / SCORES, trial.gold_digest(context.split.test))
    if plan.index and (words := question_words(context.split.test, context.retrieval.index.raw)):
        context.emit({"event": QUESTION_WORDS, **asdict(words)})
    if test := embedder_step.compare_on_test(context):
        context.emit({"event": "retriever.test", "test": test})
    _write_scores_to_cards(context, arms)


def question_words(
    questions: Sequence[Question], text_of: Callable[[str], str | None]
) -> QuestionWords | None:
    """Return how near questions are to the documents' words; None where too few can be judged, or most are not English.

    Counted are those that somebody asked, with an answer that a sentence of their document holds; a question counts once,
    without its other wordings.

    Args:
        questions: as they are asked.
        text_of: returns the text of a document, None for one that is not there.
    """
    asked = [
        question
        for question in questions
        if question.answerable and question.doc_id and not question.made and question.wording_of is None
    ]
    if why_not_english([question.question for question in asked]):
        return None
    answered = []
    for question in asked:
        text = text_of(str(question.doc_id)) or ""
        facts = gold_texts(question, " ".join(text[start:end] for start, end in question.spans))
        answered.append((question.question, gold_sentences(text, question.question, facts, question.spans)))
    return measure_words(answered)


def _write_scores_to_cards(context: OpenRun, arms: Sequence[trial.ArmScores]) -> None:
    """Write an arm's scores into the manifest and model card of its own weights."""
    scores = {arm.arm: trial.with_intervals(arm) for arm in arms if arm.questions}
    trained = [step for step in context.plan.steps if isinstance(step, TrainStep) and step.arm in scores]
    for step in trained:
        for seed in step.seeds:
            cards.rewrite_card(context.folder.adapter(step.arm, seed), scores[step.arm])
