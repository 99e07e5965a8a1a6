"""What the terminal shows of five kinds of verdict, from planted answers.

``python -m tests.support.verdict_screens`` writes the texts into tests/advisor/verdict/screens, where a person reads the
headline against the table.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from advisor.display.trial_table import show_arms, show_verdict
from advisor.report.report import write_report
from rag.files import write_text
from runners.plan.schema import Plan
from runners.run_folder import SCORES, TRIAL, RunFolder
from runners.trial.trial import ANSWERS, ArmScores, write_scores
from tests.support.planted_arms import arm, first, plan

SCREENS = Path(__file__).parents[1] / "advisor" / "verdict" / "screens"


def spread(n: int, count: int, shift: int = 0) -> list[bool]:
    """Return a row with n right answers, evenly spread."""
    return [((position + shift) * n) % count < n for position in range(count)]


def trial(kind: str) -> tuple[Plan, list[ArmScores]]:
    """Return the planted trial of a kind: use, cheaper, tendency, none or overturned."""
    beats = {"must_beat": ["prompting", "rag"]}
    if kind == "use":
        return plan({}, gate=beats), [
            arm("prompting", spread(4, 60)),
            arm("rag", spread(24, 60)),
            arm("hybrid", spread(51, 60)),
        ]
    if kind == "cheaper":
        right = spread(180, 200)
        fast = [good and position != 7 for position, good in enumerate(right)]
        return plan({"calls_per_month": 30_000}, gate={"must_beat": ["rag"]}), [
            replace(arm("rag", fast), seconds=(0.4,) * 200),
            replace(arm("hybrid", right), seconds=(2.4,) * 200),
        ]
    if kind == "tendency":
        return plan({}, gate=beats), [
            arm("prompting", spread(2, 20)),
            arm("rag", spread(12, 20)),
            arm("hybrid", spread(14, 20)),
        ]
    if kind == "none":
        refused = [0.0] * 19 + [1.0]
        rag = arm("rag", [*first(0, 20), *first(1, 4)], unanswerable=4, false_refusal=refused)
        hybrid = arm("hybrid", [*first(2, 20), *first(0, 4)], unanswerable=4, false_refusal=refused)
        found = (1.0,) * 19 + (0.0,) + (None,) * 4
        rest = [arm("prompting", first(0), unanswerable=4)]
        return plan({}, gate=beats), [*rest, *(replace(row, hits=found) for row in (rag, hybrid))]
    return plan({}, "lora", gate={"must_beat": ["prompting"]}), [
        arm("prompting", spread(8, 60)),
        arm("rag", spread(50, 60)),
        arm("lora", spread(20, 60)),
    ]


KINDS: Sequence[str] = ("use", "cheaper", "tendency", "none", "overturned")


def screen(kind: str, folder: Path) -> str:
    """Return what a finished run of a kind shows: conclusion, arms, verdict."""
    trial_plan, arms = trial(kind)
    run = RunFolder.create(folder / kind, trial_plan)
    run.write({"event": "run.start", "split": "abc"})
    write_text(run.path / TRIAL / ANSWERS, "")
    write_scores(arms, run.path / TRIAL / SCORES)
    report = write_report(run, trial_plan)
    out = io.StringIO()
    console = Console(width=100, file=out)
    show_arms(report, console)
    show_verdict(report.verdict, console)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def main() -> None:
    """Write the texts of all kinds."""
    for kind in KINDS:
        with tempfile.TemporaryDirectory() as folder:
            write_text(SCREENS / f"{kind}.txt", screen(kind, Path(folder)))


if __name__ == "__main__":
    main()
