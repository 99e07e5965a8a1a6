"""Answers files: YAML or JSON that is read, laid under what was said, and written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from advisor.answers import SOURCES, Answer, Answers
from advisor.questions import BY_ID
from advisor.values import names_a_path, read
from rag.durable import write_text
from rag.errors import BadInput

MOST_BYTES = 2_000_000


def read_answers(path: Path) -> dict[str, Answer]:
    """Read an answers file: YAML or JSON, a plain mapping or a plan (whose ``answers`` carry sources).

    Raises BadInput for a missing, unreadable or oversized file, unknown keys and impossible values.
    """
    loaded = _load(path)
    if isinstance(loaded.get("answers"), dict) and "answers" not in BY_ID:
        loaded = _as_planned(loaded, path.parent)
    found: dict[str, Answer] = {}
    for key, given in loaded.items():
        note, source = "", "file"
        if isinstance(given, Mapping):
            if "value" not in given or not set(given) <= {"value", "source", "note"}:
                raise BadInput(f"{path}: {key} should be a value, or a mapping of value, source and note")
            note, source = str(given.get("note") or ""), str(given.get("source") or "file")
            given = given["value"]
            if source not in SOURCES:
                raise BadInput(
                    f"{path}: {key} has the unknown source {source!r}", f"known: {', '.join(SOURCES)}"
                )
        try:
            found[str(key)] = Answer(read(str(key), given), source, note)
        except BadInput as problem:
            raise BadInput(f"{path}: {problem.message}", problem.hint) from None
    return found


def _as_planned(plan: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return a plan's answers with the files that it names itself: a run's plan has them in full, its answers as given."""
    data, prompts = _mapping(plan.get("data")), _mapping(plan.get("prompts"))
    found = dict(plan["answers"])
    known = {key: data.get(key) for key in ("documents", "examples", "questions")}
    given = found.get("prompt")
    given = given.get("value") if isinstance(given, Mapping) else given
    if isinstance(given, str) and given.endswith((".txt", ".md")) and not names_a_path(str(folder / given)):
        known["prompt"] = prompts.get("system")
    for key, value in known.items():
        if value and isinstance(found.get(key), Mapping) and found[key].get("value"):
            found[key] = {**found[key], "value": value}
    return found


def _mapping(found: Any) -> Mapping[str, Any]:
    return found if isinstance(found, Mapping) else {}


def layer_file(answers: Answers, loaded: Mapping[str, Answer]) -> Answers:
    """Return answers with a file's added.

    What a person said (flag, file, asked, config) counts as ``file``; what was measured keeps its source, so that it
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
