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
from rag.text.sanitize import strip_invisible
from runners.export.card import checked_value
from runners.export.job import ExportRequest, ExportResult
from runners.runs.endpoint_consent import allow_endpoints, unconfirmed_endpoints


def export_run(run: Path, request: ExportRequest, as_json: bool) -> None:
    """Export a run and print the result."""
    from runners.export.export import export

    with _repeat_hint(run, request):
        result = export(run, request, None if as_json else _print_progress)
    show_export(result, as_json)


def import_run(file: Path, request: ExportRequest, as_json: bool) -> None:
    """Unpack a bundle and print the result; UsageProblem for flags that have no effect on a bundle."""
    from runners.export.bundle import unbundle

    if (
        request.arm is not None
        or request.seed is not None
        or request.dtype != "auto"
        or request.model is not None
    ):
        raise UsageProblem(
            "--to run unpacks a bundle as it is", "leave out --arm, --seed, --dtype and --model"
        )
    with _repeat_hint(file, request):
        result = unbundle(file, request.out, request.overwrite)
    show_export(result, as_json)
    if not as_json:
        _confirm_endpoints(result.out)
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
    print(f"{result.out}  ({result.to}, {len(result.files):,} files, {size:,.1f} MiB, {state})")
    for name, value in result.checked.items():
        print(f"  {strip_invisible(name)}: {strip_invisible(checked_value(value))}")
    for line in result.notes:
        print(f"  note: {strip_invisible(line)}")
    if result.line:
        print(f"run it:\n  {result.line}")
    if result.to != "run":
        print(f"how to use it: {result.out / 'README.md'}")


@contextmanager
def _repeat_hint(run: Path, request: ExportRequest) -> Iterator[None]:
    """On Ctrl-C, print that nothing incomplete is left, and the command that starts the export again."""
    values = {"--to": request.to, "--arm": request.arm, "--seed": request.seed, "--out": request.out}
    flags = [part for name, value in values.items() if value is not None for part in (name, value)]
    flags += ["--overwrite"] if request.overwrite else []
    flags += ["--dtype", request.dtype] if request.dtype != "auto" else []
    try:
        yield
    except KeyboardInterrupt:
        line = command_line("export", run, *flags)
        print(f"\ninterrupted; nothing half-made is left. Make it again with:\n  {line}", file=sys.stderr)
        raise


def _print_progress(event: dict[str, Any]) -> None:
    """Print to stderr the start of a slow part, and what is downloaded for it."""
    if event.get("event") == "export.start":
        arm = f" of the arm {event['arm']}" if event.get("arm") else ""
        note(f"making {event['makes']}{arm} ...")
    print_event(event)
