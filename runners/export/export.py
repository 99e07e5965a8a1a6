"""The entry point of exports.

`export` checks the request, lets the target's maker write and verify the files in a working folder, adds card and
manifest, and publishes the folder.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rag.errors import UsageProblem
from rag.files import MANIFEST, canonical_json, sha256_text, write_text
from rag.types import OnEvent
from runners import paths
from runners.export.card import base_licenses, export_card, export_facts, teacher_notes
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
from runners.export.upload import check_may_upload, destination, existing_upload, upload_export
from runners.models.cards import CARD_FILE
from runners.models.licenses import NOTICE_FILE, TERMS_FILE, terms_of_derivatives
from runners.plan.arm_names import plain_name

EXPORT_FORMAT = 1
"""Increased when a target's files change, so that older exports are made again."""
EXPORTS_FOLDER = Path("exports")
"""Where exports are written by default."""


def export(path: Path, request: ExportRequest, on_event: OnEvent | None = None) -> ExportResult:
    """Export a run, or return the existing export when it is complete and made from the same input.

    Args:
        path: the run's folder.
        request: the target and its options.
        on_event: called with the events of long work.

    Raises:
        UsageProblem: options that do not go together, or a destination that may not be replaced.
        BadInput: a damaged run, an arm that this target cannot export, another base model, or data that must stay local.
        CannotRun: too little memory or disk, or storage that cannot be used.
    """
    started = time.perf_counter()
    target = target_named(request.to)
    _check_flags(target, request)
    source = ExportSource(path, on_event, request.model)
    if target.needs != "run":
        source.select_arm(request.arm, request.seed, target.needs == "weights")
    name = _default_name(source, target)
    out = destination(request.out or EXPORTS_FOLDER / name)
    if isinstance(out, str):
        return _export_to_url(source, target, request, out, name)
    if out.absolute().is_relative_to(path.absolute()):
        raise UsageProblem(f"{out} is inside the run, whose files are sealed", "choose another --out")
    made_from = _made_from(source, target, request)
    if manifest := existing_export(out, made_from, request.overwrite):
        remove_leftovers(out)
        seconds = time.perf_counter() - started
        return _result(source, target, out, _recorded_files(manifest), _sizes(out), seconds, again=True)
    refuse_working_directory(out)
    with working_folder(out) as folder:
        files = _write_files(ExportJob(source, target, folder, out, request.dtype), made_from)
        publish_export(folder, out)
    return _result(source, target, out, files, _sizes(out), time.perf_counter() - started)


def _export_to_url(
    source: ExportSource, target: Target, request: ExportRequest, url: str, name: str
) -> ExportResult:
    """Export into a temporary folder and upload it; errors as of :func:`export`."""
    started = time.perf_counter()
    check_may_upload(url, source.plan)
    made_from = _made_from(source, target, request)
    if manifest := existing_upload(url, made_from, request.overwrite):
        sizes = {file: int(entry["bytes"]) for file, entry in manifest["files"].items()}
        files = _recorded_files(
            manifest, note="Its files were compared by size with its manifest, not by hash."
        )
        seconds = time.perf_counter() - started
        return _result(source, target, url, files, sizes, seconds, again=True, name=name)
    with TemporaryDirectory(prefix="tunewise-export-", ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary, name)
        folder.mkdir()
        files = _write_files(ExportJob(source, target, folder, folder, request.dtype), made_from)
        sizes = _sizes(folder)
        event = {"event": "export.upload", "url": url, "files": len(sizes), "bytes": sum(sizes.values())}
        source.on_event(event)
        upload_export(folder, url, request.overwrite)
    return _result(source, target, url, files, sizes, time.perf_counter() - started, name=name)


def _made_from(source: ExportSource, target: Target, request: ExportRequest) -> str:
    """Return the hash of what an export is made from."""
    return sha256_text(
        canonical_json([EXPORT_FORMAT, target.name, request.dtype, *source.digest(target.needs)])
    )


def _recorded_files(manifest: Mapping[str, Any], note: str = "") -> ExportedFiles:
    """Return what the maker of an existing export reported, with a note added."""
    facts = manifest["export"]
    notes = (*facts["notes"], *([note] if note else []))
    return ExportedFiles("", facts["checked"], tuple(facts["line"]), notes)


def _sizes(folder: Path) -> dict[str, int]:
    """Return the bytes of every file of an export, without card and manifest."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in paths}
    return {name: size for name, size in sizes.items() if name not in (CARD_FILE, MANIFEST)}


def _write_files(job: ExportJob, made_from: str) -> ExportedFiles:
    """Let the target's maker write its files into the folder, then add card and manifest."""
    arm = job.source.arm.arm if job.source.arm else None
    event = {"event": "export.start", "to": job.target.name, "makes": job.target.makes, "arm": arm}
    job.source.on_event(event)
    module, _, function = job.target.maker.partition(":")
    maker: Callable[[ExportJob], ExportedFiles] = getattr(import_module(module), function)
    files = maker(job)
    if job.target.needs == "weights" and arm and "@" in arm:
        note = f"It is named {job.name}, without the @ of {arm}, which few programs take in a name."
        files = replace(files, notes=(*files.notes, note))
    write_text(job.folder / CARD_FILE, export_card(job, files))
    _write_terms(job)
    teachers = teacher_notes(job, files)
    facts = {
        **export_facts(job),
        "made_from": made_from,
        "checked": dict(files.checked),
        "line": list(files.line),
        "notes": [*files.notes, *teachers],
    }
    seal_export(job.folder, files.kind, {**files.extra, "export": facts})
    return replace(files, notes=(*files.notes, *teachers))


def _write_terms(job: ExportJob) -> None:
    """Write the notices that the licences of the bases demand, and the terms where they came with a base."""
    notices = {
        name: notice for text, name in base_licenses(job).items() if (notice := terms_of_derivatives(text))
    }
    if not notices:
        return
    write_text(job.folder / NOTICE_FILE, "\n\n".join(notices.values()) + "\n")
    for name in notices:
        terms = paths.cache_folder() / "models" / name / TERMS_FILE
        if terms.is_file():
            shutil.copyfile(terms, job.folder / TERMS_FILE)


def _result(
    source: ExportSource,
    target: Target,
    out: Path | str,
    files: ExportedFiles,
    sizes: Mapping[str, int],
    seconds: float,
    again: bool = False,
    name: str = "",
) -> ExportResult:
    """Return the result; the command of one at a URL is for a copy of it in the folder `name`."""
    return ExportResult(
        to=target.name,
        arm=source.arm.arm if source.arm else None,
        seed=source.seed,
        out=out,
        files=sizes,
        checked=files.checked,
        line=shell_line(files.line, name or str(out)),
        notes=files.notes,
        seconds=round(seconds, 2),
        again=again,
    )


def _check_flags(target: Target, request: ExportRequest) -> None:
    """Refuse options that a target does not use, rather than ignore them."""
    if target.needs == "run" and (request.arm is not None or request.seed is not None):
        flag = "--arm" if request.arm is not None else "--seed"
        raise UsageProblem(f"--to {target.name} is of the whole run, not of one arm", f"remove {flag}")
    if request.dtype != "auto" and not target.dtypes:
        raise UsageProblem(f"--to {target.name} has no number type to choose", "remove --dtype")
    if target.dtypes and request.dtype not in target.dtypes:
        raise UsageProblem(
            f"--dtype {request.dtype!r} is unknown for --to {target.name}",
            f"one of: {', '.join(target.dtypes)}",
        )


def _default_name(source: ExportSource, target: Target) -> str:
    parts = [source.plan.name]
    if source.arm:
        parts.append(plain_name(source.arm.arm))
        if source.arm.weights and len(source.plan.train_step(source.arm.weights).seeds) > 1:
            parts.append(f"s{source.seed}")
    return "-".join([*parts, target.name])
