"""Arms that score labels: the answer is the label that the model holds likeliest after the prompt; nothing is generated.

:class:`ScoredLabels` is the generator of such an arm. The score of a label is the log-likelihood of its tokens, the end
token included, less the label's prior: the mean of the same over reference questions, asked with the arm's own prompt.

- The sum over the tokens, not their mean: what a long label loses by its length, its prior loses as well, while a mean
  also divides what the question says for it (chosen on banking77: benchmarks/LOG.md, "Scored labels").
- The end token, because "card" would otherwise never lose to "card_acceptance", which begins with it.
- The prior, because a model holds some labels likelier than others whatever is asked (Zhao et al. 2021, arXiv 2102.09690;
  Holtzman et al. 2021, arXiv 2104.08315). It is the mean over the run's dev questions, of which only the texts are read
  (batch calibration, Zhou et al. 2023, arXiv 2309.17249); with fewer than MIN_REFERENCE of them that of the question "N/A"
  (contextual calibration, Zhao et al. 2021).

:func:`measure_prior` measures the prior in the trial and stores it in the trial's folder, so that a finished run is asked
without its dev questions. Imports torch only in functions.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Mapping, Sequence
from collections.abc import Generator as Running
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from rag.errors import BadInput
from rag.files import canonical_json, parse_json, sha256_text, write_json
from rag.text.words import count_noun
from runners.arms.answer import build_chat
from runners.arms.prompts import FewShotExamples
from runners.arms.retriever import PassageFinder, Retrieved
from runners.data.formats import Message
from runners.data.questions import Question
from runners.inference.constraints.constraint import OutputConstraint
from runners.inference.types import Completion, CompletionStream
from runners.models.resolve import Model, RemoteModel
from runners.plan.schema import Plan
from runners.plan.steps import EvaluateStep
from runners.tokenization.chat_template import ChatTokenizer

if TYPE_CHECKING:
    from runners.inference.label_scores import AnswerTokens, SharedPrefix
    from runners.inference.local import LocalGenerator

PRIORS = "label_priors.json"
MAX_REFERENCE = 32
"""Most reference questions: about 10 suffice for batch calibration (Zhou et al. 2023); more make the prior steadier."""
MIN_REFERENCE = 4
"""Dev questions with fewer of which the prior is that of the content-free question."""
CONTENT_FREE = "N/A"
"""The question without content (Zhao et al. 2021)."""
FORMULA = 3
"""Counted up when scores or priors are computed in another way: stored priors are then measured again."""


@dataclass(frozen=True, slots=True)
class LabelPrior:
    """The mean score of each label over reference questions."""

    labels: tuple[str, ...]
    values: tuple[float, ...]
    """Mean log-likelihood."""
    reference: str
    """What was asked, in words."""
    made_from: str
    """Digest of everything that the values depend on."""


class ScoredLabels:
    """A generator that answers every chat with the label of the highest score; of equal ones the first of the plan.

    A constraint, the limit of tokens and sampling have no effect: the answer is one of the labels, whole.
    """

    def __init__(
        self, generator: LocalGenerator, labels: Sequence[str], prior: Sequence[float] | None = None
    ) -> None:
        """Take the generator of a model that does not reason, the labels, and their prior; None is the same for all.

        Raises:
            BadInput: the model reasons before every answer.
        """
        from runners.inference.label_scores import AnswerScorer

        require_no_reasoning(generator.chat.features.reasons, "the model")
        self.local = generator
        self.labels = tuple(labels)
        self.prior = tuple(prior) if prior is not None else (0.0,) * len(self.labels)
        self._scorer = AnswerScorer(generator)
        self._stem: list[int] | None = None
        """First tokens of all prompts that were asked alone."""

    def decoding(self) -> dict[str, Any]:
        """Return how the model of these labels decodes, as :meth:`LocalGenerator.decoding` does."""
        return self.local.decoding()

    @property
    def way(self) -> str:
        """How the labels were scored: tree (all in one step), cached or rows (one by one); "" before the first ones."""
        return self._scorer.taken_way

    def count_tokens(self, text: str) -> int:
        """Return the number of tokens of a text, without special tokens."""
        return self.local.count_tokens(text)

    def generate(
        self,
        chats: Sequence[Sequence[Message]],
        max_new_tokens: int,
        on_batch: Callable[[list[int], list[Completion]], None] | None = None,
        *,
        known: Container[int] = (),
        constraint: OutputConstraint | None = None,
    ) -> list[Completion]:
        """Return the label of every chat but those whose index is `known`, in batches that do not depend on these.

        ``completion_tokens`` are the tokens of the label.

        Raises:
            BadInput: a chat and the longest label do not fit the model's context.
        """
        done: dict[int, Completion] = {}
        for batch, prompts, answers, scores, seconds in self._scored(chats, known):
            fresh = [(place, index) for place, index in enumerate(batch) if index not in known]
            for place, index in fresh:
                best = self._best(scores[place])
                done[index] = Completion(
                    self.labels[best], len(prompts[place]), len(answers[best]), seconds, "stop"
                )
            if on_batch:
                on_batch([index for _, index in fresh], [done[index] for _, index in fresh])
        return [done[index] for index in range(len(chats)) if index in done]

    def stream(
        self, chat: Sequence[Message], max_new_tokens: int, *, constraint: OutputConstraint | None = None
    ) -> CompletionStream:
        """Return the label as the only piece of a stream."""
        return CompletionStream.of_whole(lambda: self.generate([chat], max_new_tokens)[0])

    def scores(self, chats: Sequence[Sequence[Message]]) -> list[list[float]]:
        """Return the score of every label for every chat [chats, labels], before the prior."""
        return self.both_scores(chats)[0]

    def both_scores(self, chats: Sequence[Sequence[Message]]) -> tuple[list[list[float]], list[list[float]]]:
        """Return the log-likelihoods and their means per token, each [chats, labels], before the prior."""
        means: dict[int, list[float]] = {}
        sums: dict[int, list[float]] = {}
        for batch, _, answers, scores, _ in self._scored(chats):
            for index, row in zip(batch, scores, strict=True):
                sums[index] = row
                means[index] = [total / len(answer) for total, answer in zip(row, answers, strict=True)]
        return [sums[index] for index in range(len(chats))], [means[index] for index in range(len(chats))]

    def _scored(
        self, chats: Sequence[Sequence[Message]], known: Container[int] = ()
    ) -> Running[tuple[list[int], list[list[int]], AnswerTokens, list[list[float]], float], None, None]:
        """Yield batches: indexes, prompts, the labels' tokens, log-likelihoods [rows, labels], seconds a row."""
        from runners.inference.label_scores import encode_answers
        from runners.inference.local import length_batches

        if not chats:
            return
        prompts = [self.local.prompt(chat, 1) for chat in chats]
        encoded = encode_answers(self.local.chat, prompts, chats, self.labels)
        for chat, answers in zip(chats, encoded, strict=True):
            self.local.prompt(chat, max(map(len, answers)))  # whether the longest label fits too
        shared = self._shared(prompts)
        for answers in dict.fromkeys(encoded):
            own = [index for index, tokens in enumerate(encoded) if tokens == answers]
            rows = self._scorer.rows_at_once(answers)
            for group in length_batches([len(prompts[index]) for index in own], rows):
                batch = [own[place] for place in group]
                if all(index in known for index in batch):
                    continue
                started = time.perf_counter()
                asked = [prompts[index] for index in batch]
                sums = self._scorer.log_likelihoods(asked, answers, shared)
                yield batch, asked, answers, sums, (time.perf_counter() - started) / len(batch)

    def _shared(self, prompts: list[list[int]]) -> SharedPrefix:
        """Return the prefix of the prompts; of one alone, that of all prompts that were asked alone before."""
        from runners.inference.kv_cache import shared_length

        if len(prompts) > 1:
            return self.local.shared_prefix(prompts)
        if self._stem is None:
            self._stem = prompts[0]
            return None
        self._stem = self._stem[: shared_length(self._stem, prompts[0])]
        # With a token more, because the prefix of prompts never holds their last token.
        return self.local.shared_prefix([prompts[0], [*self._stem, -1]])

    def _best(self, scores: Sequence[float]) -> int:
        """Return the index of the label with the highest score less its prior, the first of equal ones."""
        corrected = [score - prior for score, prior in zip(scores, self.prior, strict=True)]
        return corrected.index(max(corrected))


def labels_of_plan(plan: Plan) -> tuple[str, ...]:
    """Return the labels of a plan's checks, in their order."""
    return tuple(
        dict.fromkeys(str(label) for check in plan.checks if check.kind == "labels" for label in check.value)
    )


def require_no_reasoning(reasons: str, model: str) -> None:
    """Raise BadInput for a model that reasons before every answer: a label right after the prompt is no answer of it."""
    if reasons == "always":
        raise BadInput(
            f"{model} reasons before every answer, so the likelihood of a label right after the question means nothing",
            "take the arms with labels: scored out of the plan, or name a model whose reasoning can be switched off",
        )


def require_local(arm: EvaluateStep, base: Model | RemoteModel) -> None:
    """Raise BadInput for an arm that scores labels with an endpoint."""
    if isinstance(base, RemoteModel):
        raise BadInput(
            f"the arm {arm.arm} scores labels, and {base.name} is an endpoint: chat APIs do not give the likelihood of an "
            "answer that is chosen beforehand",
            f"take {arm.arm} out of the plan, or name a local model",
        )


def check_scored_labels(plan: Plan, bases: Mapping[str, Model | RemoteModel]) -> None:
    """Raise BadInput for arms whose model cannot score labels: an endpoint, or one that always reasons."""
    for arm in plan.arms:
        if arm.labels != "scored":
            continue
        base = bases[plan.model_of(arm).name]
        require_local(arm, base)
        if isinstance(base, Model):
            require_no_reasoning(ChatTokenizer(base.folder).features.reasons, base.name)


def reference_chats(
    plan: Plan,
    step: EvaluateStep,
    dev: Sequence[Question],
    finder: PassageFinder | None,
    shots: FewShotExamples,
) -> tuple[list[list[Message]], str]:
    """Return the reference questions as an arm asks them, and what they are in words.

    They are dev questions, without those that the arm refuses by its search, or the question without content where these
    are too few.
    """
    questions = list(dev[:MAX_REFERENCE])
    if len(questions) >= MIN_REFERENCE:
        chats = [
            build_chat(plan, question, passages, shots)
            for question, passages in zip(questions, _passages(step, questions, finder), strict=True)
            if passages is None or not passages.refuse
        ]
        if len(chats) >= MIN_REFERENCE:
            return chats, f"{count_noun(len(chats), 'dev question')}"
    empty = Question("content-free", CONTENT_FREE, system=dev[0].system if dev else None)
    (passages,) = _passages(step, [empty], finder)
    return [build_chat(plan, empty, passages, shots)], f"the question {CONTENT_FREE}"


def _passages(
    step: EvaluateStep, questions: Sequence[Question], finder: PassageFinder | None
) -> list[Retrieved | None]:
    """Return what the arm's search finds for each question; None for an arm without retrieval."""
    if not step.retrieval or finder is None:
        return [None] * len(questions)
    return list(finder.find([question.question for question in questions]))


def measure_prior(
    generator: ScoredLabels,
    step: EvaluateStep,
    weights: Path | None,
    chats: Sequence[Sequence[Message]],
    reference: str,
    trial: Path,
    inputs: str,
) -> LabelPrior:
    """Return the prior of an arm's labels and set it in the generator; one that is stored for the same inputs is read.

    Args:
        generator: the arm's generator.
        step: the arm.
        weights: the folder of its weights; None for the base.
        chats: the reference questions as the arm asks them.
        reference: what they are, in words.
        trial: the trial's folder, where it is stored.
        inputs: digest of everything else that the arm depends on.
    """
    made_from = sha256_text(
        canonical_json([FORMULA, inputs, generator.labels, [list(chat) for chat in chats]])
    )
    stored = _read_priors(trial)
    key = _key(step, weights)
    prior = stored.get(key)
    if prior is None or prior.made_from != made_from:
        rows = generator.scores(chats)
        values = tuple(round(fmean(column), 6) for column in zip(*rows, strict=True))
        prior = LabelPrior(generator.labels, values, reference, made_from)
        arms = {name: asdict(each) for name, each in {**stored, key: prior}.items()}
        write_json(trial / PRIORS, {"schema": 1, "arms": arms})
    generator.prior = prior.values
    return prior


def read_prior(
    trial: Path, step: EvaluateStep, weights: Path | None, labels: Sequence[str]
) -> LabelPrior | None:
    """Return the stored prior of an arm for these labels; None before the trial measured it, BadInput when damaged."""
    prior = _read_priors(trial).get(_key(step, weights))
    return prior if prior is not None and prior.labels == tuple(labels) else None


def _key(step: EvaluateStep, weights: Path | None) -> str:
    """Return the name of an arm's prior, with that of its weights: each seed has its own."""
    return f"{step.arm} {weights.name}" if weights else step.arm


def _read_priors(trial: Path) -> dict[str, LabelPrior]:
    path = trial / PRIORS
    if not path.is_file():
        return {}
    try:
        arms = parse_json(path.read_text("utf-8"))["arms"]
        return {
            str(name): LabelPrior(
                tuple(map(str, row["labels"])),
                tuple(map(float, row["values"])),
                str(row["reference"]),
                str(row["made_from"]),
            )
            for name, row in arms.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(
            f"{path} is damaged: {error!r}",
            f"remove it, and measure the priors again: tunewise run {trial.parent} --resume",
        ) from None
