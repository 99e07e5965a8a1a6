"""The report of a run, computed from a finished run folder: :func:`report_of_run` and its parts.

It also reads a run's scores and report, and records what the numbers rest on: machine, versions and digests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from advisor.costs.arm_costs import asks_server, cost_per_1000, measured_ranks, rounded_mean, routed_answers
from advisor.output import command_line
from advisor.report.dev_budget import dev_budget
from advisor.report.failure_causes import read_failures
from advisor.report.learning_curve import read_curve_of_arms, read_curves
from advisor.report.statements import retriever_notes, task_asked
from advisor.verdict import predictions
from advisor.verdict.guards import (
    guard_warnings,
    incomplete_text,
    incomplete_warnings,
    lost_arms,
    run_guards,
)
from advisor.verdict.made_questions import (
    JudgedTrial,
    judge_on_real_questions,
    made_column,
    made_questions,
    origin_note,
    words_note,
)
from advisor.verdict.right_answers import beside_answers, by_wording, right_answers
from advisor.verdict.right_costs import with_right_costs
from advisor.verdict.run_records import RunRecords
from advisor.verdict.sentences import Conclusion
from advisor.verdict.teacher import teacher_report
from advisor.verdict.trial_forecast import compare_forecast
from advisor.verdict.verdict import today_arm
from rag.errors import BadInput, CannotRun
from rag.evaluation.clusters import cluster_by_document
from rag.evaluation.statistics import PairedDifference
from rag.files import check_schema, parse_json
from runners.arms.prompt_selection import read_stored_prompts
from runners.data.questions import with_wordings
from runners.judging.calibration import with_grades
from runners.judging.pairs import preferences
from runners.made_from import data_files, recorded_files
from runners.plan.arm_names import name_and_precision
from runners.plan.named_models import asked_models, reference_arms
from runners.plan.schema import Plan
from runners.plan.steps import NF4, QUANTIZED_ANSWERS, TrainStep
from runners.report import report_file
from runners.report.arm_scores import rows_without_gold
from runners.report.lookups import lookup_summary
from runners.report.records import (
    ArmReport,
    Estimate,
    MadeColumn,
    PairReport,
    SecondsAlone,
    SeedScore,
    Strength,
    TrainingRows,
)
from runners.report.trial_report import (
    AnsweringConditions,
    DataUsed,
    FullRun,
    Measured,
    Ratios,
    TrialReport,
)
from runners.resources.usage import contention_note
from runners.run_folder import SCORES, TRIAL, RunFolder, open_run_folder
from runners.runs.data_notes import DATA_NOTES, noted_lines
from runners.runs.retrieval import read_comparison
from runners.scoring.scores import inapplicable_scores
from runners.selective.answer_checks import repeat_warnings, with_checks
from runners.selective.routes import read_routes
from runners.trial.refusal_gate import question_drift
from runners.trial.trial import ArmScores, scores_with_intervals

FULL_RUN_EVENT = "run.full"
"""The event of a quick run with the command of the full one and its estimated minutes."""


def read_scores(run: Path) -> list[ArmScores]:
    """Read the scores of every arm; BadInput when the run has not been scored yet or the file is damaged."""
    path = run / TRIAL / SCORES
    if not path.is_file():
        raise BadInput(f"{run} has no scores yet", _resume(run))
    try:
        body = check_schema(parse_json(path.read_text("utf-8")), "scores", path)
        return [_arm(name, body) for name in body["arms"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(
            f"{path} is damaged: {error!r}", f"score it again with: tunewise run {run} --resume"
        ) from None


def _resume(run: Path) -> str:
    return f"finish it with: {command_line('run', run, '--resume')}"


def read_report(run: Path) -> TrialReport:
    """Read the finished report of a run; BadInput when it has none yet."""
    open_run_folder(run)
    if (report := report_file.read_report(run)) is None:
        raise BadInput(f"{run} has no report yet", _resume(run))
    return report


def report_of_run(records: RunRecords) -> TrialReport:
    """Return the report of a run whose arms are all scored: verdict, arms with intervals, prediction and measurement."""
    plan = records.plan
    measured_arms, graded = with_grades(records.path, plan, read_scores(records.path), records.answers)
    records, incomplete = records.without_incomplete([arm.arm for arm in measured_arms])
    if not {arm.arm for arm in measured_arms}.difference(reference_arms(plan)):
        listed = incomplete_text(incomplete) or "none was asked"
        raise CannotRun(f"no arm of {records.path} was finished: {listed}", _resume(records.path))
    guards = run_guards(records)
    trained = {rows.arm: rows for rows in guards.training_rows or ()}
    alone = seconds_alone(records, measured_arms)
    reasons = {arm.arm: arm.text for arm in incomplete}
    judged = judge_on_real_questions(
        plan, measured_arms, plan.model.name, lost_arms(trained.values()), alone, reasons, records.gpu
    )
    origins = made_questions(measured_arms, records.last("run.start").get("made"))
    cost = measured_ranks(plan, judged.arms, records.gpu if len(plan.models) > 1 else "")
    drift = question_drift(records.path, plan, records.answers)
    comparison = {key: value for key, value in read_comparison(records.path).items() if key != "schema"}
    notes = retriever_notes(comparison, plan)
    warnings = [*incomplete_warnings(records.path, incomplete), origin_note(origins)]
    warnings += [*noted_lines(records.last(DATA_NOTES)), *guard_warnings(guards)]
    unlike = [drift.text] if drift and drift.sure else []
    warnings += [*_answering_notes(plan), *left_out_notes(plan), *unlike]
    warnings += [] if not comparison or comparison["accepted"] else notes[:1]
    arms, asked = _arm_reports(records, judged, trained), max(len(arm.combined) for arm in judged.arms)
    report = TrialReport(
        name=plan.name,
        verdict=judged.verdict,
        warnings=tuple(filter(None, (*plan.said_first, *warnings, *repeat_warnings(arms)))),
        arms=arms,
        paired=tuple(map(pair_report, judged.pairs)),
        cost_order=tuple(sorted(cost, key=lambda name: cost[name])),
        weights=applied_weights(plan),
        weight_reasons=plan.weight_reasons,
        training_reasons=training_reasons(plan),
        judge=preferences(records.path, plan, judged.arms),
        predicted=plan.predicted,
        measured=measured_facts(records, asked, judged.verdict.strength is Strength.PROXY),
        guards=guards,
        dev_budget=dev_budget(records, max((arm.question_count for arm in judged.arms), default=0)),
        full_run=full_run(records),
        max_test=plan.data.max_test,
        without_gold=rows_without_gold(measured_arms),
        made_questions=origins,
        question_words=records.question_words,
        drift=drift.to_json() if drift else None,
        retriever={**comparison, "notes": notes} if comparison else None,
        curves=tuple(read_curves(records.path)),
        curve_of_arms=read_curve_of_arms(records.path),
        failures=read_failures(records.path),
        task=task_asked(plan),
        environment=records.environment,
        data=data_used(records),
        models=_models_asked(plan),
        incomplete=incomplete,
        graded=graded,
    )
    report = with_right_costs(report, records, judged.arms)
    return _with_conclusion(replace(report, teacher=teacher_report(records, report, judged.arms)), plan)


def _models_asked(plan: Plan) -> dict[str, str] | None:
    """Return the names of the models that are compared, and of a teacher beside them, by alias; None of one model."""
    models = (asked_models(plan.models, plan.teacher) if plan.models else {}).items()
    return {alias: name_and_precision(model.name, model.quantization) for alias, model in models} or None


def _with_conclusion(report: TrialReport, plan: Plan) -> TrialReport:
    """Return a report with its forecast beside the measurements, and its conclusion."""
    forecast = compare_forecast(plan, report.verdict, report.candidates, report.measured.seconds)
    today = today_arm(plan, [arm.arm for arm in report.candidates])
    prompt = report.task.prompt
    conclusion = Conclusion(report=report, verdict=report.verdict, prompt_in_use=prompt, today=today)
    notes = (report.verdict.text, report.graded_note, words_note(report.question_words, report.arms))
    verdict = replace(report.verdict, conclusion=conclusion.sentences, text=" ".join(filter(None, notes)))
    return replace(report, forecast=forecast, verdict=verdict)


def _arm_reports(
    records: RunRecords, judged: JudgedTrial, trained: Mapping[str, TrainingRows]
) -> tuple[ArmReport, ...]:
    """Return the arms that were judged, the best by the combined score first."""
    beside = {arm.arm: made_column(arm) for arm in judged.beside}
    routes = read_routes(records.path / TRIAL)
    reports = (
        arm_report(
            arm,
            records.plan,
            records.answers,
            gpu=records.gpu,
            alone=answers_alone(records, arm.arm),
            batch=largest_batch(records, arm.arm),
            on_made=beside.get(arm.arm),
            training_rows=trained.get(arm.arm),
            cut=routes[arm.arm].cut if arm.arm in routes else None,
        )
        for arm in sorted(judged.arms, key=lambda a: -a.mean_score)
    )
    asked = {form.id: form for form in with_wordings(records.questions)}
    stored = read_stored_prompts(records.path / TRIAL)
    return tuple(with_checks(arm, records.plan, records.answers, asked, stored) for arm in reports)


def seconds_alone(records: RunRecords, arms: Sequence[ArmScores]) -> dict[str, float]:
    """Return the 95th percentile of the seconds of an answer that is asked alone, by arm.

    Those of an endpoint are the seconds of its requests in the trial; arms that were not timed alone are missing.
    """
    asked = {step.arm for step in records.plan.arms if asks_server(records.plan, step)}
    remote = {arm.arm: list(arm.seconds) for arm in arms if arm.arm in asked and arm.seconds}
    timed = {arm.arm: _timed_alone(records, arm.arm) for arm in arms}
    return {name: _percentile_95(values) for name, values in (timed | remote).items() if values}


def answers_alone(records: RunRecords, arm: str) -> SecondsAlone | None:
    """Return the seconds of an arm's answers to questions asked one at a time; None where none was."""
    alone = _timed_alone(records, arm)
    return SecondsAlone(seconds=median(alone), p95=_percentile_95(alone), n=len(alone)) if alone else None


def largest_batch(records: RunRecords, arm: str) -> int | None:
    """Return the most answers that an arm generated at once; None where the run did not record it."""
    batches = [e for e in records.events if (e.get("event"), e.get("arm")) == ("answers.batch", arm)]
    return max((event["batch"] for event in batches if "batch" in event), default=None)


def full_run(records: RunRecords) -> FullRun | None:
    """Return what a quick run left out; None for a run that was not shortened by ``--quick``."""
    if not predictions.is_quick(records.plan):
        return None
    recorded = records.last(FULL_RUN_EVENT)
    return FullRun(quick=True, command=recorded.get("command"), minutes=recorded.get("minutes"))


def measured_facts(records: RunRecords, test_questions: int, proxy: bool) -> Measured:
    """Return what the run took, and how that compares with what was predicted of the chosen arm.

    Args:
        records: of the run.
        test_questions: number of questions that were asked.
        proxy: whether another model than the plan's was measured.
    """
    plan, events = records.plan, records.events
    started: dict[str, float] = {}
    seconds: dict[str, float] = {}
    busy: dict[str, float] = {}
    for event in events:
        if event.get("event") == "step.start":
            started[event["step"]] = event["time"]
        elif event.get("event") == "step.done":
            if event["step"] in started:
                took = event["time"] - started[event["step"]]
                seconds[event["step"]] = round(took, 1) or round(took, 3)  # 0 is a step that was not timed
            busy[event["step"]] = float(event.get("lost", 0.0))
    trained = [step.arm for step in plan.steps if isinstance(step, TrainStep)]
    trainings = {name: records.result(f"train:{name}").get("trained") for name in trained}
    memory = predictions.largest_memory(predictions.training_runs(plan, trainings))
    hours = predictions.measured_training_hours(plan, trainings)
    pairs = predictions.predicted_pairs(plan, trainings, proxy)
    time, held = (None if pair is None else round(pair.ratio, 3) for pair in pairs)
    return Measured(
        seconds=seconds,
        training=trainings,
        busy={name: share for name, share in busy.items() if contention_note(share)},
        answering=answering_conditions(records),
        memory_gib=memory.own,
        memory_expected_gib=memory.expected,
        process_gib=memory.peak,
        held_gib=memory.held,
        hours=None if hours is None else round(hours, 6),
        ratios=Ratios(time=time, memory=held, not_compared=predictions.why_incomparable(plan, proxy)),
        steps=predictions.timed_steps(plan, seconds, trainings, events, test_questions),
    )


def training_reasons(plan: Plan) -> dict[str, dict[str, str]]:
    """Return why each setting of a training has its value, by arm and setting."""
    return {
        step.arm: dict(step.reasons) for step in plan.steps if isinstance(step, TrainStep) and step.reasons
    }


def answering_conditions(records: RunRecords) -> dict[str, AnsweringConditions]:
    """Return by arm under which conditions its answers were timed; arms of which nothing is known are left out."""
    plan, rows = records.plan, {}
    for step in plan.arms:
        busy = records.result(f"evaluate:{step.arm}").get("busy")
        if asks_server(plan, step):
            server = plan.servers.model_of(step)
            at_once = plan.model_of(step).at_once * (len(server.urls) if server else 1)
            rows[step.arm] = AnsweringConditions(at_once=at_once)
        elif busy is not None:
            rows[step.arm] = AnsweringConditions(busy=busy)
    return rows


def arm_report(
    arm: ArmScores,
    plan: Plan,
    answers: Sequence[Mapping[str, Any]],
    *,
    gpu: str = "",
    alone: SecondsAlone | None = None,
    batch: int | None = None,
    on_made: MadeColumn | None = None,
    training_rows: TrainingRows | None = None,
    cut: float | None = None,
) -> ArmReport:
    """Return an arm as in the report: each score with its 95 % interval, right answers, time, tokens and costs.

    Args:
        arm: its scores.
        plan: the plan.
        answers: the rows of the journal, of all arms.
        gpu: the GPU for which 1,000 answers are priced; "" for a CPU.
        alone: seconds of its answers to questions asked one at a time; None where it was not timed so.
        batch: its largest batch; None where that was not recorded.
        on_made: what it scored on made questions beside the real ones.
        training_rows: the rows that it was trained on.
        cut: of a router, how sure its first arm must be.
    """
    scores = scores_with_intervals(arm)
    combined = scores.pop("combined")
    usd = cost_per_1000(arm, plan, gpu)
    step = next((step for step in plan.arms if step.arm == arm.arm), None)
    server = plan.servers.model_of(step) if step else None
    wordings = by_wording(arm)
    return ArmReport(
        arm=arm.arm,
        retrieval=step is not None and step.retrieval,
        weights=step.weights if step is not None else None,
        score=Estimate(mean=combined.mean, low=combined.low, high=combined.high),
        scores={name: scores[name] for name in sorted(scores)},
        right=right_answers(arm),
        beside=beside_answers(answers, arm.arm),
        n=len(arm.combined),
        documents=cluster_by_document(arm.sources()).documents,
        seeds=tuple(SeedScore(seed=seed, mean=score) for seed, score in arm.seeds),
        seconds_per_answer=rounded_mean(arm.seconds),
        ms_per_answer=round(1000 * rounded_mean(arm.seconds), 1),
        prompt_tokens=rounded_mean(arm.prompt_tokens),
        completion_tokens=rounded_mean(arm.completion_tokens),
        usd_per_1000=usd.usd,
        usd_basis=usd.basis,
        questions=arm.question_count if wordings else None,
        by_wording=wordings,
        backend=server.entry if server else None,
        alone=alone,
        batch=batch,
        made=on_made,
        training_rows=training_rows,
        routed=routed_answers(arm, plan, answers, cut, gpu),
        lookups=lookup_summary(answers, arm.arm),
    )


def applied_weights(plan: Plan) -> dict[str, float]:
    """Return the plan's weights without those of scores that none of its arms can have."""
    left_out = inapplicable_scores(plan)
    return {str(name): weight for name, weight in plan.weights.items() if name not in left_out}


def left_out_notes(plan: Plan) -> list[str]:
    """Return a sentence for each weighted score that none of the plan's arms can have."""
    return [
        f"{name} is not scored: {reason}"
        for name, reason in inapplicable_scores(plan).items()
        if plan.weights.get(name)  # type: ignore[call-overload]
    ]


def pair_report(pair: PairedDifference) -> PairReport:
    """Return a paired comparison as in the report."""
    keys = ("a", "b", "difference", "low", "high", "p", "p_holm", "units", "labels")
    return PairReport(**{key: getattr(pair, key) for key in keys}, n=pair.questions)


def data_used(records: RunRecords) -> DataUsed:
    """Return the digests of plan, split, model, index input and data files, and the seeds."""
    plan, start = records.plan, records.last("run.start")
    return DataUsed(
        plan=plan.digest(),
        split=start.get("split"),
        base=start.get("base"),
        model=plan.model.name,
        quantization=NF4 if plan.model.quantization == NF4 else None,
        backend=tuple(plan.backend),
        index_input=records.last("step.done", step="index").get("inputs"),
        seed=plan.seed,
        training_seeds=tuple(
            sorted({seed for step in plan.steps if isinstance(step, TrainStep) for seed in step.seeds})
        ),
        longest_answer_tokens=plan.max_new_tokens,
        **_how_asked(records.events, plan),
        files=_data_files(records),
    )


def _answering_notes(plan: Plan) -> list[str]:
    """Return what the reader must know of how arms were answered: by a model in 4 bits, or by the servers of a backend."""
    asked: dict[str, list[str]] = {}
    for step in plan.arms:
        if model := plan.servers.model_of(step):
            asked.setdefault(model.entry, []).append(step.arm)
    notes = [f"{', '.join(arms)}: answers generated by {entry}" for entry, arms in asked.items()]
    quantized = [alias for alias, model in plan.models.items() if model.quantization == NF4]
    if quantized:
        return [*notes, f"{', '.join(quantized)}: answers from a base in 4 bits (nf4), with adapters on top"]
    return [*notes, QUANTIZED_ANSWERS] if plan.model.quantization == NF4 and not plan.models else notes


def _how_asked(events: Sequence[Mapping[str, Any]], plan: Plan) -> dict[str, tuple[str, ...]]:
    """Return how chats were written for the models, counts of reasoning, and the form of answers.

    The form is said only of runs whose events say that answers were held to one.
    """
    notes = [str(e["reason"]) for e in events if e.get("event") == "model.note" and "reason" in e]
    results = {
        str(event.get("step")): event["result"]
        for event in events
        if event.get("event") == "step.done" and isinstance(event.get("result"), dict)
    }
    counts = [
        f"{step.removeprefix('evaluate:')}: reasoning cut from {result['reasoned']} answers, "
        f"{result.get('reasoning_cut', 0)} of them empty because it reached {plan.thinking.max_tokens} tokens"
        for step, result in results.items()
        if result.get("reasoned")
    ]
    held = [str(event["reason"]) for event in events if event.get("event") == "answers.constrained"]
    asked = {"how_asked": notes, "reasoning": counts, "held_to_a_form": held}
    return {key: tuple(dict.fromkeys(texts)) for key, texts in asked.items() if texts}


def _arm(name: str, body: Mapping[str, Any]) -> ArmScores:
    """Build an arm's scores from scores.json, of early versions too: its rows of named scores are by question id."""
    other_columns = ("combined", "seconds", "prompt_tokens", "completion_tokens")
    questions, rows = tuple(body["arms"][name]), tuple(body["arms"][name].values())
    documents, weights = body.get("documents", {}), body.get("question_weights", {})
    made_ids = frozenset(body.get("made", ()))
    wording_of, hits = body.get("wording_of", {}), body.get("hits", {}).get(name, {})
    return ArmScores(
        name,
        questions,
        tuple({key: value for key, value in row.items() if key not in other_columns} for row in rows),
        tuple(row["combined"] for row in rows),
        tuple(row["seconds"] for row in rows),
        tuple(int(row["prompt_tokens"]) for row in rows),
        tuple(int(row["completion_tokens"]) for row in rows),
        tuple(documents.get(question) for question in questions),
        tuple((row["seed"], row["mean"]) for row in body.get("seeds", {}).get(name, ())),
        tuple(weights.get(question, 1.0) for question in questions) if weights else (),
        tuple(question in made_ids for question in questions) if made_ids else (),
        tuple(wording_of.get(question) for question in questions) if wording_of else (),
        tuple(hits.get(question) for question in questions) if hits else (),
        tuple(body["asked"].get(question, 1.0) for question in questions) if body.get("asked") else (),
    )


def _timed_alone(records: RunRecords, arm: str) -> list[float]:
    """Return the seconds of the answers of an arm that were asked one at a time; [] where none was.

    Those of a router are, at the longest, those of its slower arm.
    """
    route = next((step.route for step in records.plan.arms if step.arm == arm), None)
    arm = route.otherwise if route else arm
    return list(records.result(f"evaluate:{arm}").get("seconds_alone") or ())


def _percentile_95(values: Sequence[float]) -> float:
    """Return the 95th percentile; the largest of a few values."""
    return quantiles(values, n=20, method="inclusive")[-1] if len(values) >= 20 else max(values)


def _data_files(records: RunRecords) -> dict[str, dict[str, str]]:
    """Return the files that the run read, by what it recorded: a later report is of the same answers."""
    data = records.plan.data
    files = recorded_files(RunFolder(records.path)) or data_files(records.plan)
    return {
        name: {"name": path.name, "sha256": digest}
        for name, digest in files.items()
        if (path := getattr(data, name)) is not None
    }
