"""The types of the questionnaire: a question, its choices, and the condition under which it can matter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

AnswerKind = Literal["text", "path", "columns", "models", "choice", "count", "share", "flag", "number"]
KnownAnswers = Mapping[str, Any]


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


def lacks(key: str) -> Condition:
    """Return the condition that a question has no answer."""
    return Condition((key,), lambda known: known.get(key) is None)


def both(a: Condition, b: Condition) -> Condition:
    """Return the conjunction of two conditions."""
    return Condition((*a.reads, *b.reads), lambda known: a(known) and b(known))


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
    """Why the answer matters, shown below the question."""
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
    """A few typical numbers; a more likely one may occur more than once. The least and the largest are the ends of what is
    plausible where nothing is known; a comment at the question says where the range comes from."""
    none_allowed: bool = False
    """Whether "none" (no limit) is a valid answer."""
    low: float = 0.0
    high: float = float("inf")
    unit: str = ""
    example: str = ""
    """An answer, or a case that helps to choose one; shown below the reason."""

    @property
    def plausible(self) -> tuple[float, float]:
        """The range of a numeric answer in most jobs; what is known of a job narrows it."""
        return min(self.tries), max(self.tries)

    @property
    def trial(self) -> tuple[Any, ...]:
        """Values that represent every possible answer; unknown (None) is the last."""
        if self.kind in ("text", "path"):
            return ("given", None)
        if self.kind == "columns":
            return ("prompt=prompt,reply=reply", None)
        if self.kind == "models":
            return ("a=prompted, b=tuned", None)
        named: tuple[Any, ...] = (True, False) if self.kind == "flag" else tuple(dict.fromkeys(self.tries))
        return (*(choice.value for choice in self.choices), *named, None)

    @property
    def allowed(self) -> str:
        """A description of the valid answers, for hints."""
        kinds = {
            "text": "text",
            "path": "a path",
            "columns": "prompt=COLUMN,reply=COLUMN",
            "models": "ALIAS=NAME, ALIAS=NAME",
            "flag": "yes or no",
            "share": "a number from 0 to 1",
            "count": "a whole number",
            "number": "a number",
        }
        text = ", ".join(c.value for c in self.choices) or kinds[self.kind]
        if self.kind in ("count", "number") and self.low > 0:
            text += f" of at least {self.low:g}"
        return f"{text}, or none" if self.none_allowed else text
