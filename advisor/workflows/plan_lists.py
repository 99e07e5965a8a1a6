"""What ``tunewise plan`` lists without planning: the saved profiles, and the JSON Schema of a plan."""

from __future__ import annotations

import json
from collections.abc import Mapping

from advisor.display import console
from advisor.output import emit_result
from advisor.questionnaire.answers import Answer, format_answer
from advisor.questionnaire.answers_files import all_profiles, profiles_folder
from runners.plan.schema import Plan


def print_profiles(as_json: bool) -> None:
    """Print the saved profiles: name, day and goal; one that cannot be read says why."""
    profiles = all_profiles()
    if as_json:
        rows = [profile.to_json() for profile in profiles]
        emit_result({"schema": 1, "folder": str(profiles_folder()), "profiles": rows})
        return
    if not profiles:
        print(f"no profile is saved in {profiles_folder()}; save one with: tunewise plan --save NAME")
        return
    cells = [
        (
            profile.name,
            profile.day.isoformat(),
            str(len(profile.answers)),
            _about(profile.answers, profile.problem),
        )
        for profile in profiles
    ]
    console.console().print(console.table(("profile", "saved", "answers", "goal"), cells, right=(2,)))


def print_schema() -> None:
    """Print the JSON Schema of plan.yaml."""
    print(json.dumps(Plan.model_json_schema(by_alias=True), indent=2))


def _about(answers: Mapping[str, Answer], problem: str) -> str:
    """Return a table cell as markup: the goal, or what is wrong with the file."""
    goal = answers["goal"].value if "goal" in answers else None
    text = (problem or format_answer(goal or "–", 60)).replace("[", "\\[")
    return f"[red]{text}[/]" if problem else text
