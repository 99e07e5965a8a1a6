"""The work behind ``tunewise demo``: recommend, run and judge the shipped example, update its documents, and ask again."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from advisor.advice import recommend
from advisor.display import console
from advisor.display.trial_table import show_report
from advisor.drafting.draft import draft_with_notes, with_full_paths
from advisor.harbor_desk.folder import example_folder
from advisor.output import command_line
from advisor.questionnaire import gather
from advisor.report.report import write_report
from advisor.terminal import resume_hint
from advisor.workflows.dry_run import show_steps
from advisor.workflows.run import FullRun, adapt_threads, announce_downloads, ask_command, run_and_report
from rag.errors import UsageProblem
from rag.refusal.relevance import BESIDE
from rag.text.sanitize import defang_text
from rag.text.words import count_noun
from runners.arms.answer import BESIDE_NOTE
from runners.catalog.models import DEFAULT_MODEL
from runners.plan.schema import Plan
from runners.report.trial_report import TrialReport
from runners.run_folder import TRIAL, RunFolder, read_journal, read_run_plan
from runners.runs.opened import OpenRun
from runners.trial.execute import RunRequest, quick_plan
from runners.trial.staleness import (
    JOURNAL,
    ask_stale,
    keep_staleness,
    load_stale,
    staleness,
    updated_documents,
)

# Answers of the example's team; everything else is counted or detected.
DEMO_ANSWERS = {
    "model": DEFAULT_MODEL,
    "goal": "answer customers of a ferry and harbour operator in the style of its desk, with sources",
    "task_needs_facts": "new",
    "facts_change": "slow",
    "must_cite": "yes",
    "behaviour_gap": "high",
    "output_format": "free",
    "call_volume": "high",
    "wrong_answer_cost": "high",
    "usable_from": 0.5,  # a person reads the answers before they go out, so half of them right is of use
}
STALE_ARMS = ("rag", "lora", "hybrid")
"""Arms that are asked before and after the update of the documents."""
STALE_COUNT, STALE_QUICK = 16, 8
"""Questions about changed facts to ask; the second with --quick."""
QUESTIONS_SHOWN = 2
"""Questions whose answers before and after the update are printed."""


def run_demo(out: Path, quick: bool, resume: bool, overwrite: bool) -> TrialReport:
    """Carry out ``tunewise demo``, and return its report."""
    started = time.monotonic()
    line = command_line("demo", "--out", out, "--resume", *(["--quick"] if quick else ()))
    with resume_hint(line):
        adapt_threads()
        plan = recommend_and_draft()
        full = FullRun(plan, command_line("demo", "--out", f"{out}-full")) if quick else None
        plan = quick_plan(plan) if quick else plan
        print_heading("What this will do, with a rough time for each step on this machine")
        inputs = show_steps(plan)
        announce_downloads(plan)
        print_heading("Running")
        request = RunRequest(plan=plan, out=out, resume=resume, overwrite=overwrite, data=inputs)
        run, report = run_and_report(request, label="demo", full=full)
        assert report is not None, "the demo's plan measures its choice"
        print_heading("The trial")
        show_report(report)
        print_heading("Asking, changing the documents, asking again")
        with run.writing():
            table = change_documents(run, plan, quick)
            keep_staleness(run.path, table)
            report = write_report(run, plan, inputs.split.test)
    print(f"\nreport: {run.path / 'report.html'}")
    print(f'ask it: {ask_command(run.path, report)} "What does entry to the Ropewalk Museum cost?"')
    print(f"done in {(time.monotonic() - started) / 60:.1f} minutes")
    return report


def copy_example(folder: Path) -> dict[str, Any]:
    """Copy the example's files into a new folder; UsageProblem when it exists."""
    if folder.exists():
        raise UsageProblem(f"{folder} exists", "name a folder that is not there yet")
    shutil.copytree(example_folder(), folder, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    print(
        f"{folder}: documents/, examples.jsonl, questions.jsonl, prompt.txt, update/; README.md says what they are"
    )
    return {"schema": 1, "folder": str(folder)}


def recommend_and_draft() -> Plan:
    """Print the recommendation for the example, and return the plan drafted from it."""
    folder = example_folder()
    files = {
        "documents": folder / "documents",
        "examples": folder / "examples.jsonl",
        "questions": folder / "questions.jsonl",
        "prompt": folder / "prompt.txt",
    }
    recommendation = recommend(
        gather.flag_answers([f"{key}={value}" for key, value in DEMO_ANSWERS.items()], **files)
    )
    assert recommendation.situation is not None
    print_heading("The recommendation")
    console.console().print(console.render_recommendation(recommendation))
    drafted = draft_with_notes(recommendation, recommendation.situation)
    for note in drafted.notes:
        print(f"  {note}")
    return with_full_paths(drafted.plan).model_copy(update={"name": "harbor-desk"})


def change_documents(run: RunFolder, plan: Plan, quick: bool) -> dict[str, Any]:
    """Ask questions about facts that the update changes, apply it, ask again, and print the differences."""
    folder = example_folder()
    questions = _chosen(load_stale(folder / "update" / "stale.jsonl"), STALE_QUICK if quick else STALE_COUNT)
    arms = [arm for arm in STALE_ARMS if arm in {step.arm for step in plan.arms}]
    session = OpenRun(run, read_run_plan(run.path)).obtain()
    run.unseal()
    ask_stale(session, questions, arms, "before")
    assert plan.data.documents is not None
    documents = updated_documents(run.path, plan.data.documents, folder / "update" / "documents")
    report = session.retrieval.update(documents, session.emit).to_json()
    print(
        f"index updated: {count_noun(report['changed'], 'document')} changed, "
        f"{count_noun(report['embedded'], 'passage')} embedded, "
        f"{report['seconds']:.1f} s; nothing was trained"
    )
    ask_stale(session, questions, arms, "after")
    show_before_and_after(run.path, [question.id for question in questions[:QUESTIONS_SHOWN]])
    table = staleness(run.path, questions, arms)
    for row in table["arms"]:
        print(
            f"  {row['arm']:<8} new fact {row['new_before']} -> {row['new_after']} of {row['n']}, "
            f"old fact {row['old_before']} -> {row['old_after']}"
        )
    return table


def show_before_and_after(run: Path, ids: Sequence[str]) -> None:
    """Print the answers to a few questions before and after the update."""
    rows = read_journal(run / TRIAL / JOURNAL)
    for question_id in ids:
        answers = [row for row in rows if row["id"] == question_id]
        if answers:
            print(f"\nQ: {answers[0]['question']}")
        for row in answers:
            if row["arm"] == "rag":
                continue
            print(f"  {row['arm']:<7} {row['when']:<7} {defang_text(row['marked'])}")
            for citation in row["citations"][:1]:
                beside = citation["support"] == BESIDE
                if citation["supported"] or beside:
                    location = f"{defang_text(citation['doc'])}, line {citation['line_start']}"
                    location += f" ({BESIDE_NOTE})" * beside
                    print(
                        f'                  [{citation["n"]}] {location}: "{defang_text(citation["quote"])}"'
                    )
    print()


def print_heading(title: str) -> None:
    """Print the heading of a part."""
    print(f"\n== {title}", flush=True)


def _chosen(questions: Sequence[Any], count: int) -> list[Any]:
    """Return the questions to ask, first those whose old answer was in the training examples."""
    return sorted(questions, key=lambda question: (not question.taught, question.id))[:count]
