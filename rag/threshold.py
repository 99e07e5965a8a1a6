"""The fitted decision to refuse: weights of the signals, a bias, and what it was fitted on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from rag.curve import Point
from rag.errors import BadInput
from rag.signals import NAMES, Signals, signals
from rag.types import Hit
from rag.versions import SCHEMA, check_schema


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether to refuse a question, and what that rests on."""

    refuse: bool
    score: float
    """Below 0 means refuse."""
    signals: Signals

    def to_json(self) -> dict[str, Any]:
        """Return the decision as ``ask --json`` prints it."""
        said = {name: round(value, 4) for name, value in asdict(self.signals).items()}
        return {"refuse": self.refuse, "score": round(self.score, 4), "signals": said}


@dataclass(frozen=True, slots=True)
class Threshold:
    """A fitted (or the default) decision; plain values, so that it is stored as JSON."""

    weights: Mapping[str, float]
    """By the name of a signal, for its raw value; what is not named counts nothing."""
    bias: float
    """Refuse where the weighted signals and the bias sum to less than 0."""
    how: str
    """logistic or default."""
    answerable: int = 0
    unanswerable: int = 0
    made: int = 0
    """How many of the unanswerable ones were made by leaving the gold document out."""
    balanced_accuracy: float | None = None
    """Of the chosen cut, each question judged by a fit that has not seen it; None for the default."""
    auroc: float | None = None
    """Chance that an answerable question scores above an unanswerable one, judged in the same way."""
    chosen: Point | None = None
    """What the chosen cut refuses."""
    at_most: Point | None = None
    """What the lowest cut refuses that refuses 90 % of the unanswerable ones."""
    curve: tuple[Point, ...] = ()
    note: str = field(default="", kw_only=True)

    def decide(self, question: str, hits: Sequence[Hit]) -> Decision:
        """Return whether the hits say that the documents do not hold the answer; always, without hits."""
        found = signals(question, hits)
        score = sum(weight * getattr(found, name) for name, weight in self.weights.items()) + self.bias
        return Decision(not hits or score < 0, score, found)

    def refuses(self, question: str, hits: Sequence[Hit]) -> bool:
        """Return only whether to refuse."""
        return self.decide(question, hits).refuse

    def to_json(self) -> dict[str, Any]:
        """Return the threshold as a JSON object."""
        points = {
            "chosen": self.chosen and self.chosen.to_json(),
            "at_most": self.at_most and self.at_most.to_json(),
            "curve": [point.to_json() for point in self.curve],
        }
        plain = {each.name: getattr(self, each.name) for each in fields(self) if each.name not in points}
        return {"schema": SCHEMA, **plain, "weights": dict(self.weights), **points}

    @classmethod
    def from_json(cls, obj: dict[str, Any]) -> Threshold:
        """Return the threshold of a JSON object; BadInput when it is not one, or a newer one."""
        try:
            obj = check_schema(obj, "refusal", "the refusal threshold")
            values = {each.name: obj[each.name] for each in fields(cls)}
            if unknown := sorted(set(values["weights"]) - set(NAMES)):
                raise ValueError(f"unknown signal {unknown[0]}")
            weights = {name: float(weight) for name, weight in values["weights"].items()}
            chosen, at_most = (values[name] and Point(**values[name]) for name in ("chosen", "at_most"))
            points = tuple(Point(**point) for point in values["curve"])
            return cls(
                **{**values, "weights": weights, "chosen": chosen, "at_most": at_most, "curve": points}
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BadInput(
                f"the refusal threshold is damaged: {error!r}", "fit it again with: tunewise run RUN --resume"
            ) from error
