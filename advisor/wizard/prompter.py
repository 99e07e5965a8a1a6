"""The wizard on a terminal; the only file that imports questionary.

The wizard's offer to measure the base model before it advises.
"""

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

from advisor.catalog import models
from advisor.output import command_line
from advisor.questionnaire.answers import Answer, Answers, format_answer, read_answer
from advisor.questionnaire.answers_files import save_answers
from advisor.questionnaire.gather import complete_situation
from advisor.questionnaire.profile import Profile
from advisor.questionnaire.questions import QUESTION_BY_ID, QUESTION_SECTIONS
from advisor.recommendation.ranking import Ranking
from advisor.wizard.interview import AskedQuestion, Interview, InterviewMove, Prompter
from advisor.wizard.leader_line import StyledText, leader_lines
from advisor.wizard.model_choices import missing_packages, model_offers
from advisor.wizard.validation import BACK_KEY, NameValidator, TypedAnswerValidator, typing_hint
from rag.errors import Problem
from runners.resources.machine import detect_machine

PROBE_QUESTION = (
    "Ask the base model some dev questions now? It takes about two minutes; nothing is built or sent."
)


def offer_probe(profile: Profile) -> tuple[str, ...]:
    """Return the line of the review's menu: only where questions are given with documents or examples.

    An endpoint is not offered: asking it sends data and may cost money, so `tunewise probe` is asked for by name.
    """
    if not profile.questions or not (profile.documents or profile.examples) or profile.remote:
        return ()
    return ("measure first: ask the base model some of my questions",)


def probe_question(answers: Answers) -> str:
    """Return the question, with what the probe would fetch first where base model or embedder are not here yet."""
    from advisor.catalog import models
    from runners.models import resolve
    from runners.plan.schema import EMBEDDER

    model = answers["model"].value if "model" in answers else None
    found = resolve.downloads_needed([model or models.DEFAULT_MODEL, EMBEDDER])
    told = "; ".join(fetch.text for fetch in found)
    return f"{PROBE_QUESTION} It first fetches {told}." if told else PROBE_QUESTION


def probe_in_wizard(answers: Answers) -> Answers:
    """Probe, print what was found, keep it as ``probe.yaml``, and return the answers with what it settled.

    Ctrl-C ends the probe and keeps its answers so far, and the wizard goes on without it.
    """
    from advisor.probe.probe_view import PROBE_OUT, probe_with_progress, show_probe, write_probe_answers

    try:
        found = probe_with_progress(answers)
    except KeyboardInterrupt as stop:
        if type(stop) is not KeyboardInterrupt:  # SIGTERM ends the wizard too
            raise
        print(
            "\nthe probe was stopped; its answers so far are kept, and it goes on from them when started again"
        )
        return answers
    write_probe_answers(found, PROBE_OUT)
    show_probe(found)
    return found.answers


SAVED_ANSWERS = Path("tunewise-answers.yaml")
OTHER, CHANGE, DONT_KNOW = "« other »", "« change »", "?"
MAX_COLUMNS = 110
_SECTIONS = dict(QUESTION_SECTIONS)
_STYLE = questionary.Style(
    [
        ("qmark", "fg:ansicyan bold"),
        ("question", "bold"),
        ("answer", "fg:ansigreen"),
        ("pointer", "fg:ansicyan bold"),
        ("highlighted", "fg:ansicyan"),
        ("selected", "fg:ansigreen"),
        ("instruction", "fg:ansibrightblack"),
        ("disabled", "fg:ansibrightblack italic"),
        ("bottom-toolbar", "noreverse fg:ansibrightblack"),
        ("why", "fg:ansibrightblack"),
        ("section", "fg:ansicyan bold"),
        ("refused", "fg:ansired"),
        ("leader", "fg:ansigreen bold"),
        ("decides", "fg:ansiyellow"),
    ]
)


@dataclass(frozen=True, slots=True)
class InterviewOutcome:
    """What a conversation ended with."""

    answers: Answers
    record: bool
    """Whether a decision record is wanted."""


def interview_on_terminal(answers: Answers, saved: Path = SAVED_ANSWERS) -> InterviewOutcome:
    """Ask on this terminal; return the answers and what is to be made of them.

    Ctrl-C saves what was answered and prints the line that goes on from there; the interruption passes on.
    """
    machine = detect_machine(Path("runs"))
    talk = Interview(TerminalPrompter(), answers, lambda given: complete_situation(given, machine))
    try:
        return InterviewOutcome(talk.run(), talk.record)
    except KeyboardInterrupt:
        if any(talk.answers[key].source in ("flag", "file", "asked") for key in talk.answers):
            save_answers(talk.answers, saved)
            print(
                f"\nyour answers are kept; go on with:\n  {command_line('plan', '--answers', saved)}",
                file=sys.stderr,
            )
        raise


def confirm(text: str) -> bool:
    """Ask a yes/no question; yes is the default."""
    return bool(questionary.confirm(text, default=True, style=_STYLE).unsafe_ask())


class TerminalPrompter(Prompter):
    """Asks with questionary: lists are chosen with the arrow keys, the rest is typed."""

    def __init__(self) -> None:
        """Start with no section announced."""
        self.section = ""

    def ask(self, asked: AskedQuestion) -> Any:
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
        if given != InterviewMove.BACK:
            self._print(
                [
                    ("class:qmark", "✓ "),
                    ("class:question", f"{question.text} "),
                    ("class:answer", format_answer(given, max(20, _columns() - len(question.text) - 3))),
                ]
            )
        return given

    def review(self, answers: Answers, profile: Profile) -> str:
        """Say what is known and what is not, then list all answers; choosing one changes it."""
        from advisor.recommendation.questions_left import known_by_source, unknown_answers

        self._print([("class:section", "\n── What is known ──")])
        for title, items in known_by_source(answers):
            self._wrap("", ", ".join(items), f"{title:<13} ")
        if open_answers := unknown_answers(answers):
            self._wrap("class:why", ", ".join(open_answers), f"{'unknown':<13} ")
        self._advice(profile)
        moves = [
            questionary.Choice("make the plan", value=InterviewMove.DONE),
            questionary.Choice("make the plan, and a one-page decision record", value=InterviewMove.RECORD),
            questionary.Choice("change an answer", value=CHANGE),
            questionary.Choice("save these answers as a profile", value=InterviewMove.SAVE),
            questionary.Choice("ask me everything", value=InterviewMove.MORE),
            *(questionary.Choice(line, value=InterviewMove.PROBE) for line in offer_probe(profile)),
            questionary.Choice("← back", value=InterviewMove.BACK),
        ]
        self.section = ""
        self._print([])
        while True:
            chosen = self._pick("Is this right?", moves)
            if chosen != CHANGE:
                return chosen
            width = max(len(key) for key in QUESTION_BY_ID)
            rows = [questionary.Choice(_row(key, answers[key], width), value=key) for key in answers]
            chosen = self._pick(
                "Which answer?", [questionary.Choice("← back", value=InterviewMove.BACK), *rows]
            )
            if chosen != InterviewMove.BACK:
                return chosen

    def say(self, line: str) -> None:
        """Show why an answer was refused."""
        self._wrap("class:refused", line)

    def note(self, line: str) -> None:
        """Show what should be known about an answer that was taken."""
        self._wrap("class:decides", line)

    def moved(self, before: Ranking, after: Ranking, answers: Answers) -> None:
        """Show who leads after an answer, how that moved, and what is not possible."""
        for line in leader_lines(before, after, missing_packages(answers), _columns()):
            self._print(line)

    def save(self, answers: Answers) -> None:
        """Ask for a name and keep the answers under it; nothing is kept without one."""
        from advisor.questionnaire import answers_files

        name = (
            questionary.text(
                "Name of the profile (Enter: do not save):",
                style=_STYLE,
                qmark="?",
                validate=NameValidator(answers_files.check_profile_name),
            )
            .unsafe_ask()
            .strip()
        )
        kept = [profile.name for profile in answers_files.all_profiles()]
        if not name or (name in kept and not confirm(f"Replace the profile {name}?")):
            return
        try:
            answers_files.save_profile(name, answers)
            self._wrap("class:why", f"kept; use it with: {command_line('plan', '--profile', name)}")
        except Problem as problem:
            self.say(str(problem))

    def probe(self, answers: Answers) -> Answers:
        """Measure the base model when that is wanted (no is the default)."""
        wanted = questionary.confirm(probe_question(answers), default=False, style=_STYLE).unsafe_ask()
        return probe_in_wizard(answers) if wanted else answers

    def _advice(self, profile: Profile) -> None:
        """Show the choice as it stands, how sure it is, and what is worth finding out."""
        from advisor.recommendation.recommend import recommend_for_profile

        now = recommend_for_profile(profile)
        sure = now.confidence
        self._wrap(
            "class:leader",
            f"{now.choice}, confidence {sure.level} ({sure.because})",
            f"{'as it stands':<13} ",
        )
        for worth in now.worth_finding:
            self._wrap("class:decides", worth.text, f"{'worth knowing':<13} ")

    def _choose(self, asked: AskedQuestion) -> Any:
        question = asked.question
        options: list[tuple[Any, str]] = [(choice.value, choice.help) for choice in question.choices] or [
            (True, ""),
            (False, ""),
        ]
        choices = []
        for value, text in options:
            name = format_answer(value)
            closed = asked.closed.get(value)
            choices.append(questionary.Choice(f"{name:<7} {text}".rstrip(), value=value, disabled=closed))
        return self._select(asked, choices)

    def _model(self, asked: AskedQuestion) -> Any:
        """Offer the models that can run here, and to type any other."""
        here = model_offers(asked.profile, asked.lacking)
        width = max(len(offer.name) for offer in here)
        choices = [
            questionary.Choice(
                f"{offer.name:<{width}} {offer.text}", value=offer.name, disabled=offer.closed or None
            )
            for offer in here
        ]
        named = asked.known.value if asked.known else None
        if named is not None and named not in [offer.name for offer in here if not offer.closed]:
            choices.insert(0, questionary.Choice(named, value=named))
        choices.append(
            questionary.Choice("another: type its name, a folder, or openai:NAME@URL", value=OTHER)
        )
        given = self._select(asked, choices)
        return self._type(asked, None) if given == OTHER else given

    def _pick(self, text: str, choices: list[questionary.Choice]) -> str:
        return str(
            questionary.select(
                text, choices, style=_STYLE, qmark="?", instruction="(arrow keys)", erase_when_done=True
            ).unsafe_ask()
        )

    def _select(self, asked: AskedQuestion, choices: list[questionary.Choice]) -> Any:
        """Let one be chosen; the pointer starts on what is known, so that Enter alone never answers for somebody."""
        choices = [
            *choices,
            questionary.Choice("I don't know", value=DONT_KNOW),
            questionary.Choice("← back", value=InterviewMove.BACK),
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

    def _type(self, asked: AskedQuestion, known: Answer | None) -> Any:
        question = asked.question
        default = "" if known is None or known.value is None else str(known.value)
        completer: Completer | None = None
        if question.kind == "path":
            completer = PathCompleter(expanduser=True)
        elif question.id == "model":
            completer = WordCompleter([model.name for model in models.known_models()], sentence=True)
        text = questionary.text(
            question.text,
            default=default,
            style=_STYLE,
            qmark="?",
            validate=TypedAnswerValidator(question),
            bottom_toolbar=lambda: f" {_place(asked)} ·{typing_hint(question, default)}",
            erase_when_done=True,
            completer=completer,
        ).unsafe_ask()
        text = text.strip()
        if text == BACK_KEY:
            return InterviewMove.BACK
        return read_answer(question.id, text)

    def _wrap(self, style: str, text: str, lead: str = "") -> None:
        """Print a text within the terminal's width, broken between words, after an indented lead."""
        indent = " " * (2 + len(lead))
        for number, line in enumerate(textwrap.wrap(text, max(20, _columns() - len(indent)))):
            self._print([("class:why", f"  {lead}" if number == 0 else indent), (style, line)])

    def _print(self, parts: list[StyledText]) -> None:
        print_formatted_text(FormattedText(parts), style=_STYLE)


def _place(asked: AskedQuestion) -> str:
    """Say which question this is, and how many there can be."""
    return f"question {asked.number} of at most {asked.most}" if asked.number else "a change"


def _instruction(asked: AskedQuestion) -> str:
    """Return as much of place and keys as stands beside the question on one line."""
    room = shutil.get_terminal_size().columns - len(asked.question.text) - 4
    for text in (f"({_place(asked)}; arrow keys, Enter)", f"({_place(asked)})", "(arrows)"):
        if len(text) <= room:
            return text
    return " "


def _row(key: str, answer: Answer, width: int) -> list[StyledText]:
    """Return one line of the review: id, value, source."""
    value = ("class:answer", f"{format_answer(answer.value, 40):<40}")
    return [("", f"{key:<{width}}  "), value, ("class:why", f"  {answer.source}")]


def _columns() -> int:
    """Return the width to write in: the terminal's, but no wider than reads well."""
    return min(MAX_COLUMNS, shutil.get_terminal_size().columns - 1)
