"""The advice held to account on public data: what it said from the profile alone, and what the trial then found.

    python -m benchmarks.trials SHARED/data --out /tmp/trials [NAME ...]
    python -m benchmarks.trials SHARED/data --out /tmp/trials --collect

Runs one whole trial for each set (or for those named; a set that is absent is skipped, with the reason), and writes
what came out into benchmarks/accuracy.json, of which `python scripts/docs.py` makes docs/accuracy.md. A trial that was
interrupted is gone on with; one that is finished is only read again. --collect makes the records again from the finished
runs in the folder, without running anything, completes older records, and writes the table that ships with the program.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from advisor.drafting.draft import draft_with_notes, tuning_settings
from advisor.drafting.tuned_retriever import TUNED_ARM, with_tuned_retriever
from advisor.evidence.trials import situation_features
from advisor.methods.base import Drafting
from advisor.methods.registry import METHOD_BY_NAME
from advisor.questionnaire import gather
from advisor.questionnaire.gather import Situation
from advisor.recommendation.recommend import BaseRecommendation, recommend_for_profile
from advisor.report.report import Report
from advisor.workflows.run import run_and_report
from benchmarks.cast import CAST, Part
from benchmarks.cast_files import Brought, bring
from benchmarks.trial_records import (
    RECORD,
    SECOND_MODEL_RECORD,
    Records,
    added_arms,
    completed,
    recorded,
    remeasured_arms,
    write_records,
    write_shipped_table,
)
from runners.plan.schema import Plan, parse_plan
from runners.plan.steps import EmbedderStep, IndexStep, TrainStep
from runners.report.report_file import report_json
from runners.run_folder import PLAN, read_run_plan
from runners.trial.execute import RunRequest

FILES = ("documents", "examples", "questions")
MACHINE = ("gpu_kind=none", "cpu_cores=2", "ram_gib=24", "disk_gib=60")
"""The machine of the recorded trials, for records of earlier versions that do not hold it."""


def situation(part: Part, brought: Brought, *more: str) -> Situation:
    """Return the profile that a user of this set would have: the part's answers, and what files and machine tell.

    ``more`` are further answers, such as another machine than the one at hand.
    """
    flags = gather.flag_answers((*part.answers, *more), **brought.files)
    return gather.complete_situation(gather.with_answers_of(flags, brought.profile))


def plan_of(part: Part, at: Situation, advice: BaseRecommendation) -> Plan:
    """Return the advisor's own plan, cut to size, with the part's other ways of tuning and its own rule of style."""
    plan = draft_with_notes(advice, at).plan
    rows = len(at.stats.examples.rows) if at.stats.examples else 0
    have = {step.arm for step in plan.arms}
    more = [
        step
        for method in part.tuned
        if method not in have
        for step in METHOD_BY_NAME[method].steps(
            at.profile, Drafting(method, tuning_settings(method, rows, at.profile))
        )
    ]
    body = plan.model_dump(mode="json", by_alias=True)
    body |= {"name": part.name, "steps": [*body["steps"], *(step.model_dump(mode="json") for step in more)]}
    body["data"] |= {
        key: str(Path(value).resolve()) for key, value in body["data"].items() if key in FILES and value
    }
    body["data"] |= {"max_dev": part.dev, "max_test": part.test}
    if part.checks:
        body["checks"] = list(part.checks)
    return parse_plan(body)


def only_arms(plan: Plan, names: Collection[str], ranked: Sequence[str]) -> Plan:
    """Return a plan with these arms only and the training that they need.

    Where the recommended arm is not among them, the best-ranked one that is left stands in for it.

    Args:
        plan: the whole plan.
        names: the arms that stay.
        ranked: the methods, best first.
    """
    routed = {
        name
        for step in plan.arms
        if step.route and step.arm in names
        for name in (step.route.first, step.route.otherwise)
    }
    arms = [step for step in plan.arms if step.arm in {*names, *routed}]
    trained = {step.weights for step in arms}
    needed = trained | {
        step.start_from for step in plan.steps if isinstance(step, TrainStep) and step.arm in trained
    }
    steps = [
        step.model_dump(mode="json")
        for step in plan.steps
        if step in arms
        or (step.arm in needed if isinstance(step, TrainStep) else isinstance(step, IndexStep | EmbedderStep))
    ]
    left = [step.arm for step in arms]
    choice = next(name for name in (plan.choice, *ranked) if name in left)
    must_beat = [name for name in plan.gate.must_beat if name in left and name != choice]
    body = plan.model_dump(mode="json", by_alias=True)
    return parse_plan(
        {**body, "steps": steps, "choice": choice, "gate": {**body["gate"], "must_beat": must_beat}}
    )


def frozen_advice(path: Path, advice: BaseRecommendation) -> dict[str, Any]:
    """Return the advice as it was given before the trial began, with the commit of the code that gave it.

    It is written once, before anything is measured; a trial that is gone on with reads it again, so that later changes
    of the rules do not reach it.
    """
    if path.is_file():
        return dict(json.loads(path.read_text("utf-8")))
    commit = subprocess.run(
        ["git", "rev-parse", "--short=10", "HEAD"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    frozen = {"commit": commit, "date": time.strftime("%Y-%m-%d"), "advice": advice.to_json()}
    path.write_text(json.dumps(frozen, indent=1, ensure_ascii=False) + "\n", "utf-8")
    return frozen


def trial(
    part: Part, data: Path, out: Path, arms: Collection[str] = (), more: Collection[str] = ()
) -> dict[str, Any]:
    """Ask for advice, run the trial, and return both; with ``arms``, of these arms only, with ``more`` answers."""
    brought = bring(part, data, out / "files")
    at = situation(part, brought, *more)
    advice = recommend_for_profile(at.profile)
    frozen = frozen_advice(out / "advice.json", advice)
    begun = (out / "run" / PLAN).is_file()
    plan = read_run_plan(out / "run") if begun else plan_of(part, at, advice)
    if arms and not begun:
        plan = with_tuned_retriever(plan) if TUNED_ARM in arms else plan
        plan = only_arms(plan, arms, [scored.method.name for scored in advice.ranking.methods])
    started = time.time()
    _, report = run_and_report(RunRequest(plan=plan, out=out / "run", resume=begun))
    if report is None:
        raise SystemExit(f"{part.name}: the plan holds no arm of its choice {plan.choice}")
    print(f"{part.name}: {report.verdict.text} ({time.time() - started:.0f} s)", file=sys.stderr)
    record = recorded(part, brought.left_out, plan, report_json(report), out / "run", frozen)
    return {**record, "features": situation_features(plan.answers, at.profile)}


def collect(
    data: Path,
    out: Path,
    records: Records,
    merge: Path | None = None,
    remeasured: Path | None = None,
    held_back: bool = False,
) -> list[str]:
    """Make the records again from the finished runs below a folder, and complete those of earlier versions.

    Args:
        data: the folder of the public sets; what is counted in the files is counted again.
        out: the folder of the runs, SET/run.
        records: the records so far, changed in place: a set with a finished run gets a new one.
        merge: a folder of record files of single trials, for sets without a finished run in ``out``.
        remeasured: a folder of runs, SET/run, whose arms take the place of those that an older record measured before
            answers were held to a form, and are added to a record that lacks them.
        held_back: whether sets that are named as a test are read as well.

    Returns:
        Lines on what was not collected, and why.
    """
    notes = []
    merged: Records = {}
    for path in sorted(merge.glob("*.json")) if merge else []:
        merged |= json.loads(path.read_text("utf-8"))
    for part in CAST:
        if part.held_back and not held_back:
            if part.name in records:
                notes.append(f"{part.name}: a test set, recorded before; not read again")
            continue
        run = out / part.name / "run"
        finished = (run / "report.json").is_file()
        if part.name in merged and not finished:
            records[part.name] = merged[part.name]
        if not finished and part.name not in records:
            notes.append(f"{part.name}: no finished run and no record")
            continue
        if not (data / (part.source or part.name)).is_dir():
            notes.append(f"{part.name}: the folder of the sets has no such set; its record stays as it is")
            continue
        later = remeasured / part.name / "run" if remeasured else None
        if later and not (later / "report.json").is_file():
            later = None
        with tempfile.TemporaryDirectory() as folder:
            brought = bring(part, data, Path(folder))
            if finished:
                records[part.name] = _from_run(part, brought, out / part.name)
            else:
                at = situation(part, brought, *MACHINE, *_model_answer(records[part.name]))
                features = situation_features(at.answers, at.profile)
                record = {**records[part.name], "features": features}
                if later and not record.get("held"):
                    record["remeasured"] = remeasured_arms(later)
                records[part.name] = completed(part, record)
            if later and (added := added_arms(records[part.name], later))["arms"]:
                records[part.name]["added"] = added
    return notes


def _from_run(part: Part, brought: Brought, out: Path) -> dict[str, Any]:
    """Return the record of a finished run; its answers are those of its plan, what is counted is counted again.

    Answers that are derived from the files now, and were not when the run was planned, are added.
    """
    plan, report = read_run_plan(out / "run"), Report.read(out / "run").data
    advice = out / "advice.json"
    frozen = json.loads(advice.read_text("utf-8")) if advice.is_file() else None
    record = recorded(part, brought.left_out, plan, report, out / "run", frozen)
    if frozen is None:
        record["date"] = time.strftime("%Y-%m-%d", time.localtime((out / "run" / PLAN).stat().st_mtime))
    at = situation(part, brought, *MACHINE, *_model_answer(record))
    answers = {**plan.answers, **{key: at.answers[key] for key in at.answers if key not in plan.answers}}
    return {**record, "features": situation_features(answers, at.profile)}


def _model_answer(record: Mapping[str, Any]) -> tuple[str, ...]:
    return (f"model={record['model']}",)


def main() -> None:
    """Run the trials and keep what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path, help="the folder of the public sets")
    parser.add_argument("names", nargs="*", help="some sets only")
    parser.add_argument("--out", type=Path, required=True, help="a folder for the runs")
    parser.add_argument("--arms", help="some arms only, separated by commas")
    parser.add_argument("--model", help="another base model than the default")
    parser.add_argument(
        "--record", type=Path, default=RECORD, help="the file that the results are written into"
    )
    parser.add_argument("--collect", action="store_true", help="make records from finished runs, run nothing")
    parser.add_argument(
        "--merge", type=Path, help="with --collect: a folder of record files, for sets without a finished run"
    )
    parser.add_argument(
        "--remeasured",
        type=Path,
        help="with --collect: later runs of arms that older records measured otherwise",
    )
    parser.add_argument("--with-held-back", action="store_true", help="with --collect: the test sets as well")
    given = parser.parse_intermixed_args()
    if given.collect:
        records = json.loads(given.record.read_text("utf-8")) if given.record.is_file() else {}
        notes = collect(given.data, given.out, records, given.merge, given.remeasured, given.with_held_back)
        write_records(records, given.record)
        print(*notes, f"{len(records)} trials in {given.record.name}", sep="\n", file=sys.stderr)
        if given.record in (RECORD, SECOND_MODEL_RECORD):
            print(f"{write_shipped_table()} trials in the shipped table", file=sys.stderr)
        return
    if unknown := set(given.names) - {part.name for part in CAST}:
        parser.error(
            f"no set is called {', '.join(sorted(unknown))}; known: {', '.join(p.name for p in CAST)}"
        )
    for part in CAST:
        if given.names and part.name not in given.names:
            continue
        if not (given.data / (part.source or part.name)).is_dir():
            print(f"{part.name}: skipped, {given.data} has no such folder", file=sys.stderr)
            continue
        arms = given.arms.split(",") if given.arms else ()
        more = (f"model={given.model}",) if given.model else ()
        result = trial(part, given.data, given.out / part.name, arms, more)
        kept = json.loads(given.record.read_text("utf-8")) if given.record.is_file() else {}
        kept[part.name] = result
        write_records(kept, given.record)


if __name__ == "__main__":
    main()
