"""Layered answers: flag > answers file > asked > probed, counted, detected > default, with sources."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from advisor.questions import BY_ID
from advisor.values import read
from rag.durable import write_text
from rag.errors import BadInput

SOURCES: tuple[str, ...] = ("flag", "file", "asked", "probed", "counted", "detected", "default")
"""Strongest first."""
MOST_BYTES = 2_000_000


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


def read_answers(path: Path) -> dict[str, Answer]:
    """Read an answers file: YAML or JSON, a plain mapping or a plan (whose ``answers`` carry sources).

    Raises BadInput for a missing, unreadable or oversized file, unknown keys and impossible values.
    """
    loaded = _load(path)
    if isinstance(loaded.get("answers"), dict) and "answers" not in BY_ID:
        loaded = loaded["answers"]
    found: dict[str, Answer] = {}
    for key, given in loaded.items():
        note, source = "", "file"
        if isinstance(given, Mapping):
            if "value" not in given or not set(given) <= {"value", "source", "note"}:
                raise BadInput(f"{path}: {key} should be a value, or a mapping of value, source and note")
            note, source, given = (
                str(given.get("note") or ""),
                str(given.get("source") or "file"),
                given["value"],
            )
            if source not in SOURCES:
                raise BadInput(
                    f"{path}: {key} has the unknown source {source!r}", f"known: {', '.join(SOURCES)}"
                )
        try:
            found[str(key)] = Answer(read(str(key), given), source, note)
        except BadInput as problem:
            raise BadInput(f"{path}: {problem.message}", problem.hint) from None
    return found


def layer_file(answers: Answers, loaded: Mapping[str, Answer]) -> Answers:
    """Return answers with a file's added.

    What a person said (flag, file, asked) counts as ``file``; what was measured keeps its source, so that it
    is measured again here.
    """
    measured = ("probed", "counted", "detected", "default")
    said = {key: replace(a, source="file") for key, a in loaded.items() if a.source not in measured}
    probed = {key: answer for key, answer in loaded.items() if answer.source == "probed"}
    return answers.add("file", said).add("probed", probed)


def save_answers(answers: Answers, path: Path) -> None:
    """Write what a person answered (not what is counted or detected) as YAML, atomically."""
    said = {key: answers[key].value for key in answers if answers[key].source in ("flag", "file", "asked")}
    body = yaml.safe_dump(said, sort_keys=False, allow_unicode=True)
    write_text(path, "# Answers for: tunewise plan --answers " + path.name + "\n" + body)


def _load(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MOST_BYTES:
            raise BadInput(f"answers file {path} is larger than {MOST_BYTES:,} bytes")
        text = path.read_text("utf-8")
        loaded = json.loads(text) if path.suffix == ".json" else _NoAliases(text).get_single_data()
    except FileNotFoundError:
        raise BadInput(f"no answers file at {path}", "make one with: tunewise plan") from None
    except OSError as error:
        raise BadInput(f"answers file {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise BadInput(f"answers file {path} is not UTF-8 text (byte {error.start})") from None
    except (json.JSONDecodeError, yaml.YAMLError, RecursionError) as error:
        raise BadInput(
            f"answers file {path} cannot be parsed: {' '.join(str(error).split())[:200]}"
        ) from None
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise BadInput(f"answers file {path} holds no mapping of question ids to answers")
    return loaded


class _NoAliases(yaml.SafeLoader):
    """The safe loader without anchors: an answers file needs none, and they can blow up."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not allowed here")
        return super().compose_node(parent, index)
