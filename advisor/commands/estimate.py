"""`tunewise estimate`: memory, hours and money of one way of running a model, or the estimate's own score."""

from __future__ import annotations

from pathlib import Path

import typer

from advisor import completion


def command(
    model: str | None = typer.Option(
        None,
        help="A known model, or a model's folder; the built-in one by default.",
        autocompletion=completion.complete_models,
    ),
    config: Path | None = typer.Option(None, help="A model's config.json, or a folder with one."),
    params_b: float | None = typer.Option(None, help="Only a size, in billions of parameters."),
    method: str | None = typer.Option(
        None,
        help="full, lora, qlora, hybrid; or prompting, few-shot, rag, rag-few-shot (inference).",
        autocompletion=completion.complete_methods,
    ),
    batch: int = typer.Option(1, min=1, help="Sequences in one step."),
    seq_len: int = typer.Option(1024, min=1, help="Tokens of a sequence."),
    rank: int = typer.Option(16, min=1, help="Rank of the adapters."),
    targets: str = typer.Option("q,k,v,o,mlp", help="Adapted layers: q,k,v,o,mlp,lm_head,embedding."),
    adapter_dtype: str = typer.Option("fp32", help="Dtype of the adapters: fp32, bf16."),
    weights: str | None = typer.Option(None, help="How the base model is stored: bf16, fp32, nf4, nf4-dq."),
    optimizer: str | None = typer.Option(
        None,
        help="adamw, adamw_fp32, adamw_8bit, paged_adamw, paged_adamw_8bit, lion, adafactor, sgd; else what training "
        "takes: adamw, from 1 B on adamw_8bit for full.",
    ),
    optimizer_in_backward: bool = typer.Option(
        False, help="Update weights while gradients are computed (full only)."
    ),
    accumulation: bool = typer.Option(False, help="Gradients are added up over several batches."),
    checkpointing: bool = typer.Option(
        True, help="Store only each layer's input and compute the rest again, to save memory."
    ),
    offloading: bool = typer.Option(False, help="Store those inputs in main memory."),
    attention: str = typer.Option("flash", help="flash (or SDPA: no stored scores), eager."),
    compile: bool = typer.Option(False, help="Layers are compiled."),
    loss: str = typer.Option("rows", help="Logits at once: full, chunked, fused, rows (of labels only)."),
    devices: int | None = typer.Option(
        None, min=1, help="Number of GPUs over all machines; 1 by default, as a run without --launcher."
    ),
    nodes: int = typer.Option(1, min=1, help="Machines that the GPUs are spread over evenly."),
    parallel: str = typer.Option(
        "auto",
        help="How they share a training: ddp, fsdp, fsdp_4bit; auto: ddp where a whole copy fits.",
    ),
    gpu: str | None = typer.Option(None, help="A GPU by name: whether it fits, hours and rent."),
    gpu_memory: float | None = typer.Option(
        None, min=0.1, help="GiB of memory of one GPU; this machine's by default."
    ),
    counter: str | None = typer.Option(
        None,
        help="What to predict: device (free memory needed), allocated, reserved, process (of a CPU); else device or, on "
        "a machine without a GPU, process.",
    ),
    set: list[str] = typer.Option(
        [],
        help="One answer: key=value (ids of the questionnaire about model, machine and rows); repeatable.",
        autocompletion=completion.complete_answers,
    ),
    examples: int | None = typer.Option(None, min=1, help="Examples to train on, for hours and money."),
    tokens: int | None = typer.Option(None, min=1, help="Tokens to train on, for hours and money."),
    rows: Path | None = typer.Option(None, help="Score the estimate on a file of measured peaks instead."),
    as_json: bool = typer.Option(False, "--json", help="Print it as JSON."),
) -> None:
    """Estimate memory, hours and money for training or answering."""
    if rows is not None:
        from benchmarks.scorers.memory_peaks import show_estimate_score

        show_estimate_score(rows, as_json)
        return
    from advisor.workflows import estimate

    setup = {
        "batch": batch,
        "seq_len": seq_len,
        "rank": rank,
        "targets": targets,
        "weights": weights,
        "adapter_dtype": adapter_dtype,
        "optimizer": optimizer,
        "accumulation": accumulation,
        "optimizer_in_backward": optimizer_in_backward,
        "checkpointing": checkpointing,
        "loss": loss,
        "offloading": offloading,
        "attention": attention,
        "compiled": compile,
        "counter": counter,
    }
    wanted = estimate.EstimateRequest(
        model,
        config,
        params_b,
        method,
        devices,
        gpu,
        gpu_memory,
        examples,
        tokens,
        tuple(set),
        nodes,
        parallel,
    )
    estimate.show_estimate(estimate.estimate_request(wanted, setup), as_json)
