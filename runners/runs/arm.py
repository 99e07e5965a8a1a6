"""Prepare an arm to answer: its instructions, the examples it shows and what provides its passages.

:func:`prepare_arm` is for the trial and may choose the examples; :func:`recall_arm` restores the arm of a
finished trial, for `ask` and the server.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rag.errors import BadInput
from rag.files import canonical_json, sha256_text
from runners.arms.few_shot import (
    FIXED_BANK,
    MANY_TOKENS_CPU,
    MANY_TOKENS_GPU,
    NEAREST_TOKENS_CPU,
    NEAREST_TOKENS_GPU,
    QUESTION_TOKENS_KEPT,
    REMOTE_TOKENS,
    TURN_TOKENS,
    ExamplePool,
    NearestExamples,
    NearestSetting,
    PromptCandidate,
    ShotLimits,
    candidate_layouts,
    prompt_candidates,
)
from runners.arms.prompt_selection import (
    SelectionContext,
    StoredPrompts,
    answers_digest,
    read_stored_prompts,
    select_prompt,
    store_settings,
)
from runners.arms.prompts import FewShotExamples, choose_shots, most_room, user_turn
from runners.arms.retriever import PassageFinder
from runners.data.examples import Example
from runners.data.questions import Question, count_questions
from runners.models.fingerprint import context_length, read_json
from runners.models.resolve import Model
from runners.plan.schema import Plan
from runners.plan.steps import NO_QUANTIZATION, EvaluateStep
from runners.resources.machine import detect_machine
from runners.run_folder import INDEX, TRIAL
from runners.runs.plan_models import model_identity
from runners.runs.requirements import arm_memory
from runners.selective.on_dev import ArmSettings, settings_of, settle_on_dev

if TYPE_CHECKING:
    from rag.embedding.protocol import Encoder
    from runners.runs.opened import OpenRun

SHOTS_WITH_PASSAGES = 2
"""Examples that are tried with their passages: each is as long as a question with its own."""


@dataclass(frozen=True, slots=True)
class PreparedArm:
    """An arm that is ready to answer."""

    plan: Plan
    """The run's plan, with the arm's own instructions if it has any."""
    shots: FewShotExamples
    finder: PassageFinder | None


def prepare_arm(
    context: OpenRun, step: EvaluateStep, weights: Path | None, gold: Callable[[Question], str]
) -> PreparedArm:
    """Prepare an arm for the trial; a prompt that is to be chosen is chosen now, on dev questions.

    Args:
        context: the run.
        step: the arm's evaluate step.
        weights: the arm's adapter; None for the base model.
        gold: returns the text of a question's gold span.
    """
    step = choosing_step(context.plan, step)
    finder = context.retrieval.finder(step)
    if step.without_model:
        return PreparedArm(context.plan, (), finder)
    budget = min(step.budget, count_questions(context.split.test)) if step.chooses_prompt else 0
    pool = None
    if step.shots or step.chooses_prompt:
        count = context.models.token_counter(context.models.base_of(step))
        pool = ExamplePool(context.examples, count, _encoder(context, step, budget))
    trained = (context.folder.recorded(f"train:{step.weights}") or {}).get("inputs", "")
    stage = SelectionContext(
        context.plan,
        step,
        context.split.dev,
        lambda: context.models.generator(weights, step),
        finder,
        gold,
        f"{_model_of_choice(context, step)} {trained}",
        context.folder.path / TRIAL,
        context.emit,
        pool,
        most_room(context.plan, _readable(context, step)),
    )
    candidates = _candidates(context, step, pool, budget)
    candidate = select_prompt(stage, candidates, budget) if step.chooses_prompt else candidates[0]
    settings = _settled(stage, candidate)
    return PreparedArm(settings.applied(candidate.applied(context.plan)), candidate.shown(pool), finder)


def _settled(stage: SelectionContext, candidate: PromptCandidate) -> ArmSettings:
    """Return what dev answers settle for an arm: the stored settings where they were made from the same."""
    arm, check = stage.arm.arm, stage.plan.refusal.check
    made_from = sha256_text(canonical_json([answers_digest(stage), candidate.to_json(), check]))
    prompts = read_stored_prompts(stage.folder)
    stored = settings_of(prompts, stage.plan, arm)
    if stored.made_from == made_from:
        return stored
    answered = prompts.choices.get(arm, {}).get("answered", ())
    settings = settle_on_dev(stage, candidate, answered).model_copy(update={"made_from": made_from})
    store_settings(stage.folder, arm, settings.model_dump())
    stage.emit({"event": "arm.settled", "arm": arm, **settings.model_dump(exclude={"made_from"})})
    return settings


def _candidates(
    context: OpenRun, step: EvaluateStep, pool: ExamplePool | None, budget: int
) -> tuple[PromptCandidate, ...]:
    """Return the prompts to try for an arm, the default first."""
    plan, dev = context.plan, context.split.dev
    layouts = candidate_layouts(plan, step.retrieval, bool(dev) and all(question.system for question in dev))
    if not step.chooses_prompt:
        layouts = layouts[:1]
    if step.shots and step.bank != "chosen":
        nearest = NearestSetting(step.shots) if step.bank == "similar" else None
        shots = () if nearest else choose_shots(context.examples, step.shots, plan.seed)
        return tuple(
            PromptCandidate(
                ", ".join(filter(None, (FIXED_BANK, layout.label))),
                layout.system,
                layout.context,
                shots,
                nearest,
            )
            for layout in layouts
        )
    if not (step.shots and budget and pool):
        return prompt_candidates(plan, context.examples, step.shots, layouts, pool)
    limits = shot_limits(context, step)
    # They are also tried below the fixed bank, and both must fit.
    fixed = choose_shots(pool.rows, step.shots, plan.seed)
    beside = limits.fixed - sum(pool.tokens(n) for n, row in enumerate(pool.rows) if row in fixed)
    with_passages = shots_with_passages(context, step, pool, beside)
    return prompt_candidates(plan, context.examples, step.shots, layouts, pool, limits, with_passages)


def shot_limits(context: OpenRun, step: EvaluateStep) -> ShotLimits:
    """Return the most tokens that an arm's examples may have: what is left of the context, less where reading is slow.

    Beside the examples the context holds the instructions (the longest to try), the longest question, the passages and
    the answer. The bank that is read once is also bounded by the memory that a batch of answers needs with it.
    """
    base = context.models.base_of(step)
    if not isinstance(base, Model):
        return ShotLimits(REMOTE_TOKENS, REMOTE_TOKENS)
    plan, count = context.plan, context.models.token_counter(context.models.base_of(step))
    asked = (*context.split.dev, *context.split.test)
    texts = ("\n".join([q.system or "", *(turn["content"] for turn in q.history), q.question]) for q in asked)
    longest = max(map(count, sorted(texts, key=len)[-8:]), default=0)
    taken = max(count(layout.system) for layout in candidate_layouts(plan, False)) + longest
    readable = _readable(context, step)
    taken += QUESTION_TOKENS_KEPT + 4 * TURN_TOKENS + most_room(plan, readable)
    taken += plan.thinking.max_tokens if plan.thinking.enabled else 0
    if step.retrieval and plan.index is not None:
        taken += plan.index.context_tokens + count(plan.prompts.context)
    left = max(0, (readable or 0) - taken)
    if not context.models.generates_here(step):
        return ShotLimits(min(left, REMOTE_TOKENS), min(left, REMOTE_TOKENS))
    machine = detect_machine(context.folder.path)
    on_cpu = machine.device == "cpu"
    fixed = min(left, MANY_TOKENS_CPU if on_cpu else MANY_TOKENS_GPU)
    while fixed and arm_memory(plan, step, base.folder, machine, taken + fixed) == "no":
        fixed //= 2
    return ShotLimits(fixed, min(fixed, NEAREST_TOKENS_CPU if on_cpu else NEAREST_TOKENS_GPU))


def _readable(context: OpenRun, step: EvaluateStep) -> int | None:
    """Return how many tokens an arm's model reads; None where that is not known."""
    base = context.models.base_of(step)
    return context_length(read_json(base.folder / "config.json")) if isinstance(base, Model) else None


def shots_with_passages(
    context: OpenRun, step: EvaluateStep, pool: ExamplePool, max_tokens: int
) -> tuple[Example, ...]:
    """Return one or two examples whose user turn holds passages, as the arm's own questions do; () where none fit.

    The passages are those that the search returns, with the passage that supports the reply among them; refusals and
    examples without such a passage are left out.
    """
    if not (step.retrieval and step.passages == "found" and (context.folder.path / INDEX).exists()):
        return ()
    from runners.arms.gold_passages import GoldPassages
    from runners.arms.raft import with_passages

    retriever, plan = context.retrieval.of(step).retriever, context.plan
    drawn = choose_shots([row for row in pool.rows if not row.refuses], 4 * SHOTS_WITH_PASSAGES, plan.seed)
    finder = GoldPassages(retriever.index.chunks)
    count = context.models.token_counter(context.models.base_of(step))
    shown: list[Example] = []
    left = max_tokens
    hits_of_each = retriever.candidates([e.question for e in drawn], retriever.step.k) if drawn else []
    for example, hits in zip(drawn, hits_of_each, strict=True):
        gold = finder.gold_of(example, hits)
        if not gold.passages or len(shown) == SHOTS_WITH_PASSAGES:
            continue
        passages = retriever.format_hits(
            with_passages(hits, gold.passages, retriever.step.k), example.question
        )
        turn = user_turn(plan.prompts, example.question, passages)
        size = count(turn) + count(example.reply) + 2 * TURN_TOKENS
        if size <= left:
            left -= size
            turns = (
                {"role": "user", "content": turn},
                {"role": "assistant", "content": example.reply},
            )
            shown.append(replace(example, messages=turns))
    return tuple(shown)


def _encoder(context: OpenRun, step: EvaluateStep, budget: int) -> Encoder | None:
    """Return the embedder for nearest examples; None where none are tried, with an event where it is missing."""
    if not step.shots or (step.bank != "similar" and not (step.bank == "chosen" and budget)):
        return None
    if not context.models.has_embedder:
        name = context.plan.embedder.name
        reason = f"{step.arm}: nearest examples are not tried, because the embedder {name} is not here"
        context.emit({"event": "prompt.note", "arm": step.arm, "reason": reason})
        return None
    return context.models.embedder


def recall_arm(context: OpenRun, step: EvaluateStep, prompts: StoredPrompts) -> PreparedArm:
    """Prepare an arm as it was in the trial, which chose these prompts; BadInput where it has not chosen the arm's yet."""
    step = choosing_step(context.plan, step)
    finder = context.retrieval.finder(step)
    settings = settings_of(prompts, context.plan, step.arm)
    if not step.chooses_prompt:
        shots = shown_examples(context, step, context.shown_examples) if step.shots else ()
        return PreparedArm(settings.applied(context.plan), shots, finder)
    choice = prompts.choices.get(step.arm)
    if choice is None:
        raise BadInput(
            f"the run has not chosen the prompt of the arm {step.arm} yet",
            f"finish it with: tunewise run {context.folder.path} --resume",
        )
    candidate = PromptCandidate.from_json(choice["chosen"])
    pool = None
    if candidate.nearest:
        rows, vectors = prompts.examples()
        pool = ExamplePool(
            rows, context.models.token_counter(context.models.base_of(step)), context.models.embedder, vectors
        )
    return PreparedArm(settings.applied(candidate.applied(context.plan)), candidate.shown(pool), finder)


def choosing_step(plan: Plan, step: EvaluateStep) -> EvaluateStep:
    """Return the step whose choice of a prompt an arm uses: its own, but for one that scores labels.

    That one shows what the arm shows that generates with the same settings, so that the two differ in the way of answering
    alone and no dev question is asked twice. Where the plan has no such arm, the prompt is chosen by generated answers.
    """
    if step.labels != "scored":
        return step
    generated = step.model_copy(update={"labels": "generated"})
    own = [arm for arm in plan.arms if plan.model_of(arm) == plan.model_of(step)]
    same = (arm for arm in own if arm.model_copy(update={"arm": step.arm}) == generated)
    return next(same, generated)


def shows_file(plan: Plan, step: EvaluateStep) -> bool:
    """Return whether an arm of a finished run shows examples that are read from the plan's file, not from the run."""
    return bool(step.shots) and not choosing_step(plan, step).chooses_prompt


def shown_examples(context: OpenRun, step: EvaluateStep, examples: tuple[Example, ...]) -> FewShotExamples:
    """Return the examples of an arm with a fixed bank, or the lookup of the nearest examples."""
    if step.bank == "similar":
        pool = ExamplePool(
            examples, context.models.token_counter(context.models.base_of(step)), context.models.embedder
        )
        return NearestExamples(pool, NearestSetting(step.shots))
    return choose_shots(examples, step.shots, context.plan.seed)


def _model_of_choice(context: OpenRun, step: EvaluateStep) -> str:
    """Return what identifies the model that an arm's examples are chosen for: fingerprint, nf4 in 4 bits, its servers."""
    identity, quantization = (
        model_identity(context.models.base_of(step)),
        context.models.settings_of(step).quantization,
    )
    if server := context.plan.servers.model_of(step):
        return f"{identity} {server.entry}"
    return identity if quantization == NO_QUANTIZATION else f"{identity} {quantization}"
