"""The profile: one situation, typed and frozen; every answer is under its question's id, None is unknown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from advisor.questionnaire.answers import Answer, Answers, read_answer
from advisor.questionnaire.data_facts import HALF_HELD, DataFacts
from advisor.questionnaire.probe_facts import ProbeFacts
from runners.catalog import models
from runners.catalog.abilities import ModelKind, estimated_strength, speaks_language
from runners.catalog.models import ModelFacts
from runners.resources.machine import nominal_gib
from runners.resources.model_shape import ModelShape, typical_shape

HIGH_VOLUME = 30_000
"""Calls a month from which training is usually worth pricing (tens of thousands)."""
LOW_VOLUME = 3_000
"""Calls a month below which the price of one call hardly matters."""
MIN_RAW_TOKENS = 1_000_000
"""Tokens of raw text from which training on them is considered."""
SMALL_MODEL_B = 2.0
"""Models below this many billion parameters are cheap to tune in full."""
TINY_MODEL_B = 1.0
"""Models below this many billion parameters change little with a prompt, and use passages badly until trained on them."""
LARGE_MODEL_B = 30.0
"""From about this many billion parameters on, models recall popular facts and follow examples well."""
CACHED_PROMPT_TOKENS = 200_000
"""Largest corpus, in tokens, that can be put whole into a cached prompt."""
LONG_CONTEXT_TOKENS = 1_000_000
"""Tokens that the models with the longest contexts read at once."""
READ_BY_SMALLER_TOKENS = 32_000
"""Largest corpus, in tokens, that a model below 30 billion parameters uses whole.

Hsieh et al., RULER, arXiv 2404.06654: of models of 6 to 8 billion parameters with contexts of 128,000 tokens and more, most
hold their accuracy to 32,000 tokens or fewer.
"""
READING_EXAMPLES = 100
"""Examples that teach a tiny model to answer from passages."""
SHORT_CONTEXT_B = 3.0
"""Models below this many billion parameters have short contexts and lose the middle of long ones."""
PASSAGES_TOKENS = 1024
"""Tokens of passages that a retrieval arm adds to a prompt (the plan's default for context_tokens)."""
MOST_PROMPTS = 0.5
"""Share of prompts that hold the passage of their reply from which the task counts as reading what is given."""
FEW_PER_LABEL = 5
"""Examples of a label below which a large model that is shown examples is ahead of a small one that is tuned (Ma et al.,
arXiv 2303.08559: behind at one of each class, level at five to ten)."""
FEW_OF_MANY_LABELS = 10
"""The same, inclusive, where there are :data:`MANY_LABELS` and more: at 10 examples of each of 77 and 150 labels nearest
examples in the prompt were ahead of tuning in two trials of ours."""
MIN_PER_LABEL = 2
"""Examples of a label from which a classifier is worth fitting: one to learn from, one to see whether it holds."""
MOST_REPEATED = 0.5
"""Share of replies that other examples give too, from which replies count as stored texts."""
MANY_LABELS = 50
MIN_LABELLED = 20
"""Labelled examples from which a classifier is worth fitting and can be judged."""
SHOTS_THAT_TELL = 8
"""Examples that a prompt must have room for to show what a handful of them shows."""
CARDS_WITHOUT_BF16 = ("T4", "V100", "P100", "RTX 20", "GTX")
"""Parts of the names of GPUs without native bf16 (compute capability below 8)."""
MIN_GPU_GIB = 0.01
"""Less memory than this counts as no GPU."""
Thresholds = Mapping[str, tuple[float, ...]]
"""For numeric answers the values at which a condition changes; each value belongs to the side above it."""
PROFILE_THRESHOLDS: Thresholds = {
    "calls_per_month": (LOW_VOLUME, HIGH_VOLUME),
    "gpu_count": (1,),
    "gpu_memory_gib": (MIN_GPU_GIB,),
    "prompt_tokens": (1,),
    "answer_tokens": (1,),
}
"""Thresholds of the profile's own properties: many calls, few calls, a GPU or none, a length that was
counted.
"""


@dataclass(frozen=True)
class Profile:
    """What is known about one situation; the fields are named by the questionnaire's ids."""

    goal: str | None = None
    documents: str | None = None
    examples: str | None = None
    columns: str | None = None
    questions: str | None = None
    prompt: str | None = None
    task_needs_facts: str | None = None
    facts_change: str | None = None
    must_cite: bool | None = None
    question_kind: str | None = None
    behaviour_gap: str | None = None
    output_format: str | None = None
    labels_need_knowledge: bool | None = None
    replies_verbatim: bool | None = None
    absence_is_legal: bool | None = None
    labelled_examples: int | None = None
    label_count: int | None = None
    corpus_tokens: int | None = None
    answers_in_documents: float | None = None
    unlabelled_tokens: int | None = None
    prompt_tokens: int | None = None
    answer_tokens: int | None = None
    calls_per_month: int | None = None
    call_volume: str | None = None
    prompting_pass_rate: float | None = None
    latency_p95_ms: float | None = None
    data_must_stay_local: bool | None = None
    hosted_api_allowed: bool | None = None
    wrong_answer_cost: str | None = None
    usable_from: float | None = None
    budget_usd: float | None = None
    can_retrain_every_days: float | None = None
    runs_on: str | None = None
    models: str | None = None
    minutes: float | None = None
    usd: float | None = None
    model: str | None = None
    model_calls_tools: bool | None = None
    usd_per_million_input: float | None = None
    usd_per_million_output: float | None = None
    model_params_b: float | None = None
    gpu_count: int | None = None
    gpu_memory_gib: float | None = None
    gpu_kind: str | None = None
    ram_gib: float | None = None
    cpu_cores: int | None = None
    disk_gib: float | None = None
    question_count: int | None = None
    """Held-out questions that were counted; None when no file was given."""
    gpu_name: str | None = None
    """The GPU as its driver names it, when it was detected here and is the one planned for."""
    cpu_bf16: bool | None = None
    """Whether the CPU multiplies in bf16 natively, when it was detected here and is the one planned for."""
    other_program: bool = False
    """Whether another program trains and answers, as in published cases: it shards 4-bit weights too, and answers from
    several GPUs; a run here does neither."""
    shape: ModelShape | None = field(default=None, repr=False)
    """The model's shape, when its config is known."""
    sources: Mapping[str, Answer] = field(default_factory=dict, repr=False)
    data: DataFacts = field(default=DataFacts(), repr=False)
    """What was counted in the files beyond the answers."""
    probe: ProbeFacts = field(default=ProbeFacts(), repr=False)
    """What a probe of the base model measured."""

    @classmethod
    def of(
        cls,
        answers: Mapping[str, Any],
        question_count: int | None = None,
        shape: ModelShape | None = None,
        gpu_name: str | None = None,
        cpu_bf16: bool | None = None,
    ) -> Profile:
        """Build a profile from :class:`Answers`, or from a plain mapping of ids to values, which are checked.

        Args:
            answers: the answers.
            question_count: held-out questions, None when no file was given.
            shape: the model's shape when its config was read.
            gpu_name: the detected GPU, None when another is planned for.
            cpu_bf16: whether the detected CPU multiplies in bf16, None when another is planned for.
        """
        if isinstance(answers, Answers):
            sources = {key: answers[key] for key in answers}
        else:
            sources = {key: Answer(read_answer(key, value), "file") for key, value in answers.items()}
        values: dict[str, Any] = {
            key: None if answer.value == "none" and key in _LIMITS else answer.value
            for key, answer in sources.items()
        }
        return cls(
            **values,
            question_count=question_count,
            gpu_name=gpu_name,
            cpu_bf16=cpu_bf16,
            shape=shape,
            sources=sources,
            probe=answers.probe if isinstance(answers, Answers) else ProbeFacts(),
        )

    def change(self, key: str, value: Any) -> Profile:
        """Return the same situation with one answer changed, unchecked: for sensitivity analysis."""
        changes = {key: value}
        rows, count = self.data.rows_per_label, self.labelled_examples
        if key == "labelled_examples" and rows is not None and count and value is not None:
            changes["data"] = replace(self.data, rows_per_label=rows * value / count)
        if key == "label_count":
            changes["data"] = replace(self.data, label_count=None, rows_per_label=None)
        if key == "answers_in_documents":
            changes["data"] = replace(self.data, answers=None)
        if key == "model_params_b":
            changes["shape"] = None
        if key in ("gpu_kind", "gpu_memory_gib"):
            changes["gpu_name"] = None
        # What dataclasses.replace does, without calling __init__ with forty arguments: sensitivity makes hundreds of these.
        changed = object.__new__(type(self))
        known = self.__dict__
        changed.__dict__.update({name: known[name] for name in self.__dataclass_fields__} | changes)
        if key not in _ANSWERS_OF_MODEL:
            # Looked up in the catalogue: the same for every profile of the same model.
            changed.__dict__.update({name: known[name] for name in _FACTS_OF_MODEL if name in known})
        return changed

    @cached_property
    def needs_facts(self) -> bool:
        """Whether facts are needed that a model may lack."""
        return self.facts_needed in ("new", "known") or (self.facts_needed is None and bool(self.documents))

    @cached_property
    def passages_given(self) -> bool:
        """Whether the prompts hold the passages that their replies are taken from, and there are no documents besides."""
        share = self.data.passages_in_prompts
        return share is not None and share >= MOST_PROMPTS and not self.documents and not self.corpus_tokens

    @cached_property
    def answers_lacking(self) -> bool:
        """Whether the documents surely hold less than half of the right answers: as counted, else as a person says."""
        share = self.answers_in_documents
        if share is None or not (self.documents or self.corpus_tokens):
            return False
        source = self.sources.get("answers_in_documents")
        if source is not None and source.source == "counted" and self.data.answers is not None:
            return self.data.answers.surely_under_half
        return share < HALF_HELD

    @cached_property
    def facts_needed(self) -> str | None:
        """The answer ``task_needs_facts``, but none where the prompts hold them: nothing must be known or looked up then."""
        return "none" if self.passages_given else self.task_needs_facts

    @cached_property
    def gives_labels(self) -> bool:
        """Whether the output is one of a list of labels, as answered or, where that is not, as counted."""
        counted = self.output_format is None and self.data.label_count is not None
        return self.output_format == "labels" or counted

    @cached_property
    def labels(self) -> int | None:
        """Number of different labels, counted or answered; None where it is not known or there are none."""
        return (self.data.label_count or self.label_count) if self.gives_labels else None

    @cached_property
    def rows_per_label(self) -> float | None:
        """Examples of a label: their median where they were counted, else their mean; None where it is not known."""
        if self.data.rows_per_label is not None or not self.gives_labels:
            return self.data.rows_per_label
        known = self.labelled_examples is not None and self.labels
        return self.examples_known / self.labels if known and self.labels else None

    @cached_property
    def knows_labels(self) -> bool:
        """Whether labels take knowledge that the texts lack and a plain model is nearly right: it has that knowledge.

        Models below two billion parameters know too little for that.
        """
        small = self.params_b is not None and self.params_b < SMALL_MODEL_B
        taken = self.gives_labels and bool(self.labels_need_knowledge)
        return taken and not small and self.behaviour_gap in ("none", "low")

    @cached_property
    def repeats_replies(self) -> bool:
        """Whether replies are stored texts: they must be, or half of the examples' replies and more are given again."""
        share = self.data.repeated_replies or 0.0
        return bool(self.replies_verbatim) or (share >= MOST_REPEATED and not self.gives_labels)

    @cached_property
    def few_per_label(self) -> bool:
        """Whether replies are labels with too few examples each to train on; False where it is not known."""
        rows = self.rows_per_label
        if rows is None:
            return False
        many = (self.labels or 0) >= MANY_LABELS
        return rows <= FEW_OF_MANY_LABELS if many else rows < FEW_PER_LABEL

    @cached_property
    def high_volume(self) -> bool:
        """Whether calls are many enough for training to repay itself."""
        return self.call_volume == "high" or (self.calls_per_month or 0) >= HIGH_VOLUME

    @cached_property
    def low_volume(self) -> bool:
        """Whether calls are so few that the price of one hardly matters."""
        few = self.calls_per_month is not None and self.calls_per_month < LOW_VOLUME
        return not self.high_volume and (self.call_volume == "low" or few)

    @cached_property
    def behaviour_needed(self) -> bool:
        """Whether behaviour may have to change: the gap is low, high or unknown."""
        return self.behaviour_gap != "none"

    @cached_property
    def corpus_in_prompt(self) -> bool:
        """Whether rule KN005 advises to put all documents into a cached prompt: few enough, and all needed.

        Not when sources must be cited, when the documents change daily (which empties the cache), or for a
        small model.
        """
        most = CACHED_PROMPT_TOKENS
        if self.params_b and self.params_b < LARGE_MODEL_B:
            most = READ_BY_SMALLER_TOKENS
        small = 0 < (self.corpus_tokens or 0) <= most and self.needs_facts
        reads_it = not self.params_b or self.params_b >= SHORT_CONTEXT_B
        fits = (
            self.context_without_passages is None
            or (self.corpus_tokens or 0) <= self.context_without_passages
        )
        useful = not self.must_cite and self.facts_change != "fast" and not self.answers_lacking
        return small and reads_it and fits and useful

    @cached_property
    def examples_known(self) -> int:
        """Number of examples; 0 when unknown."""
        return self.labelled_examples or 0

    @cached_property
    def tiny_model(self) -> bool:
        """Whether the model is known to have less than a billion parameters."""
        return 0 < (self.params_b or 0) < TINY_MODEL_B

    @cached_property
    def can_learn_to_read(self) -> bool:
        """Whether a tiny model is to answer from passages, with enough examples to be trained on them."""
        new = self.facts_needed == "new" and self.behaviour_needed
        return new and self.tiny_model and self.examples_known >= READING_EXAMPLES

    @cached_property
    def blocker_answers(self) -> dict[Any, Any]:
        """What blockers found of this profile, by method and checks: a hybrid asks again what its tuned half was asked."""
        return {}

    @cached_property
    def best_prompt_rate(self) -> float | None:
        """Share of cases that the best prompt passes, 0 to 1: as answered, or with examples shown where a probe tried it."""
        shown = self.probe.few_shot.rate if self.probe.few_shot else None
        rates = [rate for rate in (self.prompting_pass_rate, shown) if rate is not None]
        return max(rates, default=None)

    @cached_property
    def raw_text(self) -> int:
        """Tokens of raw text that could be trained on; 0 when unknown."""
        return self.unlabelled_tokens or 0

    @cached_property
    def has_gpu(self) -> bool | None:
        """Whether there is a GPU; None when no answer is about one."""
        small = self.gpu_memory_gib is not None and self.gpu_memory_gib < MIN_GPU_GIB
        if self.gpu_kind == "none" or self.gpu_count == 0 or small:
            return False
        return True if self.gpu_kind or self.gpu_count or self.gpu_memory_gib else None

    @cached_property
    def devices(self) -> int:
        """Number of GPUs, or 1: a training uses all of them when a launcher starts it, else one."""
        alone = self.has_gpu is False or self.gpu_kind == "mps"
        return 1 if alone else max(1, self.gpu_count or 1)

    @cached_property
    def answering_devices(self) -> int:
        """Number of GPUs that a model answers from: one in a run here; another program cuts the model among all."""
        return self.devices if self.other_program else 1

    @cached_property
    def launcher_flags(self) -> str:
        """The flags of ``tunewise run`` and ``train`` that use all GPUs; "" for one or none, and for another program."""
        several = self.devices > 1 and not self.other_program
        return f"--launcher torchrun --gpus-per-node {self.devices}" if several else ""

    @cached_property
    def devices_note(self) -> str:
        """How a run uses several GPUs; "" for one GPU or none."""
        if not self.launcher_flags:
            return ""
        return (
            f"{self.devices} GPUs are present: a training uses all of them with {self.launcher_flags}, without a launcher "
            "one; answers come from one"
        )

    @cached_property
    def dtype_note(self) -> str:
        """Which dtype a device without native bf16 computes in, and what that means; "" where bf16 is native or unknown."""
        if self.has_gpu is False and self.cpu_bf16 is False:
            return "this CPU has no native bf16: float32 takes twice the memory, at about half the speed"
        if self.gpu_kind == "mps":
            return "an Apple GPU computes in float32 here: twice the memory of 16 bits"
        if self.gpu_name and any(card in self.gpu_name for card in CARDS_WITHOUT_BF16):
            return f"{self.gpu_name} has no native bf16: float16 with a loss scale"
        return ""

    @cached_property
    def computes_in_fp32(self) -> bool:
        """Whether models are held and computed in float32 here."""
        return self.gpu_kind == "mps" or (self.has_gpu is False and self.cpu_bf16 is False)

    @cached_property
    def device_gib(self) -> float | None:
        """Memory in GiB of one device that training may use: the GPU's label size, or 0.9 times the RAM."""
        if self.has_gpu is False:
            return None if self.ram_gib is None else self.ram_gib * 0.9
        return nominal_gib(self.gpu_memory_gib) if self.gpu_memory_gib else None

    @cached_property
    def model_shape(self) -> ModelShape | None:
        """The model's shape: measured, from the table of known models, or typical for its size."""
        if self.shape:
            return self.shape
        model = models.find_model(self.model) if self.model else None
        if model and (self.model_params_b is None or abs(model.params_b - self.model_params_b) < 0.05):
            return model.shape
        return typical_shape(self.model_params_b) if self.model_params_b else None

    @cached_property
    def params_b(self) -> float | None:
        """Parameters in billions, from the answer or from the model's shape."""
        if self.model_params_b:
            return self.model_params_b
        return self.model_shape.params / 1e9 if self.model_shape else None

    @cached_property
    def active_params_b(self) -> float | None:
        """Billions of parameters that a token uses, which set speed and price: all but the idle experts."""
        shape, size = self.model_shape, self.params_b
        return size * shape.active_params / shape.params if shape and size else size

    @cached_property
    def model_facts(self) -> ModelFacts | None:
        """What the catalogue holds of the model, by its name, behind an endpoint too; None where it is not known by name."""
        return models.find_model(self.hosted_name) if self.hosted_name else None

    @cached_property
    def model_kind(self) -> ModelKind | None:
        """Whether the model is a base model, tuned to follow instructions, or thinks first; None where it is not known."""
        return self.model_facts.kind if self.model_facts else None

    @property
    def hosted_name(self) -> str:
        """The name of the model without the address of its endpoint; "" for none."""
        return (self.model or "").removeprefix("openai:").partition("@")[0]

    @cached_property
    def model_strength(self) -> float | None:
        """Score of the model in percent, published or estimated from its size; None where not even that is known."""
        if self.model_facts and (
            self.params_b is None or abs(self.model_facts.params_b - self.params_b) < 0.05
        ):
            return self.model_facts.rated_strength.value
        return estimated_strength(self.params_b).value if self.params_b else None

    @cached_property
    def context_without_passages(self) -> int | None:
        """Tokens of the model's context beside prompt and answer; None where the context is not known.

        Lengths that were not counted are taken as 0; the result may be below 0.
        """
        if self.model_facts is None:
            return None
        return self.model_facts.context - (self.prompt_tokens or 0) - (self.answer_tokens or 0)

    @cached_property
    def context_left(self) -> int | None:
        """Tokens of the model's context beside prompt, answer and, where facts are looked up, passages."""
        passages = PASSAGES_TOKENS if self.needs_facts else 0
        return None if self.context_without_passages is None else self.context_without_passages - passages

    @cached_property
    def shots_that_fit(self) -> int | None:
        """Number of examples that the model's context has room for; None where context or lengths are not known."""
        example = (self.prompt_tokens or 0) + (self.answer_tokens or 0)
        return None if self.context_left is None or not example else max(0, self.context_left // example)

    @cached_property
    def no_room_for_examples(self) -> bool:
        """Whether the context is known to have no room for a handful of examples."""
        return self.shots_that_fit is not None and self.shots_that_fit < SHOTS_THAT_TELL

    def model_speaks(self, language: str | None) -> bool | None:
        """Return whether the model was trained on a language (an ISO 639-1 code); None where one of them is not known."""
        facts = self.model_facts
        return None if facts is None or not language else speaks_language(facts.languages, language)

    @cached_property
    def foreign_language(self) -> str:
        """The language of the files where the model is known not to have been trained on it, else ""."""
        return self.data.language or "" if self.model_speaks(self.data.language) is False else ""

    @cached_property
    def remote(self) -> bool:
        """Whether the model is behind an endpoint: it can be prompted, not tuned here."""
        return self.model.startswith("openai:") if self.model else self.runs_on == "provider"


_ANSWERS_OF_MODEL = ("model", "model_params_b")
_FACTS_OF_MODEL = ("model_facts", "model_shape", "model_kind", "active_params_b")
"""Cached properties that follow from :data:`_ANSWERS_OF_MODEL` and the measured shape alone."""
_LIMITS = ("latency_p95_ms", "budget_usd", "can_retrain_every_days", "minutes", "usd")
"""Answers for which "none" means no limit."""
