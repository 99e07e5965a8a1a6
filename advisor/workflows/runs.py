"""The work behind ``tunewise runs``: list, show, compare, remove and restore runs, for people and as JSON."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.markup import escape

from advisor.display import console
from advisor.output import emit_result, print_plain
from advisor.questionnaire.answers import format_answer
from advisor.workflows.run_watch import run_progress
from rag.errors import BadInput, UsageProblem
from rag.files import UPDATE_HINT, older_file
from runners.report.records import NOT_JUDGED
from runners.run_folder import is_run, open_run_folder
from runners.runs import listing
from runners.runs.endpoint_consent import allow_endpoints
from runners.runs.listing import RunSummary

STATE_COLOURS = {"finished": "green", "unfinished": "yellow", "writing": "cyan", "damaged": "red"}
MAX_NAME_CHARS = 40


def show_runs(folder: Path, as_json: bool) -> None:
    """Print the runs of a folder as a table, and how many are in its trash."""
    runs, trashed = listing.find_runs(folder), listing.trashed_runs(folder)
    if as_json:
        emit_result({"schema": 1, "runs": [run.to_json() for run in runs]})
        return
    screen = console.console()
    if not runs:
        screen.print(
            f"no run in {folder}; make one with: tunewise run plan.yaml", markup=False, soft_wrap=True
        )
    else:
        rows = [
            (
                f"[bold]{escape(run.name)}[/]",
                f"[{STATE_COLOURS[run.state]}]{run.state}[/]",
                _verdict(run),
                _size(run.bytes),
                run.changed,
            )
            for run in runs
        ]
        screen.print(console.table(("run", "state", "verdict", "size", "changed"), rows, right=(3,)))
    for run in runs:
        if run.problem:
            print_plain(screen, f"  {run.name}: {run.problem}")
    if trashed:
        undo_command = "tunewise runs undo" + (
            "" if folder == listing.RUNS_FOLDER else f" {shlex.quote(str(folder))}"
        )
        line = f"{len(trashed)} removed; the last was {trashed[-1]}: {undo_command} brings it back"
        screen.print(line, style="dim", markup=False, soft_wrap=True)


def show_run(run: Path, as_json: bool) -> None:
    """Print one run; BadInput, after that, when it is damaged."""
    summary = listing.describe_run(run_folder_named(run))
    if as_json:
        emit_result({"schema": 1, **summary.to_json(), **_progress_json(summary)})
    else:
        _print_run(summary)
    if summary.problem:
        other_version = summary.hint in (UPDATE_HINT, older_file("run", summary.path).hint)
        raise BadInput(
            summary.problem if other_version else f"{summary.path} is damaged: {summary.problem}",
            summary.hint or f"put it back, or run it again: tunewise run {summary.path} --overwrite",
        )


def show_run_diff(a: Path, b: Path, as_json: bool) -> None:
    """Print how the plans of two runs differ, and both verdicts."""
    diff = listing.diff_runs(run_folder_named(a), run_folder_named(b))
    if as_json:
        emit_result({"schema": 1, **diff})
        return
    screen = console.console()
    rows = [
        (escape(row["key"]), *(escape(format_answer(row[side], MAX_NAME_CHARS)) for side in ("a", "b")))
        for row in diff["plan"]
    ]
    names = [escape(row["name"]) for row in diff["runs"]]
    if rows:
        screen.print(console.table(("key of the plan", *names), rows))
    else:
        screen.print("both carry out the same plan")
    ends = [
        (key, *(escape(str(row[key])) or "–" for row in diff["runs"])) for key in ("state", "outcome", "use")
    ]
    screen.print()
    screen.print(console.table(("", *names), ends))
    a_named, b_named = (shlex.quote(str(diff[side])) for side in ("a", "b"))
    line = f"scores side by side: tunewise report {a_named} --compare {b_named}"
    screen.print(line, style="dim", markup=False, soft_wrap=True)


def remove_run(runs: Sequence[Path], trash_of: Path | None, as_json: bool) -> None:
    """Move runs to the trash, or empty it, and print how to undo that."""
    if not runs and trash_of is None:
        raise UsageProblem("no run was named", "tunewise runs rm RUN, or tunewise runs rm --empty-trash")
    if runs and trash_of is not None:
        raise UsageProblem(
            "--empty-trash deletes what was removed before, not runs", "give the two one after the other"
        )
    if trash_of is not None:
        count, size = listing.empty_trash(trash_of)
        if as_json:
            emit_result({"schema": 1, "deleted": count, "bytes": size})
        else:
            print(f"deleted {count} run{'s' * (count != 1)} for good, {_size(size)}")
        return
    folders: dict[Path, Path] = {}
    for folder in map(run_folder_named, runs):
        folders.setdefault(folder if folder.is_symlink() else folder.resolve(), folder)
    moved: list[dict[str, str]] = []
    try:
        for key, folder in folders.items():
            trash = listing.remove_run(folder)
            run = trash.parent.parent / key.name
            moved.append({"run": str(run), "trash": str(trash)})
            if not as_json:
                print(f"removed {run}; bring it back with: tunewise runs undo {shlex.quote(str(run.parent))}")
    finally:  # what was moved is printed even if the next one fails
        if as_json and moved:
            emit_result({"schema": 1, "removed": moved})


def undo_remove(folder: Path, as_json: bool) -> None:
    """Restore the run that was removed last."""
    restored = listing.restore_run(folder)
    if as_json:
        emit_result({"schema": 1, "restored": str(restored)})
    else:
        print(f"{restored} is back")


def allow_run_endpoints(run: Path, hosts: Sequence[str], as_json: bool) -> None:
    """Allow an imported run to ask hosts that its plan names, all of them where none is given, and print them."""
    allowed = allow_endpoints(open_run_folder(run_folder_named(run)).path, hosts)
    if as_json:
        emit_result({"schema": 1, "run": str(run), "allowed": list(allowed)})
    else:
        print(
            f"{run} may ask {', '.join(allowed)}" if allowed else f"{run} waits for no endpoint to be allowed"
        )


def run_folder_named(run: Path, watched: bool = False) -> Path:
    """Return the folder of a run given by its path or its name in ./runs; BadInput with the closest name.

    ``watched`` is for a run that may have been started a moment ago, and the message says when its folder appears.
    """
    if run.exists() or run.is_symlink():
        return run
    inside = listing.RUNS_FOLDER / run
    if len(run.parts) == 1 and is_run(inside):
        return inside
    names = [summary.name for summary in listing.find_runs()]
    matches = difflib.get_close_matches(run.name, names, n=1, cutoff=0.5)
    hint = f"did you mean {matches[0]}?" if matches else "see what there is: tunewise runs list"
    if watched:
        hint += "; a run that was just started has a folder once its models are fetched: try again then"
    raise BadInput(f"there is no run {run}", hint)


def _print_run(summary: RunSummary) -> None:
    screen = console.console()
    extra = summary.extra
    lines = {
        "run": str(summary.path),
        "state": summary.state,
        "choice": summary.choice,
        "model": summary.model if not summary.models else "",
        "models": ", ".join(f"{alias} {name}" for alias, name in summary.models.items()),
        "steps": summary.steps,
        "progress": _progress(summary),
        "verdict": extra.get("verdict", ""),
        "changed": summary.changed,
        "size": _size(summary.bytes),
    }
    for name, value in lines.items():
        if value:
            print_plain(screen, f"{name:<8} {value}")
    for arm, how_far in summary.incomplete.items():
        print_plain(screen, f"incomplete: {arm}, {how_far}; tunewise run {summary.path} --resume finishes it")
    if arms := extra.get("arms"):
        screen.print()
        right = extra["arms_right"]
        rows = [
            (
                escape(arm),
                right[arm].text if right[arm] else NOT_JUDGED,
                f"{score.mean:.2f}",
                score.interval,
            )
            for arm, score in arms.items()
        ]
        screen.print(console.table(("arm", "right", "combined", "95 %"), rows, right=(1, 2, 3)))
    screen.print()
    parts = [(escape(name), _size(size)) for name, size in extra.get("parts", {}).items()]
    screen.print(console.table(("part", "size"), parts, right=(1,)))


def _progress(summary: RunSummary) -> str:
    """Return how far a run is that a process works on, and how to follow it; "" for other runs."""
    if summary.state != "writing":
        return ""
    return f"{run_progress(summary.path)[0]}; follow it with --watch"


def _progress_json(summary: RunSummary) -> dict[str, Any]:
    """Return the key ``progress`` of a run that a process works on, with the keys of a status line of --watch."""
    if summary.state != "writing":
        return {}
    return {"progress": run_progress(summary.path)[1]}


def _verdict(run: RunSummary) -> str:
    if run.outcome:
        count = f" {run.right.text} right" if run.right else ""
        score = f" {run.score:.2f}" if run.score is not None else ""
        arm = escape(run.use) if run.use else "none can be used yet; best " + escape(run.best)
        return f"{run.outcome}, {arm}{count or score}"
    return f"{run.steps} steps" if run.steps else "–"


def _size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"
