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
    check_person,
    journal_paths,
    now,
    person_lock,
    read_journal_of,
    run_identity,
    show_row,
    shown_rows,
)
from runners.labels.labels import (
    PersonLabels,
    QuestionLabels,
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
    LabelPassage,
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
    gold_shown,
    match_questions,
    read_run_answers,
)
from runners.run_folder import LABELS

ASKED_OF_ALL = 10
"""Rows that everybody labels for the first pair, so that agreement is known; each further one is asked of one person."""


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
        self,
        questions: LabelQuestions,
        run: RunAnswers,
        journal: Journal,
        order: LabelOrder,
        all_pairs: bool,
    ) -> None:
        """Take what is labelled, and the person's journal; use :meth:`open`."""
        self.by, self.run, self.questions = journal.by, run, questions
        self._journal, self._order, self._all_pairs = journal, order, all_pairs
        self._pair: tuple[str, str] | None = None
        self._notice = ("", "")
        """Key of the first page of a comparison, and what is said there."""
        self._others: dict[Path, Journal] = {}
        self._passages = PassageReader(run=run)
        self._originals = {row: fact.original for row, fact in run.facts.items()}
        self._closing = ExitStack()
        self._lock = threading.RLock()
        self._places = {self._key(place): place for place in self._all_places()}
        self._early = set(self._differing(run.pairs[0])[:ASKED_OF_ALL])

    @classmethod
    def open(cls, questions: Path, run: Path, by: str, all_pairs: bool = False) -> LabelSession:
        """Open the labels of a run for one person, and make the order of labelling where there is none yet.

        Args:
            questions: the file of the run's questions, or rows of it.
            run: the run folder.
            by: the person.
            all_pairs: whether to ask about all pairs of arms and all rows, also those that hardly change the verdict.

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
            session = cls(matched, answers, journal, _order_of(answers, matched, identity), all_pairs)
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

        Its row is kept for this person until the next task is taken. BadInput where no task has the key.
        """
        with self._lock:
            place = self._next() if question is None else self._place(question)
            if place is None:
                return None
            if question is None:
                self._note_switch(place)
            return self._take(place)

    def ask_all_pairs(self) -> None:
        """Ask about all pairs of arms, and all rows, from now on."""
        with self._lock:
            self._all_pairs = True

    def grade(self, task_key: str, side: Side, grade: Grade) -> LabelTask:
        """Store the grade of one answer and return the task as it is now; of one answer alone the side is "first"."""
        place = self._place(task_key)
        answers = self._answers(place)
        if side == "second" and len(answers) == 1:
            raise UsageProblem("both answers are the same, so there is no second one", "grade the first one")
        answer = answers[0 if side == "first" else 1]
        if self._task(place).assumed:  # a grade there is one of a refusal, or of what should have been one
            self.set_answerable(task_key, False)
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
        passages, _ = self._passages_of(place)
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
            return None if last is None else self._take(self._place_of(last))

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
            labels, place = self.labels(), self._next()
            pairs = tuple(self._progress_of(pair, labels) for pair in self._asked)
            others = tuple(b for _, b in self.run.pairs[len(self._asked) :])
            return LabelProgress(
                by=self.by,
                pages=len(self._pages()),
                skipped=sum(labels.skipped for labels in self._own().questions.values()),
                clicks=len(self._journal.clicks),
                at_hand=self._asked.index(place.pair) if place else None,
                pairs=pairs,
                others=others,
                more=not self._all_pairs and (bool(others) or any(pair.labels < pair.of for pair in pairs)),
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
        """Return the place of a click, or one of its row where the answers have changed since."""
        of_row = (place for place in self._places.values() if place.row == click.question)
        place = self._places.get(click.page) or next(of_row, None)
        if place is None:
            raise BadInput(
                f"the run has no answers to the question {click.question} any more", "label the next one"
            )
        return place

    def _answers(self, place: _Place) -> tuple[str, ...]:
        return tuple(self.run.answers[arm][place.row] for arm in place.arms)

    def _add(self, place: _Place, kind: Any, **values: Any) -> LabelTask:
        with self._lock:
            show_row(self.run.folder.path, self.by, place.row)
            self._journal.add(
                Click(kind=kind, question=place.row, time=now(), page=self._key(place), **values)
            )
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

    @property
    def _asked(self) -> tuple[tuple[str, str], ...]:
        return self.run.pairs if self._all_pairs else self.run.pairs[: self.run.deciding]

    def _next(self) -> _Place | None:
        """Return an open row of the first pair that is not settled; with all pairs, then of any.

        The rows that are asked of everybody come first, also once the others have settled their pair.
        """
        labels, own = self.labels(), self._own()
        left = {pair: rows for pair in self._asked if (rows := self._open_rows(labels, own, pair))}
        first = self.run.pairs[0]
        if first in left and left[first][0] in self._early:
            return self._shown(left[first][0], first)
        rest = next(iter(left), None) if self._all_pairs else None
        pair = next((pair for pair in left if not self._progress_of(pair, labels).settled), rest)
        return self._shown(self._free(left[pair]), pair) if pair else None

    def _free(self, rows: list[str]) -> str:
        """Return the first of some rows that no other person is asked right now.

        So at most one row for each other person is open in front of labels.
        """
        people = shown_rows(self.run.folder.path)
        taken = {row for by, row in people.items() if by != self.by}
        return next((row for row in rows if row not in taken), rows[0])

    def _open_rows(self, labels: RunLabels, own: PersonLabels, pair: tuple[str, str]) -> list[str]:
        """Return the rows that this person can still label for a pair, in the order of labelling."""
        a, b = (self.run.answers[arm] for arm in pair)
        rows = []
        for row in self._differing(pair):
            complete = None not in (labels.value_by(own, row, a[row]), labels.value_by(own, row, b[row]))
            if own.on(self._originals[row]).skipped or complete:
                continue
            early = pair == self.run.pairs[0] and row in self._early
            if early or labels.status(row, a[row], b[row]) == "open":
                rows.append(row)
        return rows

    def _differing(self, pair: tuple[str, str]) -> list[str]:
        """Return the rows on which the answers of a pair differ, in the order of labelling."""
        a, b = (self.run.answers[arm] for arm in pair)
        rows = (row.id for row in self._order.rows if row.id in a and row.id in b)
        return [row for row in rows if a[row].strip() != b[row].strip()]

    def _progress_of(self, pair: tuple[str, str], labels: RunLabels) -> PairProgress:
        a, b = (self.run.answers[arm] for arm in pair)
        of_pair = labels.pair(a, b)
        waits_for = ""
        if of_pair.behind_gap:
            rows = self._differing(pair)
            first = next((row for row in rows if labels.status(row, a[row], b[row]) == "open"), "")
            people = shown_rows(self.run.folder.path)
            waits_for = ", ".join(
                "you" if by == self.by else by for by, row in people.items() if row == first
            )
        return pair_progress(*pair, of_pair, waits_for)

    def _note_switch(self, place: _Place) -> None:
        """Keep what is said on the first page of a comparison: which one is finished and why, and which comes."""
        before, self._pair = self._pair, place.pair
        if before in (None, place.pair):
            return
        assert before is not None
        last = self._progress_of(before, self.labels())
        finished = f"Finished: {last.a} against {last.b}: {last.forecast}. " if last.settled else ""
        number, (a, b) = self._asked.index(place.pair) + 1, place.pair
        text = (
            f"{finished}Now comparison {number} of {len(self._asked)}: {a} against {b}. Questions come again, with your "
            "grades of answers that you know. You may stop here: what is labelled counts."
        )
        self._notice = (self._key(place), text)

    def _pages(self) -> dict[str, None]:
        """Return the pages that this person labelled, the oldest first."""
        return dict.fromkeys(click.page or click.question for click in self._journal.clicks)

    def _passages_of(self, place: _Place) -> tuple[tuple[LabelPassage, ...], int]:
        return self._passages.passages(place.row, place.pair, self.questions.of_row.get(place.row))

    def _take(self, place: _Place) -> LabelTask:
        """Keep a row for this person, and return its task."""
        show_row(self.run.folder.path, self.by, place.row)
        return self._task(place)

    def _task(self, place: _Place) -> LabelTask:
        mine = self._own().on(self._originals[place.row])
        question = self.questions.of_row.get(place.row)
        answers = self._answers(place)
        digests = list(map(answer_digest, answers))
        grades = tuple(mine.grades.get((place.row, digest)) for digest in digests)
        passages, hidden = self._passages_of(place)
        key, pages = self._key(place), list(self._pages())
        graded_on = {
            click.answers: click.page
            for click in self._journal.clicks
            if click.kind == "grade" and click.question == place.row
        }
        answerable = _answerable(question, mine)
        return LabelTask(
            key=key,
            question=self.run.texts[place.row],
            history=question.history if question else (),
            instructions=(question.system if question else None) or self.run.plan.prompts.system,
            gold=mine.gold or (gold_shown(question) if question else ""),
            gold_edited=mine.gold is not None,
            passages=passages,
            answers=answers,
            grades=grades,
            graded_before=tuple(
                grade is not None and graded_on.get((digest,)) != key
                for grade, digest in zip(grades, digests, strict=True)
            ),
            cut=tuple((arm, place.row) in self.run.cut for arm in place.arms),
            refuses=tuple(map(self.run.plan.refuses, answers)),
            better=_better(mine.better, place.row, digests),
            answerable=answerable,
            by_file=question is not None and not question.answerable,
            assumed=answerable is False and mine.answerable is None,
            sentence=mine.sentence,
            skipped=mine.skipped,
            done=mine.skipped or answerable is False or None not in grades,
            page=pages.index(key) + 1 if key in pages else len(pages) + 1,
            notice=self._notice[1] if key == self._notice[0] else "",
            note=self._note(place, question, hidden),
        )

    def _note(self, place: _Place, question: Question | None, hidden: int) -> str:
        notes = []
        if place.pair == self.run.pairs[0] and place.row in self._early and self._others:
            notes.append("asked of everybody, so the count of labels may stay as it is")
        if question is None:
            notes.append("the file of questions does not have it, so its gold cannot be written")
        elif question.wording_of:
            text = self.run.texts.get(question.wording_of) or question.wording_of
            notes.append(
                f"another wording of “{text}”: gold, and whether it is answerable, are those of that question"
            )
        if question is not None and not question.answerable:
            notes.append("the file says that the documents have no answer")
        if hidden:
            notes.append(f"not shown: {count_noun(hidden, 'more passage')}")
        return "; ".join(notes)


def _answerable(question: Question | None, mine: QuestionLabels) -> bool | None:
    """Return what a person says of a question, else what the file says, unless the person found gold for it."""
    if mine.answerable is not None or question is None or question.answerable or mine.gold or mine.sentence:
        return mine.answerable
    return False


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


def _better(
    preferences: Mapping[tuple[str, frozenset[str]], str | None], row: str, digests: list[str]
) -> Better | None:
    """Return which of the answers as they are shown was called better."""
    key = (row, frozenset(digests))
    if key not in preferences or len(digests) < 2:
        return None
    winner = preferences[key]
    return "tie" if winner is None else "first" if winner == digests[0] else "second"
