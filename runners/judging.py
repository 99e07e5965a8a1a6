"""What a rehearsal found, as checks: the device, 4-bit layers, the prompt, and one step against what is free."""

from __future__ import annotations

import math
from collections.abc import Iterator

from runners.complaints import Check
from runners.rehearsal import Found
from runners.room import smaller
from runners.tuning import TrainConfig

ROUNDING = {"bfloat16": 0.02, "float16": 0.005, "float32": 1e-3}
"""Largest difference from fp32 that a dtype's rounding explains."""
NF4 = 0.25
"""The same for 4-bit weights: nf4 is off by about a tenth."""
TIGHT = 0.9
"""From this share of the free memory on, the rest of the machine must stay quiet."""


def checks(found: Found, config: TrainConfig, steps_tokens: int, free: float | None) -> Iterator[Check]:
    """Yield the checks of device, 4-bit layers, prompt and step; ``steps_tokens`` is what the run trains on."""
    yield _device(found)
    if config.method == "qlora":
        yield _four_bit(found)
    if not found.told.get("prompt", {"same": True})["same"]:
        yield Check(
            "PF009", "stop", "transformers begins an answer with other tokens than training here did",
            next="give the model folder the tokenizer and template that belong together",
        )  # fmt: skip
    if "free" in found.told:
        yield _step(found, config, steps_tokens, free)


def _device(found: Found) -> Check:
    told = found.told.get("device")
    if told is None:
        return Check(
            "PF020", "stop", f"torch does not work here: {found.ended}", next="see `tunewise doctor`"
        )
    text = f"{told['device']}, {told['dtype']} ({told['how']})"
    if told["error"] > ROUNDING.get(told["dtype"], 0.02) or math.isnan(told["error"]):
        return Check(
            "PF020", "stop", f"{text}: a product differs from fp32 by {told['error']:.1%}, which rounding cannot explain",
            next="update torch or the driver: losses would be wrong or NaN",
        )  # fmt: skip
    return Check("PF020", "ok", f"{text}; products agree with fp32 within {told['error']:.1%}")


def _four_bit(found: Found) -> Check:
    told = found.told.get("four_bit")
    if told is None:
        return Check(
            "PF021", "stop", f"a 4-bit layer does not work here: {found.ended}",
            next="use --method lora, or install a bitsandbytes that fits this machine",
        )  # fmt: skip
    if not told["error"] <= NF4:
        text = f"a 4-bit layer is off by {told['error']:.0%}, forward or back"
        return Check("PF021", "stop", text, next="use --method lora, or update bitsandbytes")
    return Check(
        "PF021", "ok", f"bitsandbytes {told['version']}, forward and back within {told['error']:.0%}"
    )


def _step(found: Found, config: TrainConfig, steps_tokens: int, free: float | None) -> Check:
    row, batch = found.told.get("row"), found.told.get("batch")
    todo = f"use {smaller(config, row['tokens'] if row else config.micro_tokens)}"
    has = "" if free is None else f" of {free:.1f} GiB free"
    if row is None and found.ended == "memory":
        text = f"not even the longest row fits: over {found.peak_gib:.1f}{has} at {found.doing}"
        return Check("PF023", "stop", text, next=todo)
    if row is None:
        return Check("PF023", "stop", f"a step failed while {found.doing}: {found.ended}", next="see --debug")
    if not math.isfinite(row["loss"]) or not math.isfinite(row["norm"]):
        text = f"the first loss is {row['loss']}, its gradient's norm {row['norm']}"
        return Check("PF023", "stop", text, next="the base is damaged, or its dtype overflows on this device")
    if batch is None:
        text = f"tight: the longest row fits, {config.micro_tokens:,} tokens at once do not{has}"
        return Check("PF023", "warn", text, next=f"the run will halve them until they fit; or {todo}")
    speed = batch["tokens"] / max(batch["seconds"], 1e-9)
    text = f"{batch['peak_gib']:.2f} GiB at its peak{has}; {batch['tokens']:,} tokens took {batch['seconds']:.1f} s"
    text += f", so the run about {_duration(steps_tokens / speed)}"
    if free is not None and batch["peak_gib"] > TIGHT * free:
        return Check("PF023", "warn", f"tight: {text}", next=todo)
    return Check("PF023", "ok", f"fits: {text}")


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
