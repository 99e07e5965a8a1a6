"""Layered answers: flag > answers file > asked > own settings > probed, counted, detected > default, with sources."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from advisor.questions import BY_ID
from advisor.values import read

SOURCES: tuple[str, ...] = ("flag", "file", "asked", "config", "probed", "counted", "detected", "default")
"""Strongest first."""
PERSON: tuple[str, ...] = ("flag", "file", "asked")
"""Sources by which the user gave this answer for this plan."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A value (None is unknown), where it came from, and how it was found."""

    value: Any
    source: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Answers(Mapping[str, Answer]):
    """What is answered so far: for every key the answer of the strongest source that gave one.

    An explicit unknown counts as an answer: it hides what weaker sources say.
    """

    layers: Mapping[str, Mapping[str, Answer]] = field(default_factory=dict)

    def put(self, source: str, values: Mapping[str, Any], notes: Mapping[str, str] | str = "") -> Answers:
        """Return answers with these values added under a source, checked against their questions."""
        said = notes if isinstance(notes, Mapping) else dict.fromkeys(values, notes)
        new = {key: Answer(read(key, value), source, said.get(key, "")) for key, value in values.items()}
        return self.add(source, new)

    def add(self, source: str, answers: Mapping[str, Answer]) -> Answers:
        """Return answers with ready-made ones added to a source's layer."""
        return replace(self, layers={**self.layers, source: {**self.layers.get(source, {}), **answers}})

    def drop(self, source: str, keys: Iterable[str]) -> Answers:
        """Return answers without these keys of one source."""
        gone = set(keys)
        kept = {key: answer for key, answer in self.layers.get(source, {}).items() if key not in gone}
        return replace(self, layers={**self.layers, source: kept})

    def override(self, key: str, value: Any) -> Answers:
        """Return answers in which the person's new answer counts, whatever layer held the key before."""
        return self.drop("flag", [key]).drop("file", [key]).put("asked", {key: value})

    def __getitem__(self, key: str) -> Answer:
        """Return the answer of the strongest source; KeyError when no source has one."""
        for source in SOURCES:
            if key in (layer := self.layers.get(source, {})):
                return layer[key]
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        """Iterate over the answered keys in the questionnaire's order."""
        present = {key for layer in self.layers.values() for key in layer}
        return (key for key in BY_ID if key in present)

    def __len__(self) -> int:
        """Return how many keys have an answer."""
        return sum(1 for _ in self)

    @property
    def values_known(self) -> dict[str, Any]:
        """The values alone, unknown ones as None."""
        return {key: self[key].value for key in self}
