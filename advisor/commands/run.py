"""`tunewise run`: carry out a plan."""

from __future__ import annotations

from pathlib import Path

import typer

from advisor import completion
from advisor.commands import backend_option, launch_options


def command(
    context: typer.Context,
    plan: Path = typer.Argument(
        help="The plan.yaml to run (or a run folder, to continue it).",
        autocompletion=completion.complete_plans,
    ),
    out: Path | None = typer.Option(None, help="The run folder; runs/<name> by default."),
    resume: bool = typer.Option(False, "--resume", help="Continue after the last finished step."),
    overwrite: bool = typer.Option(
        False, "--overwrite", help="Remove the run folder that is there, and start again."
    ),
    quick: bool = typer.Option(False, "--quick", help="Fewer questions and rows, one epoch."),
    seeds: int | None = typer.Option(
        None, min=1, max=20, help="Training runs for each fine-tuned arm; as in the plan by default."
    ),
    kernels: str | None = typer.Option(
        None,
        help="plain trains and answers with transformers and PEFT alone; auto with our kernels. Default: the plan's.",
    ),
    backend: backend_option.BackendOption = None,
    only: str | None = typer.Option(None, help="One step: index, train:ARM or evaluate:ARM."),
    dry_run: bool = typer.Option(
        False, "--dry-run", help="Check everything, measure a little of each step, run nothing."
    ),
    stale_test: Path | None = typer.Option(
        None, help="A folder of changed documents and stale.jsonl: which answers become outdated."
    ),
    accept_lost_rows: bool = typer.Option(
        False,
        "--accept-lost-rows",
        help="Train an arm even if under two thirds of its rows are left, or have their passage.",
    ),
    accept_license: list[str] = typer.Option(
        [],
        help="Accept the terms of this licence, so that models under it are fetched: gemma; repeatable.",
        autocompletion=completion.complete_licenses,
    ),
    track: list[str] = typer.Option(
        [],
        help="Send metrics to a tracker: mlflow, wandb, tensorboard or trackio; repeatable.",
        autocompletion=completion.complete_trackers,
    ),
    launcher: launch_options.Launcher = None,
    nodes: launch_options.Nodes = None,
    gpus_per_node: launch_options.GpusPerNode = None,
    gpu: launch_options.GpuType = None,
    max_restarts: launch_options.MaxRestarts = None,
    rdzv_endpoint: launch_options.RdzvEndpoint = None,
    rdzv_id: launch_options.RdzvId = None,
    sbatch: launch_options.Sbatch = None,
    print_only: launch_options.PrintOnly = False,
    as_json: bool = typer.Option(False, "--json", help="Print the report as JSON."),
) -> None:
    """Carry out a plan: test every method, print the verdict.

    Everything is written into a run folder. Exit code 5 when the recommended method does not clearly beat the simpler
    ones that it has to beat (the gate); the results are kept.
    """
    from advisor.workflows.run import execute_plan
    from advisor.workflows.tracking import choose_trackers
    from runners.models.licenses import accept_licenses

    group = (launcher, nodes, gpus_per_node, gpu, max_restarts, rdzv_endpoint, rdzv_id, sbatch, print_only)
    launch = launch_options.launch_request(context, group, {"--dry-run": dry_run})
    accept_licenses(accept_license)
    choose_trackers(track)
    execute_plan(
        plan,
        out,
        resume,
        overwrite,
        quick,
        only,
        dry_run,
        as_json,
        stale_test,
        seeds,
        kernels,
        accept_lost_rows,
        launch,
        backend_option.backend_entries(backend),
    )
