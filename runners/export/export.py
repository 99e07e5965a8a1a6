"""The one way in: check what was asked, make it beside its place, read it back, write its card, publish it. Light."""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from rag.errors import UsageProblem
from rag.files import MANIFEST, canonical_json, sha256_text, write_text
from rag.types import OnEvent
from runners.export.card import export_card, export_facts
from runners.export.job import (
    ExportedFiles,
    ExportJob,
    ExportRequest,
    ExportResult,
    existing_export,
    publish_export,
    refuse_working_directory,
    remove_leftovers,
    seal_export,
    shell_line,
    working_folder,
)
from runners.export.registry import Target, target_named
from runners.export.source import ExportSource
from runners.models.cards import CARD_FILE

EXPORT_FORMAT = 1
"""Counted up when a target's files change, so that exports of before are made again."""
EXPORTS_FOLDER = Path("exports")


def export(path: Path, wish: ExportRequest, on_event: OnEvent | None = None) -> ExportResult:
    """Export a run, or return what is there already when it is whole and was made from the same things.

    Raises UsageProblem for flags that do not go together or a folder that is taken, BadInput for a damaged run, an arm
    that cannot be exported so, or another base; CannotRun without the memory or the disk for it.
    """
    started = time.perf_counter()
    target = target_named(wish.to)
    _check_flags(target, wish)
    source = ExportSource(path, on_event, wish.model)
    if target.of != "run":
        source.choose(wish.arm, wish.seed, target.of == "weights")
    out = wish.out or EXPORTS_FOLDER / _default_name(source, target)
    if out.absolute().is_relative_to(path.absolute()):
        raise UsageProblem(f"{out} is inside the run, whose files are sealed", "choose another --out")
    made_from = sha256_text(
        canonical_json([EXPORT_FORMAT, target.name, wish.dtype, *source.digest(target.of)])
    )
    if found := existing_export(out, made_from, wish.overwrite):
        remove_leftovers(out)
        facts = found["export"]
        made = ExportedFiles("", facts["checked"], tuple(facts["line"]), tuple(facts["notes"]))
        return _exported(source, target, out, made, time.perf_counter() - started, again=True)
    refuse_working_directory(out)
    with working_folder(out) as folder:
        made = _made(ExportJob(source, target, folder, out, wish.dtype), made_from)
        publish_export(folder, out)
    return _exported(source, target, out, made, time.perf_counter() - started)


def _made(job: ExportJob, made_from: str) -> ExportedFiles:
    """Let the target's maker fill the folder, then write card and manifest."""
    arm = job.source.arm.arm if job.source.arm else None
    event = {"event": "export.start", "to": job.target.name, "makes": job.target.makes, "arm": arm}
    job.source.tell(event)
    module, _, function = job.target.work.partition(":")
    maker: Callable[[ExportJob], ExportedFiles] = getattr(import_module(module), function)
    made = maker(job)
    write_text(job.made / CARD_FILE, export_card(job, made))
    kept = {"checked": dict(made.checked), "line": list(made.line), "notes": list(made.notes)}
    seal_export(
        job.made, made.kind, {**made.extra, "export": {**export_facts(job), "made_from": made_from, **kept}}
    )
    return made


def _exported(
    source: ExportSource, target: Target, out: Path, made: ExportedFiles, seconds: float, again: bool = False
) -> ExportResult:
    files = {p.relative_to(out).as_posix(): p.stat().st_size for p in sorted(out.rglob("*")) if p.is_file()}
    own = {name: size for name, size in files.items() if name not in (CARD_FILE, MANIFEST)}
    arm = source.arm.arm if source.arm else None
    line, took = shell_line(made.line, str(out)), round(seconds, 2)
    return ExportResult(target.name, arm, source.seed, out, own, made.checked, line, made.notes, took, again)


def _check_flags(target: Target, wish: ExportRequest) -> None:
    """Refuse flags that mean nothing for a target, rather than pass over them."""
    if target.of == "run" and (wish.arm is not None or wish.seed is not None):
        flag = "--arm" if wish.arm is not None else "--seed"
        raise UsageProblem(f"--to {target.name} is of the whole run, not of one arm", f"leave out {flag}")
    if wish.dtype != "auto" and not target.dtypes:
        raise UsageProblem(f"--to {target.name} has no number type to choose", "leave out --dtype")
    if target.dtypes and wish.dtype not in target.dtypes:
        raise UsageProblem(
            f"--dtype {wish.dtype!r} is unknown for --to {target.name}", f"one of: {', '.join(target.dtypes)}"
        )


def _default_name(source: ExportSource, target: Target) -> str:
    parts = [source.plan.name]
    if source.arm:
        parts.append(source.arm.arm)
        if source.arm.weights and len(source.plan.train_step(source.arm.weights).seeds) > 1:
            parts.append(f"s{source.seed}")
    return "-".join([*parts, target.name])
