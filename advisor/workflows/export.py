"""What ``tunewise export`` prints: the files, what was compared, notes, and how to use the result."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from advisor.display.events import print_event
from advisor.output import command_line, emit_result, note
from rag.errors import UsageProblem
from rag.object_storage import is_url
from rag.text.sanitize import strip_invisible
from rag.text.words import count_noun
from runners.export.bundle import unbundle
from runners.export.card import checked_value
from runners.export.export import export
from runners.export.job import ExportRequest, ExportResult
from runners.runs.endpoint_consent import allow_endpoints, unconfirmed_endpoints


def export_run(run: Path, request: ExportRequest, as_json: bool) -> None:
    """Export a run and print the result."""
    with _repeat_hint(run, request):
        result = export(run, request, None if as_json else _print_progress)
    show_export(result, as_json)


def import_run(file: Path | str, request: ExportRequest, as_json: bool) -> None:
    """Unpack a bundle, at a path or a URL, and print the result; UsageProblem for flags that have no effect on it."""
    if request.arm is not None or request.seed is not None or request.dtype != "auto" or request.model:
        raise UsageProblem("--to run unpacks a bundle as it is", "remove --arm, --seed, --dtype and --model")
    if request.out is not None and is_url(request.out):
        raise UsageProblem(
            f"--to run makes a run folder, and {request.out} is a URL", "give a path with --out"
        )
    with _repeat_hint(file, request):
        result = unbundle(file, None if request.out is None else Path(request.out), request.overwrite)
    show_export(result, as_json)
    if not as_json:
        _confirm_endpoints(Path(result.out))
        print(f'ask it: {command_line("ask", result.out)} "..."')


def _confirm_endpoints(run: Path) -> None:
    """On a terminal, ask whether an imported run may ask the endpoints of its plan; else print how to allow them."""
    hosts = unconfirmed_endpoints(run)
    if not hosts:
        return
    if sys.stdin.isatty() and sys.stdout.isatty():
        from advisor.wizard.prompter import confirm

        if confirm(f"May this run send questions and passages to {', '.join(hosts)}?", default=False):
            allow_endpoints(run, ())
            return
    print(f"it asks {', '.join(hosts)} only after: {command_line('runs', 'allow', run)}")


def show_export(result: ExportResult, as_json: bool) -> None:
    """Print an export; as JSON in ASCII, because names and notes may come from documents."""
    if as_json:
        emit_result(result.to_json())
        return
    size = sum(result.files.values()) / 2**20
    state = (
        "was there already, whole and made from the same"
        if result.again
        else f"made in {result.seconds:.1f} s"
    )
    print(f"{result.out}  ({result.to}, {count_noun(len(result.files), 'file')}, {size:,.1f} MiB, {state})")
    for name, value in result.checked.items():
        print(f"  {strip_invisible(name)}: {strip_invisible(checked_value(value))}")
    for line in result.notes:
        print(f"  note: {strip_invisible(line)}")
    at_url = is_url(result.out)
    if at_url and result.to == "bundle":
        print(f"unpack it anywhere:\n  {command_line('export', result.out, '--to', 'run')}")
    if result.line:
        print(f"download it, then run it:\n  {result.line}" if at_url else f"run it:\n  {result.line}")
    if result.to != "run":
        print(f"how to use it: {result.out}/README.md")


@contextmanager
def _repeat_hint(run: Path | str, request: ExportRequest) -> Iterator[None]:
    """On Ctrl-C, print that nothing incomplete is left, and the command that starts the export again.

    At a URL an upload may have begun: it has no manifest, so that nothing reads it.
    """
    values = {"--to": request.to, "--arm": request.arm, "--seed": request.seed, "--out": request.out}
    flags = [part for name, value in values.items() if value is not None for part in (name, value)]
    at_url = request.out is not None and is_url(request.out)
    flags += ["--overwrite"] if request.overwrite or at_url else []
    flags += ["--dtype", request.dtype] if request.dtype != "auto" else []
    try:
        yield
    except KeyboardInterrupt:
        line = command_line("export", run, *flags)
        left = (
            "what was uploaded has no manifest, so nothing reads it"
            if at_url
            else "nothing half-made is left"
        )
        print(f"\ninterrupted; {left}. Make it again with:\n  {line}", file=sys.stderr)
        raise


def _print_progress(event: dict[str, Any]) -> None:
    """Print to stderr the start of a slow part, and what is downloaded for it."""
    if event.get("event") == "export.start":
        arm = f" of the arm {event['arm']}" if event.get("arm") else ""
        note(f"making {event['makes']}{arm} ...")
    if event.get("event") == "export.upload":
        note(f"uploading {event['files']:,} files, {event['bytes'] / 2**20:,.1f} MiB, to {event['url']} ...")
    print_event(event)
