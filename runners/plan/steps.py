"""The steps of a plan with their settings: build an index, tune its embedder, train an arm, evaluate an arm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rag.errors import BadInput, UsageProblem
from rag.training.settings import TuningMethod, TuningSettings
from runners.plan.train_config import (
    Seed,
    TrainConfig,
    TrainSettings,
    implied,
    refuse_conflicting_settings,
)

Quantization = Literal["none", "nf4"]
NO_QUANTIZATION: Quantization = "none"
NF4: Quantization = "nf4"
QUANTIZED_ANSWERS = (
    "every arm answers from the base in 4 bits (nf4), with adapters on top: "
    "the plan was made for memory in which it does not fit in 16"
)
"""What a run and its report say of a plan whose model is quantised."""


DEFAULTS = TuningSettings()
"""The defaults of an embedder step."""


class StrictModel(BaseModel):
    """Base of the models that a person writes: unknown keys are refused, and instances are immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class PlanModel(StrictModel):
    """The base model, or the embedder, that the plan was made for."""

    name: str = Field(description="A known name, a folder, or openai:NAME@URL.")
    fingerprint: str | None = Field(None, description="Refuses other weights of the same name when given.")
    allow_hub: bool = Field(False, description="Whether the model hub may be asked for it.")
    at_once: int = Field(4, ge=1, le=64, description="Requests under way at once, to a remote model.")
    per_minute: float | None = Field(
        None, gt=0, description="Most requests a minute, to a remote model; null is no limit of ours."
    )
    quantization: Quantization = implied(
        NO_QUANTIZATION,
        description="How a local model is loaded when it answers: nf4 in 4 bits, with adapters on top, where "
        "16 bits do not fit; training has its own setting, the method.",
    )

    usd_per_million_input: float | None = implied(
        None,
        ge=0,
        description="USD of a million tokens that a remote model reads; null takes the list price.",
    )
    usd_per_million_output: float | None = implied(
        None,
        ge=0,
        description="USD of a million tokens that a remote model writes; null takes the list price.",
    )
    usd_hour: float | None = implied(
        None,
        ge=0,
        description="USD of an hour of the machine of yours that answers with it; null states the time instead.",
    )

    @model_validator(mode="after")
    def _prices_are_whole(self) -> PlanModel:
        if (self.usd_per_million_input is None) != (self.usd_per_million_output is None):
            raise ValueError("usd_per_million_input and usd_per_million_output are given together")
        if self.usd_hour is not None and self.usd_per_million_input is not None:
            raise ValueError("usd_hour is for a machine of yours, usd_per_million_input for tokens: give one")
        return self

    @model_validator(mode="after")
    def _quantized_is_local(self) -> PlanModel:
        if self.quantization != NO_QUANTIZATION and self.name.startswith("openai:"):
            raise ValueError(
                f"quantization {self.quantization}: {self.name} is an endpoint, whose server decides that"
            )
        return self


class JudgeModel(PlanModel):
    """The model that judges answers after the trial."""

    counts: bool = implied(
        False,
        description="Whether its grades may count where people's labels of the run show how far they can be trusted "
        "(docs/how-it-measures.md, a judge that counts): it then grades every answer, and the verdict compares arms by "
        "grades. false: it compares the choice with every other arm, and decides nothing.",
    )


class IndexStep(StrictModel):
    """Build the retrieval index."""

    kind: Literal["index"] = "index"
    k: int = Field(3, ge=1, le=50, description="Passages given to the model.")
    max_chunk_tokens: int = Field(
        200, ge=16, le=100_000, description="Longest chunk, in the embedder's own tokens."
    )
    overlap: float = Field(
        0.25, ge=0, le=0.9, description="Share of a split chunk that repeats the one before."
    )
    fusion: Literal["convex", "rrf"] = Field(
        "convex", description="How the two searches are joined: weighted scores, or reciprocal ranks."
    )
    lexical_weight: float = Field(0.3, ge=0, le=1, description="Weight of BM25 relative to the dense score.")
    context_tokens: int = Field(1024, ge=32, description="Most tokens of passages in one prompt.")
    truncate_dim: int | None = implied(
        None,
        ge=1,
        description="Dimensions kept of a vector; null takes the setting of the embedder's folder.",
    )
    query_prompt: str | None = implied(
        None,
        description="Put before questions; null takes the embedder's own prompt, or one known for its name.",
    )
    document_prompt: str | None = implied(None, description="Put before passages; null as for questions.")
    reranker: PlanModel | None = implied(
        None,
        description="A cross-encoder that puts the best candidates of every search in order; null is none.",
    )
    rerank: int = implied(30, ge=1, le=1000, description="Candidates that the reranker reads; at least k.")
    backend: str | None = implied(
        None,
        description="The index in a database, by its URL: `postgresql://USER@HOST:PORT/DATABASE?index=NAME` or "
        "`lancedb:///FOLDER`, without a password; null is a folder of the run. See docs/backends.md.",
    )

    @model_validator(mode="after")
    def _usable_backend(self) -> IndexStep:
        if self.backend is not None:
            from rag.backends.base import check_backend_url

            try:
                check_backend_url(self.backend)
            except UsageProblem as problem:
                raise ValueError(f"backend: {problem}") from None
        return self


class EmbedderStep(StrictModel):
    """Tune the embedder on the questions of training examples and their gold passages; arms may search with it."""

    kind: Literal["embedder"] = "embedder"
    method: TuningMethod = Field(
        "auto",
        description="full trains all weights; lora adapters, merged when it is saved; auto is lora from 200 million "
        "parameters on, where the optimizer would take over 3 GB.",
    )
    epochs: float = Field(DEFAULTS.epochs, gt=0, le=100, description="Passes over the pairs.")
    batch_size: int = Field(
        DEFAULTS.batch_size,
        ge=2,
        le=4096,
        description="Pairs of a batch; each question is contrasted with the passages of all others in it.",
    )
    learning_rate: float = Field(
        DEFAULTS.learning_rate, gt=0, le=1, description="Highest learning rate; lora takes ten times as much."
    )
    hard_negatives: int = Field(
        DEFAULTS.hard_negatives,
        ge=0,
        le=16,
        description="Passages per pair that the search ranks high and that do not answer; 0 takes those of the batch alone.",
    )
    original_share: float = Field(
        DEFAULTS.original_share,
        ge=0,
        le=1,
        description="Share of the embedder's own weights in those saved: their mean forgets less.",
    )
    max_pairs: int | None = Field(
        None, ge=16, description="Train on only this many pairs, drawn by the seed; null takes all."
    )
    reranker: PlanModel | None = Field(
        None,
        description="A cross-encoder tuned on the same pairs, which orders the passages found; the plan's embedder named "
        "here makes one of its weights with a new head. null tunes none.",
    )

    @model_validator(mode="after")
    def _reranker_has_negatives(self) -> EmbedderStep:
        if self.reranker is not None and not self.hard_negatives:
            raise ValueError("reranker: it learns from hard negatives, and hard_negatives is 0")
        return self

    def misplaced(self, has_index: bool, repeated: bool, has_examples: bool) -> str:
        """Return why the step cannot stand where it does in a plan; "" where it can."""
        if repeated:
            return "the plan has an embedder step already, and one is all that it can have"
        if not has_index:
            return "an embedder step needs an index step before it"
        return "" if has_examples else "tuning the embedder needs data.examples"

    def settings(self, seed: int) -> TuningSettings:
        """Return the settings of the training with the plan's seed."""
        own = {field.name for field in fields(TuningSettings)} & set(type(self).model_fields)
        return TuningSettings(**{name: getattr(self, name) for name in own}, seed=seed)


class TrainStepHead(StrictModel):
    """The first keys of a train step; a base class, so that they are written before the settings."""

    kind: Literal["train"] = "train"
    arm: str = Field(
        description="The arm this is for: lora, qlora, full or hybrid; with several models METHOD@ALIAS."
    )


class TrainStep(TrainSettings, TrainStepHead):
    """Tune the base model; one of these for every arm that has weights of its own."""

    rows: Literal["plain", "retrieval"] = Field(
        "plain", description="retrieval: the question with the passages the index returns, and distractors."
    )
    start_from: str | None = Field(None, description="Continue from the adapter of this arm.")
    without_gold: float = Field(0.15, ge=0, le=0.9, description="Share of retrieval rows that lack the gold.")
    distractors: int | None = Field(
        None,
        ge=0,
        le=49,
        description="Passages in addition to the gold one; null shows as many as when it is asked.",
    )
    quote: bool = Field(
        False, description="Retrieval rows: replies begin with the passage's own words, in “ ”."
    )
    replay: float = Field(0.0, ge=0, lt=1, description="Share of the rows that is drawn from data.replay.")
    seeds: tuple[Seed, ...] = Field((0,), min_length=1, description="One training run per seed.")
    reasons: dict[str, str] = Field(
        default_factory=dict,
        description="Why each setting has its value: read from the comment behind it; shown in the report.",
    )

    @model_validator(mode="after")
    def _no_conflicts(self) -> TrainStep:
        try:
            refuse_conflicting_settings(
                self.method, self.variant, self.lora_plus, self.targets, bool(self.start_from)
            )
        except BadInput as error:
            raise ValueError(error.message) from None
        return self

    def config(self, seed: int, init_adapter: Path | None = None) -> TrainConfig:
        """Return the settings of the training run of one seed, continuing from an adapter if one is given."""
        shared = {name: getattr(self, name) for name in TrainSettings.model_fields}
        return TrainConfig(**shared, seed=seed, init_adapter=init_adapter)


class Route(StrictModel):
    """Two arms of the plan, of which the first answers where it is sure."""

    first: str = Field(description="An arm without a language model: a classifier, or nearest replies.")
    otherwise: str = Field(description="An arm that asks a model, for all other questions.")


class LookupLimits(StrictModel):
    """How far one answer may go that a model looks up itself; at a limit it answers with what it has read by then."""

    steps: int = Field(8, ge=1, le=100, description="Requests to the model in which it may ask for calls.")
    tokens: int = Field(
        50_000, ge=1000, description="Tokens of all requests and replies of an answer, before the last one."
    )
    seconds: float = Field(60.0, gt=0, description="Seconds of all requests and calls, before the last one.")
    usd: float | None = Field(
        None, gt=0, description="USD of an answer, by the model's prices in the plan; null is no limit."
    )


class EvaluateStep(StrictModel):
    """Answer every test question with one arm."""

    kind: Literal["evaluate"] = "evaluate"
    arm: str = Field(
        description="prompting, few-shot, prompting-scored, few-shot-scored, classifier, nearest-reply, router, "
        "long-context, agentic-search, rag, rag-few-shot, rag-tuned, lora, qlora, full, naive-stack, hybrid; with several "
        "models METHOD@ALIAS, answered with the model of that alias."
    )
    weights: str | None = Field(
        None, description="The train step's arm whose weights it uses; null is the base."
    )
    retrieval: bool = Field(False, description="Whether it is given passages from the index.")
    passages: Literal["found", "all", "looked_up"] = Field(
        "found",
        description="all: every passage of the index in each prompt, in place of those found; looked_up: none, the model "
        "lists, searches and reads the documents itself, by tools.",
    )
    lookups: LookupLimits = implied(
        LookupLimits(), description="With passages: looked_up, the limits of one answer."
    )
    retriever: Literal["plan", "tuned"] = implied(
        "plan",
        description="tuned: searches with the tuned embedder, if its gate on dev questions accepts it; else the arm is not "
        "asked.",
    )
    shots: int = Field(
        0,
        ge=0,
        le=64,
        description="Examples shown in the prompt; the choice on dev questions may show others.",
    )
    bank: Literal["fixed", "chosen", "similar"] = Field(
        "fixed",
        description="Which: drawn by the seed; the best on dev questions of fixed, nearest and many (then instructions "
        "are chosen too); the nearest to each question.",
    )
    budget: int = Field(
        60,
        ge=0,
        le=5000,
        description="Most dev answers to choose examples and instructions, or the cut of a router, no more than test "
        "questions; the same for every arm; 0 keeps the default.",
    )
    classifier: bool = Field(
        False,
        description="A linear head over embeddings, TF-IDF or both, chosen on the examples, answers; for labels.",
    )
    nearest_reply: bool = implied(
        False,
        description="The reply of the nearest example answers, word for word, where it is near enough; else a refusal.",
    )
    route: Route | None = implied(
        None,
        description="Two arms that stand before it: the first answers where it is sure, the other one elsewhere; where the "
        "cut lies is chosen on dev questions, within the budget.",
    )
    instructions: Literal["plan", "chosen"] = implied(
        "plan",
        description="plan: prompts.system; chosen: the best of a few ways to word it, on dev questions, within the budget.",
    )
    labels: Literal["generated", "scored"] = implied(
        "generated",
        description="scored: the answer is the label of the labels check with the highest likelihood, corrected for how "
        "likely it is before any question; nothing is generated.",
    )
    model: PlanModel | None = Field(
        None,
        description="Another model for this arm, e.g. a remote one next to a local one; null is the plan's.",
    )

    @property
    def looks_up(self) -> bool:
        """Whether the model searches and reads the documents itself, in several requests for an answer."""
        return self.passages == "looked_up"

    def misplaced(self, index_before: bool, has_index: bool, has_documents: bool) -> str:
        """Return why the step has nothing to search where it stands in a plan; "" where it has, or searches nothing."""
        if not self.looks_up:
            return "retrieval needs an index step before it" if self.retrieval and not index_before else ""
        if has_index and not index_before:
            return "the index step, whose index it searches, must stand before it"
        return "" if has_documents else "passages: looked_up needs data.documents"

    @property
    def learns_from_rows(self) -> bool:
        """Whether it answers otherwise with other training examples: it is trained on them, shows or repeats some."""
        return bool(self.weights or self.shots or self.without_model)

    @property
    def chooses_prompt(self) -> bool:
        """Whether the arm's examples or instructions are chosen on dev questions, within the budget."""
        return self.bank == "chosen" or self.instructions == "chosen"

    @property
    def without_model(self) -> bool:
        """Whether it answers by the examples that it learnt, and no language model is loaded or asked."""
        return self.classifier or self.nearest_reply

    @property
    def embeds_texts(self) -> bool:
        """Whether it reads the plan's embedder itself, beside a search."""
        return self.without_model or self.bank == "similar"

    @model_validator(mode="after")
    def _no_conflicts(self) -> EvaluateStep:
        if self.passages != "found" and not self.retrieval:
            raise ValueError(f"passages: {self.passages} is for an arm with retrieval: true")
        if self.retriever == "tuned" and not (self.retrieval and self.passages == "found"):
            raise ValueError(
                "retriever: tuned is for an arm with retrieval: true that is given the passages found"
            )
        if self.passages == "looked_up":
            if self.weights or self.shots or self.chooses_prompt or self.labels != "generated":
                raise ValueError(
                    "passages: looked_up is for an arm without weights and shots, with the plan's instructions and "
                    "generated answers"
                )
        elif self.lookups != LookupLimits():
            raise ValueError("lookups: these limits are for an arm with passages: looked_up")
        if self.bank != "fixed" and not self.shots:
            raise ValueError(f"bank: {self.bank} needs shots of 1 or more")
        kinds = {
            "a classifier": self.classifier,
            "an arm of nearest replies": self.nearest_reply,
            "a router": self.route is not None,
        }
        chosen = [kind for kind, used in kinds.items() if used]
        if len(chosen) > 1:
            raise ValueError(f"{' and '.join(chosen)} are different arms: take one step for each")
        for kind in chosen:
            if self.weights or self.retrieval or self.shots or self.model:
                raise ValueError(f"{kind} has no weights, retrieval, shots or model of its own")
            if self.instructions != "plan" or self.labels != "generated":
                raise ValueError(f"{kind} is not prompted: it has no instructions and no labels setting")
        return self


def misplaced_route(route: Route, before: Sequence[object]) -> str:
    """Return the key of a route that names no arm it can, and why; "" where the steps before it have both arms."""
    arms = {step.arm: step for step in before if isinstance(step, EvaluateStep)}
    for key, name in (("first", route.first), ("otherwise", route.otherwise)):
        if name not in arms:
            return f"{key}: no earlier evaluate step is for the arm {name!r}"
    if not arms[route.first].without_model:
        return (
            f"first: {route.first!r} asks a model, and does not say how sure it is: name a classifier or an arm of nearest "
            "replies"
        )
    if (other := arms[route.otherwise]).without_model or other.route:
        return f"otherwise: {route.otherwise!r} is no arm that asks a model itself"
    return ""


class Forgetting(StrictModel):
    """What tuning cost elsewhere: neutral prose and verifiable instructions, before and after it."""

    prompts: int = Field(
        40, ge=0, le=1000, description="Prompts asked of the base and of tuned weights; 0 measures nothing."
    )
    file: Path | None = Field(None, description="Prompts of your own in the IFEval format; null takes ours.")
    max_new_tokens: int = Field(
        64, ge=1, le=4096, description="Longest reply to one; the shipped prompts are made for short ones."
    )


class Thinking(StrictModel):
    """Reasoning before an answer, for models that can write it; it is cut from answers before anything reads them."""

    enabled: bool = Field(
        False, description="Whether a model whose chat template can switch its reasoning on and off reasons."
    )
    max_tokens: int = Field(
        1024,
        ge=16,
        le=65_536,
        description="Most tokens of reasoning before an answer, on top of max_new_tokens: when enabled, and for models that "
        "always reason.",
    )
