"""One person who labels the answers of one run: :class:`LabelSession`, the interface of the page and of the terminal."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from rag.errors import BadInput, UsageProblem
from rag.files import canonical_json, sha256_text, writer_lock
from rag.text.words import count_noun
from runners.data.questions import Question
from runners.labels.journal import (
    Click,
    Journal,
    active_people,
    check_person,
    journal_paths,
    now,
    person_lock,
    read_journal_of,
    run_identity,
)
from runners.labels.labels import (
    PersonLabels,
    RunLabels,
    answer_digest,
    check_unlabelled,
    person_of,
    read_order,
    write_order,
)
from runners.labels.order import LabelOrder, make_order
from runners.labels.pair_progress import pair_progress
from runners.labels.records import (
    Better,
    Grade,
    LabelProgress,
    LabelSentence,
    LabelTask,
    PairProgress,
    Side,
)
from runners.labels.run_answers import (
    LabelQuestions,
    PassageReader,
    RunAnswers,
    match_questions,
    read_run_answers,
)
from runners.run_folder import LABELS

ASKED_OF_ALL = 10
"""Rows of the order that everybody labels, so that agreement is known; further ones are asked of one person."""


@dataclass(frozen=True, slots=True)
class _Place:
    """A row with the two arms whose answers are shown, in the order in which they are shown."""

    row: str
    pair: tuple[str, str]
    arms: tuple[str, ...]
    """One where both answers are equal."""


class LabelSession:
    """A person's labels of a run; holds the lock of this person's journal until it is closed.

    Every call that changes something returns after its row is on the disk; where it cannot be written, CannotRun is raised
    and nothing has changed. Calls may come from several threads.
    """

    def __init__(
        self, questions: LabelQuestions, run: RunAnswers, journal: Journal, order: LabelOrder
    ) -> None:
        """Take what is labelled, and the person's journal; use :meth:`open`."""
        self.by, self.run, self.questions = journal.by, run, questions
        self._journal, self._order = journal, order
        self._others: dict[Path, Journal] = {}
        self._passages = PassageReader(run=run)
        self._originals = {row: fact.original for row, fact in run.facts.items()}
        self._closing = ExitStack()
        self._lock = threading.RLock()
        self._places = {self._key(place): place for place in self._all_places()}

    @classmethod
    def open(cls, questions: Path, run: Path, by: str) -> LabelSession:
        """Open the labels of a run for one person, and make the order of labelling where there is none yet.

        Args:
            questions: the file of the run's questions, or rows of it.
            run: the run folder.
            by: the person.

        Raises:
            UsageProblem: the name cannot be that of a file.
            BadInput: the run is unfinished, has no two arms with answers or other questions; or the person is labelling
                it in another session; or the labels are of another run.
            CannotRun: the run folder cannot be written.
        """
        by = check_person(by)
        answers = read_run_answers(run)
        matched = match_questions(questions, answers)
        identity = run_identity(answers.folder)
        with ExitStack() as stack:
            stack.enter_context(person_lock(run, by))
            journal = replace(read_journal_of(run / LABELS / f"{by}.jsonl", identity), by=by)
            session = cls(matched, answers, journal, _order_of(answers, matched, identity))
            session._closing = stack.pop_all()
        return session

    def __enter__(self) -> LabelSession:
        """Return the session."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the session."""
        self.close()

    def close(self) -> None:
        """Give the lock back; a second call does nothing."""
        self._closing.close()

    def task(self, question: str | None = None) -> LabelTask | None:
        """Return the next task of the order, or the one with this key; None where nothing is left.

        BadInput where no task has the key.
        """
        with self._lock:
            if question is not None:
                return self._task(self._place(question))
            place = self._next()
            return None if place is None else self._task(place)

    def grade(self, task_key: str, side: Side, grade: Grade) -> LabelTask:
        """Store the grade of one answer and return the task as it is now; of one answer alone the side is "first"."""
        place = self._place(task_key)
        answers = self._answers(place)
        if side == "second" and len(answers) == 1:
            raise UsageProblem("both answers are the same, so there is no second one", "grade the first one")
        answer = answers[0 if side == "first" else 1]
        return self._add(place, "grade", answers=(answer_digest(answer),), grade=grade)

    def prefer(self, task_key: str, better: Better) -> LabelTask:
        """Store which answer is better."""
        place = self._place(task_key)
        answers = self._answers(place)
        if len(answers) == 1:
            raise UsageProblem("both answers are the same, so none is better", "grade it")
        return self._add(place, "better", answers=tuple(map(answer_digest, answers)), better=better)

    def set_answerable(self, task_key: str, answerable: bool) -> LabelTask:
        """Store whether the documents have an answer."""
        return self._add(self._place(task_key), "answerable", answerable=answerable)

    def set_gold(self, task_key: str, text: str) -> LabelTask:
        """Store the gold answer; UsageProblem for a blank one."""
        if not text.strip():
            raise UsageProblem(
                "the gold answer is blank", "write one, or mark the question as not answerable"
            )
        return self._add(self._place(task_key), "gold", text=text.strip())

    def mark_sentence(self, task_key: str, passage: int, start: int, end: int) -> LabelTask:
        """Store the gold sentence: offsets in the text of a passage, counted from 0; UsageProblem for a place outside."""
        place = self._place(task_key)
        passages, _ = self._passages.passages(place.row, place.pair)
        if not 0 <= passage < len(passages):
            raise UsageProblem(f"there is no passage {passage}", f"there are {len(passages)}, counted from 0")
        shown = passages[passage]
        text = shown.text[max(0, start) : end]
        if start < 0 or end > len(shown.text) or not text.strip():
            raise UsageProblem(
                f"characters {start} to {end} are no part of passage {passage}, which has {len(shown.text)}",
                "mark a sentence of it",
            )
        sentence = LabelSentence(
            doc_id=shown.doc_id, start=shown.start + start, end=shown.start + end, text=text
        )
        return self._add(place, "sentence", sentence=sentence)

    def skip(self, task_key: str) -> None:
        """Leave the question out of what is labelled; a later label of it takes it in again."""
        self._add(self._place(task_key), "skip")

    def undo(self) -> LabelTask | None:
        """Take this person's last label back and return its task; None where there is none."""
        with self._lock:
            last = self._journal.undo()
            return None if last is None else self._task(self._place_of(last))

    def labels(self) -> RunLabels:
        """Return the labels of all people as they are now."""
        with self._lock:
            people = [self._own(), *self._other_people()]
            return RunLabels(
                people=tuple(person for person in people if person.questions),
                order=self._order,
                facts=self.run.facts,
                refuses=self.run.plan.refuses,
                torn=self._journal.torn + sum(journal.torn for journal in self._others.values()),
            )

    def progress(self) -> LabelProgress:
        """Return what is labelled, and what it tells of each pair of arms."""
        with self._lock:
            labels, own = self.labels(), self._own()
            pairs = [self._progress_of(pair, labels) for pair in self.run.pairs]
            place = self._next()
            at_hand = place.pair if place else self.run.pairs[0]
            first = next(pair for pair in pairs if (pair.a, pair.b) == at_hand)
            finished = {row for pair in self.run.pairs for row in self._rows(labels, own, pair)[0]}
            return LabelProgress(
                by=self.by,
                done=len(finished),
                skipped=sum(own.on(self._originals[row]).skipped for row in finished),
                clicks=len(self._journal.clicks),
                left=len(self._rows(labels, own, at_hand)[1]),
                pairs=(first, *(pair for pair in pairs if pair is not first)),
                agreement=labels.agreement(),
                notes=tuple(self._notes(labels)),
            )

    def _notes(self, labels: RunLabels) -> Iterator[str]:
        yield from self.questions.notes()
        if later := len(self.run.texts.keys() - {row.id for row in self._order.rows}):
            rows = count_noun(later, "row")
            yield f"not labelled: {rows} that the run asked after the order of labelling was drawn"
        if labels.torn:
            lines = count_noun(labels.torn, "incomplete line")
            yield f"not counted: {lines} of the journals, cut by a crash before the label was stored"

    def _all_places(self) -> Iterator[_Place]:
        for pair in self.run.pairs:
            for row in self.run.texts:
                if row in self.run.answers[pair[0]] and row in self.run.answers[pair[1]]:
                    yield self._shown(row, pair)

    def _shown(self, row: str, pair: tuple[str, str]) -> _Place:
        """Return the place of a row, with the answers in an order drawn for the question, the answers and the person."""
        a, b = (self.run.answers[arm][row] for arm in pair)
        if a.strip() == b.strip():
            return _Place(row, pair, pair[:1])
        # by the texts, so that the order says nothing of which arm is the recommended one
        low, high = sorted(pair, key=lambda arm: answer_digest(self.run.answers[arm][row]))
        drawn = random.Random(canonical_json([self.by, row, *sorted(map(answer_digest, (a, b)))])).random()
        return _Place(row, pair, (low, high) if drawn < 0.5 else (high, low))

    def _key(self, place: _Place) -> str:
        shown = [place.row, *place.pair, *map(answer_digest, self._answers(place))]
        return sha256_text(canonical_json(shown))[:16]

    def _place(self, key: str) -> _Place:
        if key not in self._places:
            raise BadInput(f"the run has no question {key!r} to label", "take the next one")
        return self._places[key]

    def _place_of(self, click: Click) -> _Place:
        """Return the place of a click: with the answers that were labelled, else with those of the pair at hand."""
        of_row = [place for place in self._places.values() if place.row == click.question]
        digests = set(click.answers)
        for place in of_row:
            if digests <= set(map(answer_digest, self._answers(place))):
                return place
        if not of_row:
            raise BadInput(
                f"the run has no answers to the question {click.question} any more", "label the next one"
            )
        return of_row[0]

    def _answers(self, place: _Place) -> tuple[str, ...]:
        return tuple(self.run.answers[arm][place.row] for arm in place.arms)

    def _add(self, place: _Place, kind: Any, **values: Any) -> LabelTask:
        with self._lock:
            self._journal.add(Click(kind=kind, question=place.row, time=now(), **values))
            return self._task(place)

    def _own(self) -> PersonLabels:
        return person_of(self._journal, self._originals)

    def _other_people(self) -> list[PersonLabels]:
        """Return the labels of the other people, read again where they have changed."""
        for path in journal_paths(self.run.folder.path):
            if path.stem == self.by:
                continue
            if path in self._others:
                self._others[path].refresh()
            else:
                self._others[path] = read_journal_of(path, self._journal.run)
        return [person_of(journal, self._originals) for journal in self._others.values()]

    def _next(self) -> _Place | None:
        """Return the first open row of the first pair that is not settled, else of any pair; None without one."""
        labels, own = self.labels(), self._own()
        left = [(pair, rows) for pair in self.run.pairs if (rows := self._rows(labels, own, pair)[1])]
        unsettled = ((pair, rows) for pair, rows in left if not self._progress_of(pair, labels).settled)
        pair, rows = next(unsettled, left[0] if left else (self.run.pairs[0], []))
        return self._shown(self._own_share(rows), pair) if rows else None

    def _own_share(self, rows: list[str]) -> str:
        """Return the first of these rows, or of those that fall to this person while others are labelling as well.

        Else two people who label at once would always be asked the same. Once the others end, their rows are asked too, so
        that no gap stays.
        """
        active = sorted({self.by, *active_people(self.run.folder.path)})
        share = active.index(self.by)
        places = {row.id: place for place, row in enumerate(self._order.rows)}
        if places[rows[0]] < ASKED_OF_ALL:
            return rows[0]
        return next((row for row in rows if places[row] % len(active) == share), rows[0])

    def _rows(
        self, labels: RunLabels, own: PersonLabels, pair: tuple[str, str]
    ) -> tuple[list[str], list[str]]:
        """Return the rows that this person has labelled for a pair, and those still to label, in the order of labelling."""
        a, b = (self.run.answers[arm] for arm in pair)
        done, left = [], []
        for place, row in enumerate(row.id for row in self._order.rows):
            if row not in a or row not in b or a[row].strip() == b[row].strip():
                continue
            complete = None not in (labels.value_by(own, row, a[row]), labels.value_by(own, row, b[row]))
            if own.on(self._originals[row]).skipped or complete:
                done.append(row)
            elif place < ASKED_OF_ALL or labels.status(row, a[row], b[row]) == "open":
                left.append(row)
        return done, left

    def _progress_of(self, pair: tuple[str, str], labels: RunLabels) -> PairProgress:
        return pair_progress(*pair, labels.pair(*(self.run.answers[arm] for arm in pair)))

    def _task(self, place: _Place) -> LabelTask:
        own, labels = self._own(), self.labels()
        mine = own.on(self._originals[place.row])
        question = self.questions.of_row.get(place.row)
        answers = self._answers(place)
        digests = list(map(answer_digest, answers))
        grades = tuple(mine.grades.get((place.row, digest)) for digest in digests)
        passages, hidden = self._passages.passages(place.row, place.pair)
        done, left = self._rows(labels, own, place.pair)
        return LabelTask(
            key=self._key(place),
            question=self.run.texts[place.row],
            history=question.history if question else (),
            instructions=(question.system if question else None) or self.run.plan.prompts.system,
            gold=mine.gold or (gold_shown(question) if question else ""),
            gold_edited=mine.gold is not None,
            passages=passages,
            answers=answers,
            grades=grades,
            better=_better(mine.better, place.row, digests),
            answerable=mine.answerable,
            sentence=mine.sentence,
            skipped=mine.skipped,
            done=mine.skipped or mine.answerable is False or None not in grades,
            place=_place_text(done, left, place.row),
            note=_note(question, hidden),
        )


def _order_of(answers: RunAnswers, questions: LabelQuestions, identity: str) -> LabelOrder:
    """Return the order of a run, which its first session makes."""
    run = answers.folder.path
    order = read_order(run, identity)
    if order is None:
        with writer_lock(run / LABELS):
            order = read_order(run, identity)  # another person's session may have made it meanwhile
            if order is None:
                check_unlabelled(run, [read_journal_of(path, identity) for path in journal_paths(run)])
                order = make_order(answers.signals(questions.groups), identity, answers.plan.seed)
                write_order(run, order)
    return order


def gold_shown(question: Question) -> str:
    """Return the gold answer of a question as it is shown: its reference, else its short answers; "" without any."""
    return question.reference or "; ".join(question.short_answers) or question.fact or ""


def _better(
    preferences: Mapping[tuple[str, frozenset[str]], str | None], row: str, digests: list[str]
) -> Better | None:
    """Return which of the answers as they are shown was called better."""
    key = (row, frozenset(digests))
    if key not in preferences or len(digests) < 2:
        return None
    winner = preferences[key]
    return "tie" if winner is None else "first" if winner == digests[0] else "second"


def _place_text(done: list[str], left: list[str], row: str) -> str:
    number = len(done) + left.index(row) + 1 if row in left else len(done)
    return f"{max(1, number)} of {len(done) + len(left)}"


def _note(question: Question | None, hidden: int) -> str:
    notes = []
    if question is None:
        notes.append("the file of questions does not have it, so its gold cannot be written")
    elif question.wording_of:
        notes.append("another wording of a question of the file")
    if question is not None and not question.answerable:
        notes.append("the file says that the documents have no answer")
    if hidden:
        notes.append(f"not shown: {count_noun(hidden, 'more passage')}")
    return "; ".join(notes)
