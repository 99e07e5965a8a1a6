"""The flags of `tunewise estimate`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from advisor import completion
from advisor.flags import options
from advisor.flags.records import flag


@dataclass(frozen=True, slots=True, kw_only=True)
class EstimateRequest:
    """A way of running a model, and the device that it is estimated for."""

    model: Annotated[
        str | None,
        flag(
            "A known model, or a model's folder; the built-in one by default.",
            autocompletion=completion.complete_models,
        ),
    ] = None
    config: Annotated[Path | None, flag("A model's config.json, or a folder with one.")] = None
    allow_hub: options.AllowHub = False
    params_b: Annotated[float | None, flag("Only a size, in billions of parameters.")] = None
    method: Annotated[
        str | None,
        flag(
            "full, lora, qlora, hybrid; or prompting, few-shot, rag, rag-few-shot (inference).",
            autocompletion=completion.complete_methods,
        ),
    ] = None
    batch: Annotated[int, flag("Sequences in one step.", min=1)] = 1
    seq_len: Annotated[int, flag("Tokens of a sequence.", min=1)] = 1024
    rank: Annotated[int, flag("Rank of the adapters.", min=1)] = 16
    targets: Annotated[str, flag("Adapted layers: q,k,v,o,mlp,lm_head,embedding.")] = "q,k,v,o,mlp"
    adapter_dtype: Annotated[str, flag("Dtype of the adapters: fp32, bf16.")] = "fp32"
    weights: Annotated[str | None, flag("How the base model is stored: bf16, fp32, nf4, nf4-dq.")] = None
    optimizer: Annotated[
        str | None,
        flag(
            "adamw, adamw_fp32, adamw_8bit, paged_adamw, paged_adamw_8bit, lion, adafactor, sgd; else what training "
            "takes: adamw, from 1 B on adamw_8bit for full."
        ),
    ] = None
    optimizer_in_backward: Annotated[
        bool, flag("Update weights while gradients are computed (full only).")
    ] = False
    accumulation: Annotated[bool, flag("Gradients are added up over several batches.")] = False
    checkpointing: Annotated[
        bool, flag("Store only each layer's input and compute the rest again, to save memory.")
    ] = True
    offloading: Annotated[bool, flag("Store those inputs in main memory.")] = False
    attention: Annotated[str, flag("flash (or SDPA: no stored scores), eager.")] = "flash"
    compile: Annotated[bool, flag("Layers are compiled.")] = False
    loss: Annotated[str, flag("Logits at once: full, chunked, fused, rows (of labels only).")] = "rows"
    devices: Annotated[
        int | None,
        flag("Number of GPUs over all machines; 1 by default, as a run without --launcher.", min=1),
    ] = None
    nodes: Annotated[int, flag("Machines that the GPUs are spread over evenly.", min=1)] = 1
    parallel: Annotated[
        str, flag("How they share a training: ddp, fsdp, fsdp_4bit; auto: ddp where a whole copy fits.")
    ] = "auto"
    gpu: Annotated[str | None, flag("A GPU by name: whether it fits, hours and rent.")] = None
    gpu_memory: Annotated[
        float | None, flag("GiB of memory of one GPU; this machine's by default.", min=0.1)
    ] = None
    counter: Annotated[
        str | None,
        flag(
            "What to predict: device (free memory needed), allocated, reserved, process (of a CPU); else device or, on "
            "a machine without a GPU, process."
        ),
    ] = None
    sets: Annotated[
        list[str] | None,
        flag(
            "One answer: key=value (ids of the questionnaire about model, machine and rows); repeatable.",
            "--set",
            autocompletion=completion.complete_answers,
        ),
    ] = None
    examples: Annotated[int | None, flag("Examples to train on, for hours and money.", min=1)] = None
    tokens: Annotated[int | None, flag("Tokens to train on, for hours and money.", min=1)] = None
    rows: Annotated[Path | None, flag("Score the estimate on a file of measured peaks instead.")] = None
    as_json: options.ResultJson = False
