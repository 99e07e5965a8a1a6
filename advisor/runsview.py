"""The work behind `tunewise runs`: what people see of runs, and the same as JSON."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Sequence
from pathlib import Path

from rich.markup import escape

from advisor import render
from advisor.output import emit
from advisor.values import say
from rag.errors import BadInput, UsageProblem
from rag.versions import UPDATE
from runners import runs
from runners.rundir import is_run
from runners.runs import Known

COLOURS = {"finished": "green", "unfinished": "yellow", "writing": "cyan", "damaged": "red"}
LONGEST = 40


def list_runs(place: Path, as_json: bool) -> None:
    """Print the runs of a folder as a table; how many are in its trash stands below."""
    found, gone = runs.find(place), runs.in_trash(place)
    if as_json:
        emit({"schema": 1, "runs": [run.to_json() for run in found]})
        return
    screen = render.console()
    if not found:
        screen.print(
            f"no run in {place}; make one with: tunewise run plan.yaml", markup=False, soft_wrap=True
        )
    else:
        rows = [
            (f"[bold]{escape(run.name)}[/]", f"[{COLOURS[run.state]}]{run.state}[/]", _verdict(run), _size(run.bytes),
             run.changed)
            for run in found
        ]  # fmt: skip
        screen.print(render.table(("run", "state", "verdict", "size", "changed"), rows, right=(3,)))
    for run in found:
        if run.problem:
            screen.print(f"  {run.name}: {run.problem}", markup=False, soft_wrap=True)
    if gone:
        back = "tunewise runs undo" + ("" if place == runs.PLACE else f" {shlex.quote(str(place))}")
        line = f"{len(gone)} removed; the last was {gone[-1]}: {back} brings it back"
        screen.print(line, style="dim", markup=False, soft_wrap=True)


def show(run: Path, as_json: bool) -> None:
    """Print one run; BadInput, after that, when it is damaged."""
    known = runs.show(named(run))
    if as_json:
        emit({"schema": 1, **known.to_json()})
    else:
        _show(known)
    if known.problem:
        newer = known.hint == UPDATE
        raise BadInput(
            known.problem if newer else f"{known.path} is damaged: {known.problem}",
            known.hint or f"put it back, or run it again: tunewise run {known.path} --overwrite",
        )


def _show(known: Known) -> None:
    screen = render.console()
    extra = known.extra
    lines = {
        "run": str(known.path), "state": known.state, "choice": known.choice, "model": known.model,
        "steps": known.steps, "verdict": extra.get("verdict", ""), "changed": known.changed,
        "size": _size(known.bytes),
    }  # fmt: skip
    for name, value in lines.items():
        if value:
            screen.print(f"{name:<8} {value}", markup=False, soft_wrap=True)
    if arms := extra.get("arms"):
        screen.print()
        rows = [(escape(a), f"{s['mean']:.2f}", f"{s['low']:.2f}–{s['high']:.2f}") for a, s in arms.items()]
        screen.print(render.table(("arm", "combined", "95 %"), rows, right=(1, 2)))
    screen.print()
    parts = [(escape(name), _size(size)) for name, size in extra.get("parts", {}).items()]
    screen.print(render.table(("part", "size"), parts, right=(1,)))


def diff(a: Path, b: Path, as_json: bool) -> None:
    """Print in what two plans differ, and both verdicts."""
    found = runs.diff(named(a), named(b))
    if as_json:
        emit({"schema": 1, **found})
        return
    screen = render.console()
    rows = [
        (escape(row["key"]), *(escape(say(row[side], LONGEST)) for side in ("a", "b")))
        for row in found["plan"]
    ]
    names = [escape(row["name"]) for row in found["runs"]]
    if rows:
        screen.print(render.table(("key of the plan", *names), rows))
    else:
        screen.print("both carry out the same plan")
    ends = [
        (key, *(escape(str(row[key])) or "–" for row in found["runs"]))
        for key in ("state", "outcome", "winner")
    ]
    screen.print()
    screen.print(render.table(("", *names), ends))
    a_named, b_named = (shlex.quote(str(found[side])) for side in ("a", "b"))
    line = f"scores side by side: tunewise report {a_named} --compare {b_named}"
    screen.print(line, style="dim", markup=False, soft_wrap=True)


def remove(chosen: Sequence[Path], emptied: Path | None, as_json: bool) -> None:
    """Move runs to the trash, or delete what is there, and say how to undo it."""
    if not chosen and emptied is None:
        raise UsageProblem("no run was named", "tunewise runs rm RUN, or tunewise runs rm --empty-trash")
    if chosen and emptied is not None:
        raise UsageProblem(
            "--empty-trash deletes what was removed before, not runs", "give the two one after the other"
        )
    if emptied is not None:
        count, size = runs.empty(emptied)
        if as_json:
            emit({"schema": 1, "deleted": count, "bytes": size})
        else:
            print(f"deleted {count} run{'s' * (count != 1)} for good, {_size(size)}")
        return
    places: dict[Path, Path] = {}
    for place in map(named, chosen):
        places.setdefault(place if place.is_symlink() else place.resolve(), place)
    moved: list[dict[str, str]] = []
    try:
        for one, place in places.items():
            trash = runs.remove(place)
            run = trash.parent.parent / one.name
            moved.append({"run": str(run), "trash": str(trash)})
            if not as_json:
                print(f"removed {run}; bring it back with: tunewise runs undo {shlex.quote(str(run.parent))}")
    finally:  # what is gone is told, whatever stops the next one
        if as_json and moved:
            emit({"schema": 1, "removed": moved})


def undo(place: Path, as_json: bool) -> None:
    """Bring the last removed run back."""
    back = runs.undo(place)
    if as_json:
        emit({"schema": 1, "restored": str(back)})
    else:
        print(f"{back} is back")


def named(run: Path) -> Path:
    """Return the folder of a run given by path, or by its name in ./runs; BadInput with the closest name."""
    if run.exists() or run.is_symlink():
        return run
    inside = runs.PLACE / run
    if len(run.parts) == 1 and is_run(inside):
        return inside
    names = [known.name for known in runs.find()]
    close = difflib.get_close_matches(run.name, names, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]}?" if close else "see what there is: tunewise runs list"
    raise BadInput(f"there is no run {run}", hint)


def _verdict(run: Known) -> str:
    if run.outcome:
        score = f" {run.score:.2f}" if run.score is not None else ""
        return f"{run.outcome}, {escape(run.winner)}{score}"
    return f"{run.steps} steps" if run.steps else "–"


def _size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"
