"""The labels of a run by all people: :func:`read_labels`. The value of an answer, and what is known of a pair of arms."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any

from rag.errors import BadInput
from rag.evaluation.prediction_powered import LabelledDifferences
from rag.files import check_schema, parse_json, sha256_text, write_json
from rag.text.words import count_noun
from runners.labels.journal import Click, Journal, journal_paths, read_journal_of, run_identity
from runners.labels.order import LabelOrder, OrderedRow, RowStatus
from runners.labels.records import GRADE_VALUE, Agreement, Grade, LabelSentence
from runners.run_folder import LABELS, open_run_folder, read_run_plan, read_scores

ORDER_FILE = "order.json"


@lru_cache(maxsize=1 << 16)
def answer_digest(answer: str) -> str:
    """Return the digest by which a grade belongs to the text of an answer, whichever arm gave it."""
    return sha256_text(answer.strip())


@dataclass(slots=True, kw_only=True)
class QuestionLabels:
    """What one person says of one question."""

    grades: dict[tuple[str, str], Grade] = field(default_factory=dict)
    """By the row that was asked, and the digest of the answer."""
    set_aside: dict[tuple[str, str], Grade] = field(default_factory=dict)
    """Grades from before the question was found not answerable: an answer counts by refusing, or by a later grade."""
    better: dict[tuple[str, frozenset[str]], str | None] = field(default_factory=dict)
    """Digest of the better answer of two, None for a tie."""
    answerable: bool | None = None
    gold: str | None = None
    sentence: LabelSentence | None = None
    skipped: bool = False
    changed: str = ""
    """Time of the last label."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonLabels:
    """One person's labels, by question; the wordings of one share everything but grades."""

    by: str
    questions: Mapping[str, QuestionLabels]

    @classmethod
    def of(cls, by: str, clicks: Sequence[Click], originals: Mapping[str, str]) -> PersonLabels:
        """Return the labels that a person's clicks leave.

        Args:
            by: the person.
            clicks: those that stand, oldest first.
            originals: the question of each row that was asked.
        """
        labels: dict[str, QuestionLabels] = {}
        for click in clicks:
            _apply(labels.setdefault(originals.get(click.question, click.question), QuestionLabels()), click)
        return cls(by=by, questions=labels)

    def on(self, original: str) -> QuestionLabels:
        """Return what the person says of a question, given by its own id."""
        return self.questions.get(original) or QuestionLabels()


def _apply(labels: QuestionLabels, click: Click) -> None:
    labels.changed = click.time
    labels.skipped = click.kind == "skip"
    if click.kind == "grade" and click.grade is not None:
        labels.grades[click.question, click.answers[0]] = click.grade
    elif click.kind == "better":
        winner = {"first": 0, "second": 1}.get(click.better or "")
        digest = None if winner is None else click.answers[winner]
        labels.better[click.question, frozenset(click.answers)] = digest
    elif click.kind == "answerable":
        labels.answerable = click.answerable
        if click.answerable:
            labels.grades, labels.set_aside = {**labels.set_aside, **labels.grades}, {}
        else:
            labels.grades, labels.set_aside = {}, {**labels.set_aside, **labels.grades}
    elif click.kind == "gold":
        labels.gold = click.text
    elif click.kind == "sentence":
        labels.sentence = click.sentence


@dataclass(frozen=True, slots=True, kw_only=True)
class PairLabels:
    """What people's labels say of two arms, row by row in the order of labelling; skipped rows are left out."""

    rows: tuple[str, ...]
    labels: tuple[float | None, ...]
    """Value of a's answer minus that of b's where the label counts, 0 where both are equal, else None."""
    chances: tuple[float, ...]
    """The chance of each row to be labelled."""
    same: tuple[bool, ...]
    """Whether both answers are equal."""
    questions: tuple[str, ...]
    """The question of each row, which wordings share."""
    sources: tuple[str | None, ...]
    """Its document."""
    weights: tuple[float, ...]
    counted: int
    """Labelled rows that count, on which the answers differ."""
    behind_gap: int
    """Labelled rows that do not count, since earlier rows of the order are open."""
    skipped: int
    unordered: int
    """Rows that were asked after the order was made, which are no part of it."""

    @property
    def differing(self) -> int:
        """Rows on which the answers differ."""
        return len(self.same) - sum(self.same)

    def differences(self, predicted: Mapping[str, float]) -> LabelledDifferences:
        """Return the rows with a judge's difference for each, 0 where it has none, for the estimate."""
        return LabelledDifferences(
            labels=self.labels,
            predicted=[
                0.0 if same else predicted.get(row, 0.0)
                for row, same in zip(self.rows, self.same, strict=True)
            ],
            chances=self.chances,
            questions=self.questions,
            sources=self.sources,
            weights=self.weights,
            same=self.same,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RowFacts:
    """What a run recorded of a row that was asked."""

    original: str
    document: str | None = None
    weight: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLabels:
    """The labels of a run by all people."""

    people: tuple[PersonLabels, ...]
    order: LabelOrder
    """Without rows before the first session."""
    facts: Mapping[str, RowFacts]
    """By the row."""
    refuses: Callable[[str], bool]
    """Whether an answer refuses, as the run's scores have it."""
    torn: int = 0
    """Lines of journals that were left out, as a crash left them incomplete."""

    def value(self, question: str, answer: str) -> float | None:
        """Return the mean of people's grades of an answer, right 1, partly .5, wrong 0; None where it has none.

        Of a question that a person found not answerable, an answer without a grade counts 1 if it refuses, else 0.

        Args:
            question: id of the row that was asked.
            answer: the text, without citation marks.
        """
        values = [
            value for person in self.people if (value := self.value_by(person, question, answer)) is not None
        ]
        return fmean(values) if values else None

    def value_by(self, person: PersonLabels, question: str, answer: str) -> float | None:
        """Return what an answer counts by one person; None where the person skipped the question or did not grade it."""
        labels = person.on(self.original(question))
        if labels.skipped:
            return None
        if grade := labels.grades.get((question, answer_digest(answer))):
            return GRADE_VALUE[grade]
        return float(self.refuses(answer)) if labels.answerable is False else None

    def original(self, row: str) -> str:
        """Return the id of the question that a row asks."""
        facts = self.facts.get(row)
        return facts.original if facts else row

    def is_skipped(self, row: str) -> bool:
        """Return whether somebody left the question of a row out."""
        return any(person.on(self.original(row)).skipped for person in self.people)

    def status(self, row: str, a: str, b: str) -> RowStatus:
        """Return whether two answers to a row are labelled; labels by one person outweigh that another one skipped it."""
        if a.strip() == b.strip():
            return "equal"
        if None not in (self.value(row, a), self.value(row, b)):
            return "labelled"
        return "skipped" if self.is_skipped(row) else "open"

    def pair(self, a: Mapping[str, str], b: Mapping[str, str]) -> PairLabels:
        """Return what the labels say of two arms.

        Args:
            a: the answers of the first arm, by the row that was asked.
            b: those of the second one.
        """
        ordered = [row.id for row in self.order.rows if row.id in a and row.id in b]
        states = {row: self.status(row, a[row], b[row]) for row in ordered}
        part = LabelOrder(
            run=self.order.run,
            seed=self.order.seed,
            rows=tuple(row for row in self.order.rows if row.id in states),
        )
        prefix = part.prefix(states.__getitem__)
        rows = list(prefix.chances)
        same = [states[row] == "equal" for row in rows]
        facts = [self.facts.get(row) or RowFacts(original=row) for row in rows]
        return PairLabels(
            rows=tuple(rows),
            labels=tuple(self._difference(row, a, b, states[row], row in prefix.counted) for row in rows),
            chances=tuple(prefix.chances.values()),
            same=tuple(same),
            questions=tuple(fact.original for fact in facts),
            sources=tuple(fact.document for fact in facts),
            weights=tuple(fact.weight for fact in facts),
            counted=len(prefix.counted),
            behind_gap=len(prefix.behind_gap),
            skipped=prefix.skipped,
            unordered=len((set(a) & set(b)) - set(states)),
        )

    def _difference(
        self, row: str, a: Mapping[str, str], b: Mapping[str, str], status: RowStatus, counts: bool
    ) -> float | None:
        if status == "equal":
            return 0.0
        first, second = self.value(row, a[row]), self.value(row, b[row])
        return first - second if counts and first is not None and second is not None else None

    def agreement(self) -> Agreement | None:
        """Return how often people agree on the same answer; None with fewer than two people, or nothing graded by two."""
        pairs = list(self._graded_twice())
        if not pairs:
            return None
        same = sum(one == other for one, other in pairs)
        kappa = _kappa(pairs)
        answers = count_noun(len(pairs), "answer")
        shown = "" if kappa is None else f" (kappa {kappa:.2f}: 0 is chance, 1 always)"
        return Agreement(
            people=len(self.people),
            both=len(pairs),
            same=same,
            kappa=kappa,
            text=f"people agree on {same} of {answers} that two of them graded{shown}",
        )

    def _graded_twice(self) -> Iterator[tuple[Grade, Grade]]:
        for one, other in combinations(self.people, 2):
            for question, labels in one.questions.items():
                theirs = other.on(question)
                yield from (
                    (grade, theirs.grades[key])
                    for key, grade in labels.grades.items()
                    if key in theirs.grades
                )


def _kappa(pairs: Sequence[tuple[Grade, Grade]]) -> float | None:
    """Return Cohen's kappa (1960) of pairs of grades, symmetric in the people; None where chance explains all of it."""
    grades = [grade for pair in pairs for grade in pair]
    chance = sum((count / len(grades)) ** 2 for count in Counter(grades).values())
    same = sum(1.0 for one, other in pairs if one == other) / len(pairs)
    return None if chance > 1 - 1e-9 else (same - chance) / (1 - chance)


def read_labels(run: Path) -> RunLabels:
    """Return the labels of a run; one without labels has none.

    Raises:
        BadInput: there is no run, or the order or a journal is damaged or of another run.
    """
    folder = open_run_folder(run)
    identity = run_identity(folder)
    facts = read_row_facts(run)
    originals = {row: fact.original for row, fact in facts.items()}
    journals = [read_journal_of(path, identity) for path in journal_paths(run)]
    order = read_order(run, identity)
    if order is None:
        check_unlabelled(run, journals)
    return RunLabels(
        people=tuple(person for journal in journals if (person := person_of(journal, originals)).questions),
        order=order or LabelOrder(run=identity, seed=0, rows=()),
        facts=facts,
        refuses=read_run_plan(run).refuses,
        torn=sum(journal.torn for journal in journals),
    )


def check_unlabelled(run: Path, journals: Sequence[Journal]) -> None:
    """Raise BadInput where a run without an order has labels: one drawn now would not be that of the labelled rows."""
    if any(journal.clicks for journal in journals):
        raise BadInput(
            f"{run / LABELS / ORDER_FILE} is missing, so it is not known how the labelled rows were drawn",
            "put the file back",
        )


def person_of(journal: Journal, originals: Mapping[str, str]) -> PersonLabels:
    """Return the labels that a journal leaves."""
    return PersonLabels.of(journal.by, journal.clicks, originals)


def read_row_facts(run: Path) -> dict[str, RowFacts]:
    """Return question, document and weight of every row that a run scored."""
    scores = read_scores(run)
    rows = dict.fromkeys(row for of_arm in scores.get("arms", {}).values() for row in of_arm)
    wording_of, documents = scores.get("wording_of", {}), scores.get("documents", {})
    weights = scores.get("question_weights", {})
    return {
        row: RowFacts(
            original=wording_of.get(row, row),
            document=documents.get(row),
            weight=float(weights.get(row, 1.0)),
        )
        for row in rows
    }


def read_order(run: Path, identity: str) -> LabelOrder | None:
    """Return the order of labelling of a run; None before it was made, BadInput where it is damaged or of another run."""
    path = run / LABELS / ORDER_FILE
    if not path.is_file():
        return None
    try:
        body: dict[str, Any] = check_schema(parse_json(path.read_text("utf-8")), "labels", path)
        rows = tuple(
            OrderedRow(id=str(row["id"]), priority=float(row["priority"]), number=float(row["number"]))
            for row in body["rows"]
        )
        order = LabelOrder(run=str(body["run"]), seed=int(body["seed"]), rows=rows)
        if any(row.priority <= 0 or not 0 < row.number <= 1 for row in rows):
            raise ValueError("a priority or number is out of bounds")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"{path} is damaged: {error!r}", "put the file back") from None
    if order.run != identity:
        raise BadInput(
            f"{path} is the order of another run ({order.run}, this one is {identity})",
            f"take the folder {LABELS} away: labels belong to the answers that were labelled",
        )
    return order


def write_order(run: Path, order: LabelOrder) -> None:
    """Store the order of labelling of a run."""
    rows = [{"id": row.id, "priority": row.priority, "number": row.number} for row in order.rows]
    write_json(run / LABELS / ORDER_FILE, {"schema": 1, "run": order.run, "seed": order.seed, "rows": rows})
