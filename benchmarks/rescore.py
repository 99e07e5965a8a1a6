"""Score finished trials again under the scores of now, without a model: the order of the arms before and after.

    python -m benchmarks.rescore RUN_OR_FOLDER ... [--record]

A run's answers are read from its trial/answers.jsonl and scored in a temporary copy; the run itself is not changed. A
folder stands for the runs NAME/run in it. With --record the entry of benchmarks/accuracy.json of the same name (the
name of the run's plan) is written anew from the re-scored trial, with the means of before as ``before``.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from advisor.report.data import read_scores, report_of_run
from advisor.verdict.run_records import RunRecords
from benchmarks.cast import CAST
from benchmarks.trial_records import RECORD, recorded
from rag.errors import Problem
from rag.indexing.generations import current_generation
from rag.stores.text import TextStore
from runners.data.questions import Question
from runners.plan.schema import Plan
from runners.report.report_file import report_json
from runners.run_folder import INDEX, SCORES, TRIAL, is_run, open_run_folder, read_journal, read_run_plan
from runners.runs.dataset import read_data
from runners.scoring.scores import combined_score
from runners.trial.trial import ANSWERS, ArmScores, score_trial, write_scores

LEFT_OUT = ("adapters", "checkpoints", INDEX, "documents-updated")
"""Parts of a run that the report does not need; they are not copied."""


def find_trials(paths: Sequence[Path]) -> Iterator[Path]:
    """Yield the runs among the paths, and for a folder of others those of its NAME/run."""
    for path in paths:
        if is_run(path):
            yield path
        else:
            yield from (folder / "run" for folder in sorted(path.iterdir()) if is_run(folder / "run"))


def rescore(run: Path) -> tuple[Plan, dict[str, float], list[ArmScores], dict[str, Any] | None]:
    """Return a run's plan, each arm's mean before, the arms as scored now, and the report on them.

    The report is None for a trial whose arms are not all measured yet.

    Before are the run's own scores; a trial that was not scored yet has the weighted means that were the combined score
    of old, computed from the scores of now.
    """
    plan = read_run_plan(run)
    questions = read_data(plan).split.test
    arms = score_trial(plan, questions, read_journal(run / TRIAL / ANSWERS), _gold_reader(run, plan))
    arms = [arm for arm in arms if arm.questions]
    if (run / TRIAL / SCORES).is_file():
        before = {arm.arm: arm.mean_score for arm in read_scores(run) if arm.combined}
    else:
        before = {arm.arm: _weighted_mean_of_old(arm, plan) for arm in arms}
    if not {arm.arm for arm in plan.arms} <= {
        arm.arm for arm in arms if len(arm.questions) == len(questions)
    }:
        return plan, before, arms, None
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "run"
        shutil.copytree(run, copy, ignore=shutil.ignore_patterns(*LEFT_OUT))
        write_scores(arms, copy / TRIAL / SCORES)
        report = report_json(report_of_run(RunRecords.read(open_run_folder(copy), plan, questions)))
    return plan, before, arms, report


def comparison_lines(name: str, before: Mapping[str, float], arms: Sequence[ArmScores]) -> list[str]:
    """Return the arms of a trial, best first, with the mean and the place of before."""
    old = sorted(before, key=lambda arm: -before[arm])
    lines = [f"{name}: {max(len(arm.questions) for arm in arms)} questions"]
    for place, arm in enumerate(sorted(arms, key=lambda arm: -arm.mean_score), 1):
        judged = arm.of("right")
        was = f"{before[arm.arm]:.2f} (place {old.index(arm.arm) + 1})" if arm.arm in before else "not scored"
        lines.append(
            f"  {place}. {arm.arm:12} {was} -> {arm.mean_score:.2f}   right {sum(judged):g} of {len(judged)}"
        )
    return lines


def main() -> None:
    """Print the comparison of every trial, and record it if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("paths", nargs="+", type=Path, help="run folders, or folders of NAME/run")
    parser.add_argument("--record", action="store_true", help=f"write the trials into {RECORD.name}")
    given = parser.parse_args()
    failed = 0
    for run in find_trials(given.paths):
        try:
            plan, before, arms, report = rescore(run)
        except Problem as problem:
            print(f"{run}: not scored again: {problem}", file=sys.stderr)
            failed += 1
            continue
        print("\n".join(comparison_lines(plan.name, before, arms)))
        if report is None:
            print("  not all arms have answered yet")
        elif given.record:
            _record(plan, before, report)
    if failed:
        raise SystemExit(f"{failed} trials could not be scored again")


def _record(plan: Plan, before: Mapping[str, float], report: Mapping[str, Any]) -> None:
    kept = json.loads(RECORD.read_text("utf-8"))
    part = next((part for part in CAST if part.name == plan.name), None)
    if part is None or plan.name not in kept:
        print(f"{plan.name}: not recorded, {RECORD.name} has no trial of this name", file=sys.stderr)
        return
    entry = recorded(part, kept[plan.name]["left_out"], plan, report)
    kept[plan.name] = {**entry, "before": {arm: round(mean, 4) for arm, mean in before.items()}}
    RECORD.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", "utf-8")


def _weighted_mean_of_old(arm: ArmScores, plan: Plan) -> float:
    weights = {str(name): weight for name, weight in plan.weights.items()}
    rows = [{name: value for name, value in scores.items() if name != "right"} for scores in arm.scores]
    return sum(combined_score(row, weights) for row in rows) / len(rows)


def _gold_reader(run: Path, plan: Plan) -> Callable[[Question], str]:
    """Return a function that reads a question's gold span from the run's index; "" when it has none."""
    if plan.index is None:
        return lambda question: ""

    def read(question: Question) -> str:
        if not question.spans or question.doc_id is None:
            return ""
        with TextStore(run / INDEX) as text:
            document = text.document(question.doc_id, current_generation(run / INDEX))
        return " ".join(document.raw[start:end] for start, end in question.spans) if document else ""

    return read


if __name__ == "__main__":
    main()
