"""The classifier arm: a linear head answers a label as text, in place of a model that generates.

It takes the place of a generator, so that it is asked, journaled and scored as every other arm. Only the last turn is
read, as the user wrote it; instructions are not for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Sequence
from collections.abc import Generator as Running
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag.errors import BadInput
from runners import head
from runners.completion import Completion, Stream
from runners.data import Example
from runners.plan import Plan
from runners.shapes import Message

if TYPE_CHECKING:
    from rag.encoder import Encoder

FOLDER = "classifiers"
ROWS_PER_LABEL = 2
"""Examples that a label must have on average; fewer, and the replies are texts rather than labels."""


class Classifier:
    """Answers each chat with the label of its last turn."""

    def __init__(self, learnt: head.Head, encoder: Encoder) -> None:
        """Take a head and the embedder it was learnt with."""
        self._head, self._encoder = learnt, encoder

    def generate(
        self,
        chats: Sequence[Sequence[Message]],
        max_new_tokens: int,
        on_batch: Callable[[list[int], list[Completion]], None] | None = None,
        *,
        known: Container[int] = (),
    ) -> list[Completion]:
        """Label every chat, in one batch, and tell those that are not known.

        A label is no token that was generated, so it counts as none.
        """
        if not chats:
            return []
        started = time.perf_counter()
        texts = [chat[-1]["content"] for chat in chats]
        labels = self._head.label(self._encoder.encode(texts))
        seconds = (time.perf_counter() - started) / len(chats)
        told = [place for place in range(len(chats)) if place not in known]
        made = [
            Completion(labels[place], self.count_tokens(texts[place]), 0, seconds, "stop") for place in told
        ]
        if on_batch:
            on_batch(told, made)
        return made

    def stream(self, chat: Sequence[Message], max_new_tokens: int) -> Stream:
        """Give the label as the only piece."""

        def pieces() -> Running[str, None, Completion]:
            (made,) = self.generate([chat], max_new_tokens)
            yield made.text
            return made

        return Stream(pieces())

    def count_tokens(self, text: str) -> int:
        """Tokens of a text for the embedder."""
        return self._encoder.count_tokens(text)


def check(plan: Plan, examples: Sequence[Example]) -> None:
    """Refuse a plan with a classifier arm whose examples hold no labels to learn, before anything runs (BadInput)."""
    for arm in plan.arms:
        if not arm.classifier:
            continue
        rows, _ = labelled(plan, examples)
        labels = {label for _, label in rows}
        if len(labels) < 2 or len(rows) < ROWS_PER_LABEL * len(labels):
            raise BadInput(
                f"the arm {arm.arm} needs labels: the replies of {len(rows)} examples are {len(labels)} different texts",
                f"at least 2 labels with {ROWS_PER_LABEL} examples each on average, or take {arm.arm} out of the plan",
            )


def labelled(plan: Plan, examples: Sequence[Example]) -> tuple[list[tuple[str, str]], int]:
    """Return (text, label) of the examples, and how many are left out because their reply is no label of the plan."""
    allowed = {str(label) for check in plan.checks if check.kind == "labels" for label in check.value}
    rows = [(e.question, _plain(e.reply, allowed)) for e in examples if not e.raw]
    kept = [(text, label) for text, label in rows if not allowed or label in allowed]
    return kept, len(examples) - len(kept)


def train(
    plan: Plan, arm: str, examples: Sequence[Example], encoder: Encoder, run: Path, made_from: str
) -> dict[str, Any]:
    """Learn an arm's head from the examples and keep it in the run; one made from the same is not learnt again.

    Return what is to be told of it.
    """
    folder = run / FOLDER / arm
    rows, left_out = labelled(plan, examples)
    learnt = _kept(folder, encoder, made_from)
    if learnt is None:
        learnt = head.fit(encoder.encode([text for text, _ in rows]), [label for _, label in rows], plan.seed)
        facts = {"rows": len(rows), "left_out": left_out, "made_from": made_from}
        head.save(learnt, folder, encoder.fingerprint, facts)
    counted = {"rows": len(rows), "labels": len(learnt.labels), "left_out": left_out}
    return {**counted, "c": learnt.strength, "accuracy": learnt.accuracy}


def load(run: Path, arm: str, encoder: Encoder) -> Classifier:
    """Return the classifier that a run keeps for an arm; BadInput when it is missing or damaged."""
    folder = run / FOLDER / arm
    if not folder.exists():
        raise BadInput(
            f"the run has no classifier for the arm {arm}", f"finish it with: tunewise run {run} --resume"
        )
    return Classifier(head.load(folder, encoder), encoder)


def _kept(folder: Path, encoder: Encoder, made_from: str) -> head.Head | None:
    import json

    path = folder / head.FACTS
    if not path.is_file() or json.loads(path.read_text("utf-8")).get("made_from") != made_from:
        return None
    return head.load(folder, encoder)


def _plain(reply: str, allowed: set[str]) -> str:
    """A reply as its label: a full stop behind it is no part, where the plan's labels have none."""
    text = reply.strip()
    return text if text in allowed or not allowed else text.rstrip(".")
