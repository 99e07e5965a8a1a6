"""`tunewise export`: hand a run's result on to other tools."""

from __future__ import annotations

from pathlib import Path

import typer

from advisor import completion
from advisor.flags import options


def command(
    run: str = typer.Argument(
        metavar="RUN",
        help="The run folder; with --to run, an archive that --to bundle made, or its URL.",
        autocompletion=completion.complete_runs,
    ),
    to: str = typer.Option(
        ...,
        autocompletion=completion.complete_targets,
        help="peft (the adapter's folder), merged (a whole model in safetensors), gguf (one file for llama.cpp), "
        "ollama (that file with its Modelfile), vllm (adapter, base and the line that serves them), classifier "
        "(its weights, labels and n-grams), index (passages and vectors as Parquet), bundle (the whole run in one "
        "archive), provider-jsonl (training rows for a hosted provider), run (unpack a bundle).",
    ),
    arm: str | None = typer.Option(
        None,
        help="Export this arm (method) in place of the one the verdict chose.",
        autocompletion=completion.complete_arms,
    ),
    seed: int | None = typer.Option(None, min=0, help="Which training run of the arm; by default its first."),
    out: str | None = typer.Option(
        None,
        metavar="PATH",
        help="The folder to make, or the URL to upload to, as s3://BUCKET/FOLDER; by default exports/NAME-ARM-TO.",
    ),
    overwrite: bool = typer.Option(
        False, "--overwrite", help="Replace an export, or with --to run a run, that is there."
    ),
    dtype: str = typer.Option(
        "auto",
        help="Number type of merged, gguf and ollama: auto (the base's own), float32, bfloat16, float16; in GGUF also q8_0.",
    ),
    model: options.MovedModel = None,
    as_json: bool = typer.Option(False, "--json", help="Print what was made as JSON."),
) -> None:
    """Write a result in the form that another tool reads.

    The file is read back and compared before it counts as written, and has a model card. An export that is already
    there, made from the same run, is not written again. Arms without weights can export the index, the rows or the
    whole run.
    """
    from advisor.workflows.export import export_run, import_run
    from runners.export.job import ExportRequest

    request = ExportRequest(to=to, arm=arm, seed=seed, out=out, overwrite=overwrite, dtype=dtype, model=model)
    if to == "run":
        import_run(run, request, as_json)
    else:
        export_run(Path(run), request, as_json)
