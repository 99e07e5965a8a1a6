"""One honest split: questions are divided once, by source document and seed, into dev and test.

Dev serves the probe, refusal calibration, the choice of few-shot examples and early stopping; test serves the
verdict and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rag.durable import canonical_json, sha256_text
from runners.data import Question


@dataclass(frozen=True, slots=True)
class Split:
    """The two halves and the digest that names them in the run's manifest."""

    dev: tuple[Question, ...]
    test: tuple[Question, ...]

    @property
    def digest(self) -> str:
        """SHA-256 over the ids and texts of both halves, in order."""
        halves = [[(q.id, q.question) for q in half] for half in (self.dev, self.test)]
        return sha256_text(canonical_json(halves))


def split_questions(
    questions: Sequence[Question],
    dev_share: float,
    seed: int,
    test: Sequence[Question] = (),
    max_dev: int | None = None,
    max_test: int | None = None,
) -> Split:
    """Divide questions so that no source document stands on both sides.

    Answerable and unanswerable questions are divided apart, so that both halves hold about the same share of
    each. The order of the rows in the file does not matter. With `test` given, every question is dev.
    """
    if test:
        return Split(_draw(questions, max_dev, seed), _draw(test, max_test, seed))
    dev: list[Question] = []
    rest: list[Question] = []
    for answerable in (True, False):
        part = [q for q in questions if q.answerable is answerable]
        wanted = round(len(part) * dev_share)
        taken = 0
        for group in _groups(part, seed):
            into_dev = taken + len(group) / 2 <= wanted
            (dev if into_dev else rest).extend(group)
            taken += len(group) if into_dev else 0
    return Split(_draw(dev, max_dev, seed), _draw(rest, max_test, seed))


def _groups(questions: Sequence[Question], seed: int) -> list[list[Question]]:
    groups: dict[str, list[Question]] = {}
    for question in questions:
        groups.setdefault(question.doc_id or f"\0{question.id}", []).append(question)
    return [groups[key] for key in sorted(groups, key=lambda key: sha256_text(f"{seed}\0{key}"))]


def _draw(questions: Sequence[Question], most: int | None, seed: int) -> tuple[Question, ...]:
    """Draw at most `most` questions, keeping the share of unanswerable ones; in the order of their ids' hashes."""
    shuffled = sorted(questions, key=lambda q: sha256_text(f"{seed}\0{q.id}\0{q.question}"))
    if most is None or most >= len(shuffled):
        return tuple(shuffled)
    unanswerable = [q for q in shuffled if not q.answerable]
    keep = round(most * len(unanswerable) / len(shuffled))
    chosen = {id(q) for q in unanswerable[:keep]}
    chosen |= {id(q) for q in [q for q in shuffled if q.answerable][: most - keep]}
    return tuple(q for q in shuffled if id(q) in chosen)
