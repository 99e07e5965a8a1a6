"""What is labelled and what comes of it, as plain records: a task for one person, and how far the labels of a run are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from runners.data.formats import Message

Grade = Literal["right", "partly", "wrong"]
Side = Literal["first", "second"]
"""An answer of a task by its place on the page, which says nothing of its arm."""
Better = Literal["first", "second", "tie"]
GRADE_VALUE: Mapping[str, float] = {"right": 1.0, "partly": 0.5, "wrong": 0.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelPassage:
    """A passage that was found for one of the answers."""

    doc_id: str
    title: str
    text: str
    start: int
    """Offset of the text in its document."""
    sentences: tuple[tuple[int, int], ...]
    """(start, end) of each sentence, as offsets in ``text``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelSentence:
    """A sentence of a document that states the answer; offsets are those of the document's text."""

    doc_id: str
    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelTask:
    """One question to label, without anything that tells which arm gave which answer, with this person's labels so far."""

    key: str
    """Names the question and both answers: a task of another state of the run is refused."""
    question: str
    history: tuple[Message, ...]
    """The turns before the question."""
    instructions: str
    """What all arms were told."""
    gold: str
    """The gold answer as this person left it, else that of the file; "" where there is none."""
    gold_edited: bool
    """Whether this person wrote it."""
    passages: tuple[LabelPassage, ...]
    """What was found for either answer, each passage once; () where nothing was looked up or it cannot be read."""
    answers: tuple[str, ...]
    """Two answers in an order drawn for each question and person; one where both are equal."""
    grades: tuple[Grade | None, ...]
    """This person's grade of each answer."""
    better: Better | None
    answerable: bool | None
    """False where this person said that the documents have no answer; None where nothing was said."""
    sentence: LabelSentence | None
    """The gold sentence that this person marked."""
    skipped: bool
    done: bool
    """Whether nothing is missing: both answers graded, or not answerable, or skipped."""
    place: str
    """How far this person is with this pair of arms: "12 of 80"."""
    note: str
    """Where the question is another wording of one, or its file says that it has no answer; else ""."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairProgress:
    """How far two arms are told apart by people's labels alone."""

    a: str
    b: str
    labels: int
    """Labelled rows that count, on which the answers differ."""
    of: int
    """Rows on which the answers differ, without the skipped ones."""
    behind_gap: int
    """Labelled rows that do not count yet, since earlier ones of the order are not labelled."""
    difference: float | None
    """Mean grade of a minus that of b; None with too few labels."""
    low: float | None
    high: float | None
    decided: bool
    """Whether the interval leaves 0 out, or everything is labelled."""
    settled: bool
    """Whether the next pair is asked for: everything is labelled, or enough is, and it is decided or cannot be."""
    more: int | None
    """How many more labels decide it by estimate; None where that cannot be said."""
    text: str
    """The same as one sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How often people give the same grade to the same answer."""

    people: int
    both: int
    """Pairs of grades of one answer by two people."""
    same: int
    kappa: float | None
    """Cohen's kappa, for more than two people over all their pairs; None where chance explains all of it."""
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelProgress:
    """What a person has labelled, and what all people's labels tell of each pair of arms."""

    by: str
    done: int
    """Questions that this person has finished, skipped ones included."""
    skipped: int
    clicks: int
    """Labels of this person that were not undone."""
    left: int
    """Questions of the pair at hand that are left for this person."""
    pairs: tuple[PairProgress, ...]
    """The pair at hand first."""
    agreement: Agreement | None
    """None with one person."""
    notes: tuple[str, ...]
    """What was left out: torn lines of journals, questions that the file does not have."""

    @property
    def text(self) -> str:
        """What the labels would bring next, as one sentence; "" where there is nothing to compare."""
        return self.pairs[0].text if self.pairs else ""
