"""Answers of the questionnaire: how one is read and checked, and how those of several sources are layered.

:func:`read_answer` checks one value (text as a person types it, or a value from a file) against its question.
:class:`Answers` keeps one layer per source; the strongest source wins: flag > answers file > asked > own
settings > probed, counted, detected > default.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from advisor.questionnaire.model_questions import models_line, parse_models
from advisor.questionnaire.probe_facts import PROBE_FACTS, ProbeFacts
from advisor.questionnaire.question_types import Question
from advisor.questionnaire.questions import QUESTION_BY_ID
from rag.errors import BadInput
from runners.data.formats import declared_columns, parse_columns

_YES = ("yes", "y", "true", "1", "on")
_NO = ("no", "n", "false", "0", "off")
_SCALE = {"k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9}
_NUMBER = re.compile(r"^([0-9][0-9_,]*(?:\.[0-9]+)?(?:e[0-9]+)?)\s*(k|m|b|g)?\s*([a-z%$]*)$", re.IGNORECASE)
_UNITS = {"", "gib", "gb", "g", "b", "ms", "usd", "$", "days", "day", "tokens", "ib"}
UNKNOWN_WORDS = ("", "?", "unknown", "null", "don't know")
SOURCES: tuple[str, ...] = ("flag", "file", "asked", "config", "probed", "counted", "detected", "default")
"""Strongest first."""
PERSON_SOURCES: tuple[str, ...] = ("flag", "file", "asked")
"""Sources by which the user gave an answer for this plan."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A value (None is unknown), its source, and a note on how it was found."""

    value: Any
    source: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Answers(Mapping[str, Answer]):
    """Answers by source; as a mapping, each key has the answer of the strongest source that knows it.

    "Unknown" (a value of None) never hides a value that a weaker source knows; it is the answer only where no source has
    a value.
    """

    layers: Mapping[str, Mapping[str, Answer]] = field(default_factory=dict)

    def put(self, source: str, values: Mapping[str, Any], notes: Mapping[str, str] | str = "") -> Answers:
        """Return answers with these values added under a source, checked against their questions.

        Args:
            source: one of :data:`SOURCES`.
            values: question ids and values, as :func:`read_answer` takes them.
            notes: how each was found, or one text for all.
        """
        note_of = notes if isinstance(notes, Mapping) else dict.fromkeys(values, notes)
        new = {
            key: Answer(read_answer(key, value), source, note_of.get(key, ""))
            for key, value in values.items()
        }
        return self.add(source, new)

    def add(self, source: str, answers: Mapping[str, Answer]) -> Answers:
        """Return answers with these already checked ones added to a source's layer."""
        return replace(self, layers={**self.layers, source: {**self.layers.get(source, {}), **answers}})

    def drop(self, source: str, keys: Iterable[str]) -> Answers:
        """Return answers without these keys of one source."""
        dropped = set(keys)
        remaining = {key: answer for key, answer in self.layers.get(source, {}).items() if key not in dropped}
        return replace(self, layers={**self.layers, source: remaining})

    def override(self, key: str, value: Any) -> Answers:
        """Return answers in which this new answer of the person wins over a flag or answers file."""
        return self.drop("flag", [key]).drop("file", [key]).put("asked", {key: value})

    def __getitem__(self, key: str) -> Answer:
        """Return the answer of the strongest source that has a value, else the strongest "unknown".

        Raises:
            KeyError: no source has an answer.
        """
        given = [layer[key] for source in SOURCES if key in (layer := self.layers.get(source, {}))]
        if not given:
            raise KeyError(key)
        return next((answer for answer in given if answer.value is not None), given[0])

    def __iter__(self) -> Iterator[str]:
        """Iterate over the answered keys in the questionnaire's order."""
        present = {key for layer in self.layers.values() for key in layer}
        return (key for key in QUESTION_BY_ID if key in present)

    def __len__(self) -> int:
        """Return how many keys have an answer."""
        return sum(1 for _ in self)

    def value(self, key: str) -> Any:
        """Return the value of an answer; None when it is unknown or no source has one."""
        return self[key].value if key in self else None

    def from_person(self, key: str) -> bool:
        """Return whether the value of an answer was given by the user, for this plan or in the own settings."""
        return self.value(key) is not None and self[key].source in (*PERSON_SOURCES, "config")

    @property
    def probe(self) -> ProbeFacts:
        """What a probe measured; it is carried in the layer of probed answers, and is none of the keys."""
        return ProbeFacts.of_json(self.value(PROBE_FACTS))

    @property
    def values_known(self) -> dict[str, Any]:
        """The values alone, unknown ones as None."""
        return {key: self[key].value for key in self}


def refused_answer(question: Question, value: Any, close: list[str] | None = None) -> BadInput:
    """Return the error for a value that the question does not allow; its hint lists what is allowed."""
    hint = f"allowed: {question.allowed}, or unknown"
    if close:
        hint = f"did you mean {close[0]}? ({hint})"
    return BadInput(f"{question.id} cannot be {value!r}", hint)


def question_of(key: str) -> Question:
    """Return the question of this id; BadInput with the closest id when there is none."""
    if key in QUESTION_BY_ID:
        return QUESTION_BY_ID[key]
    close = difflib.get_close_matches(key, QUESTION_BY_ID, n=1)
    hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(QUESTION_BY_ID)}"
    raise BadInput(f"unknown question {key!r}", hint)


def read_answer(key: str, value: Any) -> Any:
    """Return the checked value of an answer; None is unknown.

    Args:
        key: the question's id.
        value: what a person types ("24 GB", "10k", "80%", "yes") or what a file holds.

    Raises:
        BadInput: naming the key, the value and what is allowed.
    """
    question = question_of(key)
    if value is None or (isinstance(value, str) and value.strip().lower() in UNKNOWN_WORDS):
        return None
    if isinstance(value, str) and question.none_allowed and value.strip().lower() == "none":
        return "none"
    if isinstance(value, float) and not math.isfinite(value):
        raise refused_answer(question, value)
    return ANSWER_READERS[question.kind](question, value)


def names_a_path(text: str) -> bool:
    """Return whether a file or folder exists at this path; False for texts that cannot be paths."""
    try:
        return Path(text).expanduser().exists()
    except (OSError, ValueError, RuntimeError):
        return False


def format_answer(value: Any, width: int = 0) -> str:
    """Return a value as one line of text; longer than ``width`` (0: no limit), it ends in an ellipsis."""
    if value is None:
        return "unknown"
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = f"{value:,}" if isinstance(value, int) else " ".join(str(value).split())
    return text if not width or len(text) <= width else text[: width - 1] + "…"


def _text(question: Question, value: Any) -> str:
    """Read a text."""
    if not isinstance(value, str):
        raise refused_answer(question, value)
    return value.strip()


def _choice(question: Question, value: Any) -> str:
    """Read one of a question's choices."""
    names = [choice.value for choice in question.choices]
    text = str(value).strip().lower()
    if text in names:
        return text
    if text == "false" and "none" in names:  # YAML 1.1 reads a bare `no` as false
        return "none"
    raise refused_answer(question, value, difflib.get_close_matches(text, names, n=1))


def _flag(question: Question, value: Any) -> bool:
    """Read yes or no."""
    if isinstance(value, bool):
        return value
    text = str(value).strip().lower()
    if text in _YES or text in _NO:
        return text in _YES
    raise refused_answer(question, value)


def _number(question: Question, value: Any) -> float | int:
    """Read a number or whole number within the question's bounds."""
    if isinstance(value, bool):
        raise refused_answer(question, value)
    number = float(value) if isinstance(value, int | float) else _scaled_number(question, str(value))
    if not question.low <= number <= question.high:
        raise refused_answer(question, value)
    if question.kind == "count":
        if number != int(number) or number > 1e18:
            raise refused_answer(question, value)
        return int(number)
    return int(number) if number == int(number) and question.kind == "number" else number


def _share(question: Question, value: Any) -> float:
    """Read a share from 0 to 1, or a percentage."""
    if isinstance(value, str) and value.strip().endswith("%"):
        value = _scaled_number(question, value.strip()[:-1]) / 100
    number = float(_number(question, value))
    if not 0 <= number <= 1:
        raise refused_answer(question, value)
    return number


def _scaled_number(question: Question, text: str) -> float:
    """Read "24G", "80 GB", "1.2M", "10k"; a G or B after memory or parameters is a unit, not a billion."""
    match = _NUMBER.match(text.strip())
    if not match:
        raise refused_answer(question, text)
    scale = (match[2] or "").lower()
    unit = match[3].lower()
    if question.kind != "count" and scale in ("g", "b"):
        scale = ""
        unit = ""
    if unit not in _UNITS:
        raise refused_answer(question, text)
    return float(match[1].replace(",", "").replace("_", "")) * _SCALE.get(scale, 1.0)


def _columns(question: Question, value: Any) -> str:
    """Read the columns of roles: ``prompt=a,reply=b`` or a mapping, checked and written in the first form."""
    if not isinstance(value, str | Mapping):
        raise refused_answer(question, value)
    columns = parse_columns(value) if isinstance(value, str) else {str(k): str(v) for k, v in value.items()}
    return ",".join(f"{role}={name}" for role, name in declared_columns(columns).of.items())


def _models(question: Question, value: Any) -> str:
    """Read models by alias: ``a=NAME, b=NAME`` or a mapping, checked and written in the first form."""
    if not isinstance(value, str | Mapping):
        raise refused_answer(question, value)
    return models_line(parse_models(value))


ANSWER_READERS = {
    "columns": _columns,
    "models": _models,
    "text": _text,
    "path": _text,
    "choice": _choice,
    "flag": _flag,
    "count": _number,
    "number": _number,
    "share": _share,
}
"""The reader of each kind of question."""
