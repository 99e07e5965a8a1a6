"""The work behind `tunewise plan`: gather, ask where that is possible, recommend, write."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from advisor import output
from advisor.advice import recommend
from advisor.output import emit_result
from advisor.probe import answers_from_probe
from advisor.questionnaire.answers import Answer, Answers, format_answer
from advisor.questionnaire.gather import Situation, flag_answers, refuse_unknown_model, with_answers_of
from advisor.recommendation.recommend import BaseRecommendation
from advisor.settings import with_settings_answers
from advisor.verdict import predictions
from rag.errors import CannotRun, UsageProblem
from rag.files import write_bytes, write_text
from runners.plan.schema import Plan, write_plan

PLAN_OUT = Path("plan.yaml")
RECORD_OUT = Path("decision.md")
MOST_SPLIT_TOKENS, MOST_SPLIT_ROWS = 100_000, 500
"""Corpus and examples that are sorted into facts and behaviour while somebody waits."""


@dataclass(frozen=True, slots=True)
class PlanRequest:
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


def make_plan(given: PlanRequest) -> Path | None:
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
    answers = with_settings_answers(answers)
    record = given.record
    if asking:
        from advisor.wizard.prompter import interview_on_terminal

        talked = interview_on_terminal(answers)
        answers = talked.answers
        record = record or (RECORD_OUT if talked.record else None)
    rec = recommend(answers)
    situation = rec.situation
    assert situation is not None
    if given.as_json:
        emit_result(rec.to_json() | answers_from_probe.probe_json(situation, rec))
    else:
        _show(rec, situation, listed=not asking)
    written = _write(rec, situation, given)
    _keep(rec, situation, given.save, record)
    return written


def _read(given: PlanRequest) -> Answers:
    """Return what flags, answers file and kept profile say, the stronger first; say what is odd about the model."""
    answers = flag_answers(given.sets, **given.flags)
    if given.profile:
        from advisor.questionnaire.answers_files import find_profile

        answers = with_answers_of(answers, find_profile(given.profile))
    answers = with_answers_of(answers, given.answers)
    refuse_unknown_model(answers)
    answers, note = answers_from_probe.answers_of_this_model(answers)
    if note:
        output.note(note)
    return answers


def _keep(rec: BaseRecommendation, situation: Situation, name: str | None, record: Path | None) -> None:
    """Keep the answers as a profile and write the decision record, where these are wanted."""
    if name:
        from advisor.questionnaire.answers_files import save_profile

        save_profile(name, situation.answers)
        output.note(
            f"kept as the profile {name}; use it with: {output.command_line('plan', '--profile', name)}"
        )
    if record:
        from advisor.report.decision_record import decision_record as page

        write_text(record, page(rec.to_json(), situation.answers, date.today()))
        output.note(f"wrote the decision record {record}")


def print_profiles(as_json: bool) -> None:
    """Print the kept profiles: name, day, what they are about; one that cannot be read says why."""
    from advisor.questionnaire.answers_files import all_profiles, profiles_folder

    found = all_profiles()
    if as_json:
        rows = [saved.to_json() for saved in found]
        emit_result({"schema": 1, "folder": str(profiles_folder()), "profiles": rows})
        return
    if not found:
        print(f"no profile is kept in {profiles_folder()}; keep one with: tunewise plan --save NAME")
        return
    from advisor.display import console

    cells = [
        (saved.name, saved.day.isoformat(), str(len(saved.answers)), _about(saved.answers, saved.problem))
        for saved in found
    ]
    console.console().print(console.table(("profile", "saved", "answers", "goal"), cells, right=(2,)))


def _about(answers: Mapping[str, Answer], problem: str) -> str:
    """Return a table cell (markup): the goal, or what is wrong with the file."""
    goal = answers["goal"].value if "goal" in answers else None
    said_plainly = (problem or format_answer(goal or "–", 60)).replace("[", "\\[")
    return f"[red]{said_plainly}[/]" if problem else said_plainly


def print_schema() -> None:
    """Print the JSON Schema of plan.yaml."""
    print(json.dumps(Plan.model_json_schema(by_alias=True), indent=2))


def recommend_after_change(
    answers: Answers, changes: tuple[str, ...]
) -> tuple[BaseRecommendation, BaseRecommendation]:
    """Return the recommendation before and after changes (``key=value``) to the answers of a plan."""
    before = recommend(answers)
    changed = answers
    for key, answer in flag_answers(changes).layers["flag"].items():
        changed = changed.drop("file", [key]).add("flag", {key: answer})
    refuse_unknown_model(changed)
    changed, note = answers_from_probe.answers_of_this_model(changed)
    if note:
        output.note(note)
    return before, recommend(changed)


def _show(rec: BaseRecommendation, situation: Situation, listed: bool) -> None:
    """Print the recommendation, after the answers where these were not just reviewed."""
    from advisor.display import console

    screen = console.console()
    answers = situation.answers
    no_gpu = situation.profile.has_gpu is False
    keys = [key for key in answers if not (no_gpu and key in ("gpu_count", "gpu_memory_gib"))]
    if listed:
        rows = (
            (key, format_answer(answers[key].value), answers[key].source, answers[key].note) for key in keys
        )
        screen.print(console.render_answers(rows))
    screen.print()
    screen.print(console.render_recommendation(rec))
    if was := answers_from_probe.recommendation_before(situation):
        screen.print()
        screen.print(console.render_difference(was, rec, "what the probe changed"))
    if line := predictions.hours_line(rec, situation):
        screen.print(line, soft_wrap=True, markup=False)


def _write(rec: BaseRecommendation, situation: Situation, given: PlanRequest) -> Path | None:
    """Write the plan; an older one of the default name is kept beside it."""
    from advisor.drafting.draft import draft_with_notes

    profile = situation.profile
    if not (profile.documents or profile.examples or profile.questions):
        output.note("no plan was written: name --documents, --examples or --questions, and it can be run")
        return None
    out = given.out or PLAN_OUT
    drafted = draft_with_notes(rec, situation, out.parent)
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
    output.note(f"run it with: {output.command_line('run', out)}")
    return out


def _tell_fetches(plan: Plan) -> None:
    """Say what running the plan would fetch first, and that there is no room for it where that is so."""
    from runners.models import resolve
    from runners.runs import requirements

    fetches = requirements.plan_downloads(plan)
    for fetch in fetches:
        output.note(f"running it first fetches {fetch.text}")
    try:
        resolve.check_cache_space(fetches)
    except CannotRun as problem:
        output.note(f"{problem.message}: {problem.hint}")


def _tell_split(situation: Situation) -> None:
    """Say which examples are facts and which behaviour, where that takes no more than a second or two."""
    stats, documents = situation.stats, situation.profile.documents
    if stats.examples is None or not documents or stats.counted["corpus_tokens"] > MOST_SPLIT_TOKENS:
        return
    from advisor.drafting.row_sorting import sort_rows_of_files

    rows = stats.examples.rows
    first = f" (the first {MOST_SPLIT_ROWS:,} of {len(rows):,})" if len(rows) > MOST_SPLIT_ROWS else ""
    output.note(f"the examples{first}: {sort_rows_of_files(rows[:MOST_SPLIT_ROWS], Path(documents)).text}")
