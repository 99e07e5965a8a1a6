"""The work behind `tunewise runs`: what people see of runs, and the same as JSON."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Sequence
from pathlib import Path

from rich.markup import escape

from advisor.display import console
from advisor.output import emit_result
from advisor.questionnaire.answers import format_answer
from rag.errors import BadInput, UsageProblem
from rag.files import UPDATE_HINT
from runners.run_folder import is_run
from runners.runs import listing
from runners.runs.listing import RunSummary

STATE_COLOURS = {"finished": "green", "unfinished": "yellow", "writing": "cyan", "damaged": "red"}
MAX_NAME_CHARS = 40


def show_runs(place: Path, as_json: bool) -> None:
    """Print the runs of a folder as a table; how many are in its trash stands below."""
    found, gone = listing.find_runs(place), listing.trashed_runs(place)
    if as_json:
        emit_result({"schema": 1, "runs": [run.to_json() for run in found]})
        return
    screen = console.console()
    if not found:
        screen.print(
            f"no run in {place}; make one with: tunewise run plan.yaml", markup=False, soft_wrap=True
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
            for run in found
        ]
        screen.print(console.table(("run", "state", "verdict", "size", "changed"), rows, right=(3,)))
    for run in found:
        if run.problem:
            screen.print(f"  {run.name}: {run.problem}", markup=False, soft_wrap=True)
    if gone:
        back = "tunewise runs undo" + ("" if place == listing.RUNS_FOLDER else f" {shlex.quote(str(place))}")
        line = f"{len(gone)} removed; the last was {gone[-1]}: {back} brings it back"
        screen.print(line, style="dim", markup=False, soft_wrap=True)


def show_run(run: Path, as_json: bool) -> None:
    """Print one run; BadInput, after that, when it is damaged."""
    known = listing.describe_run(run_folder_named(run))
    if as_json:
        emit_result({"schema": 1, **known.to_json()})
    else:
        _show(known)
    if known.problem:
        newer = known.hint == UPDATE_HINT
        raise BadInput(
            known.problem if newer else f"{known.path} is damaged: {known.problem}",
            known.hint or f"put it back, or run it again: tunewise run {known.path} --overwrite",
        )


def _show(known: RunSummary) -> None:
    screen = console.console()
    extra = known.extra
    lines = {
        "run": str(known.path),
        "state": known.state,
        "choice": known.choice,
        "model": known.model,
        "steps": known.steps,
        "verdict": extra.get("verdict", ""),
        "changed": known.changed,
        "size": _size(known.bytes),
    }
    for name, value in lines.items():
        if value:
            screen.print(f"{name:<8} {value}", markup=False, soft_wrap=True)
    if arms := extra.get("arms"):
        screen.print()
        rows = [(escape(a), f"{s['mean']:.2f}", f"{s['low']:.2f}–{s['high']:.2f}") for a, s in arms.items()]
        screen.print(console.table(("arm", "combined", "95 %"), rows, right=(1, 2)))
    screen.print()
    parts = [(escape(name), _size(size)) for name, size in extra.get("parts", {}).items()]
    screen.print(console.table(("part", "size"), parts, right=(1,)))


def show_run_diff(a: Path, b: Path, as_json: bool) -> None:
    """Print in what two plans differ, and both verdicts."""
    found = listing.diff_runs(run_folder_named(a), run_folder_named(b))
    if as_json:
        emit_result({"schema": 1, **found})
        return
    screen = console.console()
    rows = [
        (escape(row["key"]), *(escape(format_answer(row[side], MAX_NAME_CHARS)) for side in ("a", "b")))
        for row in found["plan"]
    ]
    names = [escape(row["name"]) for row in found["runs"]]
    if rows:
        screen.print(console.table(("key of the plan", *names), rows))
    else:
        screen.print("both carry out the same plan")
    ends = [
        (key, *(escape(str(row[key])) or "–" for row in found["runs"]))
        for key in ("state", "outcome", "winner")
    ]
    screen.print()
    screen.print(console.table(("", *names), ends))
    a_named, b_named = (shlex.quote(str(found[side])) for side in ("a", "b"))
    line = f"scores side by side: tunewise report {a_named} --compare {b_named}"
    screen.print(line, style="dim", markup=False, soft_wrap=True)


def remove_run(chosen: Sequence[Path], emptied: Path | None, as_json: bool) -> None:
    """Move runs to the trash, or delete what is there, and say how to undo it."""
    if not chosen and emptied is None:
        raise UsageProblem("no run was named", "tunewise runs rm RUN, or tunewise runs rm --empty-trash")
    if chosen and emptied is not None:
        raise UsageProblem(
            "--empty-trash deletes what was removed before, not runs", "give the two one after the other"
        )
    if emptied is not None:
        count, size = listing.empty_trash(emptied)
        if as_json:
            emit_result({"schema": 1, "deleted": count, "bytes": size})
        else:
            print(f"deleted {count} run{'s' * (count != 1)} for good, {_size(size)}")
        return
    places: dict[Path, Path] = {}
    for place in map(run_folder_named, chosen):
        places.setdefault(place if place.is_symlink() else place.resolve(), place)
    moved: list[dict[str, str]] = []
    try:
        for one, place in places.items():
            trash = listing.remove_run(place)
            run = trash.parent.parent / one.name
            moved.append({"run": str(run), "trash": str(trash)})
            if not as_json:
                print(f"removed {run}; bring it back with: tunewise runs undo {shlex.quote(str(run.parent))}")
    finally:  # what is gone is told, whatever stops the next one
        if as_json and moved:
            emit_result({"schema": 1, "removed": moved})


def undo_remove(place: Path, as_json: bool) -> None:
    """Bring the last removed run back."""
    back = listing.restore_run(place)
    if as_json:
        emit_result({"schema": 1, "restored": str(back)})
    else:
        print(f"{back} is back")


def run_folder_named(run: Path) -> Path:
    """Return the folder of a run given by path, or by its name in ./runs; BadInput with the closest name."""
    if run.exists() or run.is_symlink():
        return run
    inside = listing.RUNS_FOLDER / run
    if len(run.parts) == 1 and is_run(inside):
        return inside
    names = [known.name for known in listing.find_runs()]
    close = difflib.get_close_matches(run.name, names, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]}?" if close else "see what there is: tunewise runs list"
    raise BadInput(f"there is no run {run}", hint)


def _verdict(run: RunSummary) -> str:
    if run.outcome:
        score = f" {run.score:.2f}" if run.score is not None else ""
        return f"{run.outcome}, {escape(run.winner)}{score}"
    return f"{run.steps} steps" if run.steps else "–"


def _size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"
