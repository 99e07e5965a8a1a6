"""The flags of `tunewise train`."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated

from advisor import completion
from advisor.flags.launch import LaunchFlags
from advisor.flags.records import flag

# One panel of the help each. Flags without a text are settings of TrainConfig: the verb takes their help from there.
_data = partial(flag, rich_help_panel="Data")
_model = partial(flag, rich_help_panel="Model and result")
_learning = partial(flag, rich_help_panel="How it learns")
_adapter = partial(flag, rich_help_panel="LoRA")
_memory = partial(flag, rich_help_panel="Memory and speed")
_run = partial(flag, rich_help_panel="Running and checking")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainRequest:
    """A training without a plan: rows, settings, and what to do with them."""

    examples: Annotated[Path, _data("Pairs, chats or texts: a file or a folder; the format is detected.")]
    prompt: Annotated[str | None, _data("Instructions put before every row: text, or a file.")] = None
    columns: Annotated[str | None, _data("Which column is what: prompt=question,reply=answer.")] = None
    turns: Annotated[str | None, _data(None)] = None
    max_rows: Annotated[int | None, _data("Use only the first rows.")] = None
    max_tokens: Annotated[int | None, _data(None)] = None
    valid: Annotated[Path | None, _data("Validation rows: training stops when their loss rises.")] = None
    valid_share: Annotated[
        float | None, _data("Share of the rows used for validation only, by document.")
    ] = None
    replay: Annotated[
        Path | None, _data("General rows mixed in, so that the model keeps what it could do before.")
    ] = None
    replay_share: Annotated[
        float | None, _data("Share of replay rows among all; default: 0.1 with --replay.")
    ] = None
    questions: Annotated[Path | None, _data("Test questions; rows that contain one are refused.")] = None
    method: Annotated[str, _model(None, autocompletion=completion.complete_tuning_methods)] = "lora"
    model: Annotated[str, _model("A known name or a folder.", autocompletion=completion.complete_models)] = (
        "smollm2-135m-instruct"
    )
    accept_license: Annotated[
        list[str] | None,
        _model(
            "Accept the terms of this licence, so that models under it are fetched: gemma; repeatable.",
            autocompletion=completion.complete_licenses,
        ),
    ] = None
    out: Annotated[Path | None, _model("Folder for the adapter or model.")] = None
    init_adapter: Annotated[Path | None, _model(None)] = None
    epochs: Annotated[float | None, _learning(None)] = None
    learning_rate: Annotated[float | None, _learning(None)] = None
    schedule: Annotated[str | None, _learning(None)] = None
    warmup: Annotated[float | None, _learning(None)] = None
    batch_tokens: Annotated[int | None, _learning(None)] = None
    optimizer: Annotated[str | None, _learning(None)] = None
    neftune: Annotated[float | None, _learning(None)] = None
    eval_steps: Annotated[int | None, _learning(None)] = None
    patience: Annotated[int | None, _learning(None)] = None
    seed: Annotated[int | None, _learning(None)] = None
    rank: Annotated[int | None, _adapter(None)] = None
    alpha: Annotated[float | None, _adapter(None)] = None
    dropout: Annotated[float | None, _adapter(None)] = None
    variant: Annotated[str | None, _adapter(None)] = None
    targets: Annotated[str | None, _adapter(None)] = None
    lora_plus: Annotated[float | None, _adapter(None)] = None
    micro_tokens: Annotated[int | None, _memory(None)] = None
    checkpointing: Annotated[bool | None, _memory(None, "--checkpointing/--no-checkpointing")] = None
    kernels: Annotated[str | None, _memory(None)] = None
    parallel: Annotated[str | None, _memory(None)] = None
    check: Annotated[bool, _run("Check data and machine, and stop before the first step.", "--check")] = False
    show: Annotated[
        int, _run("Show so many rows as the model reads them, with the part that it learns marked.")
    ] = 0
    accept: Annotated[
        list[str] | None, _run("Continue in spite of this check, for instance PF016; repeatable.")
    ] = None
    checkpoint_steps: Annotated[int | None, _run(None)] = None
    track: Annotated[
        list[str] | None,
        _run(
            "Send metrics to a tracker: mlflow, wandb, tensorboard or trackio; repeatable.",
            autocompletion=completion.complete_trackers,
        ),
    ] = None
    resume: Annotated[bool, _run("Continue from the last checkpoint in --out.", "--resume")] = False
    overwrite: Annotated[bool, _run("Remove what is in --out, and start again.", "--overwrite")] = False
    launch: LaunchFlags = field(default_factory=LaunchFlags)
    as_json: Annotated[bool, _run("Print the result, or the checks, as JSON.", "--json")] = False

    @property
    def dry(self) -> bool:
        """Whether nothing is trained."""
        return self.check or self.show > 0
