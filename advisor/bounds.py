"""Flags of `tunewise train` that have no effect together; what each may be is TrainConfig's to say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rag.errors import BadInput, UsageProblem
from runners.tuning import ALL_LINEAR, TrainConfig


def asked_for(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that the flags name, as TrainConfig takes them."""
    given = {name: value for name, value in flags.items() if value is not None}
    if given.get("targets", ALL_LINEAR) != ALL_LINEAR:
        given["targets"] = tuple(part.strip() for part in given["targets"].split(","))
    return given


def refuse(flags: Mapping[str, Any], method: str) -> None:
    """Raise UsageProblem for a flag out of its bounds, without effect, or that excludes another; reads no file."""
    given = asked_for(flags)
    own = [name for name in ("rank", "alpha", "variant", "targets") if name in given]
    if "init_adapter" in given and own:
        text = f"{flag(own[0])} has no effect with --init-adapter: the adapter that is gone on from keeps its own"
        raise UsageProblem(text, f"leave {flag(own[0])} out")
    of_adapters = [name for name in (*own, "dropout", "lora_plus", "init_adapter") if name in given]
    if method == "full" and of_adapters:
        raise UsageProblem(
            f"{flag(of_adapters[0])} is about LoRA, --method full has no adapters", "leave it out"
        )
    try:
        TrainConfig(**{"method": method, **given})
    except BadInput as error:
        name, _, rest = error.message.partition(" ")
        raise UsageProblem(f"{flag(name)} {rest}" if name in given else error.message, error.hint) from None


def flag(name: str) -> str:
    """Return a setting's flag."""
    return f"--{name.replace('_', '-')}"
