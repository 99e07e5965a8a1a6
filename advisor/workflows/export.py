"""What `tunewise export` prints: what was made, what was compared, what to know, how to use it."""

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


def export_run(run: Path, wish: ExportRequest, as_json: bool) -> None:
    """Export a run and tell what came of it."""
    from runners.export.export import export

    with _told_when_interrupted(run, wish):
        made = export(run, wish, None if as_json else _tell)
    show_export(made, as_json)


def import_run(file: Path, wish: ExportRequest, as_json: bool) -> None:
    """Unpack a bundle and tell what is in it; UsageProblem for flags that mean nothing there."""
    from runners.export.bundle import unbundle

    if wish.arm is not None or wish.seed is not None or wish.dtype != "auto" or wish.model is not None:
        raise UsageProblem(
            "--to run unpacks a bundle as it is", "leave out --arm, --seed, --dtype and --model"
        )
    with _told_when_interrupted(file, wish):
        made = unbundle(file, wish.out, wish.overwrite)
    show_export(made, as_json)
    if not as_json:
        print(f'ask it: {command_line("ask", made.out)} "..."')


def show_export(made: ExportResult, as_json: bool) -> None:
    """Print an export; as JSON in ASCII, because names and notes may come from documents."""
    if as_json:
        emit_result(made.to_json())
        return
    size = sum(made.files.values()) / 2**20
    state = (
        "was there already, whole and made from the same" if made.again else f"made in {made.seconds:.1f} s"
    )
    print(f"{made.out}  ({made.to}, {len(made.files):,} files, {size:,.1f} MiB, {state})")
    for name, value in made.checked.items():
        print(f"  {strip_invisible(name)}: {strip_invisible(checked_value(value))}")
    for said in made.notes:
        print(f"  note: {strip_invisible(said)}")
    if made.line:
        print(f"run it:\n  {made.line}")
    if made.to != "run":
        print(f"how to use it: {made.out / 'README.md'}")


@contextmanager
def _told_when_interrupted(run: Path, wish: ExportRequest) -> Iterator[None]:
    """Say that nothing half is left, and the line that makes it again."""
    given = {"--to": wish.to, "--arm": wish.arm, "--seed": wish.seed, "--out": wish.out}
    flags = [part for name, value in given.items() if value is not None for part in (name, value)]
    flags += ["--overwrite"] if wish.overwrite else []
    flags += ["--dtype", wish.dtype] if wish.dtype != "auto" else []
    try:
        yield
    except KeyboardInterrupt:
        line = command_line("export", run, *flags)
        print(f"\ninterrupted; nothing half-made is left. Make it again with:\n  {line}", file=sys.stderr)
        raise


def _tell(event: dict[str, Any]) -> None:
    """Tell on stderr what takes a while, and what is fetched for it."""
    if event.get("event") == "export.start":
        arm = f" of the arm {event['arm']}" if event.get("arm") else ""
        note(f"making {event['makes']}{arm} ...")
    print_event(event)
