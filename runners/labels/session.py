"""One person who labels the answers of one run: :class:`LabelSession`, the interface of the page and of the terminal."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from runners.labels.records import Better, Grade, LabelProgress, LabelTask, Side


class LabelSession:
    """A person's labels of a run; holds the lock of this person's journal until it is closed.

    Every call that changes something returns after its row is on the disk; where it cannot be written, CannotRun is raised
    and nothing has changed. Calls may come from several threads.
    """

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
        raise NotImplementedError

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

    def task(self, question: str | None = None) -> LabelTask | None:
        """Return the next task of the order, or the latest of the question with this key; None where nothing is left.

        BadInput where no task has the key.
        """
        raise NotImplementedError

    def grade(self, task_key: str, side: Side, grade: Grade) -> LabelTask:
        """Store the grade of one answer and return the task as it is now; of one answer alone the side is "first"."""
        raise NotImplementedError

    def prefer(self, task_key: str, better: Better) -> LabelTask:
        """Store which answer is better."""
        raise NotImplementedError

    def set_answerable(self, task_key: str, answerable: bool) -> LabelTask:
        """Store whether the documents have an answer."""
        raise NotImplementedError

    def set_gold(self, task_key: str, text: str) -> LabelTask:
        """Store the gold answer; UsageProblem for a blank one."""
        raise NotImplementedError

    def mark_sentence(self, task_key: str, passage: int, start: int, end: int) -> LabelTask:
        """Store the gold sentence: offsets in the text of a passage, counted from 0; UsageProblem for a place outside."""
        raise NotImplementedError

    def skip(self, task_key: str) -> None:
        """Leave the question out of what is labelled; a later label of it takes it in again."""
        raise NotImplementedError

    def undo(self) -> LabelTask | None:
        """Take this person's last label back and return its task; None where there is none."""
        raise NotImplementedError

    def progress(self) -> LabelProgress:
        """Return what is labelled, and what it tells of each pair of arms."""
        raise NotImplementedError
