"""The adapter that a run goes on from: what it is made of wins over the settings, and that is said. Light."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rag.errors import BadInput
from runners.fingerprint import read_json
from runners.tuning import ALL_LINEAR, TrainConfig

SETTINGS = "adapter_config.json"


def require(folder: Path) -> None:
    """Raise BadInput when a folder holds no adapter, as that of a model tuned in full does not."""
    if not (folder / SETTINGS).is_file():
        raise BadInput(
            f"{folder} holds no adapter to go on from", "name a folder that lora or qlora training made"
        )


def settle(config: TrainConfig) -> tuple[TrainConfig, tuple[str, ...]]:
    """Return the settings with rank, alpha, variant and targets of the adapter gone on from, and what changed.

    Without such an adapter nothing changes. Raises BadInput when another variant is asked for than it is.
    """
    if config.init_adapter is None:
        return config, ()
    made = read_json(config.init_adapter / SETTINGS)
    variant = _variant(made)
    if config.variant not in ("lora", variant):
        raise BadInput(
            f"{config.init_adapter} is a {variant} adapter, which cannot go on as {config.variant}",
            f"leave variant away: it stays {variant}",
        )
    has: dict[str, Any] = {"rank": int(made["r"]), "alpha": float(made["lora_alpha"]), "variant": variant}
    said = [
        f"{name} {value} is that of the adapter gone on from, not {getattr(config, name)}"
        for name, value in has.items()
        if name != "variant" and value != getattr(config, name)
    ]
    targets = tuple(sorted(made["target_modules"]))
    if config.targets not in (ALL_LINEAR, targets):
        said.append(f"targets are those of the adapter gone on from: {', '.join(targets)}")
    # Not validated: what an adapter is made of need not be within the bounds of what may be asked for.
    return config.model_copy(update={"targets": targets, **has}), tuple(said)


def _variant(made: dict[str, Any]) -> str:
    if made.get("use_dora"):
        return "dora"
    return "rslora" if made.get("use_rslora") else "lora"
