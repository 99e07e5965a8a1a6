"""The wizard on a terminal; the only file that imports questionary."""

from __future__ import annotations

import shutil
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import questionary
from prompt_toolkit import print_formatted_text
from prompt_toolkit.completion import Completer, PathCompleter, WordCompleter
from prompt_toolkit.formatted_text import FormattedText

from advisor import probeoffer
from advisor.answers import Answer, Answers
from advisor.facts import models
from advisor.gather import complete
from advisor.interview import Asked, Interview, Move, Prompter
from advisor.lacking import missing
from advisor.offers import offers
from advisor.output import command
from advisor.profile import Profile
from advisor.questions import BY_ID, SECTIONS
from advisor.ranking import Ranking
from advisor.sheet import save_answers
from advisor.standing import Part, standing
from advisor.typed import BACK_KEY, Check, Named, hint
from advisor.values import read, say
from rag.errors import Problem
from runners.machine import detect

SAVED = Path("tunewise-answers.yaml")
OTHER, CHANGE, DONT_KNOW = "« other »", "« change »", "?"
MOST_COLUMNS = 110
_SECTIONS = dict(SECTIONS)
_STYLE = questionary.Style([
    ("qmark", "fg:ansicyan bold"), ("question", "bold"), ("answer", "fg:ansigreen"),
    ("pointer", "fg:ansicyan bold"), ("highlighted", "fg:ansicyan"), ("selected", "fg:ansigreen"),
    ("instruction", "fg:ansibrightblack"), ("disabled", "fg:ansibrightblack italic"),
    ("bottom-toolbar", "noreverse fg:ansibrightblack"),
    ("why", "fg:ansibrightblack"), ("section", "fg:ansicyan bold"),
    ("refused", "fg:ansired"), ("leader", "fg:ansigreen bold"), ("decides", "fg:ansiyellow"),
])  # fmt: skip


@dataclass(frozen=True, slots=True)
class Talked:
    """What a conversation ended with."""

    answers: Answers
    record: bool
    """Whether a decision record is wanted."""


def interview_on_terminal(answers: Answers, saved: Path = SAVED) -> Talked:
    """Ask on this terminal; return the answers and what is to be made of them.

    Ctrl-C saves what was answered and prints the line that goes on from there; the interruption passes on.
    """
    machine = detect(Path("runs"))
    talk = Interview(Terminal(), answers, lambda given: complete(given, machine))
    try:
        return Talked(talk.run(), talk.record)
    except KeyboardInterrupt:
        if any(talk.answers[key].source in ("flag", "file", "asked") for key in talk.answers):
            save_answers(talk.answers, saved)
            print(
                f"\nyour answers are kept; go on with:\n  {command('plan', '--answers', saved)}",
                file=sys.stderr,
            )
        raise


def confirm(text: str) -> bool:
    """Ask a yes/no question; yes is the default."""
    return bool(questionary.confirm(text, default=True, style=_STYLE).unsafe_ask())


class Terminal(Prompter):
    """Asks with questionary: lists are chosen with the arrow keys, the rest is typed."""

    def __init__(self) -> None:
        """Start with no section announced."""
        self.section = ""

    def ask(self, asked: Asked) -> Any:
        """Show section, why and default, then ask; afterwards one line holds question and answer."""
        question = asked.question
        if question.section != self.section:
            self.section = question.section
            head = f"\n── {_SECTIONS[question.section]} "
            self._print([("class:section", head), ("class:why", f"──  {_place(asked)}")])
        self._print([])
        self._wrap("class:why", question.why)
        if asked.decides:
            self._wrap("class:decides", "This answer can change what leads now.")
        if asked.known and asked.known.note:
            self._wrap("class:why", f"{asked.known.source}: {asked.known.note}")
        if question.id == "model":
            given = self._model(asked)
        elif question.kind in ("choice", "flag"):
            given = self._choose(asked)
        else:
            given = self._type(asked, asked.known)
        if given != Move.BACK:
            self._print([("class:qmark", "✓ "), ("class:question", f"{question.text} "),
                         ("class:answer", say(given, max(20, _columns() - len(question.text) - 3)))])  # fmt: skip
        return given

    def review(self, answers: Answers, profile: Profile) -> str:
        """Say what is known and what is not, then list all answers; choosing one changes it."""
        from advisor.summary import known, unknown

        self._print([("class:section", "\n── What is known ──")])
        for title, items in known(answers):
            self._wrap("", ", ".join(items), f"{title:<13} ")
        if open_answers := unknown(answers):
            self._wrap("class:why", ", ".join(open_answers), f"{'unknown':<13} ")
        self._advice(profile)
        moves = [
            questionary.Choice("make the plan", value=Move.DONE),
            questionary.Choice("make the plan, and a one-page decision record", value=Move.RECORD),
            questionary.Choice("change an answer", value=CHANGE),
            questionary.Choice("save these answers as a profile", value=Move.SAVE),
            questionary.Choice("ask me everything", value=Move.MORE),
            *(questionary.Choice(line, value=Move.PROBE) for line in probeoffer.offer(profile)),
            questionary.Choice("← back", value=Move.BACK),
        ]
        self.section = ""
        self._print([])
        while True:
            chosen = self._pick("Is this right?", moves)
            if chosen != CHANGE:
                return chosen
            width = max(len(key) for key in BY_ID)
            rows = [questionary.Choice(_row(key, answers[key], width), value=key) for key in answers]
            chosen = self._pick("Which answer?", [questionary.Choice("← back", value=Move.BACK), *rows])
            if chosen != Move.BACK:
                return chosen

    def say(self, line: str) -> None:
        """Show why an answer was refused."""
        self._wrap("class:refused", line)

    def note(self, line: str) -> None:
        """Show what should be known about an answer that was taken."""
        self._wrap("class:decides", line)

    def moved(self, before: Ranking, after: Ranking, answers: Answers) -> None:
        """Show who leads after an answer, how that moved, and what is not possible."""
        for line in standing(before, after, missing(answers), _columns()):
            self._print(line)

    def save(self, answers: Answers) -> None:
        """Ask for a name and keep the answers under it; nothing is kept without one."""
        from advisor import saved

        name = questionary.text("Name of the profile (Enter: do not save):", style=_STYLE, qmark="?",
                                validate=Named(saved.check_name)).unsafe_ask().strip()  # fmt: skip
        kept = [profile.name for profile in saved.every()]
        if not name or (name in kept and not confirm(f"Replace the profile {name}?")):
            return
        try:
            saved.save(name, answers)
            self._wrap("class:why", f"kept; use it with: {command('plan', '--profile', name)}")
        except Problem as problem:
            self.say(str(problem))

    def probe(self, answers: Answers) -> Answers:
        """Measure the base model when that is wanted (no is the default)."""
        wanted = questionary.confirm(probeoffer.text(answers), default=False, style=_STYLE).unsafe_ask()
        return probeoffer.carry_out(answers) if wanted else answers

    def _advice(self, profile: Profile) -> None:
        """Show the choice as it stands, how sure it is, and what is worth finding out."""
        from advisor.engine import recommend

        now = recommend(profile)
        sure = now.confidence
        self._wrap(
            "class:leader",
            f"{now.choice}, confidence {sure.level} ({sure.because})",
            f"{'as it stands':<13} ",
        )
        for worth in now.worth_finding:
            self._wrap("class:decides", worth.text, f"{'worth knowing':<13} ")

    def _choose(self, asked: Asked) -> Any:
        question = asked.question
        options: list[tuple[Any, str]] = [(choice.value, choice.help) for choice in question.choices] or [
            (True, ""),
            (False, ""),
        ]
        choices = []
        for value, text in options:
            name = say(value)
            closed = asked.closed.get(value)
            choices.append(questionary.Choice(f"{name:<7} {text}".rstrip(), value=value, disabled=closed))
        return self._select(asked, choices)

    def _model(self, asked: Asked) -> Any:
        """Offer the models that can run here, and to type any other."""
        here = offers(asked.profile, asked.lacking)
        width = max(len(offer.name) for offer in here)
        choices = [
            questionary.Choice(f"{offer.name:<{width}} {offer.text}", value=offer.name,
                               disabled=offer.closed or None)
            for offer in here
        ]  # fmt: skip
        named = asked.known.value if asked.known else None
        if named is not None and named not in [offer.name for offer in here if not offer.closed]:
            choices.insert(0, questionary.Choice(named, value=named))
        choices.append(
            questionary.Choice("another: type its name, a folder, or openai:NAME@URL", value=OTHER)
        )
        given = self._select(asked, choices)
        return self._type(asked, None) if given == OTHER else given

    def _pick(self, text: str, choices: list[questionary.Choice]) -> str:
        return str(questionary.select(text, choices, style=_STYLE, qmark="?", instruction="(arrow keys)",
                                      erase_when_done=True).unsafe_ask())  # fmt: skip

    def _select(self, asked: Asked, choices: list[questionary.Choice]) -> Any:
        """Let one be chosen; the pointer starts on what is known, so that Enter alone never answers for somebody."""
        choices = [
            *choices,
            questionary.Choice("I don't know", value=DONT_KNOW),
            questionary.Choice("← back", value=Move.BACK),
        ]
        known = asked.known.value if asked.known else None
        wanted = DONT_KNOW if known is None else known
        open_choices = {choice.value: choice for choice in choices if not choice.disabled}
        default = open_choices.get(wanted, open_choices[DONT_KNOW])
        chosen = questionary.select(
            asked.question.text,
            choices,
            default=default,
            style=_STYLE,
            instruction=_instruction(asked),
            qmark="?",
            erase_when_done=True,
        ).unsafe_ask()
        return None if chosen == DONT_KNOW else chosen

    def _type(self, asked: Asked, known: Answer | None) -> Any:
        question = asked.question
        default = "" if known is None or known.value is None else str(known.value)
        completer: Completer | None = None
        if question.kind == "path":
            completer = PathCompleter(expanduser=True)
        elif question.id == "model":
            completer = WordCompleter([model.name for model in models.models()], sentence=True)
        text = questionary.text(
            question.text,
            default=default,
            style=_STYLE,
            qmark="?",
            validate=Check(question),
            bottom_toolbar=lambda: f" {_place(asked)} ·{hint(question, default)}",
            erase_when_done=True,
            completer=completer,
        ).unsafe_ask()
        text = text.strip()
        if text == BACK_KEY:
            return Move.BACK
        return read(question.id, text)

    def _wrap(self, style: str, text: str, lead: str = "") -> None:
        """Print a text within the terminal's width, broken between words, after an indented lead."""
        indent = " " * (2 + len(lead))
        for number, line in enumerate(textwrap.wrap(text, max(20, _columns() - len(indent)))):
            self._print([("class:why", f"  {lead}" if number == 0 else indent), (style, line)])

    def _print(self, parts: list[Part]) -> None:
        print_formatted_text(FormattedText(parts), style=_STYLE)


def _place(asked: Asked) -> str:
    """Say which question this is, and how many there can be."""
    return f"question {asked.number} of at most {asked.most}" if asked.number else "a change"


def _instruction(asked: Asked) -> str:
    """Return as much of place and keys as stands beside the question on one line."""
    room = shutil.get_terminal_size().columns - len(asked.question.text) - 4
    for text in (f"({_place(asked)}; arrow keys, Enter)", f"({_place(asked)})", "(arrows)"):
        if len(text) <= room:
            return text
    return " "


def _row(key: str, answer: Answer, width: int) -> list[Part]:
    """Return one line of the review: id, value, source."""
    value = ("class:answer", f"{say(answer.value, 40):<40}")
    return [("", f"{key:<{width}}  "), value, ("class:why", f"  {answer.source}")]


def _columns() -> int:
    """Return the width to write in: the terminal's, but no wider than reads well."""
    return min(MOST_COLUMNS, shutil.get_terminal_size().columns - 1)
