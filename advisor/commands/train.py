"""`tunewise train`: the tuning step by itself, no plan needed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from advisor import completing

T = TypeVar("T")

DATA, MODEL, SETTINGS, ADAPTER, MEMORY, RUN = (
    "Data", "Model and result", "How it learns", "LoRA", "Memory and speed", "Running and checking"
)  # fmt: skip


def _flag(panel: str, text: str, *names: str, **more: Any) -> Any:
    return typer.Option(*names, help=text, rich_help_panel=panel, **more)


Examples = Annotated[Path, _flag(DATA, "Pairs, chats or texts: a file or a folder; the format is detected.")]
Prompt = Annotated[str | None, _flag(DATA, "Instructions put before every row: text, or a file.")]
Columns = Annotated[str | None, _flag(DATA, "Which column is what: prompt=question,reply=answer.")]
Turns = Annotated[str | None, _flag(DATA, "Which answers of a chat are learnt: all, last.")]
MaxRows = Annotated[int | None, _flag(DATA, "Use only the first rows.")]
MaxTokens = Annotated[int | None, _flag(DATA, "Longest row; longer ones are left out, never cut.")]
Valid = Annotated[Path | None, _flag(DATA, "Validation rows: training stops when their loss rises.")]
ValidShare = Annotated[float | None, _flag(DATA, "Share of the rows set apart for validation, by document.")]
Replay = Annotated[Path | None, _flag(DATA, "General rows mixed in against forgetting.")]
ReplayShare = Annotated[
    float | None, _flag(DATA, "Share of replay rows among all; default: 0.1 with --replay.")
]
Questions = Annotated[Path | None, _flag(DATA, "Held-out questions that the rows must not give away.")]
Method = Annotated[str, _flag(MODEL, "lora, qlora (4-bit base) or full.", autocompletion=completing.tunings)]
Model = Annotated[str, _flag(MODEL, "A known name or a folder.", autocompletion=completing.models)]
Out = Annotated[Path | None, _flag(MODEL, "Where the adapter or model goes.")]
InitAdapter = Annotated[Path | None, _flag(MODEL, "Go on from this adapter of the same base.")]
Epochs = Annotated[float | None, _flag(SETTINGS, "Passes over the rows.")]
Rate = Annotated[float | None, _flag(SETTINGS, "Chosen from method and model size by default.")]
Schedule = Annotated[str | None, _flag(SETTINGS, "cosine, linear or constant.")]
Warmup = Annotated[float | None, _flag(SETTINGS, "Share of the steps over which the rate rises.")]
BatchTokens = Annotated[int | None, _flag(SETTINGS, "Tokens per optimiser step.")]
Optimizer = Annotated[str | None, _flag(SETTINGS, "adamw, adamw_8bit, paged_adamw_8bit or adafactor.")]
Neftune = Annotated[float | None, _flag(SETTINGS, "Noise on the input embeddings; 5 is usual; default: off.")]
EvalSteps = Annotated[int | None, _flag(SETTINGS, "Steps between validations; default: every pass.")]
Patience = Annotated[int | None, _flag(SETTINGS, "Validations without improvement until it stops.")]
Seed = Annotated[int | None, _flag(SETTINGS, "Seed of order, dropout and fresh weights; default: 0.")]
Rank = Annotated[int | None, _flag(ADAPTER, "Size of the adapters.")]
Alpha = Annotated[float | None, _flag(ADAPTER, "Their strength; default: twice the rank.")]
Dropout = Annotated[float | None, _flag(ADAPTER, "Share of their inputs dropped.")]
Variant = Annotated[str | None, _flag(ADAPTER, "lora, rslora, dora or pissa.")]
Targets = Annotated[str | None, _flag(ADAPTER, "all-linear, or layers such as q_proj,v_proj.")]
LoraPlus = Annotated[float | None, _flag(ADAPTER, "Rate of B over that of A; 16 is usual; default: off.")]
MicroTokens = Annotated[int | None, _flag(MEMORY, "Tokens of one forward pass; the result is the same.")]
Kernels = Annotated[
    str | None,
    _flag(
        MEMORY, "auto: the fastest path that gives the same loss; plain: transformers' and PEFT's own layers."
    ),
]
Checkpointing = Annotated[
    bool | None,
    _flag(
        MEMORY,
        "Compute activations again to save memory; default: only if needed.",
        "--checkpointing/--no-checkpointing",
    ),
]
Check = Annotated[bool, _flag(RUN, "Check data and machine, and stop before the first step.", "--check")]
Show = Annotated[int, _flag(RUN, "Show so many rows as the model sees them, the learnt part marked.")]
Accept = Annotated[
    list[str] | None, _flag(RUN, "Go on in spite of this check, for instance PF016; repeatable.")
]
Resume = Annotated[bool, _flag(RUN, "Go on from the last checkpoint in --out.", "--resume")]
CheckpointSteps = Annotated[
    int | None,
    _flag(RUN, "Steps between checkpoints; 0: only when stopped; default: 100, or five minutes."),
]
Overwrite = Annotated[bool, _flag(RUN, "Remove what is in --out, and start again.", "--overwrite")]
Json = Annotated[bool, _flag(RUN, "Print the result, or the checks, as JSON.", "--json")]


def command(
    examples: Examples, prompt: Prompt = None, columns: Columns = None, turns: Turns = None, max_rows: MaxRows = None,
    max_tokens: MaxTokens = None, valid: Valid = None, valid_share: ValidShare = None, replay: Replay = None,
    replay_share: ReplayShare = None, questions: Questions = None, method: Method = "lora",
    model: Model = "smollm2-135m-instruct", out: Out = None, init_adapter: InitAdapter = None, epochs: Epochs = None,
    learning_rate: Rate = None, schedule: Schedule = None, warmup: Warmup = None, batch_tokens: BatchTokens = None,
    optimizer: Optimizer = None, neftune: Neftune = None, eval_steps: EvalSteps = None, patience: Patience = None,
    seed: Seed = None, rank: Rank = None, alpha: Alpha = None, dropout: Dropout = None, variant: Variant = None,
    targets: Targets = None, lora_plus: LoraPlus = None, micro_tokens: MicroTokens = None,
    checkpointing: Checkpointing = None, kernels: Kernels = None, check: Check = False, show: Show = 0,
    accept: Accept = None, checkpoint_steps: CheckpointSteps = None, resume: Resume = False,
    overwrite: Overwrite = False, as_json: Json = False,
) -> None:  # fmt: skip
    """Tune a model on examples: lora, qlora (4-bit, on CPU too) or full. What is not given is chosen, with reasons.

    Everything that would waste the run is checked before the first step; --check shows it and trains nothing.
    """
    from advisor.material import Files
    from advisor.tune import Order, tune

    settings = {
        "learning_rate": learning_rate, "epochs": epochs, "schedule": schedule, "warmup": warmup, "seed": seed,
        "batch_tokens": batch_tokens, "optimizer": optimizer, "neftune": neftune, "eval_steps": eval_steps,
        "patience": patience, "rank": rank, "alpha": alpha, "dropout": dropout, "variant": variant, "targets": targets,
        "lora_plus": lora_plus, "micro_tokens": micro_tokens, "max_tokens": max_tokens, "turns": turns,
        "init_adapter": init_adapter, "checkpoint_steps": checkpoint_steps, "kernels": kernels,
        "checkpointing": None if checkpointing is None else "on" if checkpointing else "off",
    }  # fmt: skip
    data = (
        examples,
        prompt,
        columns,
        max_rows,
        valid,
        valid_share,
        replay,
        replay_share,
        questions,
        seed or 0,
    )
    accepted = tuple(code.upper() for code in accept or ())
    tune(
        Files(*data), settings,
        Order(method, model, out, check, show, accepted, resume, overwrite, as_json),
    )  # fmt: skip
