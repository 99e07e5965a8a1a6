"""What to do after a verdict, as command lines with the reason for each."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def next_steps(data: Mapping[str, Any], run: Path) -> list[tuple[str, str]]:
    """Return (command, why) pairs, the most useful first; commands name the run as it was named, or by its folder."""
    verdict = data["verdict"]
    named = shlex.quote(str(run if not run.is_absolute() else Path(run.name)))
    steps = [
        (f'tunewise ask {named} "your question"', f"asks {verdict['winner']}, the arm the verdict chose")
    ]
    other = shlex.quote(f"{named.strip(chr(39))}-more")
    more = verdict.get("more_questions_needed")
    if verdict["outcome"] == "undecided" or verdict["strength"] == "leaning":
        count = f"about {more} more" if more else "30 or more"
        steps += [
            (f"tunewise run {named}/plan.yaml --out {other}",
             f"after adding {count} test questions to the plan's data (and raising its max_test, where it has one)"),
            (f"tunewise report {other} --compare {named}", "sets the two runs side by side"),
        ]  # fmt: skip
    if verdict["outcome"] == "overturned":
        steps.append((f"tunewise explain {named}/plan.yaml", f"why {verdict['recommended']} was recommended"))
    if verdict["strength"] == "proxy":
        steps.append(
            (f"tunewise run {named}/plan.yaml --out {other}", "on a machine that holds the plan's own model")
        )
    if any("retrieval" in str(step) or step == "index" for step in data["measured"].get("seconds", {})):
        steps.append(
            (f"tunewise index update {named}/index --documents PATH",
             "after the documents changed: answers follow at once, nothing is trained"),
        )  # fmt: skip
    steps.append((f"tunewise chat {named}", "the same as a conversation; follow-ups are understood"))
    return steps
