"""The arms of the public trials before and after answers were held to a form and untrained arms chose their prompts.

    python -m benchmarks.untrained AFTER [--before BEFORE] [--record]

Reads the finished runs below the folders (SET/run, as ``benchmarks.trials`` writes them) and prints right answers, answers
in the form that was asked for, and the time of an answer. Sets without a run before take the earlier numbers from
benchmarks/accuracy.json. With ``--record`` the result is written into benchmarks/untrained.json, of which
``python scripts/docs.py`` makes a section of docs/accuracy.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from advisor.report.report import Report
from benchmarks.cast import CAST
from benchmarks.trial_records import RECORD as TRIALS
from runners.run_folder import read_run_plan

RECORD = Path(__file__).parent / "untrained.json"


def arms_of(run: Path) -> dict[str, dict[str, Any]]:
    """Return right answers, questions, share of answers in the form, and ms of an answer, for each arm of a run."""
    report = Report.read(run).data
    return {
        arm["arm"]: {
            "right": arm["right"]["n"] if arm["right"] else None,
            "n": arm["n"],
            "score": arm["score"]["mean"],
            "form": arm["scores"]["style"]["mean"] if "style" in arm["scores"] else None,
            "ms": round(1000 * arm["seconds_per_answer"]),
            "ms_alone": round(1000 * arm["alone"]["seconds"]) if arm["alone"] else None,
        }
        for arm in report["arms"]
    }


def recorded_arms(trial: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the same of a trial that benchmarks/accuracy.json holds; its times are not recorded."""
    return {
        arm["arm"]: {
            "right": round(arm["scores"]["right"] * arm["judged"]) if "right" in arm["scores"] else None,
            "n": arm["n"],
            "score": arm["score"]["mean"],
            "form": arm["scores"].get("style"),
            "ms": None,
            "ms_alone": None,
        }
        for arm in trial["arms"]
    }


def compared(name: str, after: Path, before: Path | None, trials: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the arms of one set before and after; None where there is no finished run after."""
    run = after / name / "run"
    if not (run / "report.json").is_file():
        return None
    earlier = before / name / "run" if before else None
    if earlier is not None and (earlier / "report.json").is_file():
        old = arms_of(earlier)
    else:
        old = recorded_arms(trials[name]) if name in trials else {}
    return {
        "date": time.strftime("%Y-%m-%d"),
        "model": read_run_plan(run).model.name,
        "before": old,
        "after": arms_of(run),
    }


def main() -> None:
    """Print the comparison, and write it where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("after", type=Path, help="the folder of the runs of now")
    parser.add_argument("--before", type=Path, help="the folder of the runs of before")
    parser.add_argument("--record", action="store_true", help="write benchmarks/untrained.json")
    given = parser.parse_args()
    trials = json.loads(TRIALS.read_text("utf-8"))
    kept = json.loads(RECORD.read_text("utf-8")) if RECORD.is_file() else {}
    for part in CAST:
        result = compared(part.name, given.after, given.before, trials)
        if result is None:
            print(f"{part.name}: no finished run", file=sys.stderr)
            continue
        kept[part.name] = result
        print(part.name)
        for arm in {**result["before"], **result["after"]}:
            print(f"  {arm:18} {result['before'].get(arm)} -> {result['after'].get(arm)}")
    if given.record:
        ordered = {part.name: kept[part.name] for part in CAST if part.name in kept}
        RECORD.write_text(json.dumps(ordered, indent=1, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    main()
