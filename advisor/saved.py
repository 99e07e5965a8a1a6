"""Profiles kept under a name: answers files in the user's configuration folder."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

from platformdirs import user_config_path

from advisor.answers import Answer, Answers
from advisor.sheet import read_answers, save_answers
from advisor.values import names_a_path
from rag.errors import BadInput

NAME = re.compile(r"^[a-z0-9][a-z0-9._-]{0,63}$")
PATHS = ("documents", "examples", "questions", "prompt", "model")


@dataclass(frozen=True, slots=True)
class Saved:
    """One kept profile, or why it cannot be read."""

    name: str
    path: Path
    day: date
    answers: Mapping[str, Answer]
    problem: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the row that ``plan --profiles --json`` prints."""
        values = {key: answer.value for key, answer in self.answers.items()}
        return {"name": self.name, "path": str(self.path), "saved": self.day.isoformat(), "answers": values,
                "problem": self.problem}  # fmt: skip


def folder() -> Path:
    """Return where profiles are kept: TUNEWISE_PROFILES, else the user's configuration folder."""
    chosen = os.environ.get("TUNEWISE_PROFILES")
    return Path(chosen).expanduser() if chosen else user_config_path("tunewise", appauthor=False) / "profiles"


def check_name(name: str) -> str:
    """Return the name; BadInput when it would not do as a file's name everywhere."""
    if not NAME.match(name):
        raise BadInput(
            f"a profile cannot be named {name!r}",
            "use small letters, digits, dots, dashes and underscores, beginning with a letter or digit",
        )
    return name


def save(name: str, answers: Answers) -> Path:
    """Keep what a person answered under a name, atomically, replacing an older one; paths become absolute.

    Raises BadInput for an impossible name and when there is nothing to keep, CannotRun when it cannot be written.
    """
    path = folder() / f"{check_name(name)}.yaml"
    said = {key: answers[key] for key in answers if answers[key].source in ("flag", "file", "asked")}
    if not said:
        raise BadInput(f"there is nothing to keep as {name!r}: no answer came from you", "answer something")
    kept = {
        key: replace(answer, source="asked", value=_absolute(key, answer.value))
        for key, answer in said.items()
    }
    save_answers(Answers().add("asked", kept), path)
    return path


def find(name: str) -> Path:
    """Return the file of a kept profile; BadInput, with the closest name, when there is none."""
    path = folder() / f"{check_name(name)}.yaml"
    if path.is_file():
        return path
    names = [saved.stem for saved in _files()]
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    known = f"kept: {', '.join(names)}" if names else "none is kept yet: tunewise plan --save NAME"
    raise BadInput(f"no profile is named {name!r}", f"did you mean {close[0]}? ({known})" if close else known)


def every() -> tuple[Saved, ...]:
    """Return all kept profiles by name; one that cannot be read says why instead of its answers."""
    return tuple(_read(path) for path in _files())


def _files() -> list[Path]:
    return sorted(path for path in folder().glob("*.yaml") if NAME.match(path.stem))


def _read(path: Path) -> Saved:
    day = date.fromtimestamp(path.stat().st_mtime)
    try:
        return Saved(path.stem, path, day, read_answers(path))
    except BadInput as problem:
        return Saved(path.stem, path, day, {}, problem.message)


def _absolute(key: str, value: Any) -> Any:
    if key in PATHS and isinstance(value, str) and names_a_path(value):
        return str(Path(value).expanduser().resolve())
    return value
