"""The wizard on a terminal, with questionary: :func:`interview_on_terminal` runs the interview.

The only module that imports questionary.
"""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import questionary
from prompt_toolkit import print_formatted_text
from prompt_toolkit.completion import Completer, PathCompleter, WordCompleter
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.key_binding import KeyBindings

from advisor.catalog.gpus import COMMON_GPUS, find_gpu
from advisor.drafting.tuned_retriever import offers_tuned_retriever
from advisor.history import own_decided_trials
from advisor.output import command_line
from advisor.questionnaire import answers_files
from advisor.questionnaire.answers import Answer, Answers, format_answer, read_answer
from advisor.questionnaire.answers_files import read_answers
from advisor.questionnaire.gather import complete_situation
from advisor.questionnaire.model_questions import models_line, parse_models, with_aliases
from advisor.questionnaire.profile import Profile
from advisor.questionnaire.questions import QUESTION_BY_ID, QUESTION_SECTIONS
from advisor.recommendation.questions_left import known_by_source, unknown_answers
from advisor.recommendation.ranking import Ranking
from advisor.recommendation.recommend import recommend_for_profile
from advisor.wizard.interview import AskedQuestion, Interview, InterviewMove, Prompter
from advisor.wizard.leader_line import StyledText, leader_lines
from advisor.wizard.model_choices import (
    doubt_about,
    hosted_offers,
    machine_text,
    missing_packages,
    model_offers,
)
from advisor.wizard.probe_in_wizard import (
    measure_first_line,
    offer_probe,
    probe_downloads,
    probe_in_wizard,
    probe_question,
)
from advisor.wizard.question_view import (
    MEASURE_WORD,
    IntroducedWords,
    help_lines,
    measure_text,
    question_lines,
)
from advisor.wizard.validation import BACK_KEY, NameValidator, TypedAnswerValidator, typing_hint
from rag.errors import CannotRun, Problem
from runners.catalog import models
from runners.models.endpoint import api_key, is_private, key_hint
from runners.plan.schema import read_plan_file
from runners.resources.machine import Machine, detect_machine

SAVED_ANSWERS = Path("tunewise-answers.yaml")
OTHER, CHANGE, DONT_KNOW, HELP = "« other »", "« change »", "« unknown »", "« help »"
HELP_KEY = "?"
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
        ("word", "fg:ansicyan"),
        ("section", "fg:ansicyan bold"),
        ("refused", "fg:ansired"),
        ("leader", "fg:ansigreen bold"),
        ("decides", "fg:ansiyellow"),
    ]
)


@dataclass(frozen=True, slots=True)
class InterviewOutcome:
    """The result of the conversation."""

    answers: Answers
    record: bool
    """Whether a decision record is wanted."""
    tune_retriever: bool = False
    """Whether the plan is to tune the retriever on the examples."""


def interview_on_terminal(
    answers: Answers, saved: Path = SAVED_ANSWERS, machine: Machine | None = None
) -> InterviewOutcome:
    """Ask the questions on this terminal, save the answers, and return them.

    Ctrl-C saves those so far, and is raised again.

    Args:
        answers: the answers known before.
        saved: where to save the answers.
        machine: this machine; detected by default.
    """
    machine = machine or detect_machine(Path("runs"))
    interview = Interview(
        TerminalPrompter(machine), answers, lambda given: complete_situation(given, machine)
    )
    try:
        return InterviewOutcome(interview.run(), interview.record, interview.tune_retriever)
    finally:
        try:
            lines = answers_files.save_interview(interview.answers, saved)
        except CannotRun as problem:
            lines = [f"your answers are not saved: {problem.message}"]
        print("", *lines, sep="\n", file=sys.stderr)


def offer_saved_answers(saved: Path = SAVED_ANSWERS, plan: Path = Path("plan.yaml")) -> Path | None:
    """Ask whether to go on with the answers of an earlier interview; return their file where that is wanted.

    They are offered until a plan that lacks no file was written after them; a file that cannot be read is not offered, and
    it is said why.

    Args:
        saved: the file of the answers.
        plan: the file that the wizard writes its plan to.
    """
    if not saved.is_file():
        return None
    day = datetime.fromtimestamp(saved.stat().st_mtime)
    try:
        newer = plan.is_file() and plan.stat().st_mtime >= saved.stat().st_mtime
        if newer and not read_plan_file(plan).data.not_named:
            return None
        count = len(read_answers(saved))
    except Problem as problem:
        print(f"the answers in {saved} cannot be used: {problem.message}", file=sys.stderr)
        return None
    when = f"{day:%H:%M}" if day.date() == datetime.now().date() else f"{day:%Y-%m-%d %H:%M}"
    answers = "the answer" if count == 1 else f"the {count} answers"
    return saved if confirm(f"Continue with {answers} of {when} ({saved})?") else None


def confirm(text: str, default: bool = True) -> bool:
    """Ask a yes/no question; `default` is the answer of Enter alone."""
    return bool(questionary.confirm(text, default=default, style=_STYLE).unsafe_ask())


class TerminalPrompter(Prompter):
    """Asks with questionary: choices with the arrow keys, everything else typed."""

    def __init__(self, machine: Machine) -> None:
        """Start with no section announced, and no word explained; what was found on the machine is shown."""
        self.machine = machine
        self.section = ""
        self.words = IntroducedWords()
        self.fit_explained = False

    def ask(self, asked: AskedQuestion) -> Any:
        """Show section, question, reason and example, then ask; afterwards one line shows the answer."""
        question = asked.question
        if question.section != self.section:
            self.section = question.section
            section_title = f"\n── {_SECTIONS[question.section]} "
            self._print([("class:section", section_title), ("class:why", f"──  {_position(asked)}")])
        self._print([])
        self._wrap("class:question", question.text, indent=0)
        for style, line in question_lines(asked, self.words):
            self._wrap(style, line)
        if question.id == "runs_on":
            value = self._place(asked)
        elif question.id == "model" and asked.profile.runs_on == "provider":
            value = self._hosted(asked)
        elif question.id == "model":
            value = self._model(asked)
        elif question.id == "models":
            value = self._several(asked)
        elif question.kind in ("choice", "flag"):
            value = self._choose(asked)
        else:
            value = self._type(asked, asked.known)
        if value not in (InterviewMove.BACK, InterviewMove.MEASURE, InterviewMove.SEVERAL):
            parts = {key: part for key, part in value.items() if part} if isinstance(value, dict) else {}
            self._answered(", ".join(f"{key} {part}" for key, part in parts.items()) or value)
        return value

    def review(self, answers: Answers, profile: Profile) -> str:
        """Show what is known and what is not, then list all answers to change one of them."""
        self._print([("class:section", "\n── What is known ──")])
        for title, items in known_by_source(answers):
            self._wrap("", ", ".join(items), f"{title:<13} ")
        if open_answers := unknown_answers(answers):
            self._wrap("class:why", ", ".join(open_answers), f"{'unknown':<13} ")
        self._advice(profile)
        moves = [
            questionary.Choice("make the plan", value=InterviewMove.DONE),
            questionary.Choice(
                "make the plan, and one page on the decision for colleagues", value=InterviewMove.RECORD
            ),
            *(
                [
                    questionary.Choice(
                        "make the plan, and also train the search on the examples", InterviewMove.TUNE
                    )
                ]
                if offers_tuned_retriever(profile)
                else []
            ),
            questionary.Choice("change an answer", value=CHANGE),
            questionary.Choice("save these answers as a profile", value=InterviewMove.SAVE),
            questionary.Choice("ask me the remaining questions too", value=InterviewMove.MORE),
            *(
                questionary.Choice(line, value=InterviewMove.PROBE)
                for line in offer_probe(profile)
                if not profile.models
            ),
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
        """Show a note about an answer that was accepted."""
        self._wrap("class:decides", line)

    def moved(self, before: Ranking, after: Ranking, answers: Answers) -> None:
        """Show which method leads after an answer, how that changed, and what is not possible.

        The first time it is said what the numbers are; a method that leads for the first time is explained.
        """
        if not self.fit_explained:
            self.fit_explained = True
            self._wrap(
                "class:word",
                "The methods, best first, each with a number from 0 to 1: how well it fits your answers. What one is: "
                "tunewise explain NAME",
            )
        leader = after.choice
        if term := self.words.first_time(leader):
            self._wrap("class:word", f"{leader}: {term.sentence}")
        for line in leader_lines(before, after, missing_packages(answers), _columns()):
            self._print(line)

    def save(self, answers: Answers) -> None:
        """Ask for a name and save the answers under it; an empty name saves nothing."""
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
        profile_names = [profile.name for profile in answers_files.all_profiles()]
        if not name or (name in profile_names and not confirm(f"Replace the profile {name}?")):
            return
        try:
            answers_files.save_profile(name, answers)
            self._wrap("class:why", f"saved; use it with: {command_line('plan', '--profile', name)}")
        except Problem as problem:
            self.say(str(problem))

    def columns(self, names: Sequence[str]) -> str | None:
        """Let the columns of prompt and reply be chosen by name."""
        chosen: list[str] = []
        for text in ("Which column is the prompt (what a user writes)?", "Which column is the reply?"):
            choices = [questionary.Choice(name, value=name) for name in names if name not in chosen]
            choices.append(questionary.Choice("none of them: another file", value=OTHER))
            picked = self._pick(text, choices)
            if picked == OTHER:
                return None
            chosen.append(picked)
            self._answered(picked, text)
        return f"prompt={chosen[0]},reply={chosen[1]}"

    def probe(self, answers: Answers) -> Answers:
        """Probe the base model if that is wanted (no is the default)."""
        wanted = questionary.confirm(probe_question(answers), default=False, style=_STYLE).unsafe_ask()
        return probe_in_wizard(answers) if wanted else answers

    def measure(self, answers: Answers) -> Answers:
        """Probe the base model; where models must be downloaded for it, that is asked first."""
        return self.probe(answers) if probe_downloads(answers) else probe_in_wizard(answers)

    def _answered(self, value: Any, text: str = "") -> None:
        """Print an answer on one line, with its question where that was not printed before."""
        lead = f"{text} " if text else ""
        answer = (
            "I don't know" if value is None else format_answer(value, max(20, _columns() - len(lead) - 3))
        )
        self._print([("class:qmark", "✓ "), ("class:question", lead), ("class:answer", answer)])

    def _advice(self, profile: Profile) -> None:
        """Show the recommendation so far, what is open about it, and what is worth finding out."""
        recommendation = recommend_for_profile(profile, own=own_decided_trials())
        text = f"{recommendation.choice} ({recommendation.confidence.because})"
        text += f"; so for {profile.model}: the plan has advice for each model" if profile.models else ""
        self._wrap("class:leader", text, f"{'recommended':<13} ")
        for fact in recommendation.worth_finding:
            self._wrap("class:decides", fact.text, f"{'worth knowing':<13} ")
        if line := measure_first_line(recommendation):
            self._wrap("class:decides", line, f"{'measure first':<13} ")

    def _choose(self, asked: AskedQuestion) -> Any:
        question = asked.question
        options: list[tuple[Any, str]] = [(choice.value, choice.help) for choice in question.choices] or [
            (True, ""),
            (False, ""),
        ]
        choices = []
        for value, text in options:
            name = format_answer(value)
            closed_reason = asked.closed.get(value)
            choices.append(
                questionary.Choice(f"{name:<7} {text}".rstrip(), value=value, disabled=closed_reason)
            )
        if offer := asked.measurement:
            text = "measure it for me"
            text += "" if offer.missing else f" ({measure_text(offer)})"
            choices.append(
                questionary.Choice(text, value=InterviewMove.MEASURE, disabled=offer.missing or None)
            )
        return self._select(asked, choices)

    def _place(self, asked: AskedQuestion) -> Any:
        """Let the place be chosen; what was found here is shown, and can be changed; another machine is described.

        Returns:
            The place, a mapping with the answers that describe its machine, or InterviewMove.BACK.
        """
        texts = {choice.value: choice.help for choice in asked.question.choices}
        machine = machine_text(self.machine)
        menu = {
            "here": f"{texts['here']}: {machine}",
            CHANGE: f"{texts['here']}, but not as found: change it",
        }
        menu |= {"other": texts["other"], "provider": texts["provider"]}
        choices = [questionary.Choice(text, value=value) for value, text in menu.items()]
        place = self._select(asked, choices)
        if place not in (CHANGE, "other"):
            return place
        described = self._described_machine(asked, here=place == CHANGE)
        if described is None:
            return self._place(asked)
        return {"runs_on": "here" if place == CHANGE else "other", **described}

    def _described_machine(self, asked: AskedQuestion, here: bool) -> dict[str, Any] | None:
        """Ask for GPUs, and without any for memory and cores; None goes back."""
        cards = {name: gpu for name in COMMON_GPUS if (gpu := find_gpu(name))}
        choices = [
            questionary.Choice(f"{name:<16} {gpu.memory_gib:g} GiB", name) for name, gpu in cards.items()
        ]
        choices += [
            questionary.Choice("another GPU: its kind and memory", OTHER),
            questionary.Choice("no GPU", "none"),
            questionary.Choice("← back", InterviewMove.BACK),
        ]
        picked = self._pick("Which GPU?", choices)
        if picked == InterviewMove.BACK:
            return None
        described: dict[str, Any] = {}
        wanted = {"gpu_count": "How many of them?"}
        if card := cards.get(picked):
            described = {"gpu_kind": card.kind, "gpu_memory_gib": card.memory_gib}
        elif picked == OTHER:
            kinds = [questionary.Choice(c.help, c.value) for c in QUESTION_BY_ID["gpu_kind"].choices[:-1]]
            described = {"gpu_kind": self._pick("Which kind of GPU?", kinds)}
            wanted = {"gpu_memory_gib": "GiB of memory in one of them:", **wanted}
        else:
            described = {"gpu_kind": "none", "gpu_count": 0, "gpu_memory_gib": 0}
            wanted = {"ram_gib": "GiB of main memory:", "cpu_cores": "CPU cores:"}
        for key, text in wanted.items():
            default = 1 if key == "gpu_count" else getattr(self.machine, key).value if here else None
            part = replace(asked, question=QUESTION_BY_ID[key], measurement=None)
            described[key] = self._type(part, Answer(default, "detected"), text)
            if described[key] == InterviewMove.BACK:
                return None
        return described

    def _hosted(self, asked: AskedQuestion) -> Any:
        """Offer hosted models with their prices, and any other by address, name and price."""
        offers = hosted_offers(asked.profile)
        names = [offer.name.removeprefix("openai:").partition("@")[0] for offer in offers]
        width = max(map(len, names), default=0)
        choices = [
            questionary.Choice(f"{name:<{width}} {offer.text}", offer.name, disabled=offer.closed or None)
            for name, offer in zip(names, offers, strict=True)
        ]
        choices.append(questionary.Choice("a server of ours, or another provider: its address", value=OTHER))
        value = self._select(asked, choices)
        if value != OTHER:
            return value
        parts = [
            self._line("Its address:", "http://127.0.0.1:8000/v1"),
            self._line("Name of the model there:"),
        ]
        model = read_answer("model", f"openai:{parts[1]}@{parts[0]}")
        if (variable := api_key(parts[0]).variable) or not is_private(parts[0]):
            self.note(f"its key is read from {variable}" if variable else key_hint(parts[0]))
        prices = self._line("USD per million tokens in and out, as in 0.15 0.60 (Enter: not known):").split()
        keys = ("usd_per_million_input", "usd_per_million_output")
        return {"model": model, **dict(zip(keys, prices, strict=False))} if len(prices) == 2 else model

    def _line(self, text: str, default: str = "") -> str:
        return str(questionary.text(text, default=default, style=_STYLE, qmark=">").unsafe_ask()).strip()

    def _model(self, asked: AskedQuestion) -> Any:
        """Offer the models that can run here, and the option to type any other."""
        offers = model_offers(asked.profile, asked.lacking)
        width = max(len(offer.name) for offer in offers)
        choices = [
            questionary.Choice(
                f"{offer.name:<{width}} {offer.text}", value=offer.name, disabled=offer.closed or None
            )
            for offer in offers
        ]
        known = asked.known.value if asked.known else None
        if known is not None and known not in [offer.name for offer in offers if not offer.closed]:
            choices.insert(0, questionary.Choice(known, value=known))
        choices.append(questionary.Choice("compare several models in one trial", value=InterviewMove.SEVERAL))
        choices.append(
            questionary.Choice("another: type its name, a folder, or openai:NAME@URL", value=OTHER)
        )
        value = self._select(asked, choices)
        value = self._type(asked, None, "Its name, folder or openai:NAME@URL:") if value == OTHER else value
        # A model that is only suggested needs not be here: another stands in for it.
        suggested = asked.known is not None and asked.known.source == "default" and value == known
        moves = (None, InterviewMove.BACK, InterviewMove.SEVERAL)
        doubt = "" if value in moves or suggested or asked.profile.runs_on != "here" else doubt_about(value)
        if not doubt or confirm(f"{doubt}. Plan on it?", default=False):
            return value
        return self._model(asked)

    def _several(self, asked: AskedQuestion) -> Any:
        """Let known models be ticked, and then their aliases be changed and others be added in one line."""
        known = parse_models(asked.known.value) if asked.known and asked.known.value else {}
        choices = [
            questionary.Choice(
                f"{offer.name:<32} {offer.text}",
                value=offer.name,
                disabled=offer.closed or None,
                checked=offer.name in known.values() and not offer.closed,
            )
            for offer in model_offers(asked.profile, asked.lacking)
        ]
        ticked = questionary.checkbox(
            "Which of these?",
            choices,
            style=_STYLE,
            qmark=">",
            instruction="(space ticks one; Enter; others can be typed next)",
            erase_when_done=True,
        ).unsafe_ask()
        offered = [choice.value for choice in choices]
        before = {alias: name for alias, name in known.items() if name in ticked or name not in offered}
        line = models_line(with_aliases([name for name in ticked if name not in known.values()], before))
        text = "Aliases, which may be changed, and any others as ALIAS=NAME, ALIAS=openai:NAME@URL:"
        return self._type(asked, Answer(line, "asked"), text)

    def _pick(self, text: str, choices: list[questionary.Choice]) -> str:
        return str(
            questionary.select(
                text, choices, style=_STYLE, qmark="?", instruction="(arrow keys)", erase_when_done=True
            ).unsafe_ask()
        )

    def _select(self, asked: AskedQuestion, choices: list[questionary.Choice]) -> Any:
        """Show choices with the pointer on the known value or on "I don't know", so that Enter alone answers nothing.

        The keys ? and < show help and go back.
        """
        choices = [
            *choices,
            questionary.Choice("I don't know", value=DONT_KNOW),
            questionary.Choice("← back", value=InterviewMove.BACK),
        ]
        known = asked.known.value if asked.known else None
        preferred = DONT_KNOW if known is None else known
        open_choices = {choice.value: choice for choice in choices if not choice.disabled}
        default = open_choices.get(preferred, open_choices[DONT_KNOW])
        while True:
            menu = questionary.select(
                "Choose",
                choices,
                default=default,
                style=_STYLE,
                instruction=f"({_position(asked)}; arrow keys, Enter; {HELP_KEY} help)",
                qmark=">",
                erase_when_done=True,
            )
            _answer_on_key(menu, HELP_KEY, HELP)
            _answer_on_key(menu, BACK_KEY, InterviewMove.BACK)
            chosen = menu.unsafe_ask()
            if chosen != HELP:
                return None if chosen == DONT_KNOW else chosen
            self._help(asked)

    def _type(self, asked: AskedQuestion, known: Answer | None, text_before: str = "") -> Any:
        """Ask for a typed answer; the words "?" and "<" show help and go back, "measure" has it measured where possible."""
        question = asked.question
        default = "" if known is None or known.value is None else str(known.value)
        completer: Completer | None = None
        if question.kind == "path":
            completer = PathCompleter(expanduser=True)
        elif question.id == "model":
            completer = WordCompleter([model.name for model in models.known_models()], sentence=True)
        measurable = asked.measurement is not None and not asked.measurement.missing
        while True:
            text = questionary.text(
                text_before,
                default=default,
                style=_STYLE,
                qmark=">",
                validate=TypedAnswerValidator(question, (MEASURE_WORD,) if measurable else ()),
                bottom_toolbar=lambda: f" {_position(asked)} ·{typing_hint(question, default)}",
                erase_when_done=True,
                completer=completer,
            ).unsafe_ask()
            text = text.strip()
            if text == BACK_KEY:
                return InterviewMove.BACK
            if measurable and text.lower() == MEASURE_WORD:
                return InterviewMove.MEASURE
            if text != HELP_KEY:
                return read_answer(question.id, text)
            self._help(asked)

    def _help(self, asked: AskedQuestion) -> None:
        """Show what the key ? shows."""
        for style, line in help_lines(asked):
            self._wrap(style, line)

    def _wrap(self, style: str, text: str, lead: str = "", indent: int = 2) -> None:
        """Print a text wrapped to the terminal's width, after an indented lead."""
        first = " " * indent + lead
        width = max(20, _columns() - len(first))
        lines = textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)
        for number, line in enumerate(lines):
            self._print([("class:why", first if number == 0 else " " * len(first)), (style, line)])

    def _print(self, parts: list[StyledText]) -> None:
        print_formatted_text(FormattedText(parts), style=_STYLE)


def _position(asked: AskedQuestion) -> str:
    """Return which question this is, and how many there can be."""
    return f"question {asked.number} of at most {asked.most}" if asked.number else "a change"


def _answer_on_key(menu: questionary.Question, key: str, value: str) -> None:
    """Let a key of a list choose a value that is not in the list."""
    bindings = menu.application.key_bindings
    assert isinstance(bindings, KeyBindings)
    bindings.add(key, eager=True)(lambda event: event.app.exit(result=value))


def _row(key: str, answer: Answer, width: int) -> list[StyledText]:
    """Return one line of the review: id, value, source."""
    value = ("class:answer", f"{format_answer(answer.value, 40):<40}")
    return [("", f"{key:<{width}}  "), value, ("class:why", f"  {answer.source}")]


def _columns() -> int:
    """Return the width to write in: the terminal's, at most MAX_COLUMNS."""
    return min(MAX_COLUMNS, shutil.get_terminal_size().columns - 1)
