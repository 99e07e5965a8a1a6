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
GRADE_MEANING: Mapping[Grade, str] = {
    "right": "states what the documents (or the gold answer) say, and nothing wrong",
    "partly": "part of it, or with something wrong beside it",
    "wrong": "the rest, and a refusal of a question that has an answer",
}
"""What people and judges are told that each grade means."""
FORM_DOES_NOT_COUNT = "Form (signature, tone, length) does not count"
LETTERS = "AB"
"""The answers of a task, by their places."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelPassage:
    """A passage that was found for one of the answers, or has the gold answer."""

    doc_id: str
    title: str
    text: str
    start: int
    """Offset of the text in its document."""
    sentences: tuple[tuple[int, int], ...]
    """(start, end) of each sentence, as offsets in ``text``."""
    gold: tuple[int, ...] = ()
    """Numbers of the sentences that have the gold answer of the file, from 0."""
    found: bool = True
    """Whether the search of an arm found it."""


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
    """What was found for either answer, each passage once, and the gold passage; () where none can be read."""
    answers: tuple[str, ...]
    """Two answers in an order drawn for each question and person; one where both are equal."""
    grades: tuple[Grade | None, ...]
    """This person's grade of each answer."""
    graded_before: tuple[bool, ...]
    """Whether that grade was given on another page, where the same answer was shown with another one."""
    cut: tuple[bool, ...]
    """Whether the answer ended at the limit of length."""
    refuses: tuple[bool, ...]
    """Whether the answer refuses, as the run's scores have it."""
    better: Better | None
    answerable: bool | None
    """False where this person, or the file, says that the documents have no answer; None where nothing was said."""
    by_file: bool
    """Whether the file says that the documents have no answer."""
    assumed: bool
    """Whether only the file says so: going on without grades agrees with it, by :meth:`LabelSession.set_answerable`."""
    sentence: LabelSentence | None
    """The gold sentence that this person marked."""
    skipped: bool
    done: bool
    """Whether nothing is missing: both answers graded, or not answerable, or skipped."""
    page: int
    """Which of this person's pages it is, from 1; a question comes again with other answers on another page."""
    notice: str
    """On the first page of a comparison: which one is finished and why, and which comes next; else ""."""
    note: str
    """What else is to be known of the question; else ""."""

    @property
    def consequence(self) -> str:
        """What the answers count where the documents have no answer; "" where they have one."""
        if self.answerable is not False:
            return ""
        of = [
            f"{letter} counts as {'right, as it refuses' if refuses else 'wrong, as it does not refuse'}"
            for letter, refuses, grade in zip(LETTERS, self.refuses, self.grades, strict=False)
            if grade is None
        ]
        return "; ".join(
            [*of, "no grades are needed, except where that is not so"] if of else ["by your grades"]
        )


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
    """Labelled rows that do not count yet, since one in front of them in the order is not labelled."""
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
    forecast: str
    """How many labels there are and are missing, as a clause; nothing of which arm is better, which would bias graders."""
    waiting: str
    """What labels that do not count yet wait for, as a clause; "" without any."""
    result: str
    """What the labels say of the two, as a sentence, for the end."""

    @property
    def state(self) -> str:
        """How far the pair is, without the names of its arms."""
        return f"{self.forecast}; {self.waiting}" if self.waiting else self.forecast


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
    """What a person has labelled, and what all people's labels tell of each pair of arms that is asked about."""

    by: str
    pages: int
    """Pages that this person has labelled: a question with two answers is one, with others another one."""
    skipped: int
    """Questions that this person skipped."""
    clicks: int
    """Labels of this person that were not undone."""
    at_hand: int | None
    """The place of the pair at hand in ``pairs``; None where nothing is left."""
    pairs: tuple[PairProgress, ...]
    """In the order in which they are asked about."""
    others: tuple[str, ...]
    """Arms that the recommended one is compared with on request only: it would hardly change the verdict."""
    more: bool
    """Whether on request more is asked: these comparisons, or the other rows of finished ones."""
    agreement: Agreement | None
    """None with one person."""
    notes: tuple[str, ...]
    """What was left out: torn lines of journals, questions that the run did not ask."""

    @property
    def pair(self) -> PairProgress:
        """The pair at hand, else the first one."""
        return self.pairs[self.at_hand or 0]

    @property
    def position(self) -> str:
        """Which comparison is at hand, and its state; nothing of how far people agree, or which arm is better."""
        if self.at_hand is None:
            return ""
        return f"comparison {self.at_hand + 1} of {len(self.pairs)}: {self.pair.state}"

    @property
    def finished(self) -> str:
        """What is said when nothing is left."""
        if not self.more:
            return "Every question is labelled or skipped."
        others = f" Not compared by people: {', '.join(self.others)}." if self.others else ""
        return f"The comparisons that can change the verdict are finished.{others}"

    @property
    def results(self) -> tuple[str, ...]:
        """What the labels say of the arms, and how far people agree, for the end."""
        agreement = (self.agreement.text,) if self.agreement else ()
        return (*(pair.result for pair in self.pairs if pair.labels), *agreement)
