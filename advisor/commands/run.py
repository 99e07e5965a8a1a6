"""`tunewise run`: carry out a plan."""

from __future__ import annotations

import typer

from advisor.flags.records import takes_flags
from advisor.flags.run import RunFlags


@takes_flags
def command(context: typer.Context, flags: RunFlags) -> None:
    """Carry out a plan: test every method, print the verdict.

    Everything is written into a run folder. Exit code 5 when the recommended method does not clearly beat the simpler
    ones that it has to beat (the gate); the results are kept.
    """
    from advisor.workflows.launch import launch_request
    from advisor.workflows.run import execute_plan
    from advisor.workflows.tracking import choose_trackers
    from runners.models.licenses import accept_licenses

    launch = launch_request(context, flags.launch, {"--dry-run": flags.dry_run})
    accept_licenses(flags.accept_license or ())
    choose_trackers(flags.track or ())
    execute_plan(flags, launch)
