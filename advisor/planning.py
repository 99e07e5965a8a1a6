"""The work behind `tunewise plan`: gather, ask where that is possible, recommend, write."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from advisor import output, probed, remembering
from advisor.advice import recommend
from advisor.answers import Answer, Answers
from advisor.engine import Recommendation
from advisor.gather import Situation, said, with_file
from advisor.naming import check_model
from advisor.output import emit
from advisor.settings import with_own
from advisor.values import say
from rag.durable import write_bytes, write_text
from rag.errors import CannotRun, UsageProblem
from runners.plan import Plan, write_plan

DEFAULT_OUT = Path("plan.yaml")
DEFAULT_RECORD = Path("decision.md")
MOST_SPLIT_TOKENS, MOST_SPLIT_ROWS = 100_000, 500
"""Corpus and examples that are sorted into facts and behaviour while somebody waits."""


@dataclass(frozen=True, slots=True)
class Given:
    """What the command line gave."""

    answers: Path | None = None
    sets: tuple[str, ...] = ()
    flags: Mapping[str, Any] = field(default_factory=dict)
    out: Path | None = None
    yes: bool = False
    as_json: bool = False
    profile: str | None = None
    save: str | None = None
    record: Path | None = None


def plan(given: Given) -> Path | None:
    """Recommend and write the plan; return where it was written, None when there is nothing to run yet.

    Raises UsageProblem when there is nothing to advise on, BadInput for answers and files that are broken.
    """
    answers = _read(given)
    asking = not given.yes and not given.as_json and sys.stdin.isatty() and sys.stdout.isatty()
    if not answers and not asking:
        raise UsageProblem(
            "nothing to advise on: no answers and no files were given",
            "give --documents, --examples, --set key=value or --answers FILE, or run it on a terminal",
        )
    answers = with_own(answers)
    record = given.record
    if asking:
        from advisor.wizard import interview_on_terminal

        talked = interview_on_terminal(answers)
        answers = talked.answers
        record = record or (DEFAULT_RECORD if talked.record else None)
    rec = recommend(answers)
    situation = rec.situation
    assert situation is not None
    if given.as_json:
        emit(rec.to_json() | probed.told(situation, rec))
    else:
        _show(rec, situation, listed=not asking)
    written = _write(rec, situation, given)
    _keep(rec, situation, given.save, record)
    return written


def _read(given: Given) -> Answers:
    """Return what flags, answers file and kept profile say, the stronger first; say what is odd about the model."""
    answers = said(given.sets, **given.flags)
    if given.profile:
        from advisor.saved import find

        answers = with_file(answers, find(given.profile))
    answers = with_file(answers, given.answers)
    refuse_unknown_model(answers)
    answers, note = probed.of_this_model(answers)
    if note:
        output.note(note)
    return answers


def refuse_unknown_model(answers: Answers) -> None:
    """Raise BadInput for a model's name that means nothing; say aloud when its size is unknown."""
    sized = "model_params_b" in answers and answers["model_params_b"].value is not None
    if "model" in answers and (note := check_model(answers["model"].value, sized)):
        output.note(note)


def _keep(rec: Recommendation, situation: Situation, name: str | None, record: Path | None) -> None:
    """Keep the answers as a profile and write the decision record, where these are wanted."""
    if name:
        from advisor.saved import save

        save(name, situation.answers)
        output.note(f"kept as the profile {name}; use it with: {output.command('plan', '--profile', name)}")
    if record:
        from advisor.record import record as page

        write_text(record, page(rec.to_json(), situation.answers, date.today()))
        output.note(f"wrote the decision record {record}")


def print_profiles(as_json: bool) -> None:
    """Print the kept profiles: name, day, what they are about; one that cannot be read says why."""
    from advisor.saved import every, folder

    found = every()
    if as_json:
        rows = [saved.to_json() for saved in found]
        emit({"schema": 1, "folder": str(folder()), "profiles": rows})
        return
    if not found:
        print(f"no profile is kept in {folder()}; keep one with: tunewise plan --save NAME")
        return
    from advisor import render

    cells = [
        (saved.name, saved.day.isoformat(), str(len(saved.answers)), _about(saved.answers, saved.problem))
        for saved in found
    ]
    render.console().print(render.table(("profile", "saved", "answers", "goal"), cells, right=(2,)))


def _about(answers: Mapping[str, Answer], problem: str) -> str:
    """Return a table cell (markup): the goal, or what is wrong with the file."""
    goal = answers["goal"].value if "goal" in answers else None
    said_plainly = (problem or say(goal or "–", 60)).replace("[", "\\[")
    return f"[red]{said_plainly}[/]" if problem else said_plainly


def print_schema() -> None:
    """Print the JSON Schema of plan.yaml."""
    print(json.dumps(Plan.model_json_schema(by_alias=True), indent=2))


def rethink(answers: Answers, changes: tuple[str, ...]) -> tuple[Recommendation, Recommendation]:
    """Return the recommendation before and after changes (``key=value``) to the answers of a plan."""
    before = recommend(answers)
    changed = answers
    for key, answer in said(changes).layers["flag"].items():
        changed = changed.drop("file", [key]).add("flag", {key: answer})
    refuse_unknown_model(changed)
    changed, note = probed.of_this_model(changed)
    if note:
        output.note(note)
    return before, recommend(changed)


def _show(rec: Recommendation, situation: Situation, listed: bool) -> None:
    """Print the recommendation, after the answers where these were not just reviewed."""
    from advisor import render

    screen = render.console()
    answers = situation.answers
    no_gpu = situation.profile.has_gpu is False
    keys = [key for key in answers if not (no_gpu and key in ("gpu_count", "gpu_memory_gib"))]
    if listed:
        rows = ((key, say(answers[key].value), answers[key].source, answers[key].note) for key in keys)
        screen.print(render.answers(rows))
    screen.print()
    screen.print(render.recommendation(rec))
    if was := probed.before(situation):
        screen.print()
        screen.print(render.difference(was, rec, "what the probe changed"))
    if line := remembering.hours_line(rec, situation):
        screen.print(line, soft_wrap=True, markup=False)


def _write(rec: Recommendation, situation: Situation, given: Given) -> Path | None:
    """Write the plan; an older one of the default name is kept beside it."""
    from advisor.draft import draft

    profile = situation.profile
    if not (profile.documents or profile.examples or profile.questions):
        output.note("no plan was written: name --documents, --examples or --questions, and it can be run")
        return None
    out = given.out or DEFAULT_OUT
    drafted = draft(rec, situation, out.parent)
    for note in drafted.notes:
        output.note(note)
    if given.out is None and out.is_file():
        kept = out.with_suffix(".yaml.bak")
        write_bytes(kept, out.read_bytes())
        output.note(f"the plan that was there is kept as {kept}")
    write_plan(drafted.plan, out)
    arms = ", ".join(arm.arm for arm in drafted.plan.arms)
    output.note(f"wrote {out}: arms {arms}")
    _tell_split(situation)
    _tell_fetches(drafted.plan)
    output.note(f"run it with: {output.command('run', out)}")
    return out


def _tell_fetches(plan: Plan) -> None:
    """Say what running the plan would fetch first, and that there is no room for it where that is so."""
    from runners import fetching

    fetches = fetching.of_plan(plan)
    for fetch in fetches:
        output.note(f"running it first fetches {fetch.text}")
    try:
        fetching.check_room(fetches)
    except CannotRun as problem:
        output.note(f"{problem.message}: {problem.hint}")


def _tell_split(situation: Situation) -> None:
    """Say which examples are facts and which behaviour, where that takes no more than a second or two."""
    stats, documents = situation.stats, situation.profile.documents
    if stats.examples is None or not documents or stats.counted["corpus_tokens"] > MOST_SPLIT_TOKENS:
        return
    from advisor.splitter import split_files

    rows = stats.examples.rows
    first = f" (the first {MOST_SPLIT_ROWS:,} of {len(rows):,})" if len(rows) > MOST_SPLIT_ROWS else ""
    output.note(f"the examples{first}: {split_files(rows[:MOST_SPLIT_ROWS], Path(documents)).text}")
