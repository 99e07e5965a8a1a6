"""The wizard on a terminal; the only file that imports questionary."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import questionary
from prompt_toolkit import print_formatted_text
from prompt_toolkit.document import Document
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.validation import ValidationError, Validator

from advisor.answers import Answer, Answers, save_answers
from advisor.gather import complete
from advisor.interview import Interview, Move, Prompter
from advisor.questions import QUESTIONS, SECTIONS, Question
from advisor.values import UNKNOWN, names_a_path, read, say
from rag.errors import BadInput
from runners.machine import detect

SAVED = Path("tunewise-answers.yaml")
BACK_KEY = "<"
_SECTIONS = dict(SECTIONS)
_STYLE = questionary.Style([
    ("qmark", "fg:ansicyan bold"), ("question", "bold"), ("answer", "fg:ansigreen"),
    ("pointer", "fg:ansicyan bold"), ("highlighted", "fg:ansicyan"), ("selected", "fg:ansigreen"),
    ("instruction", "fg:ansibrightblack"),
    ("bottom-toolbar", "noreverse fg:ansibrightblack"),
    ("why", "fg:ansibrightblack"), ("section", "fg:ansicyan bold"),
    ("refused", "fg:ansired"),
])  # fmt: skip


def interview_on_terminal(answers: Answers, saved: Path = SAVED) -> Answers:
    """Ask on this terminal; return the answers.

    Ctrl-C saves what was answered and prints the line that goes on from there; the interruption passes on.
    """
    machine = detect(Path("runs"))
    talk = Interview(Terminal(), answers, lambda given: complete(given, machine).answers)
    try:
        return talk.run()
    except KeyboardInterrupt:
        if any(talk.answers[key].source in ("flag", "file", "asked") for key in talk.answers):
            save_answers(talk.answers, saved)
            print(f"\nyour answers are kept; go on with:\n  tunewise plan --answers {saved}", file=sys.stderr)
        raise


def confirm(text: str) -> bool:
    """Ask a yes/no question; yes is the default."""
    return bool(questionary.confirm(text, default=True, style=_STYLE).unsafe_ask())


class Terminal(Prompter):
    """Asks with questionary: lists are chosen with the arrow keys, the rest is typed."""

    def __init__(self) -> None:
        """Start with no section announced."""
        self.section = ""

    def ask(self, question: Question, known: Answer | None, left: int) -> Any:
        """Show section, why and default, then ask."""
        if question.section != self.section:
            self.section = question.section
            more = f"  at most {left} more questions" if left > 1 else ""
            self._print(
                [("class:section", f"\n── {_SECTIONS[question.section]} "), ("class:why", f"──{more}")]
            )
        self._print([("class:why", f"\n  {question.why}")])
        if known and known.note:
            self._print([("class:why", f"  {known.source}: {known.note}")])
        return (
            self._choose(question, known)
            if question.kind in ("choice", "flag")
            else self._type(question, known)
        )

    def review(self, answers: Answers) -> str:
        """List all answers; choosing one changes it."""
        self._print([("class:section", "\n── Review ──"), ("class:why", "  choose an answer to change it")])
        width = max(len(question.id) for question in QUESTIONS)
        rows = [questionary.Choice(_row(key, answers[key], width), value=key) for key in answers]
        moves = [
            questionary.Choice("make the plan", value=Move.DONE),
            questionary.Choice("ask me everything", value=Move.MORE),
            questionary.Choice("← back", value=Move.BACK),
            questionary.Separator(),
        ]
        self.section = ""
        return str(questionary.select("Is this right?", [*moves, *rows], style=_STYLE, qmark="?",
                                      instruction="(arrow keys)").unsafe_ask())  # fmt: skip

    def say(self, line: str) -> None:
        """Show why an answer was refused."""
        self._print([("class:refused", f"  {line}")])

    def _choose(self, question: Question, known: Answer | None) -> Any:
        options: list[tuple[Any, str]] = [(choice.value, choice.help) for choice in question.choices] or [
            (True, ""),
            (False, ""),
        ]
        choices = []
        for value, text in options:
            name = value if isinstance(value, str) else "yes" if value else "no"
            choices.append(questionary.Choice(f"{name:<7} {text}".rstrip(), value=value))
        choices.append(questionary.Choice("I don't know", value="?"))
        choices.append(questionary.Choice("← back", value=Move.BACK))
        current = known.value if known and known.value is not None else "?" if known else None
        default = next((choice for choice in choices if choice.value == current), None)
        chosen = questionary.select(
            question.text,
            choices,
            default=default,
            style=_STYLE,
            instruction="(arrow keys, Enter)",
            qmark="?",
        ).unsafe_ask()
        return None if chosen == "?" else chosen

    def _type(self, question: Question, known: Answer | None) -> Any:
        default = "" if known is None or known.value is None else str(known.value)
        ask = questionary.path if question.kind == "path" else questionary.text
        hint = f" {'Enter keeps it' if default else 'Enter: unknown'} · ? unknown · {BACK_KEY} back"
        hint += f" · in {question.unit}" if question.unit else ""
        text = ask(
            question.text,
            default=default,
            style=_STYLE,
            qmark="?",
            validate=_Check(question),
            bottom_toolbar=hint,
        ).unsafe_ask()
        text = text.strip()
        if text == BACK_KEY:
            return Move.BACK
        return read(question.id, text)

    def _print(self, parts: list[tuple[str, str]]) -> None:
        print_formatted_text(FormattedText(parts), style=_STYLE)


class _Check(Validator):
    """Refuse, as it is typed, what the question does not allow."""

    def __init__(self, question: Question) -> None:
        self.question = question

    def validate(self, document: Document) -> None:
        """Raise ValidationError with what is allowed."""
        text = document.text.strip()
        if text == BACK_KEY or text.lower() in UNKNOWN:
            return
        try:
            read(self.question.id, text)
        except BadInput as problem:
            raise ValidationError(len(document.text), f"{problem.message}; {problem.hint}") from None
        if self.question.kind == "path" and not names_a_path(text):
            raise ValidationError(len(document.text), f"there is nothing at {text}")


def _row(key: str, answer: Answer, width: int) -> list[tuple[str, str]]:
    """Return one line of the review: id, value, source."""
    value = ("class:answer", f"{say(answer.value, 40):<40}")
    return [("", f"{key:<{width}}  "), value, ("class:why", f"  {answer.source}")]
