"""Asking the judge of a plan after its trial: grades where they may count, and comparisons of two answers beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rag.errors import Problem
from rag.files import disk_full_as_problem
from rag.text.words import count_noun
from runners.data.questions import Question
from runners.judging.asking import opened_judge
from runners.judging.grades import GRADE_JOURNAL, GradeJournal, GradeTask, grade_tasks
from runners.judging.pairs import JUDGE_JOURNAL, JudgeTask, ask_judge, comparisons, open_judge_tasks
from runners.labels.journal import journal_paths
from runners.labels.labels import read_labels
from runners.run_folder import ANSWERS, TRIAL, read_journal
from runners.runs.opened import OpenRun


class JudgeWork:
    """What the judge of a run is to be asked: the grades first, since they may count."""

    def __init__(self, context: OpenRun, name: str, gold: Callable[[Question], str]) -> None:
        """Collect it from the trial's answers, and remove replies about other answers from the journals.

        Args:
            context: the run.
            name: of the judge.
            gold: as of :func:`judge_trial`.
        """
        self.context, self.name = context, name
        folder = context.folder.path / TRIAL
        self.pairs_file: Path = folder / JUDGE_JOURNAL
        rows, counts = read_journal(folder / ANSWERS), context.plan.judge and context.plan.judge.counts
        self.tasks: list[GradeTask] = []
        self.failure = ""
        """Why answers cannot be graded: a document of the index is gone."""
        try:
            self.tasks = self._grade_tasks(rows, gold) if counts else []
        except Problem as problem:
            self.failure = f"the answers cannot be graded: {problem}"
        labelled = bool(journal_paths(context.folder.path))
        self.journal = GradeJournal(folder / GRADE_JOURNAL, name, labelled)
        if self.journal.outdated(self.tasks):
            context.folder.unseal()
            self.journal.keep_only(self.tasks)
        pairs = list(comparisons(context.plan, context.split.test, rows))
        self.pairs: list[JudgeTask] = open_judge_tasks(pairs, name, self.pairs_file, context)

    def _grade_tasks(
        self, rows: Sequence[Mapping[str, Any]], gold: Callable[[Question], str]
    ) -> list[GradeTask]:
        context, questions = self.context, self.context.split.test
        informed = written_while_labelling(context.folder.path, questions)
        return grade_tasks(
            context.plan, questions, rows, lambda row: passages_of(context, row), gold, informed
        )

    @property
    def open_grades(self) -> list[tuple[GradeTask, int]]:
        """The chats about single answers that were not asked yet."""
        return self.journal.open_chats(self.tasks)

    def ask(self) -> None:
        """Ask all of it; a failure is an event that says how far it came."""
        emit, grades, compared = self.context.emit, self.open_grades, len(self.pairs)
        checked = " (a good grade is checked by up to three more requests)"
        parts = [f"{count_noun(len(grades), 'answer')} to grade{checked}"] * bool(grades)
        parts += [f"{compared} comparisons"] * bool(compared)
        emit({"event": "judge.start", "title": f"judge {self.name}: {' and '.join(parts)}"})
        try:
            with opened_judge(self.context) as judge:
                while chats := self.open_grades:  # the checks of good grades follow them
                    self.journal.ask(chats, judge, emit)
                ask_judge(self.pairs, judge, self.pairs_file, emit)
        except Problem as problem:
            left, to_grade = self.open_grades, len(self.tasks)
            graded = to_grade - len({task.answer + task.question for task, _ in left})
            answered = compared - len(open_judge_tasks(self.pairs, self.name, self.pairs_file))
            how_far = [f"graded {graded} of {count_noun(to_grade, 'answer')}"] * bool(grades)
            how_far += [f"answered {answered} of {compared} comparisons"] * bool(compared)
            reason = f"the judge {' and '.join(how_far)}, then: {problem}"
            emit({"event": "judge.failed", "reason": f"{reason}; --resume asks for the rest"})


def judge_trial(context: OpenRun, gold: Callable[[Question], str]) -> None:
    """Ask the plan's judge what it was not asked yet; a failure of the judge is reported and leaves the trial as it is.

    Args:
        context: the run, whose arms have all answered.
        gold: returns the text of a question's gold span, "" when it has none.
    """
    if context.plan.judge is None:
        return
    with disk_full_as_problem(context.folder.path):
        work = JudgeWork(context, context.plan.judge.name, gold)
        if work.failure:
            context.emit({"event": "judge.failed", "reason": work.failure})
        if work.pairs or work.open_grades:
            context.folder.unseal()
            work.ask()


def written_while_labelling(run: Path, questions: Sequence[Question]) -> frozenset[str]:
    """Return the ids of questions whose gold people wrote while they labelled this run."""
    written = [question for question in questions if question.labelled]
    if not written or not journal_paths(run):
        return frozenset()
    by_people = [labels for person in read_labels(run).people for labels in person.questions.items()]
    touched = {
        original
        for original, labels in by_people
        if labels.gold or labels.sentence or labels.answerable is not None
    }
    return frozenset(question.id for question in written if question.original in touched)


def passages_of(context: OpenRun, row: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the texts of the passages that an answer's row names; () without an index."""
    if context.plan.index is None:
        return ()
    texts = []
    for span in row.get("context", ()):
        raw = context.retrieval.index.raw(span["doc"])
        texts += [raw[span["start"] : span["end"]]] if raw else []
    return tuple(texts)
