"""Carry out one step of a plan: build the index, train an arm, or let an arm answer the test questions.

:func:`run_step` dispatches by the kind of step; :func:`step_inputs` returns what a step depends on. Torch is
imported inside the functions that need it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rag.errors import BadInput
from rag.files import canonical_json, disk_full_as_problem, sha256_file, sha256_text, write_json
from rag.grounding.refusal import SEARCH_SIGNALS
from rag.types import OnEvent
from runners.arms import scored_labels
from runners.arms.answer import answer_all
from runners.arms.answer_constraint import constraint_input
from runners.arms.prompts import training_row
from runners.arms.raft import RetrievalRows, retrieval_rows
from runners.arms.retriever import index_settings
from runners.data import sampling
from runners.data.examples import Example, load_examples
from runners.data.log_questions import require_log
from runners.data.questions import Question
from runners.data.reasoning import TAGS
from runners.inference.types import Generator
from runners.lookup.journal import LOOKUPS
from runners.made_from import content_digest, rows_digest
from runners.models.fingerprint import chat_template
from runners.models.resolve import Model, parse_remote
from runners.plan.schema import Plan, Step
from runners.plan.steps import (
    NO_QUANTIZATION,
    EmbedderStep,
    EvaluateStep,
    IndexStep,
    PlanModel,
    Thinking,
    TrainStep,
)
from runners.plan.train_config import KERNELS
from runners.resources import usage
from runners.run_folder import INDEX, PLAN, TRIAL, read_journal
from runners.runs import arm
from runners.runs.example_arms import fit_on_examples
from runners.runs.opened import OpenRun
from runners.runs.plan_models import model_identity
from runners.runs.retrieval import REFUSAL_FILE, check_backend_allowed, refused_arms
from runners.runs.router_step import RouterInputs, evaluate_router
from runners.selective.cuts import most_wrong_of
from runners.tokenization.template_features import EFFORT, SWITCHES
from runners.trial import embedder_step
from runners.trial.refusal_gate import fit_gate_on_dev, gate_inputs, log_questions, reader_input
from runners.trial.trial import ANSWERS, RunningScores, drop_outdated_answers, run_arm

ALONE_QUESTIONS = 3
"""Dev questions that are asked one at a time, for the time of one answer."""
CHAT_ENCODING = 2
"""Counted up when models without a template, or with one that writes the date, are asked in another way."""
_REASONING = (*SWITCHES, EFFORT, *(tags.closing for tags in TAGS))
"""Texts in the chat templates of models that reason before they answer."""


def step_inputs(context: OpenRun, step: Step) -> dict[str, Any]:
    """Return everything that a step depends on; a finished step is repeated when any of it changed."""
    plan, models = context.plan, context.models
    made_from: dict[str, Any] = {"step": step.model_dump(mode="json"), "seed": plan.seed}
    if isinstance(step, IndexStep):
        return made_from | {
            "documents": content_digest(plan.data.documents),
            "embedder": _embedder_digest(context),
            "signals": list(SEARCH_SIGNALS),
            **_gate_inputs(context),
        }
    if isinstance(step, EmbedderStep):
        return made_from | {
            "index": step_inputs(context, plan.index) if plan.index else {},
            "examples": rows_digest(context.examples),
            "split": context.split.digest,
            **_tuned_reranker_input(context),
            **_reranker_input(context, True),
        }
    if isinstance(step, EvaluateStep) and step.route:
        parts = {arm.arm: step_inputs(context, arm) for arm in plan.routed(step)}
        return made_from | {
            "arms": parts,
            "score_weights": {str(name): w for name, w in plan.weights.items()},
        }
    if plan.kernels != KERNELS[0]:  # so that steps finished before this setting existed stay finished
        made_from["kernels"] = plan.kernels
    if plan.thinking != Thinking():
        made_from["thinking"] = plan.thinking.model_dump()
    base = models.base_of(step)
    if isinstance(base, Model):
        made_from |= _asking_inputs(base, plan)
    made_from |= {"base": model_identity(base), "prompts": plan.prompts.model_dump(mode="json")}
    if isinstance(step, TrainStep):
        made_from |= {
            "examples": rows_digest(context.examples),
            "index": _index_digest(plan, step.rows == "retrieval"),
            **_reranker_input(context, step.rows == "retrieval"),
        }
        if step.replay:
            made_from["replay"] = content_digest(plan.data.replay)
        if step.start_from:
            made_from["from"] = step_inputs(context, plan.train_step(step.start_from))
        return made_from
    return made_from | _evaluate_inputs(context, step)


def _evaluate_inputs(context: OpenRun, step: EvaluateStep) -> dict[str, Any]:
    """Return what an arm's answers depend on beside its model: the questions, and what it shows, searches and reads."""
    plan, models = context.plan, context.models
    made_from: dict[str, Any] = {"split": context.split.digest, "max_new_tokens": plan.max_new_tokens}
    made_from |= quantization_input(models.settings_of(step))
    if asked := plan.servers.model_of(step):
        made_from["backend"] = asked.entry
    made_from |= constraint_input(plan, step)
    made_from |= {
        "index": _index_digest(plan, step.retrieval),
        "shots": rows_digest(context.examples) if step.shots or step.without_model else "",
        **_reranker_input(context, step.retrieval),
        **({**_gate_inputs(context), **reader_input(context)} if step.retrieval else {}),
    }
    if step.retriever == "tuned" and plan.embedder_step:
        made_from["retriever"] = step_inputs(context, plan.embedder_step)
    if step.embeds_texts:
        made_from["embedder"] = _embedder_digest(context)
    if (
        step.nearest_reply
    ):  # the documents may hold questions with answers, and the cut depends on what a wrong reply costs
        made_from["documents"] = content_digest(plan.data.documents)
        made_from["most_wrong"] = most_wrong_of(plan)
    if step.without_model or step.chooses_prompt or step.labels == "scored":
        made_from["checks"] = [check.model_dump(mode="json") for check in plan.checks]
    if step.labels == "scored":
        made_from["label_scores"] = scored_labels.FORMULA
    if step.weights:
        made_from["weights"] = step_inputs(context, plan.train_step(step.weights))
    return made_from


def _asking_inputs(base: Model, plan: Plan) -> dict[str, Any]:
    """Return what of a model's own files decides how it is asked: its switch for reasoning, its template, its rules."""
    template = chat_template(base.folder)
    inputs: dict[str, Any] = {}
    if any(name in template for name in _REASONING):
        inputs["reasons"] = plan.thinking.enabled
    if not template or "strftime_now" in template:
        inputs["chat_encoding"] = CHAT_ENCODING
    if rules := _followed_rules(base.folder / "generation_config.json"):
        inputs["generation_rules"] = rules
    return inputs


def _followed_rules(file: Path) -> dict[str, Any]:
    """Return the settings of a generation_config.json that greedy answers follow, {} without the file."""
    if not file.is_file():
        return {}
    from transformers import GenerationConfig

    from runners.inference.generation_rules import read_rules

    rules = read_rules(GenerationConfig.from_pretrained(file.parent, local_files_only=True), [])
    stops = {"stop_strings": list(rules.stop_texts)} if rules.stop_texts else {}
    return {**rules.applied, **stops}


def quantization_input(model: PlanModel) -> dict[str, str]:
    """Return how the model is held when it answers, {} in 16 bits."""
    return {} if model.quantization == NO_QUANTIZATION else {"quantization": model.quantization}


def run_step(context: OpenRun, step: Step) -> dict[str, Any]:
    """Carry out a step; return the result to record."""
    with disk_full_as_problem(context.folder.path):
        if isinstance(step, IndexStep):
            return build_index(context, step)
        if isinstance(step, EmbedderStep):
            return embedder_step.tune_embedder(context, step, step_inputs(context, step))
        if isinstance(step, TrainStep):
            return train_arm(context, step)
        return evaluate_arm(context, step)


def build_index(context: OpenRun, step: IndexStep) -> dict[str, Any]:
    """Build the run's index, then fit the refusal threshold on the dev questions.

    Where the plan names a database, the index is built there if it has none yet, or another embedder's or with other
    settings, else updated; a file of the run's index folder stands for it.
    """
    from rag.index import Index

    documents, folder = context.plan.data.documents, context.folder.path / INDEX
    assert documents is not None
    log_questions(context)  # a log that cannot be read is noticed before anything is embedded
    if step.backend is None:
        report = Index.build(folder, documents, context.models.embedder, index_settings(step), context.emit)
        return {**report.to_json(), "refusal": fit_refusal(context)}
    from rag.backends.base import shown_url, write_backend_file
    from rag.backends.build import publish_at
    from rag.backends.consent import allowed_url

    check_backend_allowed(context.plan, context.folder.path)
    url = allowed_url(step.backend, context.folder.path / PLAN)
    report = publish_at(url, documents, context.models.embedder, index_settings(step), context.emit)
    write_backend_file(folder, step.backend, report.generation)
    result = {**report.to_json(), "backend": shown_url(step.backend)}
    return {**result, "refusal": fit_refusal(context)}


def fit_refusal(context: OpenRun) -> dict[str, Any]:
    """Fit the refusal threshold on the dev questions and store it beside the index."""
    log = log_questions(context)
    threshold = fit_gate_on_dev(context, context.retrieval.index, log)
    write_json(context.folder.path / REFUSAL_FILE, threshold.to_json())
    return {**threshold.to_json(), **({"wordings": log.counts()} if log else {})}


def train_arm(context: OpenRun, step: TrainStep) -> dict[str, Any]:
    """Train one arm, once per seed, on plain or retrieval-aware rows; return what each training reports."""
    from runners.plan.train_config import RunOrigin
    from runners.train import fit

    context.models.release()
    results = []
    account: dict[str, int] = {}
    examples_file = context.plan.data.examples
    origin = RunOrigin((examples_file.name,) if examples_file else (), step.reasons, context.plan.digest())
    for seed_index, seed in enumerate(step.seeds):
        rows, account = training_rows_of(context, step, seed)
        if account:
            context.emit({"event": "rows.prepared", "arm": step.arm, **account})
        rows = with_replay(context.plan, step, rows, seed, context.emit)
        start = context.folder.adapter(step.start_from, seed) if step.start_from else None
        if start is not None and not start.exists() and step.start_from:
            start = context.folder.adapter(step.start_from, context.plan.train_step(step.start_from).seeds[0])
        config = step.config(seed, start).replace(
            kernels=context.plan.kernels,
            thinking=context.plan.thinking.enabled,
            parallel=context.plan.parallel,
        )
        context.emit({"event": "train.plan", "arm": step.arm, "method": step.method, "reasons": step.reasons})
        out = context.folder.adapter(step.arm, seed)
        # It exists when a run was interrupted right after training: then no peak is measured here.
        existed = out.exists()
        with usage.measure_peak() as peak:
            trained = fit(
                rows,
                config,
                context.models.local_base(step),
                out,
                on_event=_with_arm(context, step, seed_index),
                resume=True,
                origin=origin,
            )
        memory = {"peak_gib": peak.gib, "held_gib": peak.held_gib, "own_gib": peak.own_gib}
        memory = dict.fromkeys(memory) if existed else memory
        results.append({"seed": seed, **trained.to_json(), **memory, "on_gpu": peak.on_gpu})
    return {"arm": step.arm, "account": account, "trained": results}


def training_rows_of(
    context: OpenRun, step: TrainStep, seed: int
) -> tuple[tuple[Example, ...], dict[str, int]]:
    """Return the rows that an arm is trained on with a seed, before replay, and counts of them for retrieval-aware rows.

    The counts are {} for plain rows.
    """
    if step.rows == "plain":
        return tuple(training_row(context.plan.prompts, e) for e in context.examples), {}
    prepared = prepare_retrieval_rows(context, step, seed)
    return prepared.rows, prepared.counts()


def prepare_retrieval_rows(context: OpenRun, step: TrainStep, seed: int) -> RetrievalRows:
    """Return the retrieval-aware rows of an arm for a seed, with what became of every example."""
    return retrieval_rows(
        context.plan.prompts,
        context.examples,
        context.retrieval.retriever,
        step.without_gold,
        seed,
        step.distractors,
        step.quote,
    )


def evaluate_arm(context: OpenRun, step: EvaluateStep) -> dict[str, Any]:
    """Let one arm answer every test question, with the weights of each of its seeds; return counts of the answers."""
    plan = context.plan
    if refused := refused_arms(context.folder.path, plan).get(step.arm):
        drop_outdated_answers(context.folder.path / TRIAL, step.arm, "")
        context.emit({"event": "arm.refused", "arm": step.arm, "reason": refused})
        return {"arm": step.arm, "asked": 0, "questions": len(context.split.test), "refused": refused}
    seeds = plan.train_step(step.weights).seeds if step.weights else (plan.seed,)
    made_from = sha256_text(canonical_json(step_inputs(context, step)))
    drop_outdated_answers(context.folder.path / TRIAL, step.arm, made_from)
    if step.without_model:
        context.emit(fit_on_examples(context, step, made_from))
    first_weights = context.folder.adapter(step.weights, seeds[0]) if step.weights else None
    gold = _gold_reader(context)
    if step.route:
        other = sha256_text(canonical_json(step_inputs(context, plan.routed(step)[1])))
        journal = context.folder.path / TRIAL / ANSWERS
        return evaluate_router(context, step, RouterInputs(made_from, other, gold, journal))
    prepared = arm.prepare_arm(context, step, first_weights, gold)
    scores = RunningScores(plan, step, context.split.test, gold)
    scores.add(read_journal(context.folder.path / TRIAL / ANSWERS))
    asked = 0
    with usage.measure_contention() as others:
        for seed_index, seed in enumerate(seeds):
            weights = context.folder.adapter(step.weights, seed) if step.weights else None
            generator = context.answering(step, weights, (context.folder.path / TRIAL / LOOKUPS,))
            context.models.report_decoding(generator)
            context.models.report_constraint(generator, step)
            if isinstance(generator, scored_labels.ScoredLabels):
                _measure_prior(context, step, prepared, generator, weights, made_from)
            asked += run_arm(
                prepared.plan,
                step,
                seed,
                context.split.test,
                generator,
                prepared.finder,
                prepared.shots,
                context.folder.path / TRIAL / ANSWERS,
                _with_total(context, seed_index, len(seeds)),
                scores,
            )
    if step.looks_up:  # what it was asked in the trial is not asked again, which would not show the time
        generator = context.answering(step)
    alone = time_alone(context, step, prepared, generator)
    rows = [row for row in read_journal(context.folder.path / TRIAL / ANSWERS) if row["arm"] == step.arm]
    return {
        "arm": step.arm,
        "asked": asked,
        "questions": len(context.split.test),
        **_answer_counts(rows),
        **({"busy": others.lost} if asked and _answers_on_cpu(plan, step) else {}),
        **({"seconds_alone": alone} if alone else {}),
    }


def _answer_counts(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Return how many answers were cut, have estimated tokens, were given at a limit, have reasoning, or ended in it."""
    rare = {
        "limited": sum("limit" in row.get("lookups", {}) for row in rows),
        "reasoned": sum("reasoning_tokens" in row for row in rows),
        "reasoning_cut": sum(row.get("reasoning_cut", False) for row in rows),
    }
    return {
        "cut": sum(row["finish"] == "length" for row in rows),
        "estimated": sum(row.get("tokens_estimated", False) for row in rows),
        **{key: count for key, count in rare.items() if count},
    }


def _measure_prior(
    context: OpenRun,
    step: EvaluateStep,
    prepared: arm.PreparedArm,
    generator: scored_labels.ScoredLabels,
    weights: Path | None,
    made_from: str,
) -> None:
    """Measure the prior of an arm's labels, unless the trial holds it, and report what it is the mean of."""
    chats, reference = scored_labels.reference_chats(
        prepared.plan, step, context.split.dev, prepared.finder, prepared.shots
    )
    prior = scored_labels.measure_prior(
        generator, step, weights, chats, reference, context.folder.path / TRIAL, made_from
    )
    event = {
        "event": "labels.prior",
        "arm": step.arm,
        "labels": len(prior.labels),
        "reference": prior.reference,
    }
    context.emit(event | ({"way": generator.way} if generator.way else {}))


def _answers_on_cpu(plan: Plan, step: EvaluateStep) -> bool:
    """Return whether an arm's answers are computed on this machine's processor, which other programs slow down."""
    from runners.resources.device import device_kind

    asked = None if step.without_model else parse_remote(plan.model_of(step).name)
    return (plan.servers.model_of(step) or asked) is None and device_kind() == "cpu"


def time_alone(
    context: OpenRun, step: EvaluateStep, prepared: arm.PreparedArm, generator: Generator
) -> list[float]:
    """Return the seconds of a few dev questions that are asked one at a time, as one person asks them, with the search.

    The trial's own answers are made in batches, so their seconds per answer are not what anybody waits. Nothing is timed
    for an endpoint, whose requests are timed one by one, nor for refusals that ask no model.
    """
    if not context.models.generates_here(step):
        return []
    seconds: list[float] = []
    for question in context.split.dev[: 2 * ALONE_QUESTIONS]:
        started = time.perf_counter()
        answers = answer_all(
            prepared.plan, step, [question], lambda: generator, prepared.finder, prepared.shots
        )
        if answers[0].completion.finish != "refused" and len(seconds) < ALONE_QUESTIONS:
            seconds.append(round(time.perf_counter() - started, 3))
        if len(seconds) == ALONE_QUESTIONS:
            break
    return seconds


def with_replay(
    plan: Plan, step: TrainStep, rows: tuple[Example, ...], seed: int, emit: OnEvent
) -> tuple[Example, ...]:
    """Return the rows mixed with the step's share of the plan's replay rows; the mix is reported as an event."""
    if not step.replay or plan.data.replay is None:
        return rows
    mixed = sampling.mix_replay_rows(rows, load_examples(plan.data.replay).rows, step.replay, seed)
    emit(
        {
            "event": "rows.replayed",
            "arm": step.arm,
            "rows": len(mixed),
            "replayed": sampling.count_replay_rows(mixed),
        }
    )
    return mixed


def _gold_reader(context: OpenRun) -> Callable[[Question], str]:
    """Return what reads a question's gold span; a plan may evaluate an arm before its index step, then it is ""."""
    indexed = (context.folder.path / INDEX).exists()
    return partial(gold_text, context) if indexed else lambda question: ""


def gold_text(context: OpenRun, question: Question) -> str:
    """Return the text of a question's gold span, read from the indexed documents; "" when it has none."""
    if not question.spans or question.doc_id is None or context.plan.index is None:
        return ""
    raw = context.retrieval.index.raw(question.doc_id)
    if raw is None:
        raise BadInput(
            f"question {question.id} names the document {question.doc_id!r}, which is not in the index",
            "correct its doc_id, or add the document",
        )
    return " ".join(raw[start:end] for start, end in question.spans)


def _with_arm(context: OpenRun, step: TrainStep, seed_index: int) -> Callable[[dict[str, Any]], None]:
    """Return a handler that adds arm, seed, index of the seed (from 0) and number of seeds to training events."""
    fields = {"arm": step.arm, "seed": step.seeds[seed_index], "nth": seed_index, "seeds": len(step.seeds)}
    return lambda event: context.emit({**event, **fields})


def _with_total(context: OpenRun, seed_index: int, seeds: int) -> Callable[[dict[str, Any]], None]:
    """Return a handler that counts answers over all seeds of an arm."""

    def emit(event: dict[str, Any]) -> None:
        total = event["total"]
        context.emit({**event, "done": seed_index * total + event["done"], "total": seeds * total})

    return emit


def _gate_inputs(context: OpenRun) -> dict[str, Any]:
    """Return the settings and the log that refusals depend on; {} for the usual ones."""
    log = context.plan.data.wordings
    if log is None:
        return gate_inputs(context)
    require_log(log)
    return {**gate_inputs(context), "wordings": sha256_file(log)}


def _embedder_digest(context: OpenRun) -> str | None:
    embedder = context.models.obtained.embedder
    return embedder.fingerprint if embedder else None


def _reranker_input(context: OpenRun, retrieves: bool) -> dict[str, str]:
    """Return the reranker that a step depends on; {} where there is none."""
    model = context.models.obtained.reranker if retrieves else None
    return {"reranker": model.fingerprint} if model else {}


def _tuned_reranker_input(context: OpenRun) -> dict[str, str]:
    """Return the model that the plan's reranker is tuned from; {} where none is tuned."""
    tuned_from = embedder_step.obtain_tuned_reranker(context.plan, context.on_event)
    return {"tuned_reranker": tuned_from[0].fingerprint} if tuned_from else {}


def _index_digest(plan: Plan, needed: bool) -> str:
    return content_digest(plan.data.documents) if needed else ""
