"""The classifier arm: a linear head over the texts answers with a label, in place of a model that generates.

:class:`Classifier` has the interface of a generator, so that its answers are asked for, journaled and scored
like those of every other arm. It reads only the last user turn, without instructions.
:func:`train_classifier` chooses and trains a head from the examples alone
(:mod:`runners.classification.selection`), :func:`load_classifier` loads it.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Container, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rag.errors import BadInput
from rag.text.words import count_noun
from rag.types import OnEvent
from runners.classification.files import FACTS, read_classifier, read_facts, save_classifier
from runners.classification.label_notes import label_notes
from runners.classification.selection import LabelledRows, TextClassifier, choose_classifier, repeat_groups
from runners.classification.tuned import with_tuned_embedder
from runners.data.examples import Example
from runners.data.formats import Message
from runners.data.questions import Question
from runners.inference.constraints.constraint import OutputConstraint
from runners.inference.types import Completion, CompletionStream, LabelProbability
from runners.plan.schema import Plan
from runners.tokenization.token_estimate import estimate_tokens

if TYPE_CHECKING:
    from rag.embedding.protocol import Encoder

CLASSIFIER_FOLDER = "classifiers"
MIN_ROWS_PER_LABEL = 2
"""Examples that a label must have on average; with fewer the replies are texts rather than labels."""
PROBABILITIES_SHOWN = 5
"""Most likely labels whose probability is recorded with an answer."""


class Classifier:
    """A generator that answers each chat with the label of its last turn."""

    def __init__(self, classifier: TextClassifier, encoder: Encoder | None) -> None:
        """Take a classifier, and the embedder that it was trained with where it reads embeddings."""
        self._classifier = classifier
        self._encoder = encoder

    def generate(
        self,
        chats: Sequence[Sequence[Message]],
        max_new_tokens: int,
        on_batch: Callable[[list[int], list[Completion]], None] | None = None,
        *,
        known: Container[int] = (),
        constraint: OutputConstraint | None = None,
    ) -> list[Completion]:
        """Label every chat in one batch; return, and pass to ``on_batch``, the completions of those not in ``known``.

        A label is no generated token, so the number of completion tokens is 0, and no ``constraint`` is needed.
        """
        if not chats:
            return []
        started = time.perf_counter()
        texts = [chat[-1]["content"] for chat in chats]
        vectors = self._encoder.encode(texts) if self._encoder else None
        scores = self._classifier.scores(texts, vectors)
        head = self._classifier.head
        chosen = scores.argmax(axis=1)
        likely = (
            _most_likely(head.labels, head.probabilities(scores)) if head.temperature else [()] * len(texts)
        )
        seconds = (time.perf_counter() - started) / len(chats)
        positions = [position for position in range(len(chats)) if position not in known]
        completions = [
            Completion(
                head.labels[chosen[position]],
                self.count_tokens(texts[position]),
                0,
                seconds,
                "stop",
                estimated=self._encoder is None,
                labels=likely[position],
            )
            for position in positions
        ]
        if on_batch:
            on_batch(positions, completions)
        return completions

    def stream(
        self, chat: Sequence[Message], max_new_tokens: int, *, constraint: OutputConstraint | None = None
    ) -> CompletionStream:
        """Return the label as the only piece of a stream."""
        return CompletionStream.of_whole(lambda: self.generate([chat], max_new_tokens)[0])

    def count_tokens(self, text: str) -> int:
        """Return the number of tokens of a text for the embedder, without one an estimate from its characters."""
        return self._encoder.count_tokens(text) if self._encoder else estimate_tokens(text)


def check_classifier_plan(plan: Plan, examples: Sequence[Example]) -> None:
    """Raise BadInput for a plan with a classifier arm whose examples hold no labels, before anything runs."""
    for arm in plan.arms:
        if not arm.classifier:
            continue
        rows = [(text, label) for text, label in labelled_texts(plan, examples)[0] if text.strip()]
        labels = {label for _, label in rows}
        if len(labels) == 1 and len(rows) > 1:
            raise _one_label(arm.arm, [label for _, label in rows])
        if len(labels) < 2 or len(rows) < MIN_ROWS_PER_LABEL * len(labels):
            raise BadInput(
                f"the arm {arm.arm} needs labels: the replies of {len(rows)} examples are {len(labels)} different texts",
                f"at least 2 labels with {MIN_ROWS_PER_LABEL} examples each on average, or take {arm.arm} out of the plan",
            )


def labelled_texts(plan: Plan, examples: Sequence[Example]) -> tuple[list[tuple[str, str]], int]:
    """Return (text, label) of the examples, and how many are left out because their reply is none of the plan's labels."""
    allowed = _labels_of_plan(plan)
    rows = [(e.question, _as_label(e.reply, allowed)) for e in examples if not e.raw]
    labelled = [(text, label) for text, label in rows if not allowed or label in allowed]
    return labelled, len(examples) - len(labelled)


def train_classifier(
    plan: Plan,
    arm: str,
    examples: Sequence[Example],
    encoder: Encoder,
    run: Path,
    made_from: str,
    asked: Sequence[Question] = (),
    on_event: OnEvent | None = None,
) -> dict[str, Any]:
    """Train an arm's head from the examples and store it in the run; a head made from the same inputs is not trained again.

    Args:
        plan: the run's plan.
        arm: the arm's name.
        examples: the training examples.
        encoder: the embedder.
        run: the run folder.
        made_from: digest of the inputs.
        asked: the test questions, whose labels are only counted where no example has them.
        on_event: receives what is tuned, before it is.

    Returns:
        Counts, what was compared and chosen, and notes on the rows, for the event that reports the training.

    Raises:
        BadInput: all rows have one label.
    """
    folder = run / CLASSIFIER_FOLDER / arm
    labelled, left_out = labelled_texts(plan, examples)
    rows = [(text, label) for text, label in labelled if text.strip()]
    texts, labels = [text for text, _ in rows], [label for _, label in rows]
    if len(set(labels)) < 2:
        raise _one_label(arm, labels)
    classifier = _read_unchanged(folder, encoder, made_from)
    if classifier is None:
        of_labels = LabelledRows.of(texts, labels, encoder)
        work = folder.with_name(f".{arm}.tuned")
        classifier = choose_classifier(of_labels, plan.seed)
        classifier = with_tuned_embedder(classifier, of_labels, encoder, work, plan.seed, on_event=on_event)
        facts = {"rows": len(rows), "left_out": left_out, "made_from": made_from}
        save_classifier(classifier, folder, encoder.fingerprint, facts)
        shutil.rmtree(work, ignore_errors=True)
    empty = len(labelled) - len(rows)
    notes = (f"{count_noun(empty, 'example')} without a text: left out",) * bool(empty)
    allowed = _labels_of_plan(plan)
    of_asked = [_as_label(q.reference, allowed) for q in asked if q.answerable and q.reference]
    return {
        "rows": len(rows),
        "left_out": left_out,
        **_chosen(classifier),
        "notes": [*notes, *label_notes(rows, repeat_groups(texts), of_asked)],
    }


def _chosen(classifier: TextClassifier) -> dict[str, Any]:
    """Return what was compared and chosen, as keys of the event."""
    head = classifier.head
    return {
        "labels": len(head.labels),
        "c": head.strength,
        "accuracy": head.accuracy,
        "split_rows": classifier.split_rows,
        "features": classifier.features,
        "compared": "; ".join(one.text for one in classifier.tried),
        "tried": [one.to_json() for one in classifier.tried],
        "untried": list(classifier.untried),
    }


def load_classifier(run: Path, arm: str, embedder: Callable[[], Encoder]) -> Classifier:
    """Return the classifier that a run holds for an arm; BadInput when it is missing or damaged.

    Args:
        run: the run folder.
        arm: the arm's name.
        embedder: returns the plan's embedder; not called for a classifier that reads no embeddings.
    """
    folder = run / CLASSIFIER_FOLDER / arm
    if not folder.exists():
        raise BadInput(
            f"the run has no classifier for the arm {arm}", f"finish it with: tunewise run {run} --resume"
        )
    return Classifier(*read_classifier(folder, embedder))


def _one_label(arm: str, labels: Sequence[str]) -> BadInput:
    """Return what is wrong where no label can be told from another, as in a small part of the rows."""
    return BadInput(
        f"the arm {arm} needs labels to choose from, and all {count_noun(len(labels), 'example')} have the label "
        f"{next(iter(labels), '')!r}",
        f"give examples of another label, or take {arm} out of the plan",
    )


def _most_likely(labels: Sequence[str], probabilities: np.ndarray) -> list[tuple[LabelProbability, ...]]:
    """Return the most likely labels of each row, the likeliest first."""
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :PROBABILITIES_SHOWN]
    return [
        tuple(LabelProbability(labels[n], round(float(own[n]), 4)) for n in best)
        for own, best in zip(probabilities, order, strict=True)
    ]


def _read_unchanged(folder: Path, encoder: Encoder, made_from: str) -> TextClassifier | None:
    """Return the stored classifier when it was made from the same inputs; None otherwise."""
    if not (folder / FACTS).is_file() or read_facts(folder).get("made_from") != made_from:
        return None
    return read_classifier(folder, lambda: encoder)[0]


def _labels_of_plan(plan: Plan) -> set[str]:
    """Return the labels that a plan's checks allow; empty where any reply is one."""
    return {str(label) for check in plan.checks if check.kind == "labels" for label in check.value}


def _as_label(reply: str, allowed: set[str]) -> str:
    """Return a reply as its label, without a final full stop unless one of the plan's labels has it."""
    text = reply.strip()
    return text if text in allowed or not allowed else text.rstrip(".")
