"""The runs of a folder: what each is and how far it got, what differs between two, taking one away and back.

A run that is taken away lies in ``.trash`` beside the others, whole, under the number of its removal; bringing it back
is a rename. Nothing here follows a link, and a run that is being written is left alone.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from rag.errors import BadInput, UsageProblem
from rag.files import MANIFEST, has_active_writer, sync_folder, writer_lock
from runners.plan.schema import Plan, plan_differences, step_name
from runners.run_folder import is_run, open_run_folder, read_journal, read_report, read_run_plan

RUNS_FOLDER = Path("runs")
TRASH_FOLDER = ".trash"
_GONE = re.compile(r"(\d{6})\.(.+)")


@dataclass(frozen=True, slots=True)
class RunSummary:
    """One run of a folder."""

    name: str
    path: Path
    state: str
    """finished, unfinished, writing (by another process) or damaged."""
    problem: str = ""
    hint: str = ""
    """What to do about the problem, where that is known."""
    choice: str = ""
    model: str = ""
    outcome: str = ""
    winner: str = ""
    score: float | None = None
    """The winner's combined score."""
    steps: str = ""
    """Finished steps of all, as "5 of 7"."""
    bytes: int = 0
    changed: str = ""
    """When something was last written, to the minute."""
    extra: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the row that ``runs list --json`` prints."""
        row = asdict(self) | {"path": str(self.path)}
        return row | row.pop("extra")


def find_runs(place: Path = RUNS_FOLDER) -> list[RunSummary]:
    """Return the runs directly below a place by name, damaged ones too; [] where there is no such folder."""
    if not place.is_dir():
        return []
    return [summarise_run(path) for path in sorted(place.iterdir()) if _is_run(path)]


def summarise_run(path: Path) -> RunSummary:
    """Return what a run folder is and how far it got; BadInput when it is none."""
    open_run_folder(path)
    files = [file for file in _files(path) if not file.is_symlink()]
    sizes = [file.stat() for file in files]
    changed = max((stat.st_mtime for stat in sizes), default=path.stat().st_mtime)
    common: dict[str, Any] = {
        "bytes": sum(stat.st_size for stat in sizes),
        "changed": datetime.fromtimestamp(changed).isoformat(" ", "minutes"),
    }
    try:
        plan = read_run_plan(path)
        report = read_report(path)
    except BadInput as problem:
        return RunSummary(path.name, path, "damaged", problem.message, problem.hint, **common)
    verdict = report.get("verdict") or {}
    scores = {arm["arm"]: arm["score"]["mean"] for arm in report.get("arms", ())}
    done, of = _steps(path, plan)
    finished = bool(report) and (path / MANIFEST).is_file()
    state = "writing" if has_active_writer(path) else "finished" if finished else "unfinished"
    return RunSummary(
        path.name,
        path,
        state,
        "",
        "",
        plan.choice,
        plan.model.name,
        verdict.get("outcome", ""),
        verdict.get("winner", ""),
        scores.get(verdict.get("winner", "")),
        f"{done} of {of}",
        **common,
    )


def describe_run(path: Path) -> RunSummary:
    """Return a run with its arms' scores, its parts' sizes and its verdict; checks it against its manifest."""
    known = summarise_run(path)
    extra: dict[str, Any] = {"parts": {part.name: _size(part) for part in sorted(path.iterdir())}}
    if known.state != "damaged":
        report = read_report(path)
        extra["verdict"] = (report.get("verdict") or {}).get("text", "")
        extra["arms"] = {arm["arm"]: arm["score"] for arm in report.get("arms", ())}
        try:
            open_run_folder(path).check()
        except BadInput as problem:
            told = {"problem": problem.message, "hint": problem.hint}
            return RunSummary(**{**_fields(known), **told, "state": "damaged", "extra": extra})
    return RunSummary(**{**_fields(known), "extra": extra})


def diff_runs(a: Path, b: Path) -> dict[str, Any]:
    """Return the keys of the plan in which two runs differ with both values, and how both ended."""
    plans = [read_run_plan(open_run_folder(path).path) for path in (a, b)]
    rows = [
        {"key": key, "a": _said(first), "b": _said(second)}
        for key, first, second in plan_differences(plans[0], plans[1], ())
    ]
    ends = [summarise_run(path).to_json() for path in (a, b)]
    return {"a": str(a), "b": str(b), "plan": rows, "runs": ends}


def remove_run(path: Path) -> Path:
    """Put a run into the trash folder beside it; return where it lies now.

    Raises BadInput when it is no run or is being written, UsageProblem when it is in the trash already or is a link:
    what a link leads to is somebody else's.
    """
    path = _own(path)
    open_run_folder(path)
    if (inside := path.resolve().parent).name == TRASH_FOLDER:
        raise UsageProblem(
            f"{path} is in the trash already",
            f"bring the last one back: tunewise runs undo {shlex.quote(str(inside.parent))}",
        )
    trash = _trash(path.parent)
    with writer_lock(path):
        trash.mkdir(exist_ok=True)
        number = max((n for n, _, _ in _gone(trash)), default=0) + 1
        to = trash / f"{number:06d}.{path.name}"
        path.rename(to)
    for folder in (trash, path.parent):
        sync_folder(folder)
    return to


def restore_run(place: Path = RUNS_FOLDER) -> Path:
    """Bring back the run that was taken away last; return where it lies.

    Raises BadInput when the trash is empty, UsageProblem when its name is taken again.
    """
    trash = _trash(place)
    gone = _gone(trash)
    if not gone:
        raise BadInput(f"nothing of {place} is in the trash", "see what there is: tunewise runs list")
    _, name, path = gone[-1]
    to = place / name
    if to.exists() or to.is_symlink():
        raise UsageProblem(f"{to} exists again, so the removed run cannot take its name", f"move {to} first")
    path.rename(to)
    for folder in (trash, place):
        sync_folder(folder)
    return to


def empty_trash(place: Path = RUNS_FOLDER) -> tuple[int, int]:
    """Delete what is in the trash for good; return how many runs and bytes that were. Links are removed, not followed."""
    gone = _gone(_trash(place))
    size = sum(_size(path) for _, _, path in gone)
    for _, _, path in gone:
        shutil.rmtree(path)
    return len(gone), size


def trashed_runs(place: Path = RUNS_FOLDER) -> list[str]:
    """Return the names of the runs in the trash, the one that `undo` brings back last."""
    return [name for _, name, _ in _gone(_trash(place))]


def _own(path: Path) -> Path:
    if path.is_symlink():
        raise UsageProblem(
            f"{path} is a link: only what lies here is removed", f"remove the link itself: rm {path}"
        )
    return path if path.name not in ("", "..") else path.resolve()


def _trash(place: Path) -> Path:
    trash = place / TRASH_FOLDER
    if trash.is_symlink():
        raise BadInput(f"{trash} is a link, so nothing is moved through it", f"remove the link: rm {trash}")
    return trash


def _gone(trash: Path) -> list[tuple[int, str, Path]]:
    """Return number, name and place of what is in the trash, the oldest first; what is not ours is left alone."""
    if not trash.is_dir():
        return []
    found = [
        (int(match[1]), match[2], path)
        for path in trash.iterdir()
        if (match := _GONE.fullmatch(path.name)) and path.is_dir() and not path.is_symlink()
    ]
    return sorted(found)


def _is_run(path: Path) -> bool:
    return not path.name.startswith(".") and is_run(path)


def _files(path: Path) -> Iterator[Path]:
    """Yield the files below a folder; links to folders are not entered."""
    for folder, _, names in os.walk(path):
        yield from (Path(folder, name) for name in names)


def _size(path: Path) -> int:
    files = _files(path) if path.is_dir() and not path.is_symlink() else [path]
    return sum(file.lstat().st_size for file in files)


def _steps(path: Path, plan: Plan) -> tuple[int, int]:
    done = {
        event["step"] for event in read_journal(path / "events.jsonl") if event.get("event") == "step.done"
    }
    names = [step_name(step) for step in plan.steps]
    return sum(name in done for name in names), len(names)


def _fields(known: RunSummary) -> dict[str, Any]:
    return {name: getattr(known, name) for name in RunSummary.__slots__}


def _said(value: Any) -> Any:
    return (
        value if isinstance(value, str | int | float | bool | None) else json.dumps(value, ensure_ascii=False)
    )
