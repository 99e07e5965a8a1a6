"""The flags of `tunewise run`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from advisor import completion
from advisor.flags import options
from advisor.flags.launch import LaunchFlags
from advisor.flags.records import flag


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFlags:
    """A plan to carry out, and how."""

    plan: Annotated[
        Path,
        typer.Argument(
            help="The plan.yaml to run (or a run folder, to continue it).",
            autocompletion=completion.complete_plans,
        ),
    ]
    out: Annotated[Path | None, flag("The run folder; runs/<name> by default.")] = None
    resume: Annotated[bool, flag("Continue after the last finished step.", "--resume")] = False
    overwrite: Annotated[
        bool, flag("Remove the run folder that is there, and start again.", "--overwrite")
    ] = False
    quick: Annotated[bool, flag("Fewer questions and rows, one epoch.", "--quick")] = False
    seeds: Annotated[
        int | None,
        flag("Training runs for each fine-tuned arm; as in the plan by default.", min=1, max=20),
    ] = None
    kernels: Annotated[
        str | None,
        flag(
            "plain trains and answers with transformers and PEFT alone; auto with our kernels. Default: the plan's."
        ),
    ] = None
    backend: options.Backend = None
    usd: Annotated[
        float | None,
        flag("Most USD that paid requests may cost in all, in place of the plan's most_usd.", min=0.0),
    ] = None
    only: Annotated[str | None, flag("One step: index, train:ARM or evaluate:ARM.")] = None
    dry_run: Annotated[
        bool, flag("Check everything, measure a little of each step, run nothing.", "--dry-run")
    ] = False
    stale_test: Annotated[
        Path | None,
        flag("A folder of changed documents and stale.jsonl: which answers become outdated."),
    ] = None
    accept_lost_rows: Annotated[
        bool,
        flag(
            "Train an arm even if under two thirds of its rows are left, or have their passage.",
            "--accept-lost-rows",
        ),
    ] = False
    accept_failing_gold: Annotated[
        bool,
        flag(
            "Measure even if over 2 % of the questions have a reference that would not count as right.",
            "--accept-failing-gold",
        ),
    ] = False
    accept_license: options.AcceptLicense = None
    track: options.Track = None
    launch: LaunchFlags = field(default_factory=LaunchFlags)
    as_json: Annotated[bool, flag("Print the report as JSON.", "--json")] = False
