"""The questionnaire as data: one entry per question, from which wizard, flags, files and docs are derived."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

AnswerKind = Literal["text", "path", "columns", "choice", "count", "share", "flag", "number"]
KnownAnswers = Mapping[str, Any]

QUESTION_SECTIONS: tuple[tuple[str, str], ...] = (
    ("task", "The task and its files"),
    ("knowledge", "Knowledge"),
    ("behaviour", "Behaviour"),
    ("data", "Amounts"),
    ("scale", "Scale and speed"),
    ("risk", "Risk and policy"),
    ("machine", "Model and machine"),
)


@dataclass(frozen=True, slots=True)
class Choice:
    """One possible answer and its meaning."""

    value: str
    help: str


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition on other answers: the ids it reads and a predicate over what is known."""

    reads: tuple[str, ...]
    holds: Callable[[KnownAnswers], bool]

    def __call__(self, known: KnownAnswers) -> bool:
        """Return whether the condition holds."""
        return self.holds(known)


ALWAYS = Condition((), lambda known: True)


def _nothing_closed(known: KnownAnswers) -> Mapping[Any, str]:
    """Return no closed answers: the default of :attr:`Question.closed`."""
    return {}


@dataclass(frozen=True, slots=True)
class Question:
    """One question: its id is also the ``--set`` key and the key in answers files and plans."""

    id: str
    text: str
    kind: AnswerKind
    section: str
    why: str
    choices: tuple[Choice, ...] = ()
    when: Condition = ALWAYS
    """Whether the question can matter, given what is known so far."""
    detail: bool = False
    """Asked only on the review screen or with "ask me everything": seldom decisive."""
    measured_by: str = ""
    """What answers it without asking: the question that names the file or model, or ``machine``. It is asked
    only where that gave no answer.
    """
    closed: Callable[[KnownAnswers], Mapping[Any, str]] = _nothing_closed
    """The choices that other answers rule out, each with a short reason."""
    tries: tuple[float, ...] = ()
    """A few typical numbers that represent its whole range; a more likely one may occur more than once."""
    none_allowed: bool = False
    """Whether "none" (no limit) is a valid answer."""
    low: float = 0.0
    high: float = float("inf")
    unit: str = ""

    @property
    def trial(self) -> tuple[Any, ...]:
        """Values that represent every possible answer; unknown (None) is the last."""
        if self.kind in ("text", "path"):
            return ("given", None)
        if self.kind == "columns":
            return ("prompt=prompt,reply=reply", None)
        named: tuple[Any, ...] = (True, False) if self.kind == "flag" else tuple(dict.fromkeys(self.tries))
        return (*(choice.value for choice in self.choices), *named, None)

    @property
    def allowed(self) -> str:
        """A description of the valid answers, for hints."""
        kinds = {
            "text": "text",
            "path": "a path",
            "columns": "prompt=COLUMN,reply=COLUMN",
            "flag": "yes or no",
            "share": "a number from 0 to 1",
            "count": "a whole number",
            "number": "a number",
        }
        text = ", ".join(c.value for c in self.choices) or kinds[self.kind]
        if self.kind in ("count", "number") and self.low > 0:
            text += f" of at least {self.low:g}"
        return f"{text}, or none" if self.none_allowed else text


def _lacks(key: str) -> Condition:
    """Return the condition that a question has no answer."""
    return Condition((key,), lambda known: known.get(key) is None)


def _both(a: Condition, b: Condition) -> Condition:
    """Return the conjunction of two conditions."""
    return Condition((*a.reads, *b.reads), lambda known: a(known) and b(known))


_FACTS = Condition(
    ("documents", "task_needs_facts"),
    lambda known: bool(known.get("documents")) or known.get("task_needs_facts") != "none",
)
_CHANGING = Condition(("facts_change",), lambda known: known.get("facts_change") in ("slow", "fast"))
_RUNS = Condition(
    ("documents", "examples", "questions"),
    lambda known: any(known.get(key) for key in ("documents", "examples", "questions")),
)
_EXAMPLES = Condition(("examples",), lambda known: bool(known.get("examples")))
_TUNING = Condition(
    ("behaviour_gap", "unlabelled_tokens", "model"),
    lambda known: (
        (known.get("behaviour_gap") != "none" or bool(known.get("unlabelled_tokens")))
        and not str(known.get("model") or "").startswith("openai:")
    ),
)
_GPU = _both(_TUNING, Condition(("gpu_kind",), lambda known: known.get("gpu_kind") not in (None, "none")))
_CPU = _both(_TUNING, Condition(("gpu_kind",), lambda known: known.get("gpu_kind") in (None, "none")))
_LOCAL = Condition(("data_must_stay_local",), lambda known: known.get("data_must_stay_local") is not True)


def _hosted_closed(known: KnownAnswers) -> Mapping[Any, str]:
    """Rule out a hosted model where data must stay local."""
    return {True: "the data must stay on your own machines"} if known.get("data_must_stay_local") else {}


def _local_closed(known: KnownAnswers) -> Mapping[Any, str]:
    """Rule out local data where a hosted model may be called."""
    return {True: "you allowed a hosted model to be called"} if known.get("hosted_api_allowed") else {}


QUESTIONS: tuple[Question, ...] = (
    Question(
        "goal",
        "In one sentence: what should the model do?",
        "text",
        "task",
        "The sentence becomes the name of the plan, and tells others later what was to be decided.",
    ),
    Question(
        "documents",
        "Where are the documents that hold the facts?",
        "path",
        "task",
        "With documents, search over them (rag) can be built and measured. Their amount is counted.",
    ),
    Question(
        "examples",
        "Where are examples of good answers (for tuning)?",
        "path",
        "task",
        "Examples are what a model is fine-tuned on (lora); they also show the wanted format and length.",
    ),
    Question(
        "columns",
        "Which columns of the examples hold the prompt and the reply?",
        "columns",
        "task",
        "Needed only where their names do not tell: prompt=COLUMN,reply=COLUMN.",
        when=_EXAMPLES,
        detail=True,
    ),
    Question(
        "questions",
        "Where are held-out questions (never used for tuning)?",
        "path",
        "task",
        "Without test questions nothing can be measured, and the advice stays a guess.",
    ),
    Question(
        "prompt",
        "Which instructions do you use today (text, or a file)?",
        "text",
        "task",
        "Every method that is measured gets these instructions, so that prompting is measured at its best.",
        when=_RUNS,
    ),
    Question(
        "task_needs_facts",
        "Does a right answer need facts?",
        "choice",
        "knowledge",
        "Fine-tuning teaches behaviour; facts are better looked up.",
        (
            Choice("none", "no: it is about how to answer, transform or classify"),
            Choice("known", "yes, but general knowledge that a model has seen"),
            Choice("new", "yes, private or recent facts no model has seen"),
        ),
        measured_by="documents",
    ),
    Question(
        "facts_change",
        "How often do these facts change?",
        "choice",
        "knowledge",
        "A fine-tuned model keeps an old fact until it is trained again; a search index is updated in seconds.",
        (Choice("static", "yearly or never"), Choice("slow", "monthly"), Choice("fast", "daily or faster")),
        when=_FACTS,
    ),
    Question(
        "must_cite",
        "Must an answer name its source?",
        "flag",
        "knowledge",
        "A fine-tuned model cannot say which document a fact came from.",
        when=_FACTS,
    ),
    Question(
        "behaviour_gap",
        "How far is a plain model's tone, format or skill from what you need?",
        "choice",
        "behaviour",
        "Behaviour is what tuning changes; where a good prompt suffices, tuning is waste.",
        (
            Choice("none", "a plain model with a good prompt already answers as wanted"),
            Choice("low", "nearly: a style or format it usually manages when told"),
            Choice("high", "far: it does not hold the style, format or skill however it is told"),
        ),
    ),
    Question(
        "output_format",
        "What form must the output have?",
        "choice",
        "behaviour",
        "A strict form can be checked by code, and is where small tuned models do best.",
        (
            Choice("free", "prose"),
            Choice("labels", "one of a list of labels"),
            Choice("json", "JSON"),
            Choice("fixed", "another fixed form"),
        ),
        measured_by="examples",
    ),
    Question(
        "absence_is_legal",
        'Is "not stated" sometimes the right answer?',
        "flag",
        "behaviour",
        "Tuned models tend to answer always; the harm must be measured.",
        detail=True,
    ),
    Question(
        "labelled_examples",
        "How many examples of good answers do you have or can you get?",
        "count",
        "data",
        "Under 10 do not train; 50-200 teach a tone; 1,000 teach a task.",
        measured_by="examples",
        tries=(0, 5, 30, 100, 300, 2_000, 20_000),
    ),
    Question(
        "corpus_tokens",
        "How many tokens do all documents have together?",
        "count",
        "data",
        "Below about 200,000 they may fit in one cached prompt; 0 means that there are none.",
        when=_FACTS,
        measured_by="documents",
        tries=(0, 50_000, 1_000_000),
    ),
    Question(
        "unlabelled_tokens",
        "How many tokens of raw text could be trained on?",
        "count",
        "data",
        "Billions of tokens are what continued pre-training needs.",
        detail=True,
        tries=(0, 0, 0, 2_000_000, 2_000_000_000),
    ),
    Question(
        "prompt_tokens",
        "How long is a prompt today, in tokens?",
        "count",
        "data",
        "The length of prompts decides what a call costs.",
        detail=True,
        tries=(100, 5_000),
    ),
    Question(
        "answer_tokens",
        "How long is an answer, in tokens?",
        "count",
        "data",
        "The length of answers decides what a call costs, and the longest answer of a run.",
        detail=True,
        tries=(20, 500),
    ),
    Question(
        "call_volume",
        "How many calls will it get?",
        "choice",
        "scale",
        "Training costs once, a long prompt costs on every call.",
        (Choice("low", "up to some thousands a month"), Choice("high", "tens of thousands a month or more")),
        when=_lacks("calls_per_month"),
    ),
    Question(
        "calls_per_month",
        "How many calls a month?",
        "count",
        "scale",
        "With the number of calls, the break-even is a number of months.",
        detail=True,
        tries=(1_000, 10_000, 100_000),
    ),
    Question(
        "prompting_pass_rate",
        "What share of answers is already good with your best prompt?",
        "share",
        "scale",
        "If 8 of 10 pass, stop: nothing else needs to be built.",
        detail=True,
        tries=(0.3, 0.6, 0.9),
    ),
    Question(
        "latency_p95_ms",
        "How fast must an answer be (95th percentile)?",
        "number",
        "scale",
        "Long prompts and retrieval cost time on every call.",
        detail=True,
        none_allowed=True,
        unit="ms",
        tries=(300, 5_000),
    ),
    Question(
        "data_must_stay_local",
        "Must the data stay on your own machines?",
        "flag",
        "risk",
        "Data that must stay rules out hosted models and hosted tuning.",
        closed=_local_closed,
    ),
    Question(
        "hosted_api_allowed",
        "May a hosted model be called?",
        "flag",
        "risk",
        "A hosted model opens larger models by prompt alone.",
        when=_LOCAL,
        detail=True,
        closed=_hosted_closed,
    ),
    Question(
        "wrong_answer_cost",
        "What does a wrong answer cost?",
        "choice",
        "risk",
        "Where mistakes are expensive, answers must cite sources or refuse, and a method must win clearly.",
        (Choice("low", "little: nobody is harmed"), Choice("high", "money, trust or safety")),
    ),
    Question(
        "budget_usd",
        "What may the one-off work cost, in USD?",
        "number",
        "risk",
        "The budget rules out what cannot be paid.",
        detail=True,
        none_allowed=True,
        unit="USD",
        tries=(10, 10_000),
    ),
    Question(
        "can_retrain_every_days",
        "How often could you retrain (every how many days)?",
        "number",
        "risk",
        "Facts that change faster than you retrain cannot live in weights.",
        when=_both(_FACTS, _CHANGING),
        detail=True,
        none_allowed=True,
        unit="days",
        tries=(1, 90),
    ),
    Question(
        "model",
        "Which base model?",
        "text",
        "machine",
        "A name, a folder, or openai:NAME@URL. The advice and the measured run are about this model.",
    ),
    Question(
        "model_params_b",
        "How many billion parameters has it?",
        "number",
        "machine",
        "The size decides what fits in memory.",
        measured_by="model",
        low=0.001,
        unit="B",
        tries=(0.2, 2, 8, 70),
    ),
    Question(
        "gpu_kind",
        "Which kind of GPU?",
        "choice",
        "machine",
        "The kind of GPU decides which ways of tuning can run.",
        (
            Choice("cuda", "NVIDIA"),
            Choice("rocm", "AMD"),
            Choice("mps", "Apple"),
            Choice("xpu", "Intel"),
            Choice("none", "no GPU"),
        ),
        when=_TUNING,
        detail=True,
        measured_by="machine",
    ),
    Question(
        "gpu_count",
        "How many GPUs?",
        "count",
        "machine",
        "A training uses all of them through a launcher (torchrun), without one it uses one; answers come from one.",
        when=_GPU,
        detail=True,
        measured_by="machine",
        tries=(1, 8),
    ),
    Question(
        "gpu_memory_gib",
        "How much memory has one GPU?",
        "number",
        "machine",
        "The memory of a GPU decides between full, LoRA and QLoRA.",
        when=_GPU,
        measured_by="machine",
        unit="GiB",
        tries=(8, 24, 80),
    ),
    Question(
        "ram_gib",
        "How much main memory?",
        "number",
        "machine",
        "Without a GPU, training happens here.",
        when=_CPU,
        detail=True,
        measured_by="machine",
        unit="GiB",
        tries=(8, 64),
    ),
    Question(
        "cpu_cores",
        "How many CPU cores?",
        "count",
        "machine",
        "Without a GPU, the cores decide how long training takes.",
        when=_CPU,
        detail=True,
        measured_by="machine",
        low=1,
        tries=(4, 32),
    ),
    Question(
        "disk_gib",
        "How much free disk?",
        "number",
        "machine",
        "Models, checkpoints and indexes need room.",
        detail=True,
        measured_by="machine",
        unit="GiB",
        tries=(10, 500),
    ),
)
"""The questions in the order in which they are asked."""

QUESTION_BY_ID: dict[str, Question] = {question.id: question for question in QUESTIONS}
