"""`tunewise train`: the tuning step by itself, no plan needed."""

from __future__ import annotations

from pathlib import Path

import typer


def command(
    examples: Path = typer.Option(..., help="Prompt/response pairs or chats; the format is detected."),
    method: str = typer.Option("lora", help="lora, qlora or full."),
    model: str = typer.Option("smollm2-135m-instruct", help="A known name or a folder."),
    out: Path | None = typer.Option(None, help="Where the adapter or model goes."),
    prompt: str | None = typer.Option(None, help="Instructions put before every row: text, or a file."),
    epochs: float | None = typer.Option(None, min=0.01, max=100, help="Passes over the examples."),
    learning_rate: float | None = typer.Option(None, help="Chosen from method and model size by default."),
    rank: int | None = typer.Option(None, min=1, max=512, help="LoRA rank."),
    seed: int = typer.Option(0, min=0, help="Seed of order, dropout and fresh weights."),
    max_rows: int | None = typer.Option(None, min=1, help="Use only the first rows."),
    resume: bool = typer.Option(False, "--resume", help="Go on from the last checkpoint in --out."),
    overwrite: bool = typer.Option(False, "--overwrite", help="Remove what is in --out, and start again."),
    check: bool = typer.Option(False, "--check", help="Check the data and stop before the first step."),
    show: int = typer.Option(
        0, min=0, help="Show so many rows as the model sees them, the learnt part marked."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print the result as JSON."),
) -> None:
    """Tune a model on examples: lora, qlora (4-bit, on CPU too) or full."""
    from advisor.tune import tune

    tune(
        examples=examples, method=method, model=model, out=out, prompt=prompt, epochs=epochs,
        learning_rate=learning_rate, rank=rank, seed=seed, max_rows=max_rows, resume=resume, overwrite=overwrite,
        check=check, show=show, as_json=as_json,
    )  # fmt: skip
