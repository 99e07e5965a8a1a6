"""The run folder: plan, events, finished steps; it can be moved or deleted as one thing."""

from __future__ import annotations

import json
import shlex
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from rag.errors import BadInput, UsageProblem
from rag.files import (
    MANIFEST,
    append_line,
    canonical_json,
    check_manifest,
    check_schema,
    sha256_text,
    write_manifest,
    writer_lock,
)
from runners.plan.schema import Plan, parse_plan, plan_differences, write_plan

PLAN, EVENTS, INDEX, TRIAL, REPORT = "plan.yaml", "events.jsonl", "index", "trial", "report.json"
EVALS_FOLDER = "evals"
SCORES = "scores.json"
"""In the trial folder and in each folder of evals."""
UNSEALED = (EVENTS, INDEX, EVALS_FOLDER)
"""What goes on changing in a sealed run: the log, the index, which has manifests of its own, and later examinations."""


class RunFolder:
    """One run's files; finished steps are remembered with a digest of what they were made from."""

    def __init__(self, path: Path) -> None:
        """Take an existing folder with a plan in it; use `open_run` or `create`."""
        self.path = path
        self._finished = {
            event["step"]: event
            for event in self.events()
            if event.get("event") == "step.done" and "step" in event
        }

    @classmethod
    def create(cls, path: Path, plan: Plan, resume: bool = False, overwrite: bool = False) -> RunFolder:
        """Make the folder, or take the one there is.

        Raises UsageProblem when it exists and neither flag is given, BadInput when the plan it was started with
        differs (naming the keys); UsageProblem too when the folder is not a run, or may not be replaced.
        """
        if path.exists() and not (path.is_dir() and _is_begun(path)):
            if not is_run(path):
                raise UsageProblem(f"{path} exists and is not a run folder", "choose another --out")
            if overwrite:
                check_replaceable(path, plan)
                _remove(path)
            elif not resume:
                raise UsageProblem(
                    f"{path} exists", "continue it with --resume, or start again with --overwrite"
                )
        path.mkdir(parents=True, exist_ok=True)
        if (path / PLAN).exists():
            changed = [key for key, _, _ in plan_differences(read_run_plan(path), plan)]
            if changed:
                raise BadInput(
                    f"the plan differs from the one {path} was started with: {', '.join(changed[:4])}",
                    "undo the change, or start again with --overwrite",
                )
        else:
            (path / EVENTS).touch()  # first: from its plan on, the folder is known as a run
            write_plan(plan, path / PLAN)
        return cls(path)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the place of the folder's only writer; a second run in it is refused, naming the first."""
        with writer_lock(self.path):
            yield

    def events(self) -> list[dict[str, Any]]:
        """Every event written so far; a line torn by a crash is left out."""
        return read_journal(self.path / EVENTS)

    def write(self, event: dict[str, Any]) -> None:
        """Append one event with the time it happened."""
        append_line(self.path / EVENTS, {"time": round(time.time(), 3), **event})

    def finished(self, step: str, inputs: Any) -> dict[str, Any] | None:
        """What a finished step left behind, when it was made from the same inputs; else None."""
        event = self._finished.get(step)
        same = event is not None and event.get("inputs") == sha256_text(canonical_json(inputs))
        return event["result"] if event is not None and same else None

    def finish(self, step: str, inputs: Any, result: dict[str, Any]) -> None:
        """Remember a step as finished, durably."""
        event = {
            "event": "step.done",
            "step": step,
            "inputs": sha256_text(canonical_json(inputs)),
            "result": result,
        }
        self.write(event)
        self._finished[step] = event

    def adapter(self, arm: str, seed: int) -> Path:
        """Folder of an arm's weights, an adapter or a whole model."""
        return self.path / "adapters" / f"{arm}-s{seed}"

    def seal(self, extra: dict[str, Any]) -> None:
        """Write the manifest over everything that stays as it is from here on."""
        names = [p.relative_to(self.path).as_posix() for p in sorted(self.path.rglob("*")) if p.is_file()]
        own = [
            n for n in names if n.split("/")[0] not in UNSEALED and not n.startswith(".") and n != MANIFEST
        ]
        write_manifest(self.path, "run", extra, own)

    def unseal(self) -> None:
        """Take the manifest away before something is added; a run that is cut off then is unsealed, not damaged."""
        (self.path / MANIFEST).unlink(missing_ok=True)

    def check(self) -> None:
        """Check a sealed run against its manifest; BadInput names the file that differs. Unsealed, there is none."""
        if (self.path / MANIFEST).exists():
            try:
                check_manifest(self.path, "run", UNSEALED)
            except BadInput as problem:
                name = shlex.quote(str(self.path))
                again = f"put that file back, or run it again: tunewise run {name} --overwrite"
                raise BadInput(problem.message, problem.hint or again) from None


def is_run(path: Path) -> bool:
    """Say whether a folder is a run: it has a log or a manifest too, not only a plan, which may lie among documents."""
    return (path / PLAN).is_file() and any((path / name).is_file() for name in (EVENTS, MANIFEST))


def check_replaceable(path: Path, plan: Plan) -> None:
    """Raise UsageProblem when a run may not be replaced by one of this plan.

    What a plan reads is the user's own, the current folder is somebody's place, and a link leads to another's.
    """
    if path.is_symlink():
        raise UsageProblem(f"{path} is a link: only what lies here is replaced", "choose another --out")
    inside = path.resolve()
    plans = [plan]
    with suppress(BadInput):  # a damaged plan is what --overwrite is for
        plans.append(read_run_plan(path))
    for place in (place for each in plans for place in _places(each)):
        if place.resolve().is_relative_to(inside):
            raise UsageProblem(
                f"{path} holds {place}, which the plan reads, so it is not replaced", "choose another --out"
            )
    if Path.cwd().is_relative_to(inside):
        raise UsageProblem(
            f"{path} is the current folder, so it is not replaced", f"first: cd {inside.parent}"
        )


def open_run_folder(path: Path) -> RunFolder:
    """Open an existing run; BadInput when there is none at `path`."""
    if not is_run(path):
        what = f"is not a run folder (no {PLAN} with {EVENTS})" if path.exists() else "does not exist"
        raise BadInput(f"{path} {what}", "make one with: tunewise run plan.yaml")
    return RunFolder(path)


def read_run_plan(path: Path) -> Plan:
    """The plan a run was started with; its paths are absolute already."""
    try:
        loaded = yaml.safe_load((path / PLAN).read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadInput(f"{path / PLAN} cannot be read: {error}", "start again with --overwrite") from None
    return parse_plan(loaded if isinstance(loaded, dict) else {}, str(path / PLAN))


def read_report(path: Path) -> dict[str, Any]:
    """A run's report, {} before there is one; BadInput when it is damaged, names no winner or is newer."""
    file = path / REPORT
    if not file.is_file():
        return {}
    try:
        report = check_schema(json.loads(file.read_text("utf-8")), "report", file)
        str(report["verdict"]["winner"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(
            f"{file} is damaged: {error!r}",
            f"write it again with: tunewise run {shlex.quote(str(path))} --resume",
        ) from None
    return report


def read_journal(path: Path) -> list[dict[str, Any]]:
    """Read a JSON-lines journal; a torn last line, left by a crash, is left out."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_text("utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows


def _places(plan: Plan) -> list[Path]:
    """Every file and folder that a plan reads."""
    data, bases = plan.data, [plan.model, plan.embedder, *(arm.model for arm in plan.arms if arm.model)]
    files = [data.documents, data.examples, data.replay, data.questions, data.test_questions]
    files += [Path(plan.forgetting.file)] if plan.forgetting.file else []
    folders = [Path(base.name).expanduser() for base in bases]
    return [*(file for file in files if file), *(folder for folder in folders if folder.is_dir())]


def _is_begun(path: Path) -> bool:
    """Say whether a folder is empty, or was left by a run that was cut off before it had its plan."""
    return all(entry.name == EVENTS and not entry.stat().st_size for entry in path.iterdir())


def _remove(path: Path) -> None:
    """Take a run folder away as one thing: it is renamed first, so a crash leaves no half run under its name."""
    path = path.resolve()
    doomed = path.with_name(f".{path.name}.removed")
    if doomed.exists():
        shutil.rmtree(doomed)
    with writer_lock(path):
        path.rename(doomed)
    shutil.rmtree(doomed)
