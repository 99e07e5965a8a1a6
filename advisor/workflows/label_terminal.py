"""The terminal form of ``tunewise label``: a question at a time, answered by letters; also from a pipe."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, TextIO

from advisor.display import console
from advisor.output import print_plain
from rag.errors import UsageProblem
from rag.text.sanitize import single_line
from rag.text.words import count_noun
from runners.labels.records import Better, Grade, LabelPassage, LabelProgress, LabelTask, Side
from runners.labels.session import LabelSession

if TYPE_CHECKING:
    from rich.console import Console

GRADES: Mapping[str, Grade] = {"r": "right", "p": "partly", "w": "wrong"}
PREFERENCES: Mapping[str, Better] = {"a": "first", "b": "second", "=": "tie"}
KEYS = """\
r p w   the answer is right, partly right, wrong: one letter for each answer, so `rw` is A right and B wrong;
        one letter grades the first answer without a grade
n       not answerable: the documents have no answer (again: they have one)
a b =   A is better, B is better, both are as good (may be left out)
g       write the gold answer; `g TEXT` at once
m 3     the sentence [3] of the passages states the answer
s       skip the question: it is not counted
u       undo the last label; again for the one before
i       the instructions that all methods were told, and how far the labels are
Enter   the next question, once nothing is missing here
q       end; every label is on the disk already
?       these keys"""
LETTERS = "AB"


def label_on_terminal(session: LabelSession, lines: TextIO, to: Console | None = None) -> None:
    """Ask for labels until nothing is left, `q` or the end of the input.

    Args:
        session: whose labels.
        lines: the keyboard, or a pipe of commands, one a line.
        to: where questions are shown; the standard output by default.
    """
    to = to or console.console()
    form = _Form(session, lines, to)
    if lines.isatty():
        print_plain(to, KEYS)
    form.run()


class _Form:
    """The conversation of one session."""

    def __init__(self, session: LabelSession, lines: TextIO, to: Console) -> None:
        self._session, self._lines, self._to = session, lines, to

    def run(self) -> None:
        task = self._session.task()
        shown = ""
        while task is not None:
            if task.key != shown:
                _show_task(task, self._to)
                shown = task.key
            line = self._read(_prompt(task))
            if line is None or line in ("q", "quit"):
                return
            try:
                task = self._carry_out(line, task)
            except UsageProblem as problem:
                self._say(f"{problem.message}: {problem.hint}")
            if task is None:
                task, shown = self._session.task(), ""
        self._say("nothing is left to label")

    def _carry_out(self, line: str, task: LabelTask) -> LabelTask | None:
        """Do what a line says and return the task as it is then; None for the next one."""
        word, _, rest = line.partition(" ")
        if line == "":
            return self._leave(task)
        if all(letter in GRADES for letter in line):
            return self._grade(line, task)
        if line in PREFERENCES:
            return self._said(self._session.prefer(task.key, PREFERENCES[line]))
        commands: dict[str, Callable[[LabelTask, str], LabelTask | None]] = {
            "n": self._answerable,
            "g": self._gold,
            "m": self._mark,
            "s": self._skip,
            "u": self._undo,
            "i": self._inform,
            "?": self._help,
        }
        if word not in commands:
            self._say(f"{single_line(line)[:40]} is no key here; ? lists them")
            return task
        return commands[word](task, rest.strip())

    def _leave(self, task: LabelTask) -> LabelTask | None:
        if task.done:
            return None
        self._say("a grade is missing; s skips the question")
        return task

    def _grade(self, letters: str, task: LabelTask) -> LabelTask:
        sides: list[Side] = ["first", "second"][: len(task.answers)]  # type: ignore[assignment]
        if len(letters) > len(sides):
            self._say(f"{len(letters)} letters, and {count_noun(len(sides), 'answer')}")
            return task
        if len(letters) == 1 and len(sides) == 2 and task.grades[0] is not None and task.grades[1] is None:
            sides = sides[1:]
        for side, letter in zip(sides, letters, strict=False):
            task = self._session.grade(task.key, side, GRADES[letter])
        return self._said(task)

    def _answerable(self, task: LabelTask, rest: str) -> LabelTask:
        return self._said(self._session.set_answerable(task.key, task.answerable is False))

    def _gold(self, task: LabelTask, text: str) -> LabelTask:
        text = text or (self._read("gold answer (Enter alone keeps it): ", task.gold) or "").strip()
        if not text or text == task.gold:
            self._say("the gold answer stays as it is")
            return task
        return self._said(self._session.set_gold(task.key, text))

    def _mark(self, task: LabelTask, number: str) -> LabelTask:
        places = _sentences(task.passages)
        if not number.isdecimal() or not 1 <= int(number) <= len(places):
            self._say(
                f"m and the number of a sentence, 1 to {len(places)}" if places else "there are no passages"
            )
            return task
        return self._said(self._session.mark_sentence(task.key, *places[int(number) - 1]))

    def _skip(self, task: LabelTask, rest: str) -> None:
        self._session.skip(task.key)
        self._say("skipped")

    def _undo(self, task: LabelTask, rest: str) -> LabelTask:
        undone = self._session.undo()
        if undone is None:
            self._say("there is nothing to undo")
            return task
        if undone.key == task.key:
            self._say(f"undone; {_state(undone)}")
        return undone

    def _inform(self, task: LabelTask, rest: str) -> LabelTask:
        self._say(f"instructions: {task.instructions or 'none'}")
        for text in progress_lines(self._session.progress()):
            self._say(text)
        return task

    def _help(self, task: LabelTask, rest: str) -> LabelTask:
        self._say(KEYS)
        return task

    def _said(self, task: LabelTask) -> LabelTask:
        self._say(f"saved: {_state(task)}")
        return task

    def _say(self, text: str) -> None:
        print_plain(self._to, text)

    def _read(self, prompt: str, text: str = "") -> str | None:
        """Return the next line, None at the end of the input; on a keyboard ``text`` can be edited."""
        if not self._lines.isatty():
            line = self._lines.readline()
            return line.strip() if line else None
        with suppress(EOFError):
            return _edited(prompt, text).strip()
        return None


def _edited(prompt: str, text: str) -> str:
    """Return a line from the keyboard, which begins as a text that can be edited."""
    if not text:
        return input(prompt)
    from prompt_toolkit import prompt as edit

    return str(edit(prompt, default=single_line(text)))


def _prompt(task: LabelTask) -> str:
    missing = [letter for letter, grade in zip(LETTERS, task.grades, strict=False) if grade is None]
    if task.done:
        return "Enter: next, a b = which is better, ? keys > " if len(task.answers) > 1 else "Enter: next > "
    return f"{' and '.join(missing)}: r p w (right, partly, wrong), n s g m u q, ? keys > "


def _show_task(task: LabelTask, to: Console) -> None:
    print_plain(to, f"\n── {task.place} " + "─" * 40, "bold")
    for turn in task.history:
        print_plain(to, f"{turn['role']}: {turn['content']}", "dim")
    print_plain(to, task.question, "bold")
    if task.note:
        print_plain(to, f"({task.note})", "yellow")
    print_plain(to, f"gold: {task.gold or 'none known'}{' (yours)' if task.gold_edited else ''}", "green")
    number = 1
    for passage in task.passages:
        print_plain(to, f"  {passage.title} ({passage.doc_id})", "dim")
        for start, end in passage.sentences:
            print_plain(to, f"    [{number}] {single_line(passage.text[start:end])}", "dim")
            number += 1
    for letter, answer, grade in zip(LETTERS, task.answers, task.grades, strict=False):
        answer = answer.strip().replace("\n", "\n   ")
        same = " and B are the same" if len(task.answers) == 1 else ""
        print_plain(to, f"{letter}{same}: {answer or '(empty)'}{f'  [{grade}]' if grade else ''}", "cyan")


def _sentences(passages: tuple[LabelPassage, ...]) -> list[tuple[int, int, int]]:
    """Return (passage, start, end) of every sentence, in the order of their numbers."""
    return [(n, start, end) for n, passage in enumerate(passages) for start, end in passage.sentences]


def _state(task: LabelTask) -> str:
    grades = [f"{letter} {grade}" for letter, grade in zip(LETTERS, task.grades, strict=False) if grade]
    better = {"first": "A is better", "second": "B is better", "tie": "as good"}.get(task.better or "", "")
    parts = [*grades, better, "not answerable" if task.answerable is False else ""]
    parts += ["gold written" if task.gold_edited else "", "sentence marked" if task.sentence else ""]
    return ", ".join(part for part in parts if part) or "nothing labelled here"


def progress_lines(progress: LabelProgress) -> list[str]:
    """Return how far the labels are, in lines."""
    lines = [
        f"{count_noun(progress.done, 'question')} labelled, {progress.left} to label for the pair at hand"
    ]
    lines += [f"  {pair.text}" for pair in progress.pairs if pair.labels or pair is progress.pairs[0]]
    return lines + ([f"  {progress.agreement.text}"] if progress.agreement else [])
