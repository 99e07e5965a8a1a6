"""The runs of a folder: listing and describing them, comparing two, removing one to the trash and restoring it.

A removed run is moved whole into the folder ``.trash`` beside the others, with the number of its removal as
prefix; restoring it is a rename. Links are never followed, and a run that is being written is left alone.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from rag.errors import BadInput, UsageProblem
from rag.files import MANIFEST, has_active_writer, move_folder, sync_folder, writer_lock
from runners.plan.schema import Plan, plan_differences, step_name
from runners.report.json_records import to_json
from runners.report.records import RightAnswers
from runners.report.report_file import read_report
from runners.report.trial_report import arm_named
from runners.run_folder import RunFolder, is_run, open_run_folder, read_run_plan, require_run_folder

RUNS_FOLDER = Path("runs")
TRASH_FOLDER = ".trash"
_TRASHED_NAME = re.compile(r"(\d{6})\.(.+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """One run of a folder, as ``runs list`` shows it."""

    name: str
    path: Path
    state: str
    """finished, unfinished, writing (by another process) or damaged."""
    problem: str = ""
    hint: str = ""
    """What to do about the problem, if that is known."""
    choice: str = ""
    model: str = ""
    models: dict[str, str] = field(default_factory=dict)
    """The names of the models that the plan compares, by alias; {} with one."""
    incomplete: dict[str, str] = field(default_factory=dict)
    """The arms that were not asked to their end, with how far they came and why."""
    outcome: str = ""
    winner: str | None = ""
    """The same as ``use``; "" before a verdict."""
    best: str = ""
    """The arm to use, else the best by its combined score."""
    score: float | None = None
    """That arm's combined score."""
    use: str | None = None
    """The arm that is asked by default; None where the verdict names none."""
    right: RightAnswers | None = None
    """Right answers of ``best``; None where they are not known."""
    steps: str = ""
    """Finished steps of all, as "5 of 7"."""
    bytes: int = 0
    changed: str = ""
    """When something was last written, to the minute."""
    extra: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the row that ``runs list --json`` prints."""
        row = asdict(self) | {"path": str(self.path), "right": to_json(self.right), **to_json(self.extra)}
        row.pop("extra")
        return row


def find_runs(folder: Path = RUNS_FOLDER) -> list[RunSummary]:
    """Return the runs directly below a folder by name, damaged ones too; [] when there is no such folder."""
    if not folder.is_dir():
        return []
    return [summarise_run(path) for path in sorted(folder.iterdir()) if _is_run(path)]


def summarise_run(path: Path) -> RunSummary:
    """Return what a run is and how far it got; BadInput when the folder is no run."""
    require_run_folder(path)
    files = [file for file in _files(path) if not file.is_symlink()]
    sizes = [file.stat() for file in files]
    changed = max((stat.st_mtime for stat in sizes), default=path.stat().st_mtime)
    common: dict[str, Any] = {
        "bytes": sum(stat.st_size for stat in sizes),
        "changed": datetime.fromtimestamp(changed).isoformat(" ", "minutes"),
    }
    try:
        folder = open_run_folder(path)
        plan = read_run_plan(path)
        report = read_report(path)
    except BadInput as problem:
        return RunSummary(
            name=path.name, path=path, state="damaged", problem=problem.message, hint=problem.hint, **common
        )
    verdict, arms = (report.verdict, report.arms) if report else (None, ())
    best = arm_named(arms, verdict.use if verdict else None) or max(
        arms, key=lambda arm: arm.score.mean, default=None
    )
    done, total = _steps(folder, plan)
    finished = bool(report) and (path / MANIFEST).is_file()
    state = "writing" if has_active_writer(path) else "finished" if finished else "unfinished"
    return RunSummary(
        name=path.name,
        path=path,
        state=state,
        problem="",
        hint="",
        choice=plan.choice,
        model=plan.model.name,
        models={alias: model.name for alias, model in plan.models.items()},
        incomplete=folder.incomplete_arms(),
        outcome=verdict.outcome.value if verdict else "",
        winner=verdict.use if verdict else "",
        best=best.arm if best else "",
        score=best.score.mean if best else None,
        use=verdict.use if verdict else None,
        right=best.right if best else None,
        steps=f"{done} of {total}",
        **common,
    )


def describe_run(path: Path) -> RunSummary:
    """Return a run with its arms' scores, its parts' sizes and its verdict, checked against its manifest."""
    summary = summarise_run(path)
    extra: dict[str, Any] = {"parts": {part.name: _size(part) for part in sorted(path.iterdir())}}
    if summary.state != "damaged":
        report = read_report(path)
        extra["verdict"] = report.verdict.text if report else ""
        extra["arms"] = {arm.arm: arm.score for arm in (report.arms if report else ())}
        extra["arms_right"] = {arm.arm: arm.right for arm in (report.arms if report else ())}
        try:
            open_run_folder(path).check()
        except BadInput as problem:
            summary = replace(summary, state="damaged", problem=problem.message, hint=problem.hint)
    return replace(summary, extra=extra)


def diff_runs(a: Path, b: Path) -> dict[str, Any]:
    """Return the keys of the plan in which two runs differ, with both values, and how each run ended."""
    plans = [read_run_plan(open_run_folder(path).path) for path in (a, b)]
    rows = [
        {"key": key, "a": _printable(first), "b": _printable(second)}
        for key, first, second in plan_differences(plans[0], plans[1], ())
    ]
    ends = [summarise_run(path).to_json() for path in (a, b)]
    return {"a": str(a), "b": str(b), "plan": rows, "runs": ends}


def remove_run(path: Path) -> Path:
    """Move a run into the trash folder beside it; return its new path.

    Raises:
        BadInput: the folder is no run, or is being written.
        UsageProblem: it is in the trash already, or is a link (what a link leads to is not this folder's).
    """
    path = _check_own(path)
    require_run_folder(path)
    if (parent := path.resolve().parent).name == TRASH_FOLDER:
        raise UsageProblem(
            f"{path} is in the trash already",
            f"bring the last one back: tunewise runs undo {shlex.quote(str(parent.parent))}",
        )
    trash = _trash(path.parent)
    with writer_lock(path):  # nothing is made for a run that is being written
        trash.mkdir(exist_ok=True)
    number = max((removal for removal, _, _ in _trashed(trash)), default=0) + 1
    target = trash / f"{number:06d}.{path.name}"
    move_folder(path, target)
    for folder in (trash, path.parent):
        sync_folder(folder)
    return target


def restore_run(folder: Path = RUNS_FOLDER) -> Path:
    """Restore the run that was removed last; return its path.

    Raises:
        BadInput: the trash is empty.
        UsageProblem: the run's name is in use again.
    """
    trash = _trash(folder)
    trashed = _trashed(trash)
    if not trashed:
        raise BadInput(f"nothing of {folder} is in the trash", "see what there is: tunewise runs list")
    _, name, path = trashed[-1]
    target = folder / name
    if target.exists() or target.is_symlink():
        raise UsageProblem(
            f"{target} exists again, so the removed run cannot take its name", f"move {target} first"
        )
    path.rename(target)
    for changed in (trash, folder):
        sync_folder(changed)
    return target


def empty_trash(folder: Path = RUNS_FOLDER) -> tuple[int, int]:
    """Delete the runs in the trash; return how many runs and bytes were deleted. Links are not followed."""
    trashed = _trashed(_trash(folder))
    size = sum(_size(path) for _, _, path in trashed)
    for _, _, path in trashed:
        shutil.rmtree(path)
    return len(trashed), size


def trashed_runs(folder: Path = RUNS_FOLDER) -> list[str]:
    """Return the names of the runs in the trash; the last one is restored first."""
    return [name for _, name, _ in _trashed(_trash(folder))]


def _check_own(path: Path) -> Path:
    """Return the path of a run folder; UsageProblem when it is a link."""
    if path.is_symlink():
        raise UsageProblem(
            f"{path} is a link: only real folders are removed", f"remove the link itself: rm {path}"
        )
    return path if path.name not in ("", "..") else path.resolve()


def _trash(folder: Path) -> Path:
    trash = folder / TRASH_FOLDER
    if trash.is_symlink():
        raise BadInput(f"{trash} is a link, so nothing is moved through it", f"remove the link: rm {trash}")
    return trash


def _trashed(trash: Path) -> list[tuple[int, str, Path]]:
    """Return (number, name, path) of the runs in the trash, oldest first; other files are ignored."""
    if not trash.is_dir():
        return []
    trashed = [
        (int(match[1]), match[2], path)
        for path in trash.iterdir()
        if (match := _TRASHED_NAME.fullmatch(path.name)) and path.is_dir() and not path.is_symlink()
    ]
    return sorted(trashed)


def _is_run(path: Path) -> bool:
    return not path.name.startswith(".") and is_run(path)


def _files(path: Path) -> Iterator[Path]:
    """Yield the files below a folder; links to folders are not entered."""
    for folder, _, names in os.walk(path):
        yield from (Path(folder, name) for name in names)


def _size(path: Path) -> int:
    files = _files(path) if path.is_dir() and not path.is_symlink() else [path]
    return sum(file.lstat().st_size for file in files)


def _steps(folder: RunFolder, plan: Plan) -> tuple[int, int]:
    done = {event["step"] for event in folder.events() if event.get("event") == "step.done"}
    names = [step_name(step) for step in plan.steps]
    return sum(name in done for name in names), len(names)


def _printable(value: Any) -> Any:
    return (
        value if isinstance(value, str | int | float | bool | None) else json.dumps(value, ensure_ascii=False)
    )
