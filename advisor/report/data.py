"""The content of report.json, computed from a finished run folder: :func:`report_json` and its parts.

It also reads the scores and the report of a run, and records what the numbers rest on: machine, package versions, and
digests of plan, data files and model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from advisor.costs.arm_costs import cost_per_1000, rounded_mean, upkeep_costs
from advisor.output import command_line
from advisor.report.dev_budget import dev_budget
from advisor.report.learning_curve import read_curves
from advisor.verdict.conclusion import conclude
from advisor.verdict.guards import guard_warnings, run_guards, trained_rows
from advisor.verdict.made_questions import judge_on_real_questions, made_column, origin_counts, origin_notes
from advisor.verdict.predictions import compare_prediction, is_quick
from advisor.verdict.right_answers import beside_answers, by_wording, right_answers
from advisor.verdict.trial_forecast import compare_forecast
from rag.errors import BadInput
from rag.evaluation.statistics import PairedDifference, bootstrap_interval, cluster_by_document
from rag.files import check_schema, parse_json, sha256_file
from runners import run_folder
from runners.data.questions import Question
from runners.models.resolve import parse_remote
from runners.plan.schema import Plan
from runners.plan.steps import NF4, QUANTIZED_ANSWERS, EvaluateStep, TrainStep
from runners.resources.environment import ENVIRONMENT_EVENT, describe_environment
from runners.resources.usage import contention_note
from runners.run_folder import SCORES, TRIAL, RunFolder, open_run_folder, read_journal
from runners.runs.retrieval import read_comparison
from runners.scoring.scores import inapplicable_scores
from runners.trial.judge import JUDGE_JOURNAL, summary
from runners.trial.refusal_gate import question_drift
from runners.trial.trial import ANSWERS, ArmScores

FULL_RUN_EVENT = "run.full"
"""The event of a quick run with the command of the full one and its estimated minutes."""


def read_scores(run: Path) -> list[ArmScores]:
    """Read the scores of every arm; BadInput when the run has not been scored yet or the file is damaged."""
    path = run / TRIAL / SCORES
    if not path.is_file():
        raise BadInput(f"{run} has no scores yet", f"finish it with: {command_line('run', run, '--resume')}")
    try:
        body = check_schema(parse_json(path.read_text("utf-8")), "scores", path)
        return [_arm(name, body) for name in body["arms"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(
            f"{path} is damaged: {error!r}", f"score it again with: tunewise run {run} --resume"
        ) from None


def read_report(run: Path) -> dict[str, Any]:
    """Read the finished report of a run; BadInput when it has none yet."""
    open_run_folder(run)
    report = run_folder.read_report(run)
    if not report:
        raise BadInput(f"{run} has no report yet", f"finish it with: {command_line('run', run, '--resume')}")
    return report


def report_json(
    run: RunFolder, plan: Plan, questions: Sequence[Question] = (), staleness: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Compute the report of a run: verdict, arms with intervals, paired differences, prediction and measurement.

    Args:
        run: the run folder, with all arms scored.
        plan: its plan.
        questions: the test questions, for the checks that need their text.
        staleness: measurement after an update of the documents, None if there was none.

    Returns:
        The object of report.json; ``cost_order`` has the arms from cheapest to most expensive to keep up.
    """
    measured_arms = read_scores(run.path)
    guards = run_guards(run, plan, questions, staleness)
    accounts = trained_rows(run, plan)
    lost = {name: account.text for name, account in accounts.items() if account.lost}
    alone = seconds_alone(plan, measured_arms, run.events())
    judged = judge_on_real_questions(plan, measured_arms, plan.model.name, lost, alone)
    verdict, arms = judged.verdict, judged.arms
    beside = {arm.arm: made_column(arm) for arm in judged.beside}
    origins = origin_counts(measured_arms, _last_event(run.events(), event="run.start").get("made"))
    cost = upkeep_costs(plan.steps, {arm.arm: arm.tokens for arm in arms})
    measured = measured_facts(run, plan) | {"answering": answering_conditions(run.events(), plan)}
    answers = read_journal(run.path / TRIAL / ANSWERS)
    measured |= compare_prediction(
        plan, measured, run.events(), max(len(arm.combined) for arm in arms), verdict.strength == "proxy"
    )
    data: dict[str, Any] = {
        "schema": 1,
        "name": plan.name,
        "verdict": verdict.to_json(),
        "warnings": _warnings(plan, guards, origins),
        "arms": [
            arm_json(arm, plan, _gpu_of(run.events()), answers)
            | answer_times(arm.arm, run.events())
            | ({"made": beside[arm.arm]} if arm.arm in beside else {})
            | ({"training_rows": accounts[arm.arm].to_json()} if arm.arm in accounts else {})
            for arm in sorted(arms, key=lambda a: -a.mean_score)
        ],
        "paired": [pair_json(pair) for pair in judged.pairs],
        "cost_order": sorted(cost, key=lambda name: cost[name]),
        "weights": applied_weights(plan),
        "weight_reasons": dict(plan.weight_reasons),
        "training_reasons": training_reasons(plan),
        "judge": _judge_summary(run, plan, list(arms)),
        "predicted": plan.predicted,
        "measured": measured,
        "guards": guards,
        "dev_budget": dev_budget(run, plan, max((arm.question_count for arm in arms), default=0)),
        "full_run": full_run(run, plan),
        "max_test": plan.data.max_test,
        **({"made_questions": origins} if origins else {}),
    }
    data |= _search_keys(run.path, plan, answers, data["warnings"])
    further = {"forecast": compare_forecast(plan, data), "curves": read_curves(run.path)}
    data |= {key: value for key, value in further.items() if value}
    data["verdict"]["conclusion"] = conclude(data, bool(plan.prompts.system))
    return data


def _warnings(plan: Plan, guards: dict[str, Any], origins: dict[str, Any] | None) -> list[str]:
    """Return what a reader must know beside the scores: where questions come from, and what the guards found."""
    notes = [*origin_notes(origins), *guard_warnings(guards)]
    return [*notes, *_answering_notes(plan), *left_out_notes(plan)]


def _gpu_of(events: Sequence[Mapping[str, Any]]) -> str:
    """Return the GPU that the run recorded last; "" for none."""
    return next((str(event["gpu"] or "") for event in reversed(events) if "gpu" in event), "")


def seconds_alone(
    plan: Plan, arms: Sequence[ArmScores], events: Sequence[Mapping[str, Any]]
) -> dict[str, float]:
    """Return the 95th percentile of the seconds of an answer that is asked alone, by arm.

    Those of an endpoint are the seconds of its requests in the trial; arms that were not timed alone are missing.
    """
    asked = {step.arm for step in plan.arms if _asks_server(plan, step)}
    remote = {arm.arm: list(arm.seconds) for arm in arms if arm.arm in asked and arm.seconds}
    timed = {arm.arm: _timed_alone(arm.arm, events) for arm in arms}
    return {name: _percentile_95(values) for name, values in (timed | remote).items() if values}


def answer_times(arm: str, events: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the report's ``alone`` (median and 95th percentile of seconds, and of how many) and ``batch``, the largest.

    Both are None where the run did not record them.
    """
    alone = _timed_alone(arm, events)
    batches = [
        e for e in events if e.get("event") == "answers.batch" and e.get("arm") == arm and "batch" in e
    ]
    timed = {"seconds": median(alone), "p95": _percentile_95(alone), "n": len(alone)} if alone else None
    return {"alone": timed, "batch": max((event["batch"] for event in batches), default=None)}


def full_run(run: RunFolder, plan: Plan) -> dict[str, Any] | None:
    """Return what a quick run left out: the command of the full run and its minutes, None where they are not known.

    None for a run that was not shortened by ``--quick``.
    """
    if not is_quick(plan):
        return None
    recorded = _last_event(run.events(), event=FULL_RUN_EVENT)
    return {"quick": True, "command": recorded.get("command"), "minutes": recorded.get("minutes")}


def measured_facts(run: RunFolder, plan: Plan) -> dict[str, Any]:
    """Return what the run took: seconds of each step, results of each training by arm, and the steps on a busy machine."""
    events = run.events()
    started: dict[str, float] = {}
    seconds: dict[str, float] = {}
    for event in events:
        if event.get("event") == "step.start":
            started[event["step"]] = event["time"]
        elif event.get("event") == "step.done" and event["step"] in started:
            seconds[event["step"]] = round(event["time"] - started[event["step"]], 1)
    trained = {
        step.arm: next(
            (
                past["result"].get("trained")
                for past in reversed(events)
                if _is_done(past, f"train:{step.arm}")
            ),
            None,
        )
        for step in plan.steps
        if isinstance(step, TrainStep)
    }
    return {"seconds": seconds, "training": trained, "busy": busy_steps(events)}


def busy_steps(events: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the steps during which other processes took much of the processor, with the share that they took."""
    lost = {str(e["step"]): float(e.get("lost", 0.0)) for e in events if e.get("event") == "step.done"}
    return {name: share for name, share in lost.items() if contention_note(share)}


def training_reasons(plan: Plan) -> dict[str, dict[str, str]]:
    """Return why each setting of a training has its value, by arm and setting."""
    return {
        step.arm: dict(step.reasons) for step in plan.steps if isinstance(step, TrainStep) and step.reasons
    }


def _asks_server(plan: Plan, step: EvaluateStep) -> bool:
    """Return whether an arm's answers come from an endpoint or from a server of the backend."""
    if step.classifier:
        return False
    return (
        plan.servers.model_of(step) is not None or parse_remote((step.model or plan.model).name) is not None
    )


def answering_conditions(events: Sequence[Mapping[str, Any]], plan: Plan) -> dict[str, dict[str, Any]]:
    """Return by arm under which conditions its answers were timed.

    ``busy`` is the share of the processor time that other processes took meanwhile (0.0 to 1.0; absent on a GPU and in
    runs of earlier versions), ``at_once`` the number of requests under way at a time to a server.
    """
    rows: dict[str, dict[str, Any]] = {}
    for step in plan.arms:
        model = step.model or plan.model
        done = _last_event([dict(event) for event in events], event="step.done", step=f"evaluate:{step.arm}")
        busy = (done.get("result") or {}).get("busy")
        server = plan.servers.model_of(step)
        at_once = model.at_once * len(server.urls) if server else model.at_once
        remote = _asks_server(plan, step)
        rows[step.arm] = {"at_once": at_once} if remote else {} if busy is None else {"busy": busy}
    return {arm: row for arm, row in rows.items() if row}


def arm_json(arm: ArmScores, plan: Plan, gpu: str, answers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return an arm as in the report.

    Each score has its 95 % interval; ``right`` counts the right answers, None where none can be judged. Where questions
    have other wordings, all that was asked is counted (``n``), ``questions`` are those of the file, and ``by_wording`` has
    both apart. ``beside`` counts the answers given, of ``answers`` in the journal, that cite something else than was asked.
    Seeds, time and tokens follow, and USD per 1,000 answers on the GPU ``gpu`` ("" for a CPU).
    """
    usd = cost_per_1000(arm, plan, gpu)
    names = sorted({name for scores in arm.scores for name in scores})
    right = right_answers(arm)
    step = next((step for step in plan.arms if step.arm == arm.arm), None)
    return {
        "arm": arm.arm,
        "retrieval": step is not None and step.retrieval,
        "weights": step.weights if step is not None else None,
        "score": _interval(arm.shown("combined"), arm.sources()),
        "scores": {
            name: {**_interval(arm.shown(name), arm.sources(name)), "n": len(arm.of(name))} for name in names
        },
        "right": right.to_json() if right else None,
        "beside": beside_answers(answers, arm.arm).to_json(),
        "n": len(arm.combined),
        "documents": cluster_by_document(arm.sources()).documents,
        "seeds": [{"seed": seed, "mean": score} for seed, score in arm.seeds],
        "seconds_per_answer": rounded_mean(arm.seconds),
        "ms_per_answer": round(1000 * rounded_mean(arm.seconds), 1),
        "prompt_tokens": rounded_mean(arm.prompt_tokens),
        "completion_tokens": rounded_mean(arm.completion_tokens),
        "usd_per_1000": usd.usd,
        "usd_basis": usd.basis,
        **_wording_keys(arm),
        **({"backend": server.entry} if (server := step and plan.servers.model_of(step)) else {}),
    }


def _wording_keys(arm: ArmScores) -> dict[str, Any]:
    """Return the keys of an arm whose questions have other wordings; {} without any."""
    counts = by_wording(arm)
    apart = {name: part.to_json() for name, part in counts.items()}
    return {"questions": arm.question_count, "by_wording": apart} if counts else {}


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


def _search_keys(
    run: Path, plan: Plan, answers: Sequence[Mapping[str, Any]], warnings: list[str]
) -> dict[str, Any]:
    """Return the keys about what was asked and a tuned retriever, and add what a reader must know to the warnings."""
    drift, comparison = question_drift(run, plan, answers), read_comparison(run)
    warnings += [drift.text] if drift and drift.sure else []
    keys: dict[str, Any] = {"drift": drift.to_json() if drift else None}
    if not comparison:
        return keys
    notes = retriever_notes(comparison, plan)
    warnings += [] if comparison["accepted"] else notes[:1]
    return keys | {"retriever": {**{k: v for k, v in comparison.items() if k != "schema"}, "notes": notes}}


def retriever_notes(comparison: Mapping[str, Any], plan: Plan) -> list[str]:
    """Return what the gate of a tuned retriever decided, with its numbers on dev and on test questions; [] without one.

    Args:
        comparison: of the run (:func:`runners.runs.retrieval.read_comparison`).
        plan: the run's plan.
    """
    if not comparison:
        return []
    arms = ", ".join(step.arm for step in plan.arms if step.retriever == "tuned") or "no arm"
    outcome = "is used" if comparison["accepted"] else f"was refused, so {arms} was not asked"
    notes = [f"the tuned retriever {outcome}: {comparison['reason']}"]
    if test := comparison.get("test"):
        labels = {"evidence": "evidence", "ndcg": "nDCG@10"}
        parts = [
            f"{label} {row['before']:.3f} to {row['after']:.3f} ({row['difference']:+.3f}, "
            f"95 % {row['low']:+.3f} to {row['high']:+.3f})"
            for key, label in labels.items()
            if (row := test.get(key))
        ]
        notes.append(
            f"the tuned retriever on {test['questions']} test questions, measured after the trial: "
            + "; ".join(parts)
        )
    return notes


def pair_json(pair: PairedDifference) -> dict[str, Any]:
    """Return a paired comparison as in the report."""
    keys = ("a", "b", "difference", "low", "high", "p", "p_holm", "units")
    return {key: getattr(pair, key) for key in keys} | {"n": pair.questions}


def recorded_environment(events: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the environment that the run recorded when it was last started, and the date of its first event (UTC).

    Runs of early versions did not record it; for them it is the environment of this process.
    """
    recorded = [event for event in events if event.get("event") == ENVIRONMENT_EVENT]
    environment = (
        {key: value for key, value in recorded[-1].items() if key not in ("event", "time")}
        if recorded
        else describe_environment()
    )
    started = next((event["time"] for event in events if "time" in event), None)
    date = datetime.fromtimestamp(started, UTC).date().isoformat() if started is not None else None
    return {"date": date, **environment}


def data_used(run: RunFolder, plan: Plan) -> dict[str, Any]:
    """Return the digests of plan, split, model, index input and data files, and the seeds; None for what is unknown."""
    events = run.events()
    start = _last_event(events, event="run.start")
    index = _last_event(events, event="step.done", step="index")
    seeds = sorted({seed for step in plan.steps if isinstance(step, TrainStep) for seed in step.seeds})
    return {
        "plan": plan.digest(),
        "split": start.get("split"),
        "base": start.get("base"),
        "model": plan.model.name,
        **({"quantization": NF4} if plan.model.quantization == NF4 else {}),
        **({"backend": list(plan.backend)} if plan.backend else {}),
        "index_input": index.get("inputs"),
        "seed": plan.seed,
        "training_seeds": seeds,
        "longest_answer_tokens": plan.max_new_tokens,
        **_how_asked(events, plan),
        "files": _data_files(plan),
    }


def _answering_notes(plan: Plan) -> list[str]:
    """Return what the reader must know of how arms were answered: by a model in 4 bits, or by the servers of a backend."""
    asked: dict[str, list[str]] = {}
    for step in plan.arms:
        if model := plan.servers.model_of(step):
            asked.setdefault(model.entry, []).append(step.arm)
    notes = [f"{', '.join(arms)}: answers generated by {entry}" for entry, arms in asked.items()]
    return [*notes, QUANTIZED_ANSWERS] if plan.model.quantization == NF4 else notes


def _how_asked(events: Sequence[Mapping[str, Any]], plan: Plan) -> dict[str, Any]:
    """Return how chats were written for the models, counts of reasoning, and the form of answers; {} without any of it.

    The form is said only of runs whose events say that answers were held to one.
    """
    notes = dict.fromkeys(
        str(event["reason"]) for event in events if event.get("event") == "model.note" and "reason" in event
    )
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
    asked = {"how_asked": list(notes), "reasoning": counts, "held_to_a_form": list(dict.fromkeys(held))}
    return {key: value for key, value in asked.items() if value}


def _is_done(event: dict[str, Any], step: str) -> bool:
    return event.get("event") == "step.done" and event.get("step") == step


def _judge_summary(run: RunFolder, plan: Plan, arms: list[ArmScores]) -> dict[str, Any] | None:
    """Return the summary of the model judge's preferences; None for a plan without a judge."""
    if plan.judge is None:
        return None
    return summary(plan.judge.name, plan.choice, arms, read_journal(run.path / TRIAL / JUDGE_JOURNAL))


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
        tuple(hits.get(question) for question in questions) if wording_of else (),
    )


def _interval(values: list[float], documents: list[str | None]) -> dict[str, float]:
    """Return the mean of scores between 0 and 1 with its interval; weighted values may be above 1, their mean is not."""
    interval = bootstrap_interval(values, documents=documents)
    return {"mean": interval.mean, "low": max(0.0, interval.low), "high": min(1.0, interval.high)}


def _timed_alone(arm: str, events: Sequence[Mapping[str, Any]]) -> list[float]:
    """Return the seconds of the answers of an arm that were asked one at a time; [] where none was."""
    done = [
        event
        for event in events
        if event.get("event") == "step.done" and event.get("step") == f"evaluate:{arm}"
    ]
    return list((done[-1].get("result") or {}).get("seconds_alone") or ()) if done else []


def _percentile_95(values: Sequence[float]) -> float:
    """Return the 95th percentile; the largest of a few values."""
    return quantiles(values, n=20, method="inclusive")[-1] if len(values) >= 20 else max(values)


def _last_event(events: Sequence[dict[str, Any]], **wanted: str) -> dict[str, Any]:
    return next(
        (
            event
            for event in reversed(events)
            if all(event.get(key) == value for key, value in wanted.items())
        ),
        {},
    )


def _data_files(plan: Plan) -> dict[str, dict[str, str]]:
    paths: dict[str, Path | None] = {
        name: getattr(plan.data, name)
        for name in ("questions", "test_questions", "examples", "replay", "wordings")
    }
    return {
        name: {"name": path.name, "sha256": sha256_file(path)}
        for name, path in paths.items()
        if path is not None and path.is_file()
    }
