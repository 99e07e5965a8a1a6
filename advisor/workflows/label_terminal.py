"""The terminal form of ``tunewise label``: a question at a time, answered by letters; also from a pipe."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, TextIO

from advisor.display import console
from advisor.output import print_plain
from rag.errors import UsageProblem
from rag.text.sanitize import single_line
from rag.text.words import count_noun
from runners.labels.records import (
    FORM_DOES_NOT_COUNT,
    GRADE_MEANING,
    LETTERS,
    Better,
    Grade,
    LabelPassage,
    LabelProgress,
    LabelTask,
    Side,
)
from runners.labels.session import LabelSession

if TYPE_CHECKING:
    from rich.console import Console

GRADES: Mapping[str, Grade] = {"r": "right", "p": "partly", "w": "wrong"}
PREFERENCES: Mapping[str, Better] = {"a": "first", "b": "second", "=": "tie"}
KEYS = """\
r p w   the answer is right, partly right, wrong: one letter for each answer, so `rw` is A right and B wrong;
        one letter grades the first answer without a grade
a b =   A is better, B is better, both are as good (may be left out); after the grades in one go,
        `rwa`, it also takes the next question
n       not answerable: the documents have no answer; an answer that refuses counts as right, another one as
        wrong, unless you grade it after that (n again, where the file does not say so: they have one)
g       write the gold answer; `g TEXT` at once
m 3     the sentence [3] of the passages states the answer
s       skip the question: it is not counted
u       undo the last label; again for the one before
i       the instructions that all methods were told, and which of them are compared
Enter   the next question, once nothing is missing here
q       end; every label is on the disk already
?       these keys"""


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
                _show_task(task, self._session.progress(), self._to)
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
        progress = self._session.progress()
        self._say(progress.finished + (" All of it is asked with --all-pairs." if progress.more else ""))

    def _carry_out(self, line: str, task: LabelTask) -> LabelTask | None:
        """Do what a line says and return the task as it is then; None for the next one."""
        word, _, rest = line.partition(" ")
        if line == "":
            return self._leave(task)
        if all(letter in GRADES for letter in line):
            return self._grade(line, task)
        if (
            len(line) == 3 == len(task.answers) + 1
            and set(line[:2]) <= set(GRADES)
            and line[2] in PREFERENCES
        ):
            self._grade(line[:2], task)
            self._said(self._session.prefer(task.key, PREFERENCES[line[2]]))
            return None
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
            if task.assumed:
                self._said(self._session.set_answerable(task.key, False))
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
        if task.by_file and task.answerable is False:
            self._say(f"it is so already, by the file: {task.consequence}; if it has an answer, g writes it")
            return task
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
    if task.answerable is False:
        return "Enter: next, r p w = your own grades, ? keys > "
    if task.done:
        return "Enter: next, a b = which is better, ? keys > " if len(task.answers) > 1 else "Enter: next > "
    return f"{' and '.join(missing)}: r p w (right, partly, wrong), n s g m u q, ? keys > "


def _show_task(task: LabelTask, progress: LabelProgress, to: Console) -> None:
    """Show a page: what is long first, the question beside its answers."""
    if task.notice:
        print_plain(to, f"\n{task.notice}", "yellow")
    print_plain(to, f"\n── page {task.page}, {progress.position} " + "─" * 10, "bold")
    number = 1
    for passage in task.passages:
        origin = "" if passage.found else ", not among the passages found"
        print_plain(to, f"  {passage.title} ({passage.doc_id}{origin})", "dim")
        for place, (start, end) in enumerate(passage.sentences):
            gold = "  ← has the gold answer" if place in passage.gold else ""
            print_plain(to, f"    [{number}] {single_line(passage.text[start:end])}{gold}", "dim")
            number += 1
    for turn in task.history:
        print_plain(to, f"{turn['role']}: {turn['content']}", "dim")
    print_plain(to, task.question, "bold")
    if task.note:
        print_plain(to, f"({task.note})", "yellow")
    print_plain(to, f"gold: {task.gold or 'none known'}{' (yours)' if task.gold_edited else ''}", "green")
    for place, answer in enumerate(task.answers):
        name = "A and B are the same" if len(task.answers) == 1 else LETTERS[place]
        text = answer.strip().replace("\n", "\n   ") or "(empty)"
        print_plain(to, f"{name}: {text}{''.join(_remarks(task, place))}", "cyan")
    if task.consequence:
        print_plain(to, f"not answerable: {task.consequence}", "yellow")
    for grade, meaning in GRADE_MEANING.items():
        print_plain(to, f"{grade + ':':8}{meaning}", "dim")
    print_plain(to, f"{FORM_DOES_NOT_COUNT} here; which is better may.", "dim")


def _remarks(task: LabelTask, place: int) -> Iterator[str]:
    """Yield what is said of an answer behind its text."""
    if task.cut[place]:
        yield "  [cut at the limit of length]"
    if grade := task.grades[place]:
        yield f"  [{grade}, graded before]" if task.graded_before[place] else f"  [{grade}]"


def _sentences(passages: tuple[LabelPassage, ...]) -> list[tuple[int, int, int]]:
    """Return (passage, start, end) of every sentence, in the order of their numbers."""
    return [(n, start, end) for n, passage in enumerate(passages) for start, end in passage.sentences]


def _state(task: LabelTask) -> str:
    grades = [f"{letter} {grade}" for letter, grade in zip(LETTERS, task.grades, strict=False) if grade]
    better = {"first": "A is better", "second": "B is better", "tie": "as good"}.get(task.better or "", "")
    parts = [*grades, better, f"not answerable ({task.consequence})" if task.consequence else ""]
    parts += ["gold written" if task.gold_edited else "", "sentence marked" if task.sentence else ""]
    return ", ".join(part for part in parts if part) or "nothing labelled here"


def progress_lines(progress: LabelProgress) -> list[str]:
    """Return how far the labels are, in lines; nothing of what they say, which would bias the next ones."""
    lines = [f"{count_noun(progress.pages, 'page')} labelled by you"]
    if progress.at_hand is not None:
        lines.append(f"compared are {progress.pair.a} and {progress.pair.b}; {progress.position}")
    return lines
