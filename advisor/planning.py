"""The work behind `tunewise plan`: gather, ask where that is possible, recommend, write."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from advisor.answers import Answers
from advisor.engine import Recommendation, recommend
from advisor.gather import Situation, complete, said, with_file
from advisor.values import say
from rag.durable import write_bytes
from rag.errors import UsageProblem
from runners.plan import Plan, write_plan

DEFAULT_OUT = Path("plan.yaml")


@dataclass(frozen=True, slots=True)
class Given:
    """What the command line gave."""

    answers: Path | None = None
    sets: tuple[str, ...] = ()
    flags: Mapping[str, Any] = field(default_factory=dict)
    out: Path | None = None
    yes: bool = False
    as_json: bool = False


def plan(given: Given) -> Path | None:
    """Recommend and write the plan; return where it was written, None when there is nothing to run yet.

    Raises UsageProblem when there is nothing to advise on, BadInput for answers and files that are broken.
    """
    answers = with_file(said(given.sets, **given.flags), given.answers)
    asking = not given.yes and not given.as_json and sys.stdin.isatty() and sys.stdout.isatty()
    if not answers and not asking:
        raise UsageProblem(
            "nothing to advise on: no answers and no files were given",
            "give --documents, --examples, --set key=value or --answers FILE, or run it on a terminal",
        )
    if asking:
        from advisor.wizard import interview_on_terminal

        answers = interview_on_terminal(answers)
    situation = complete(answers)
    rec = recommend(situation.profile)
    if given.as_json:
        print(json.dumps(rec.to_json(), ensure_ascii=False))
    else:
        _show(rec, situation)
    return _write(rec, situation, given)


def print_schema() -> None:
    """Print the JSON Schema of plan.yaml."""
    print(json.dumps(Plan.model_json_schema(by_alias=True), indent=2))


def rethink(answers: Answers, changes: tuple[str, ...]) -> tuple[Recommendation, Recommendation]:
    """Return the recommendation before and after changes (``key=value``) to the answers of a plan."""
    before = recommend(complete(answers).profile)
    changed = answers
    for key, answer in said(changes).layers["flag"].items():
        changed = changed.drop("file", [key]).add("flag", {key: answer})
    return before, recommend(complete(changed).profile)


def _show(rec: Recommendation, situation: Situation) -> None:
    from advisor import render

    screen = render.console()
    answers = situation.answers
    no_gpu = situation.profile.has_gpu is False
    keys = [key for key in answers if not (no_gpu and key in ("gpu_count", "gpu_memory_gib"))]
    screen.print(
        render.answers((key, say(answers[key].value), answers[key].source, answers[key].note) for key in keys)
    )
    screen.print()
    screen.print(render.recommendation(rec))


def _write(rec: Recommendation, situation: Situation, given: Given) -> Path | None:
    """Write the plan; an older one of the default name is kept beside it."""
    from advisor.draft import draft

    profile = situation.profile
    if not (profile.documents or profile.examples or profile.questions):
        _tell("no plan was written: name --documents, --examples or --questions, and it can be run")
        return None
    out = given.out or DEFAULT_OUT
    drafted = draft(rec, situation, out.parent)
    for note in drafted.notes:
        _tell(note)
    if given.out is None and out.is_file():
        kept = out.with_suffix(".yaml.bak")
        write_bytes(kept, out.read_bytes())
        _tell(f"the plan that was there is kept as {kept}")
    write_plan(drafted.plan, out)
    arms = ", ".join(arm.arm for arm in drafted.plan.arms)
    _tell(f"wrote {out}: arms {arms}; run it with: tunewise run {out}")
    return out


def _tell(line: str) -> None:
    print(line, file=sys.stderr)
