"""The causes of wrong answers (:class:`Cause`), and what was found of one run's (:class:`Failures`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from rag.evaluation.statistics import clustered_share


class Cause(StrEnum):
    """Why an answer is wrong."""

    NOT_IN_DOCUMENTS = "not_in_documents"
    """No passage states the gold answer."""
    NOT_FOUND = "not_found"
    """The search does not return the gold passage among its first hits."""
    CROWDED_OUT = "crowded_out"
    """The search returns it, but others took the place in the prompt."""
    IGNORED = "ignored"
    """The model was shown it and answers something else."""
    REFUSED_WRONGLY = "refused_wrongly"
    """The question has an answer and was refused, with the gold passage too."""
    ANSWERED_WRONGLY = "answered_wrongly"
    """The question has no answer, and was answered."""
    FORM = "form"
    """The answer states the gold, but not in the form that the gold or the plan's checks have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """The answer that was given with the gold passage."""

    passages: str
    """``alone``; ``first`` where the gate refused the question with the gold passage before the others too."""
    answer: str
    right: bool
    refused: bool

    def to_json(self) -> dict[str, Any]:
        """Return the replay as a key of a question in ``why --json``."""
        return {
            "passages": self.passages,
            "answer": self.answer,
            "right": self.right,
            "refused": self.refused,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedAnswer:
    """One wrong answer with its cause."""

    id: str
    question: str
    answer: str
    cause: Cause
    evidence: str
    """What the cause was decided by, in a sentence."""
    document: str | None = None
    """The source document of the question, by which intervals are clustered."""
    gold: str | None = None
    """Where the gold passage is, as "fares.md:12-14"; None where no passage states the gold."""
    rank: int | None = None
    """Position of the gold passage in the search, from 1; None where it is not among the first hits."""
    replay: Replay | None = None
    """None where the cause was plain without another answer."""

    def to_json(self) -> dict[str, Any]:
        """Return the answer as ``why --json`` lists it."""
        return {
            "id": self.id,
            "cause": self.cause.value,
            "evidence": self.evidence,
            "question": self.question,
            "answer": self.answer,
            "gold": self.gold,
            "rank": self.rank,
            "replay": self.replay.to_json() if self.replay else None,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Failures:
    """The wrong answers of one arm, each with its cause."""

    arm: str
    seed: int
    answers: tuple[FailedAnswer, ...]
    asked: int
    """Answers of the arm that could be judged."""
    wrong: int
    """How many of them are wrong; the others listed are right, but not in form."""
    replayed: int = 0
    """How many were answered again with their gold passage, now or before."""
    notes: tuple[str, ...] = ()

    def of(self, cause: Cause) -> list[FailedAnswer]:
        """Return the answers with this cause."""
        return [answer for answer in self.answers if answer.cause == cause]

    def to_json(self) -> dict[str, Any]:
        """Return what ``why --json`` prints: counts of all causes with Wilson intervals clustered by document."""
        return {
            "schema": 1,
            "arm": self.arm,
            "seed": self.seed,
            "asked": self.asked,
            "wrong": self.wrong,
            "replayed": self.replayed,
            "causes": {cause.value: _share(self.answers, cause) for cause in Cause},
            "questions": [answer.to_json() for answer in self.answers],
            "notes": list(self.notes),
        }


def _share(answers: Sequence[FailedAnswer], cause: Cause) -> dict[str, Any]:
    values = [float(answer.cause == cause) for answer in answers]
    # without a document an answer is a group of its own
    share = clustered_share(values, [answer.document for answer in answers]) if values else None
    return {
        "n": int(sum(values)),
        "of": len(values),
        "low": round(share.low, 4) if share else 0.0,
        "high": round(share.high, 4) if share else 1.0,
    }
