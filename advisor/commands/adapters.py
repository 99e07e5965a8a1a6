"""`tunewise adapters`: tuned weights side by side, and what each was made from."""

from __future__ import annotations

from pathlib import Path

import typer

from advisor.flags import options

group = typer.Typer(help="List fine-tuned weights and show what each was made from.")


@group.command("list")
def list_adapters(
    places: list[Path] | None = typer.Argument(
        None, help="Run folders or folders of fine-tuned weights; ./runs by default.", metavar="[PLACE]..."
    ),
    as_json: options.Json = False,
) -> None:
    """List fine-tuned weights, grouped by base model; damaged ones are marked with the reason."""
    from advisor.workflows import adapters as workflows_adapters
    from runners.models import adapters

    known = [Path(folder) for folder in adapters.DEFAULT_FOLDERS if Path(folder).is_dir()]
    workflows_adapters.show_adapters(adapters.find_adapters(places or known), as_json)


@group.command("show")
def show(
    folder: Path = typer.Argument(help="A folder of fine-tuned weights."),
    as_json: options.Json = False,
) -> None:
    """Show one folder of fine-tuned weights; exit code 3 when it is damaged or does not fit its base model."""
    from advisor.workflows import adapters as workflows_adapters
    from rag.errors import BadInput
    from runners.models import adapters

    adapter = adapters.read_adapter(folder)
    workflows_adapters.show_adapter(adapter, as_json)
    if adapter.problem:
        raise BadInput(
            f"{folder} cannot be used as it is: {adapter.problem}",
            adapter.hint or "train it again, or restore it",
        )
