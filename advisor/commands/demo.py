"""`tunewise demo`: the whole line on the shipped example, non-interactively."""

from __future__ import annotations

from pathlib import Path

import typer


def command(
    out: Path = typer.Option(Path("runs/harbor-desk"), help="The run folder."),
    quick: bool = typer.Option(False, "--quick", help="Fewer questions and rows: at most five minutes."),
    resume: bool = typer.Option(False, "--resume", help="Go on after the last finished step."),
    overwrite: bool = typer.Option(
        False, "--overwrite", help="Remove the run folder that is there, and start again."
    ),
    copy: Path | None = typer.Option(
        None, help="Only copy the example's files into this folder, to work with them step by step."
    ),
) -> None:
    """Recommend, train, measure every arm and answer questions on the shipped example, harbor-desk.

    About ten minutes on two CPU cores. Afterwards the example's documents change, and the questions are asked again.
    """
    from advisor.demo import copy_example, demo

    if copy is not None:
        copy_example(copy)
        return
    demo(out, quick, resume, overwrite)
