"""Answers files: YAML or JSON files that are read, layered into the answers, and written.

:func:`read_answers` reads one, or the answers of a plan; :func:`save_answers` writes one. Profiles saved
under a name (``plan --save``) are answers files in the user's configuration folder.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import yaml
from platformdirs import user_config_path

from advisor.output import command_line
from advisor.questionnaire.answers import PERSON_SOURCES, SOURCES, Answer, Answers, names_a_path, read_answer
from advisor.questionnaire.probe_facts import PROBE_FACTS, ProbeFacts
from advisor.questionnaire.questions import QUESTION_BY_ID
from rag.errors import BadInput
from rag.files import write_bytes, write_text
from rag.text.bounded_yaml import load_yaml

MAX_ANSWERS_BYTES = 2_000_000
PROFILE_NAME = re.compile(r"^[a-z0-9][a-z0-9._-]{0,63}$")
PROFILE_PATH_KEYS = ("documents", "examples", "questions", "prompt", "model")


@dataclass(frozen=True, slots=True)
class SavedProfile:
    """One saved profile, or the reason why it cannot be read."""

    name: str
    path: Path
    day: date
    answers: Mapping[str, Answer]
    problem: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the row that ``plan --profiles --json`` prints."""
        values = {key: answer.value for key, answer in self.answers.items()}
        return {
            "name": self.name,
            "path": str(self.path),
            "saved": self.day.isoformat(),
            "answers": values,
            "problem": self.problem,
        }


def read_answers(path: Path) -> dict[str, Answer]:
    """Read an answers file: YAML or JSON, a plain mapping or a plan (whose ``answers`` carry sources).

    Raises:
        BadInput: for a missing, unreadable or oversized file, an unknown key or an invalid value.
    """
    loaded = _load(path)
    if isinstance(loaded.get("answers"), dict) and "answers" not in QUESTION_BY_ID:
        loaded = _answers_of_plan(loaded, path.parent)
    answers: dict[str, Answer] = {}
    for key, value in loaded.items():
        note = ""
        source = "file"
        if isinstance(value, Mapping) and not (key in ("columns", "models") and "value" not in value):
            if "value" not in value or not set(value) <= {"value", "source", "note"}:
                raise BadInput(f"{path}: {key} should be a value, or a mapping of value, source and note")
            note = str(value.get("note") or "")
            source = str(value.get("source") or "file")
            value = value["value"]
            if source not in SOURCES:
                raise BadInput(
                    f"{path}: {key} has the unknown source {source!r}", f"known: {', '.join(SOURCES)}"
                )
        if key == PROBE_FACTS and source != "probed":
            raise BadInput(f"{path}: {key} is measured, not answered", "leave it out, or run: tunewise probe")
        try:
            answers[str(key)] = Answer(_read_entry(str(key), value), source, note)
        except BadInput as problem:
            raise BadInput(f"{path}: {problem.message}", problem.hint) from None
    return answers


def with_answers_file(answers: Answers, loaded: Mapping[str, Answer]) -> Answers:
    """Return answers with a file's added.

    What a person gave (flag, file, asked, config) counts as ``file``. Of what was measured only ``probed`` is
    taken over, with its source; the rest is measured again on this machine.
    """
    measured = ("probed", "counted", "detected", "default")
    from_person = {key: replace(a, source="file") for key, a in loaded.items() if a.source not in measured}
    probed = {key: answer for key, answer in loaded.items() if answer.source == "probed"}
    return answers.add("file", from_person).add("probed", probed)


def save_answers(answers: Answers, path: Path) -> None:
    """Write what a person answered and what a probe settled (not what is counted or detected) as YAML, atomically."""
    values: dict[str, Any] = {}
    for key, answer in answers.items():
        if answer.source in PERSON_SOURCES:
            values[key] = answer.value
        elif answer.source == "probed":
            values[key] = {"value": answer.value, "source": answer.source, "note": answer.note}
    values |= probe_facts_entry(answers)
    body = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    write_text(path, "# Answers for: tunewise plan --answers " + path.name + "\n" + body)


def save_interview(answers: Answers, path: Path) -> list[str]:
    """Save what a person answered in an interview, nothing where nothing was; other answers that were there stay beside it.

    Returns:
        Lines that say so, with the command that goes on from them.

    Raises:
        CannotRun: when the file cannot be written.
    """
    if not any(answers[key].source in ("flag", "file", "asked") for key in answers):
        return []
    before = path.read_bytes() if path.is_file() else b""
    save_answers(answers, path)
    lines = ["your answers are saved; continue with:", f"  {command_line('plan', '--answers', path)}"]
    if before and before != path.read_bytes():
        backup = path.with_suffix(".yaml.bak")
        write_bytes(backup, before)
        lines.append(f"the answers that were saved before are in {backup}")
    return lines


def probe_facts_entry(answers: Answers) -> dict[str, Any]:
    """Return what a probe measured as the entry of an answers file or a plan; {} without a probe."""
    if PROBE_FACTS not in answers.layers.get("probed", {}):
        return {}
    answer = answers[PROBE_FACTS]
    return {PROBE_FACTS: {"value": answer.value, "source": answer.source, "note": answer.note}}


def profiles_folder() -> Path:
    """Return the folder of saved profiles: TUNEWISE_PROFILES, else one in the user's configuration folder."""
    chosen = os.environ.get("TUNEWISE_PROFILES")
    return Path(chosen).expanduser() if chosen else user_config_path("tunewise", appauthor=False) / "profiles"


def check_profile_name(name: str) -> str:
    """Return the name; BadInput when it is not a valid file name on every system."""
    if not PROFILE_NAME.match(name):
        raise BadInput(
            f"a profile cannot be named {name!r}",
            "use small letters, digits, dots, dashes and underscores, beginning with a letter or digit",
        )
    return name


def save_profile(name: str, answers: Answers) -> Path:
    """Save what a person answered under a name, atomically; an older profile is replaced.

    Raises:
        BadInput: for an invalid name, and when there is nothing to save.
        CannotRun: when the file cannot be written.
    """
    path = profiles_folder() / f"{check_profile_name(name)}.yaml"
    from_person = {key: answers[key] for key in answers if answers[key].source in ("flag", "file", "asked")}
    if not from_person:
        raise BadInput(f"there is nothing to save as {name!r}: no answer came from you", "answer something")
    saved = {
        key: replace(answer, source="asked", value=_absolute(key, answer.value))
        for key, answer in from_person.items()
    }
    save_answers(Answers().add("asked", saved), path)
    return path


def find_profile(name: str) -> Path:
    """Return the file of a saved profile; BadInput, with the closest name, when there is none."""
    path = profiles_folder() / f"{check_profile_name(name)}.yaml"
    if path.is_file():
        return path
    names = [saved.stem for saved in _files()]
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"kept: {', '.join(names)}" if names else "none is saved yet: tunewise plan --save NAME"
    raise BadInput(f"no profile is named {name!r}", f"did you mean {close[0]}? ({hint})" if close else hint)


def all_profiles() -> tuple[SavedProfile, ...]:
    """Return all saved profiles by name; one that cannot be read has a ``problem`` instead of answers."""
    return tuple(_read(path) for path in _files())


def _answers_of_plan(plan: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return a plan's answers, with the paths that the plan itself names in place of those recorded.

    The plan of a run folder names its files in full, while its answers are recorded as they were given.
    """
    data = _mapping(plan.get("data"))
    prompts = _mapping(plan.get("prompts"))
    answers = dict(plan["answers"])
    plan_values = {key: data.get(key) for key in ("documents", "examples", "questions")}
    prompt = answers.get("prompt")
    prompt = prompt.get("value") if isinstance(prompt, Mapping) else prompt
    if (
        isinstance(prompt, str)
        and prompt.endswith((".txt", ".md"))
        and not names_a_path(str(folder / prompt))
    ):
        plan_values["prompt"] = prompts.get("system")
    for key, value in plan_values.items():
        if value and isinstance(answers.get(key), Mapping) and answers[key].get("value"):
            answers[key] = {**answers[key], "value": value}
    return answers


def _read_entry(key: str, value: Any) -> Any:
    """Return the checked value of an entry: an answer, or what a probe measured."""
    return ProbeFacts.of_json(value).to_json() if key == PROBE_FACTS else read_answer(key, value)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _load(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML or JSON file, {} for an empty one; BadInput when it is anything else."""
    try:
        if path.stat().st_size > MAX_ANSWERS_BYTES:
            raise BadInput(f"answers file {path} is larger than {MAX_ANSWERS_BYTES:,} bytes")
        text = path.read_text("utf-8")
        loaded = json.loads(text) if path.suffix == ".json" else load_yaml(text, aliases=False)
    except FileNotFoundError:
        raise BadInput(f"no answers file at {path}", "make one with: tunewise plan") from None
    except OSError as error:
        raise BadInput(f"answers file {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise BadInput(f"answers file {path} is not UTF-8 text (byte {error.start})") from None
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise BadInput(
            f"answers file {path} cannot be parsed: {' '.join(str(error).split())[:200]}"
        ) from None
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise BadInput(f"answers file {path} is not a mapping of question ids to answers")
    return loaded


def _files() -> list[Path]:
    return sorted(path for path in profiles_folder().glob("*.yaml") if PROFILE_NAME.match(path.stem))


def _read(path: Path) -> SavedProfile:
    """Read one saved profile."""
    day = date.fromtimestamp(path.stat().st_mtime)
    try:
        return SavedProfile(path.stem, path, day, read_answers(path))
    except BadInput as problem:
        return SavedProfile(path.stem, path, day, {}, problem.message)


def _absolute(key: str, value: Any) -> Any:
    """Return an answer with its path made absolute."""
    if key in PROFILE_PATH_KEYS and isinstance(value, str) and names_a_path(value):
        return str(Path(value).expanduser().resolve())
    return value
