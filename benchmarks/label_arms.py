"""The arms that ask no language model on the public label sets, as they are now, beside the best other arm of the trials.

    python -m benchmarks.label_arms RUNS [RUNS ...]

Reads the finished runs RUNS/SET/run of `python -m benchmarks.trials ... --arms classifier,nearest-reply`, or of whole
trials, and writes benchmarks/label_arms.json, of which `python scripts/docs.py` makes a part of docs/accuracy.md. The
arms of a language model are taken from the same run, where it has them, else from the recorded trial of the same
questions.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from advisor.report.report import Report
from benchmarks.cast import CAST
from benchmarks.trial_records import RECORD

FOUND = Path(__file__).parent / "label_arms.json"
WITHOUT_MODEL = ("classifier", "nearest-reply")


def read_runs(folders: Sequence[Path], records: Mapping[str, Any]) -> dict[str, Any]:
    """Return, for each label set with a finished run, right answers of each arm, and which day they are of."""
    rows = {}
    for part in CAST:
        runs = [folder / part.name / "run" for folder in folders]
        report = next((Report.read(run).data for run in runs if (run / "report.json").is_file()), None)
        if report is None:
            continue
        own = {arm["arm"]: _right(arm) for arm in report["arms"]}
        if "classifier" not in own:
            continue
        record = records.get(part.name)
        older = {} if record is None else {arm["arm"]: _right(arm) for arm in _arms(record)}
        rows[part.name] = {
            "of": max(arm["n"] for arm in report["arms"]),
            "now": own,
            "before": {arm: right for arm, right in older.items() if right is not None},
            "refused": _refused(runs),
        }
    return rows


def _refused(runs: Sequence[Path]) -> int:
    """Return how many questions the nearest reply refused in the first of these runs that is there."""
    answers = next(run / "trial" / "answers.jsonl" for run in runs if (run / "report.json").is_file())
    rows = [json.loads(line) for line in answers.read_text("utf-8").split("\n") if line]
    return sum(bool(row.get("refused")) for row in rows if row["arm"] == "nearest-reply")


def _arms(record: Mapping[str, Any]) -> list[Any]:
    """Return the arms of a recorded trial, each as it was measured last."""
    later = (record.get("remeasured") or {"arms": []})["arms"]
    names = {arm["arm"] for arm in later}
    return [*later, *(arm for arm in record["arms"] if arm["arm"] not in names)]


def _right(arm: Mapping[str, Any]) -> int | None:
    """Return how many answers of an arm are right; None where they were not judged."""
    right = arm["scores"].get("right")
    return (
        None
        if right is None
        else round(right["mean"] * right["n"] if isinstance(right, dict) else right * arm["n"])
    )


def main() -> None:
    """Read the runs and write what they measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="folders of runs, SET/run")
    rows = read_runs(parser.parse_args().runs, json.loads(RECORD.read_text("utf-8")))
    found = {"date": time.strftime("%Y-%m-%d"), "sets": rows}
    FOUND.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    print(f"{len(rows)} sets in {FOUND.name}")


if __name__ == "__main__":
    main()
