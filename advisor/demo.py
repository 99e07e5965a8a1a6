"""The whole line on the shipped example: recommend, run, judge, ask, change the documents, ask again."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from advisor.harbor_desk.folder import path as example_path
from advisor.output import command
from rag.errors import UsageProblem
from runners.plan import Plan
from runners.rundir import RunFolder, read_lines

# What the harbor desk's team would answer; the rest is counted and detected.
ANSWERS = {
    "goal": "answer customers of a ferry and harbour operator in the house style, with sources",
    "task_needs_facts": "new", "facts_change": "slow", "must_cite": "yes", "behaviour_gap": "high",
    "output_format": "free", "call_volume": "high", "wrong_answer_cost": "high",
}  # fmt: skip
STALE_ARMS = ("rag", "lora", "hybrid")
STALE_COUNT, STALE_QUICK = 16, 8
SHOWN = 2


def demo(out: Path, quick: bool, resume: bool, overwrite: bool) -> dict[str, Any]:
    """Carry out `tunewise demo`, and return the report."""
    from advisor.ending import resumable
    from advisor.execute import announce, run_and_report
    from advisor.rehearsing import show_steps
    from advisor.show import show_report
    from runners.execution import quick_plan

    started = time.monotonic()
    line = command("demo", "--out", out, "--resume", *(["--quick"] if quick else ()))
    with resumable(line):
        plan = recommend_and_draft()
        plan = quick_plan(plan) if quick else plan
        say("What this will do, with a rough time for each step on this machine")
        show_steps(plan)
        announce(plan)
        say("Running")
        run, data = run_and_report(plan, out, resume, overwrite, label="demo")
        assert data is not None, "the demo's plan measures its choice"
        say("The trial")
        show_report(data)
        say("Asking, changing the documents, asking again")
        table = change_documents(run, plan, quick)
        data = finish(run, plan, table)
    print(f"\nreport: {run.path / 'report.html'}")
    print(f'ask it: {command("ask", run.path)} "What does entry to the Ropewalk Museum cost?"')
    print(f"done in {(time.monotonic() - started) / 60:.1f} minutes")
    return data


def copy_example(folder: Path) -> dict[str, Any]:
    """Copy the example's files into a new folder, and return it; UsageProblem when there is something of that name."""
    if folder.exists():
        raise UsageProblem(f"{folder} exists", "name a folder that is not there yet")
    shutil.copytree(example_path(), folder, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    print(
        f"{folder}: documents/, examples.jsonl, questions.jsonl, prompt.txt, update/; README.md says what they are"
    )
    return {"schema": 1, "folder": str(folder)}


def recommend_and_draft() -> Plan:
    """The recommendation for the example, printed, and the plan made from it."""
    from advisor import gather, render
    from advisor.advice import recommend
    from advisor.draft import draft, located

    folder = example_path()
    files = {
        "documents": folder / "documents", "examples": folder / "examples.jsonl",
        "questions": folder / "questions.jsonl", "prompt": folder / "prompt.txt",
    }  # fmt: skip
    recommendation = recommend(gather.said([f"{k}={v}" for k, v in ANSWERS.items()], **files))
    assert recommendation.situation is not None
    say("The recommendation")
    render.console().print(render.recommendation(recommendation))
    drafted = draft(recommendation, recommendation.situation)
    for note in drafted.notes:
        print(f"  {note}")
    return located(drafted.plan).model_copy(update={"name": "harbor-desk"})


def change_documents(run: RunFolder, plan: Plan, quick: bool) -> dict[str, Any]:
    """Ask what the update will flip, apply it, ask again; print two questions in full."""
    from runners.opened import open_session
    from runners.staleness import ask_stale, load_stale, staleness, update_index, updated_documents

    folder = example_path()
    questions = _chosen(load_stale(folder / "update" / "stale.jsonl"), STALE_QUICK if quick else STALE_COUNT)
    arms = [arm for arm in STALE_ARMS if arm in {step.arm for step in plan.arms}]
    session = open_session(run.path)
    run.unseal()
    ask_stale(session, questions, arms, "before")
    assert plan.data.documents is not None
    documents = updated_documents(run.path, plan.data.documents, folder / "update" / "documents")
    report = update_index(session.context, documents)
    print(
        f"index updated: {report['changed']} documents changed, {report['embedded']} passages embedded, "
        f"{report['seconds']:.1f} s; nothing was trained"
    )
    ask_stale(session, questions, arms, "after")
    show_before_and_after(run.path, [q.id for q in questions[:SHOWN]])
    table = staleness(run.path, questions, arms)
    for row in table["arms"]:
        print(
            f"  {row['arm']:<8} new fact {row['new_before']} -> {row['new_after']} of {row['n']}, "
            f"old fact {row['old_before']} -> {row['old_after']}"
        )
    return table


def show_before_and_after(run: Path, ids: Sequence[str]) -> None:
    """Print the answers to a few questions before and after the update."""
    from rag.links import unlinked
    from runners.rundir import TRIAL
    from runners.staleness import JOURNAL

    rows = read_lines(run / TRIAL / JOURNAL)
    for id in ids:
        mine = [row for row in rows if row["id"] == id]
        if mine:
            print(f"\nQ: {mine[0]['question']}")
        for row in mine:
            if row["arm"] == "rag":
                continue
            print(f"  {row['arm']:<7} {row['when']:<7} {unlinked(row['marked'])}")
            for c in row["citations"][:1]:
                if c["supported"]:
                    place = f"{unlinked(c['doc'])}, line {c['line_start']}"
                    print(f'                  [{c["n"]}] {place}: "{unlinked(c["quote"])}"')
    print()


def finish(run: RunFolder, plan: Plan, table: dict[str, Any]) -> dict[str, Any]:
    """Write the report again, with what happened after the update."""
    from advisor.report import write_report
    from runners.dataset import read_data
    from runners.staleness import keep

    keep(run.path, table)
    return write_report(run, plan, read_data(plan)[1].test, table)


def say(title: str) -> None:
    """Print the title of a part."""
    print(f"\n== {title}", flush=True)


def _chosen(questions: Sequence[Any], count: int) -> list[Any]:
    """Taught facts first: there the weights know the old answer."""
    return sorted(questions, key=lambda q: (not q.taught, q.id))[:count]
