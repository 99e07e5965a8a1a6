"""The work of ``tunewise recheck``: a finished run measured again, reported, and accepted as the next base."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from advisor.display import console
from advisor.display.progress import watch_progress
from advisor.flags.recheck import RecheckFlags
from advisor.output import command_line, emit_result, note, print_plain
from advisor.questionnaire.answers import Answers
from advisor.questionnaire.gather import prompt_text
from advisor.report.ci_workflow import CI_SERVERS, ci_workflow, outside_paths
from advisor.report.recheck_report import outdated_text, recheck_json, recheck_junit, recheck_markdown
from advisor.terminal import resume_hint
from advisor.verdict.regression import NEW_GOLD, REGRESSION
from advisor.verdict.sentences import duration_text
from rag.errors import BadInput, GateNotMet, UsageProblem
from rag.files import write_json, write_text
from rag.text.words import count_noun
from runners.catalog.user_catalog import CATALOG_VARIABLE
from runners.plan.steps import TrainStep
from runners.recheck.recheck import RecheckRequest, recheck
from runners.report.report_file import read_report
from runners.run_folder import RunFolder, open_run_folder, read_run_plan

if TYPE_CHECKING:
    from rich.console import Console

RESULT = "recheck.json"
MARKDOWN, JUNIT = "recheck.md", "recheck.xml"
"""In the folder of a recheck."""
MOST_LOST_GOLD = 0.5
"""Share of the run's questions from which missing gold leaves too little to compare."""
LISTED = 5
"""Questions without gold, and answers that are no longer right, that the terminal lists."""


def recheck_run(flags: RecheckFlags) -> None:
    """Recheck a run, write the reports and print the result.

    Raises:
        GateNotMet: a sure regression.
        BadInput: as in :func:`runners.recheck.recheck.recheck`, and where most questions need new gold.
    """
    if flags.prices:
        if not flags.prices.is_file():
            raise BadInput(f"there is no file of prices at {flags.prices}", "correct --prices")
        os.environ[CATALOG_VARIABLE] = str(flags.prices)
    for file in (flags.junit, flags.markdown):
        if file and not file.absolute().parent.is_dir():
            raise UsageProblem(
                f"{file.parent} is not a folder, so {file.name} cannot be written", "make it first"
            )
    prompt = (
        prompt_text(Answers().put("flag", {"prompt": flags.prompt})) if flags.prompt is not None else None
    )
    request = RecheckRequest(
        documents=flags.documents,
        prompt=prompt,
        examples=flags.examples,
        questions=flags.questions,
        models=tuple(flags.model or ()),
        plan=flags.plan,
        arms=tuple(flags.arm or ()),
        all_arms=flags.all_arms,
        ask_all=flags.ask_all,
        out=flags.out,
        count_lost_gold=flags.count_lost_gold,
        accept=flags.accept,
    )
    line = command_line("recheck", flags.run, *flags.measured, *flags.others)
    with resume_hint(line, "answers"), watch_progress(flags.as_json) as watcher:
        result = recheck(flags.run, request, lambda steps, base: _confirm(steps, base, flags.yes), watcher)
    data = recheck_json(result, flags.margin)
    data["accepted"] = flags.accept
    _write_reports(result.folder, data, flags)
    if flags.as_json:
        emit_result(data)
    else:
        show_recheck(data)
    _check_outcome(data)


def _confirm(steps: Sequence[TrainStep], base: RunFolder, yes: bool) -> None:
    """Say what is trained again and how long it took before; UsageProblem where no one agreed to it."""
    report = read_report(base.path)
    trained = report.measured.training if report else {}
    seconds = sum(float(row.get("seconds") or 0) for step in steps for row in trained.get(step.arm) or ())
    took = f"; in the run that took {duration_text(seconds)}" if seconds else ""
    text = f"{', '.join(step.arm for step in steps)} must be trained again{took}"
    note(text)
    if yes:
        return
    if sys.stdin.isatty() and sys.stdout.isatty():
        from advisor.wizard.prompter import confirm

        if confirm("Train now?", default=True):
            return
    raise UsageProblem(text, "agree to it with --yes, or name arms without weights: --arm ARM")


def _write_reports(folder: Path, data: Mapping[str, Any], flags: RecheckFlags) -> None:
    """Write the three reports into the recheck's folder, and to the places that were named."""
    markdown, junit = recheck_markdown(data), recheck_junit(data)
    write_json(folder / RESULT, dict(data))
    for name, text, place in ((MARKDOWN, markdown, flags.markdown), (JUNIT, junit, flags.junit)):
        write_text(folder / name, text)
        if place:
            write_text(place, text)


def _check_outcome(data: Mapping[str, Any]) -> None:
    """Raise GateNotMet for a regression, BadInput where too few questions still have their gold."""
    if data["outcome"] == REGRESSION:
        raise GateNotMet(
            f"it became clearly worse: {data['text']}",
            f"the results are kept: {data['folder']}; where the change is wanted: tunewise recheck ... --accept",
        )
    counts = data["questions"]
    if data["outcome"] == NEW_GOLD and counts["needs_new_gold"] > MOST_LOST_GOLD * counts["of_run"]:
        raise BadInput(
            f"the documents no longer state the answers of {counts['needs_new_gold']} of {counts['of_run']} questions: "
            "what is left decides nothing",
            "check --documents, or write new questions and run the plan again",
        )


def show_recheck(data: Mapping[str, Any], to: Console | None = None) -> None:
    """Print the outcome, what changed, the scores before and now, and where the reports are."""
    to = to or console.console()
    style = {REGRESSION: "bold red", "improved": "bold green", "unchanged": "green"}.get(
        data["outcome"], "yellow"
    )
    first, *rest = data["summary"]
    print_plain(to, first, style)
    for change in data["changes"]:
        print_plain(to, f"  changed: {change['kind']}: {change['text']}")
    if not data["changes"]:
        print_plain(to, "  changed: nothing that is compared")
    for line in rest:
        print_plain(to, f"  {line}")
    to.print(_table(data))
    for row in data["needs_new_gold"][:LISTED]:
        print_plain(to, f"  needs new gold: {row['id']}: {row['reason']}: correct it")
    if (more := len(data["needs_new_gold"]) - LISTED) > 0:
        print_plain(to, f"  and {count_noun(more, 'more question')}, in {MARKDOWN}")
    for row in data["lost_answers"][:LISTED]:
        print_plain(
            to, f"  no longer right: {row['arm']}, {row['question']}: {row['now']}{outdated_text(row)}"
        )
    if (more := len(data["lost_answers"]) - LISTED) > 0:
        print_plain(to, f"  and {more} more, in {MARKDOWN}")
    print_plain(to, f"reports: {Path(data['folder']) / MARKDOWN}, {JUNIT} and {RESULT}")
    if data["accepted"]:
        print_plain(
            to, "accepted: the next recheck is compared with these answers; the run's verdict stays as it is"
        )


def _table(data: Mapping[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("arm", "score"):
        table.add_column(name)
    for name in ("before", "now", "difference", "95 %", "p of a loss"):
        table.add_column(name, justify="right")
    for arm in data["arms"]:
        for change in arm["scores"]:
            table.add_row(
                arm["arm"],
                change["score"],
                f"{change['before']:.2f}",
                f"{change['now']:.2f}",
                f"{change['difference']:+.2f}",
                f"{change['low']:+.2f} to {change['high']:+.2f}",
                f"{change['p_loss']:.3g}" if change["decides"] else "",
            )
    return table


def print_ci_workflow(flags: RecheckFlags) -> None:
    """Print the workflow file of a CI server for a run.

    Raises:
        UsageProblem: the server is unknown.
        BadInput: the run has no plan.
    """
    server, run = flags.workflow, flags.run
    if server not in CI_SERVERS:
        raise UsageProblem(f"--workflow {server} is unknown", f"choose one of {', '.join(CI_SERVERS)}")
    open_run_folder(run)
    plan = read_run_plan(run)
    data = {"documents": flags.documents, "examples": flags.examples}
    data["test_questions" if plan.data.test_questions else "questions"] = flags.questions
    given = {name: path.absolute() for name, path in data.items() if path}
    plan = plan.model_copy(update={"data": plan.data.model_copy(update=given)})
    for path in outside_paths(run, plan):
        note(
            f"{path} is not below this folder: put it into the repository, and change the path in the workflow"
        )
    print(ci_workflow(server, run, plan, flags.measured, flags.prompt or ""), end="")
