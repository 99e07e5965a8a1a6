"""What people's labels and a judge's grades say of pairs of arms, as records of the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rag.text.words import count_noun
from runners.report.records import Estimate

GRADED_TITLE = "Grades by people and by the judge"
GRADED_COLUMNS = (
    "pair",
    "labels",
    "Youden's J",
    "its weight",
    "difference",
    "by labels alone",
    "counts",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class GradedPair:
    """Two arms by the mean grade of their answers, right 1, partly .5, wrong 0: ``a`` less ``b``."""

    a: str
    b: str
    labels: int
    """Rows that people labelled, in the order of labelling without a gap, on which the answers differ."""
    of: int
    """Rows on which the answers differ; 0 before anybody labelled."""
    least: int
    """Labels from which a judge may count."""
    behind_gap: int = 0
    """Labelled rows that do not count yet, since earlier ones of the order are open."""
    skipped: int = 0
    """Rows that people left out, which are no part of the difference."""
    unordered: int = 0
    """Rows that were asked after the order of labelling was made, which are no part of it."""
    j: float | None = None
    """Youden's J of the judge over the labelled answers of the pair; None where it cannot be told, and without grades."""
    ungraded: int = 0
    """Rows that the judge has not graded."""
    informed: int = 0
    """Rows that the judge graded by gold that people wrote while labelling this run."""
    counts: bool = False
    """Whether the verdict compares the two by ``difference``."""
    missing: str = ""
    """What keeps the judge's grades from counting, as a clause; "" where they count, and where they are not to."""
    difference: Estimate | None = None
    """By labels and grades; None where the grades do not count."""
    p: float | None = None
    tuning: float | None = None
    """How much of the judge's difference is used, 0 to 1."""
    by_labels: Estimate | None = None
    """By people's labels alone; None without any. It decides nothing."""
    more_labels_needed: int | None = None
    """About how many more labels decide, 0 where it is decided; None where no number would."""

    @property
    def left_out(self) -> str:
        """Which rows do not count, as a sentence; "" where all do."""
        parts = [
            f"{count_noun(self.behind_gap, 'labelled row')} behind a gap in the order of labelling"
            * bool(self.behind_gap),
            f"{count_noun(self.skipped, 'row')} skipped" * bool(self.skipped),
            f"{count_noun(self.unordered, 'row')} asked after labelling began" * bool(self.unordered),
        ]
        text = ", ".join(filter(None, parts))
        return f"{self.a} against {self.b}, not counted: {text}." if text else ""

    @property
    def cells(self) -> tuple[str, ...]:
        """The row of a table with :data:`GRADED_COLUMNS`."""
        return (
            f"{self.a} against {self.b}",
            f"{self.labels} of {max(self.of, self.least)}" if self.of else f"{self.labels}",
            "–" if self.j is None else f"{self.j:.2f}",
            "–" if self.tuning is None else f"{self.tuning:.2f}",
            _signed(self.difference),
            _signed(self.by_labels),
            "yes" if self.counts else f"no: {self.missing}" if self.missing else "no",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleAgainstPeople:
    """How people grade answers that the computed score calls right, and those that it does not: right, partly, wrong."""

    right: tuple[int, int, int]
    not_right: tuple[int, int, int]

    @property
    def text(self) -> str:
        """The counts, in a sentence."""
        right, partly, wrong = self.right
        called = count_noun(sum(self.right), "labelled answer")
        return (
            f"Of {called} that the computed score calls right, people call {right} right, {partly} partly and {wrong} "
            f"wrong; of {sum(self.not_right):,} others {self.not_right[0]} right and {self.not_right[1]} partly."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class GradedAnswers:
    """People's labels of a trial's answers, and the grades of a judge that may count."""

    people: int
    """Who labelled."""
    judge: str | None
    """None where the plan lets no judge count."""
    graded: int
    """Answers that the judge graded, each text of a question once."""
    unreadable: int
    """Answers about which no grade could be read."""
    thrown_away: int
    """Answers whose grade followed words in them instead of what they state."""
    pairs: tuple[GradedPair, ...]
    """Those with labels, and the plan's choice against every other arm."""
    arms: Mapping[str, Estimate]
    """The mean grade of each arm for which the judge counts, by labels and grades."""
    rule: RuleAgainstPeople | None = None
    """How far people agree with the computed score; None where nobody labelled an answer that it judges."""
    agreement: str = ""
    """How often people agree; "" with one person."""
    notes: tuple[str, ...] = ()
    """What was left out of the labels."""

    @property
    def lines(self) -> list[str]:
        """What the table rests on, in sentences."""
        lines = [
            f"Labels by {count_noun(self.people, 'person', 'people')}."
            if self.people
            else "No answer of this run is labelled yet: tunewise label QUESTIONS --run RUN."
        ]
        if self.rule:
            lines.append(self.rule.text)
        if self.judge:
            lines.append(f"The judge {self.judge} graded {count_noun(self.graded, 'answer')}.")
        if self.arms:
            grades = (
                f"{arm} {grade.mean:.2f} [{grade.low:.2f}, {grade.high:.2f}]"
                for arm, grade in self.arms.items()
            )
            lines.append(f"Mean grades by labels and judge, from 0, wrong, to 1, right: {', '.join(grades)}.")
        if self.thrown_away:
            lines.append(
                f"{count_noun(self.thrown_away, 'grade')} thrown away: the judge graded the same words as well where they "
                "are wrong. People's labels decide on these answers."
            )
        if self.unreadable:
            lines.append(f"No grade could be read about {count_noun(self.unreadable, 'answer')}.")
        if any(pair.j is not None for pair in self.pairs):
            lines.append(
                "Youden's J: how well the judge knows right answers from others on the labels (1 always, 0 as by chance); "
                "its weight: how much of its difference is used (0 to 1)."
            )
        return [
            *lines,
            *filter(None, (pair.left_out for pair in self.pairs)),
            *([f"{self.agreement[:1].upper()}{self.agreement[1:]}."] if self.agreement else []),
            *self.notes,
        ]

    def note(self, choice: str) -> str:
        """Return a sentence on the comparisons of an arm for which the judge does not count; "" where it counts in all."""
        lacking = [pair for pair in self.pairs if pair.missing and choice in (pair.a, pair.b)]
        if not self.judge or not lacking:
            return ""
        arms = [pair.b if pair.a == choice else pair.a for pair in lacking]
        whys = dict.fromkeys(pair.missing for pair in lacking)
        each = "; ".join(
            f"{', '.join(arm for arm, pair in zip(arms, lacking, strict=True) if pair.missing == why)}: {why}"
            for why in whys
        )
        return f"The judge does not count for {choice} against {each}; there the computed scores decide."


def _signed(estimate: Estimate | None) -> str:
    return f"{estimate.mean:+.2f} [{estimate.low:+.2f}, {estimate.high:+.2f}]" if estimate else "–"
