"""`tunewise runs`: the runs of a folder, side by side, taken away and brought back."""

from __future__ import annotations

from pathlib import Path

import typer

from advisor import completion
from advisor.flags import options

group = typer.Typer(help="List, compare, remove and restore runs.")
RUN = typer.Argument(
    help="A run folder, or the name of one in ./runs.", autocompletion=completion.complete_runs
)
PLACE = typer.Argument(Path("runs"), help="The folder of runs.", metavar="[PLACE]")


@group.command("list")
def list_runs(place: Path = PLACE, as_json: options.Json = False) -> None:
    """List the runs of a folder: how far each got, its verdict and its size; damaged ones say why."""
    from advisor.workflows import runs

    runs.show_runs(place, as_json)


@group.command("show")
def show(
    run: Path = RUN,
    watch: bool = typer.Option(
        False, "--watch", help="Follow a run that another process carries out, until it ends."
    ),
    as_json: options.Json = False,
) -> None:
    """Show one run: verdict, scores, and disk space of its parts; exit code 3 when it is damaged.

    With --watch the steps, the time left and the loss are shown while the run goes on; in a pipe a line is printed for each
    step that is done, with --json a line of JSON. It ends with the run: exit code 0 when the run has finished, 5 when the
    recommended arm did not beat what it had to, 3 when no process works on it any more, with the command that resumes it.
    Ctrl-C leaves the run alone.
    """
    from advisor.workflows import runs

    if watch:
        from advisor.workflows.run_watch import watch_run

        watch_run(runs.run_folder_named(run, watched=True), as_json)
    else:
        runs.show_run(run, as_json)


@group.command("diff")
def diff(a: Path = RUN, b: Path = RUN, as_json: options.Json = False) -> None:
    """Show how the plans of two runs differ, and how each ended; `report --compare` compares their scores."""
    from advisor.workflows import runs

    runs.show_run_diff(a, b, as_json)


@group.command("rm")
def remove(
    runs: list[Path] | None = typer.Argument(
        None,
        autocompletion=completion.complete_runs,
        help="Run folders, or names of runs in ./runs.",
        metavar="[RUN]...",
    ),
    empty_trash: bool = typer.Option(
        False, "--empty-trash", help="Delete what was removed before, for good."
    ),
    place: Path = typer.Option(Path("runs"), help="With --empty-trash, the folder of runs."),
    as_json: options.Json = False,
) -> None:
    """Remove runs: they move to the trash folder beside them, and `tunewise runs undo` restores the last one.

    A run that is being written is refused, and no link is followed.
    """
    from advisor.workflows import runs as workflows_runs

    workflows_runs.remove_run(runs or [], place if empty_trash else None, as_json)


@group.command("undo")
def undo(place: Path = PLACE, as_json: options.Json = False) -> None:
    """Restore the run that was removed last."""
    from advisor.workflows import runs

    runs.undo_remove(place, as_json)


@group.command("allow")
def allow(
    run: Path = RUN,
    hosts: list[str] | None = typer.Argument(
        None,
        metavar="[HOST]...",
        help="Hosts as named in the error message; all that the run waits for by default.",
    ),
    as_json: options.Json = False,
) -> None:
    """Allow a run that came from a bundle to ask the endpoints that its plan names."""
    from advisor.workflows import runs

    runs.allow_run_endpoints(run, hosts or [], as_json)
