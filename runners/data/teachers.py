"""Which models wrote the rows that something is trained on, and whether their licences allow that, as a person answered it.

A row that ``tunewise examples make --teacher`` wrote names its teacher in ``meta``, with the answer to
:data:`LICENSE_QUESTION`. It is asked there, stored with the rows, and repeated by what reads them: notes of a run, the
manifest and the card of the weights, exports. The program never answers it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rag.files import MANIFEST
from rag.text.words import count_noun
from runners.data.examples import Example

GRAMMAR = "question grammar"
"""Name of what makes questions without a teacher."""
LICENSE_QUESTION = "Does the teacher's licence allow training on its answers?"
LICENSE_ANSWERS = ("yes", "no", "unknown")
"""What a person may answer."""
NOT_ANSWERED = "not answered"
"""Stored where the question was not asked, and assumed of rows that were made before it was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowTeacher:
    """A model that wrote replies of training rows."""

    name: str
    host: str
    """Host and port of its endpoint; "" for a model on the machine where the rows were made."""
    license: str
    """The answer to :data:`LICENSE_QUESTION`: yes, no, unknown or not answered."""
    rows: int
    """How many of the rows it wrote; of weights that were continued, of all rows they were trained on."""

    @property
    def title(self) -> str:
        """Its name, with its host if it has one."""
        return f"{self.name} ({self.host})" if self.host else self.name

    @property
    def answer(self) -> str:
        """The question with its answer, as a sentence."""
        if self.license == NOT_ANSWERED:
            return f"{LICENSE_QUESTION} Not answered by those who made the rows."
        return f"{LICENSE_QUESTION} Answered by those who made the rows, not checked: {self.license}."

    @property
    def line(self) -> str:
        """How many rows it wrote, and the question with its answer, as cards have it."""
        return f"{count_noun(self.rows, 'row')} by {self.title}. {self.answer}"

    def sentence(self, of: int, noun: str = "training row") -> str:
        """Return how many of so many rows it wrote, and the question with its answer."""
        return f"{self.rows:,} of {count_noun(of, noun)} {_were(self.rows)} written by {self.title}. {self.answer}"


def teachers_of_rows(rows: Iterable[Example]) -> tuple[RowTeacher, ...]:
    """Return the teachers of rows, that of most rows first; () where no row was made by one."""
    counts = Counter(row_teacher(row.meta) for row in rows if row.is_made)
    return tuple(replace(teacher, rows=count) for teacher, count in counts.most_common() if teacher)


def row_teacher(meta: Mapping[str, Any]) -> RowTeacher | None:
    """Return the teacher that the values of a made row name, with one row; None for a row made by rule."""
    named = meta.get("teacher")
    if not isinstance(named, dict) or not named.get("name") or named["name"] == GRAMMAR:
        return None
    answer = str(named.get("license", NOT_ANSWERED))
    return RowTeacher(
        name=teacher_name(str(named["name"])),
        host=str(named.get("host", "")),
        license=answer if answer in LICENSE_ANSWERS else NOT_ANSWERED,
        rows=1,
    )


def teacher_name(name: str) -> str:
    """Return the name of a model without the path, where it is a folder."""
    return Path(name).name if Path(name).expanduser().is_absolute() else name


def recorded_teachers(folder: Path) -> tuple[RowTeacher, ...]:
    """Return the teachers that the manifest of trained weights, or of their export, records; () without any."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
        return teachers_from_json((manifest.get("data") or manifest.get("export") or {}).get("teachers"))
    except (
        OSError,
        ValueError,
        KeyError,
        AttributeError,
    ):  # no folder of ours, or damaged: others check that
        return ()


def teachers_from_json(values: Any) -> tuple[RowTeacher, ...]:
    """Return the teachers of a manifest's list; () for none."""
    return tuple(
        RowTeacher(
            name=str(value["name"]),
            host=str(value.get("host", "")),
            license=str(value.get("license", NOT_ANSWERED)),
            rows=int(value.get("rows", 0)),
        )
        for value in values or ()
    )


def teachers_to_json(teachers: Iterable[RowTeacher]) -> list[dict[str, Any]]:
    """Return teachers as a manifest lists them."""
    return [asdict(teacher) for teacher in teachers]


def joined_teachers(*groups: Iterable[RowTeacher]) -> tuple[RowTeacher, ...]:
    """Return the teachers of several trainings one after the other, with the sums of their rows."""
    rows: Counter[RowTeacher] = Counter()
    for teacher in (teacher for group in groups for teacher in group):
        rows[replace(teacher, rows=0)] += teacher.rows
    return tuple(replace(teacher, rows=count) for teacher, count in rows.items())


def _were(count: int) -> str:
    return "was" if count == 1 else "were"
