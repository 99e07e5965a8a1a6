"""`tunewise train`: the tuning step by itself, no plan needed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from typer.core import TyperCommand, TyperOption

from advisor import completion
from advisor.commands import launch_options

T = TypeVar("T")

DATA, MODEL, SETTINGS, ADAPTER, MEMORY, RUN = (
    "Data",
    "Model and result",
    "How it learns",
    "LoRA",
    "Memory and speed",
    "Running and checking",
)


def _flag(panel: str, text: str, *names: str, **options: Any) -> Any:
    """Return a flag with its help, shown in a panel of ``train --help``."""
    return typer.Option(*names, help=text, rich_help_panel=panel, **options)


def _setting(panel: str, *names: str, **options: Any) -> Any:
    """Return the flag of a setting of TrainConfig; :class:`Command` fills in its help."""
    return typer.Option(*names, rich_help_panel=panel, **options)


class Command(TyperCommand):
    """The command; flags of training settings take their help from TrainConfig only when the help is printed.

    Commands are registered at every start of the program, which must not load pydantic.
    """

    def get_params(self, ctx: Any) -> Any:
        """Return the parameters, each with its help."""
        params = super().get_params(ctx)
        for param in params:
            if isinstance(param, TyperOption) and param.help is None:
                param.help = setting_help(str(param.name))
        return params


def setting_help(name: str) -> str:
    """Return the help of a training setting's flag: its description, allowed values, and default.

    The default is "chosen" where :func:`runners.training.defaults.choose_defaults` derives it from the rows and the model.
    """
    from runners.plan.train_config import TrainConfig, allowed_values
    from runners.training.defaults import choose_defaults

    setting = TrainConfig.model_fields[name]
    parts = [] if name == "checkpointing" else [allowed_values(name)]  # an on/off flag takes no value
    if name != "method" and setting.default is not None:  # --method shows its default itself
        chosen = name in choose_defaults("lora", rows=1, params_b=1).values
        default = f"{setting.default:g}" if isinstance(setting.default, float) else setting.default
        parts.append(f"default: {'chosen' if chosen else default}")
    details = "; ".join(filter(None, parts))
    return f"{str(setting.description).rstrip('.')} ({details})." if details else str(setting.description)


Examples = Annotated[Path, _flag(DATA, "Pairs, chats or texts: a file or a folder; the format is detected.")]
Prompt = Annotated[str | None, _flag(DATA, "Instructions put before every row: text, or a file.")]
Columns = Annotated[str | None, _flag(DATA, "Which column is what: prompt=question,reply=answer.")]
Turns = Annotated[str | None, _setting(DATA)]
MaxRows = Annotated[int | None, _flag(DATA, "Use only the first rows.")]
MaxTokens = Annotated[int | None, _setting(DATA)]
Valid = Annotated[Path | None, _flag(DATA, "Validation rows: training stops when their loss rises.")]
ValidShare = Annotated[float | None, _flag(DATA, "Share of the rows used for validation only, by document.")]
Replay = Annotated[
    Path | None, _flag(DATA, "General rows mixed in, so that the model keeps what it could do before.")
]
ReplayShare = Annotated[
    float | None, _flag(DATA, "Share of replay rows among all; default: 0.1 with --replay.")
]
Questions = Annotated[Path | None, _flag(DATA, "Test questions; rows that contain one are refused.")]
Method = Annotated[str, _setting(MODEL, autocompletion=completion.complete_tuning_methods)]
Model = Annotated[str, _flag(MODEL, "A known name or a folder.", autocompletion=completion.complete_models)]
AcceptLicense = Annotated[
    list[str] | None,
    _flag(
        MODEL,
        "Accept the terms of this licence, so that models under it are fetched: gemma; repeatable.",
        autocompletion=completion.complete_licenses,
    ),
]
Out = Annotated[Path | None, _flag(MODEL, "Folder for the adapter or model.")]
InitAdapter = Annotated[Path | None, _setting(MODEL)]
Epochs = Annotated[float | None, _setting(SETTINGS)]
Rate = Annotated[float | None, _setting(SETTINGS)]
Schedule = Annotated[str | None, _setting(SETTINGS)]
Warmup = Annotated[float | None, _setting(SETTINGS)]
BatchTokens = Annotated[int | None, _setting(SETTINGS)]
Optimizer = Annotated[str | None, _setting(SETTINGS)]
Neftune = Annotated[float | None, _setting(SETTINGS)]
EvalSteps = Annotated[int | None, _setting(SETTINGS)]
Patience = Annotated[int | None, _setting(SETTINGS)]
Seed = Annotated[int | None, _setting(SETTINGS)]
Rank = Annotated[int | None, _setting(ADAPTER)]
Alpha = Annotated[float | None, _setting(ADAPTER)]
Dropout = Annotated[float | None, _setting(ADAPTER)]
Variant = Annotated[str | None, _setting(ADAPTER)]
Targets = Annotated[str | None, _setting(ADAPTER)]
LoraPlus = Annotated[float | None, _setting(ADAPTER)]
MicroTokens = Annotated[int | None, _setting(MEMORY)]
Kernels = Annotated[str | None, _setting(MEMORY)]
Parallel = Annotated[str | None, _setting(MEMORY)]
Checkpointing = Annotated[bool | None, _setting(MEMORY, "--checkpointing/--no-checkpointing")]
Check = Annotated[bool, _flag(RUN, "Check data and machine, and stop before the first step.", "--check")]
Show = Annotated[
    int, _flag(RUN, "Show so many rows as the model reads them, with the part that it learns marked.")
]
Accept = Annotated[
    list[str] | None, _flag(RUN, "Continue in spite of this check, for instance PF016; repeatable.")
]
Resume = Annotated[bool, _flag(RUN, "Continue from the last checkpoint in --out.", "--resume")]
CheckpointSteps = Annotated[int | None, _setting(RUN)]
Track = Annotated[
    list[str] | None,
    _flag(
        RUN,
        "Send metrics to a tracker: mlflow, wandb, tensorboard or trackio; repeatable.",
        autocompletion=completion.complete_trackers,
    ),
]
Overwrite = Annotated[bool, _flag(RUN, "Remove what is in --out, and start again.", "--overwrite")]
Json = Annotated[bool, _flag(RUN, "Print the result, or the checks, as JSON.", "--json")]


def command(
    context: typer.Context,
    examples: Examples,
    prompt: Prompt = None,
    columns: Columns = None,
    turns: Turns = None,
    max_rows: MaxRows = None,
    max_tokens: MaxTokens = None,
    valid: Valid = None,
    valid_share: ValidShare = None,
    replay: Replay = None,
    replay_share: ReplayShare = None,
    questions: Questions = None,
    method: Method = "lora",
    model: Model = "smollm2-135m-instruct",
    accept_license: AcceptLicense = None,
    out: Out = None,
    init_adapter: InitAdapter = None,
    epochs: Epochs = None,
    learning_rate: Rate = None,
    schedule: Schedule = None,
    warmup: Warmup = None,
    batch_tokens: BatchTokens = None,
    optimizer: Optimizer = None,
    neftune: Neftune = None,
    eval_steps: EvalSteps = None,
    patience: Patience = None,
    seed: Seed = None,
    rank: Rank = None,
    alpha: Alpha = None,
    dropout: Dropout = None,
    variant: Variant = None,
    targets: Targets = None,
    lora_plus: LoraPlus = None,
    micro_tokens: MicroTokens = None,
    checkpointing: Checkpointing = None,
    kernels: Kernels = None,
    parallel: Parallel = None,
    check: Check = False,
    show: Show = 0,
    accept: Accept = None,
    checkpoint_steps: CheckpointSteps = None,
    track: Track = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    launcher: launch_options.Launcher = None,
    nodes: launch_options.Nodes = None,
    gpus_per_node: launch_options.GpusPerNode = None,
    gpu: launch_options.GpuType = None,
    max_restarts: launch_options.MaxRestarts = None,
    rdzv_endpoint: launch_options.RdzvEndpoint = None,
    rdzv_id: launch_options.RdzvId = None,
    sbatch: launch_options.Sbatch = None,
    print_only: launch_options.PrintOnly = False,
    as_json: Json = False,
) -> None:
    """Fine-tune a model on examples, without a plan.

    By lora, qlora (4 bits, on a CPU too) or full; settings that are not given are chosen, with reasons. Everything that
    would waste the training is checked before the first step; --check shows it and trains nothing.
    """
    from advisor.workflows.tracking import choose_trackers
    from advisor.workflows.train import TrainRequest, tune_model
    from advisor.workflows.train_inputs import TrainFiles
    from runners.models.licenses import accept_licenses

    accept_licenses(accept_license or ())
    choose_trackers(track or ())
    settings = {
        "learning_rate": learning_rate,
        "epochs": epochs,
        "schedule": schedule,
        "warmup": warmup,
        "seed": seed,
        "batch_tokens": batch_tokens,
        "optimizer": optimizer,
        "neftune": neftune,
        "eval_steps": eval_steps,
        "patience": patience,
        "rank": rank,
        "alpha": alpha,
        "dropout": dropout,
        "variant": variant,
        "targets": targets,
        "lora_plus": lora_plus,
        "micro_tokens": micro_tokens,
        "max_tokens": max_tokens,
        "turns": turns,
        "init_adapter": init_adapter,
        "checkpoint_steps": checkpoint_steps,
        "kernels": kernels,
        "parallel": parallel,
        "checkpointing": None if checkpointing is None else "on" if checkpointing else "off",
    }
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
    group = (launcher, nodes, gpus_per_node, gpu, max_restarts, rdzv_endpoint, rdzv_id, sbatch, print_only)
    launch = launch_options.launch_request(context, group, {"--check": check, "--show": show > 0})
    tune_model(
        TrainFiles(*data),
        settings,
        TrainRequest(method, model, out, check, show, accepted, resume, overwrite, as_json),
        launch,
    )
