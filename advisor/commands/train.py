"""`tunewise train`: the tuning step by itself, no plan needed."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperCommand, TyperOption

from advisor.flags.records import takes_flags
from advisor.flags.train import TrainRequest


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


@takes_flags
def command(context: typer.Context, flags: TrainRequest) -> None:
    """Fine-tune a model on examples, without a plan.

    By lora, qlora (4 bits, on a CPU too) or full; settings that are not given are chosen, with reasons. Everything that
    would waste the training is checked before the first step; --check shows it and trains nothing.
    """
    from advisor.workflows.launch import launch_request
    from advisor.workflows.tracking import choose_trackers
    from advisor.workflows.train import tune_model
    from runners.models.licenses import accept_licenses

    accept_licenses(flags.accept_license or ())
    choose_trackers(flags.track or ())
    tune_model(
        flags, launch_request(context, flags.launch, {"--check": flags.check, "--show": flags.show > 0})
    )
