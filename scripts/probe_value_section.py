"""Sections of docs/accuracy.md and benchmarks/TRIALS.md: what measuring before advising was worth on the public sets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scripts.pages import table

RECORD = Path(__file__).resolve().parent.parent / "benchmarks" / "probe_value.json"
INTRO = """
## Measuring before advising

The same sets, advised twice: from the profile and the files alone, and after a probe of the base model on the dev questions
(`tunewise plan --probe`). Each choice is judged by the recorded trial of the set as if it had been advised; trials that
leave it undecided, or hold no arm of it, count for neither side.
`python -m benchmarks.probe_value` runs it again; `benchmarks/TRIALS.md` has the sets."""
NOT_KNOWN = """\
For users who cannot say how far a plain model is from the wanted behaviour (`behaviour_gap`), the answer that people know
least, the probe asks the model instead of the user:"""


def probe_value_summary() -> list[str]:
    """Return what the probe changed over all sets, without the sets."""
    answered, unanswered = _results()
    minutes = sum(result["minutes"] for result in answered.values())
    return [
        *(INTRO, "", *_conclusion(answered)),
        f"The probes took {minutes:.0f} minutes in all, on two cores that other work used at the same time.",
        *("", NOT_KNOWN, "", *_conclusion(unanswered)),
    ]


def probe_value_section() -> list[str]:
    """Return the advice before and after the probe for each set."""
    answered, unanswered = _results()
    return [
        *("", "## Measuring before advising", "", *_rows(answered)),
        *("", "### When the user does not know", "", *_rows(unanswered)),
    ]


def _results() -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """Return the recorded sets: those with all answers, and those without the answer about behaviour."""
    results: dict[str, dict[str, Any]] = json.loads(RECORD.read_text("utf-8"))
    answered = {name: result for name, result in results.items() if not result["without"]}
    return answered, {name: result for name, result in results.items() if result["without"]}


def _rows(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the table of some results."""
    rows = [
        (
            name,
            _side(result, "before"),
            _side(result, "after"),
            f"{result['minutes']:.1f}",
            f"{result['expected_minutes']:.1f}",
        )
        for name, result in results.items()
    ]
    return table(("set", "before the probe", "after it", "minutes", "expected"), rows)


def _side(result: Mapping[str, Any], key: str) -> str:
    """Return the choice, and what the trial says of it."""
    outcome = (result.get("outcome") or {}).get(key, "no trial")
    return f"{result[key]['choice']}: {outcome}"


def _conclusion(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the counts of both sides as sentences, and how often the probe would be offered."""
    judged = [result for result in results.values() if "outcome" in result]
    if not judged:
        return ["None of these sets has a recorded trial."]
    lines = []
    for key, words in (("before", "Before the probe"), ("after", "After it")):
        outcomes = [result["outcome"][key] for result in judged]
        lines.append(
            f"{words} {outcomes.count('confirmed')} of {len(judged)} choices were confirmed and "
            f"{outcomes.count('overturned')} overturned."
        )
    changed = [r for r in results.values() if r["before"]["choice"] != r["after"]["choice"]]
    offered = sum(result["offered"] for result in results.values())
    among = (
        f" {len(changed)} choices, {sum(r['offered'] for r in changed)} of them where it is offered"
        if changed
        else " no choice"
    )
    lines.append(f"`plan` offers it in {offered} of {len(results)}; it changed{among}.")
    return lines
