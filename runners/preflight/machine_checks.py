"""Whether a run finds room here: memory as estimated before, and the tokens that the model reads. Imports no torch.

Whether checkpoints and result fit on the disk. Imports no torch.

What a rehearsal found, as checks: the device, 4-bit layers, the prompt, and one step against what is free.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from rag.errors import BadInput
from runners.models.fingerprint import read_json, tensor_sizes
from runners.models.resolve import Model
from runners.plan.train_config import TrainConfig
from runners.preflight.probe_process import ProbeResult
from runners.preflight.report import PreflightCheck, count_of_rows, first_places
from runners.resources import machine
from runners.resources.gpu import MachineProbe
from runners.resources.machine import GIB, Detected, Machine, detect_machine, free_ram
from runners.resources.memory_estimate import ESTIMATE_ACCURACY, fits
from runners.resources.model_shape import read_shape
from runners.tokenization.chat_template import EncodedRow
from runners.training import gradient_checkpointing, schedule

PROCESS_GIB = 0.6
"""What Python with torch, transformers and peft takes before any model is loaded; measured on Linux."""


@dataclass(frozen=True, slots=True)
class MemoryNeed:
    """What a run needs of the device's memory, as a range, beside what is free."""

    low: float
    likely: float
    high: float
    free: float | None
    """GiB, None when unknown."""
    how: str
    """Where the free memory was read."""
    checkpointing: bool
    """Whether the run would compute activations again."""
    shared: bool = True
    """Whether it is the memory of the whole machine, and not a GPU's own."""

    @property
    def verdict(self) -> str:
        """Return yes, tight, no or unknown."""
        return fits(self.low, self.high, self.free) or "unknown"


def needed_memory(
    base: Model, config: TrainConfig, longest: int, machine: Machine | None = None
) -> MemoryNeed | None:
    """Estimate one micro-batch of the longest rows; None when the model's shape is not in its config.

    The range is that of :func:`runners.resources.memory_estimate.estimate_memory` for this loop's own fp32 masters, adapters and loss.
    """
    machine = machine or detect_machine()
    try:
        shape = read_shape(read_json(base.folder / "config.json"))
    except BadInput:
        return None
    cuda = machine.gpu_kind.value == "cuda"
    if cuda:
        free, how = machine.gpu_memory_gib.value, f"memory of {machine.gpu_name.value or 'the GPU'}"
    else:
        found = free_ram(MachineProbe())
        free, how = found.value, found.how
    half = bool(machine.bf16.value)
    extra = 0.0 if cuda else PROCESS_GIB
    on = gradient_checkpointing.choose_checkpointing(
        base.folder, config, longest, None if free is None else free - extra, half
    ).on
    high = gradient_checkpointing.largest_pass_gib(shape, config, longest, half, on)
    history = ESTIMATE_ACCURACY[config.method]  # type: ignore[index]
    likely = high / history.high
    return MemoryNeed(likely * history.low + extra, likely + extra, high + extra, free, how, on, not cuda)


def memory_check(room: MemoryNeed | None, longest: int, config: TrainConfig) -> PreflightCheck:
    """Return the check of estimated memory: fits, tight, or does not."""
    if room is None:
        return PreflightCheck("PF022", "ok", "not estimated: the model's config does not tell its shape")
    need = f"about {room.likely:.1f} GiB ({room.low:.1f} to {room.high:.1f})"
    at = f"for {config.micro_tokens:,} tokens at once{', activations computed again' if room.checkpointing else ''}"
    if room.free is None:
        return PreflightCheck("PF022", "ok", f"{need} {at}; what is free is unknown")
    has = f"{room.free:.1f} GiB free"
    if room.verdict == "yes":
        return PreflightCheck("PF022", "ok", f"fits: {need} {at}, {has}")
    todo = f"use {smaller_settings(config, longest)}"
    if room.verdict == "tight":
        return PreflightCheck("PF022", "warn", f"tight: {need} {at}, {has}", next=todo)
    return PreflightCheck("PF022", "stop", f"does not fit: {need} {at}, {has} ({room.how})", next=todo)


def smaller_settings(config: TrainConfig, longest: int) -> str:
    """Return what would take less memory, most effective first."""
    ways = []
    if config.method == "full":
        ways.append("--method lora")
    if config.method == "lora":
        ways.append("--method qlora")
    if config.checkpointing == "off":
        ways.append("--checkpointing")
    if config.method == "full" and config.optimizer == "adamw":
        ways.append("--optimizer adamw_8bit")
    if config.micro_tokens > longest:
        ways.append(f"--micro-tokens {longest}")
    return ", ".join([*ways, "shorter rows (--max-tokens) or a smaller model"])


def context_check(base: Model, rows: Sequence[EncodedRow]) -> PreflightCheck:
    """Return the check of the rows against the tokens that the model reads: beyond, its positions are untrained."""
    context = read_json(base.folder / "config.json").get("max_position_embeddings")
    if not isinstance(context, int):
        return PreflightCheck("PF019", "ok", "the model's config does not say how many tokens it reads")
    over = [row for row in rows if len(row.ids) > context]
    if not over:
        return PreflightCheck(
            "PF019", "ok", f"every row is within the {context:,} tokens that the model reads"
        )
    spoilt = first_places(f"{row.file}:{row.line}" if row.file else row.line for row in over)
    text = f"{count_of_rows(len(over))} are longer than the {context:,} tokens that the model reads"
    return PreflightCheck("PF019", "stop", text, spoilt, f"set --max-tokens {context}, or split them")


def largest_batch(rows: Sequence[EncodedRow], most: int) -> list[EncodedRow]:
    """Return the longest rows, as many as one forward pass of at most ``most`` padded tokens takes."""
    ordered = sorted(rows, key=lambda row: -len(row.ids))
    return ordered[: max(1, most // len(ordered[0].ids))]


def largest_pass(rows: Sequence[EncodedRow], config: TrainConfig) -> list[EncodedRow]:
    """Return the rows of the forward pass with the most padded tokens that a run on ``rows`` takes, the longest first."""
    lengths = [len(row.ids) for row in rows]
    steps = chain.from_iterable(schedule.plan_steps(lengths, config.batch_tokens, config.epochs, config.seed))
    passes = chain.from_iterable(schedule.micro_batches(step, lengths, config.micro_tokens) for step in steps)
    chosen = max(passes, key=lambda one: (len(one) * max(lengths[i] for i in one), one))
    return sorted((rows[i] for i in chosen), key=lambda row: -len(row.ids))


CHECKPOINTS_ON_DISK = 4
"""Checkpoints on the disk at once: last good, best, newest, and the one being written."""
SPARE_GIB = 0.5
"""Left free on a disk: a full one harms more than this run."""


def check_training_disk(
    base: Model, config: TrainConfig, out: Path, free: Detected | None = None
) -> PreflightCheck:
    """Return the check of the disk that ``out`` is on, for checkpoints (fp32 weights and moments) and result."""
    need = needed_disk_gib(base, config)
    free = free or machine.free_disk(out)
    if free.value is None:
        return PreflightCheck("PF024", "ok", f"about {need:.1f} GiB for checkpoints and result; {free.how}")
    told = f"about {need:.1f} GiB for checkpoints and result, {free.value:.1f} GiB free"
    if need + SPARE_GIB > free.value:
        return PreflightCheck("PF024", "stop", told, next="free some space, or name another disk with --out")
    return PreflightCheck("PF024", "ok", told)


def needed_disk_gib(base: Model, config: TrainConfig) -> float:
    """Return the most that checkpoints and result take on disk: 12 bytes per trained weight in each checkpoint."""
    params = sum(tensor_sizes(base.folder))
    try:
        shape = read_shape(read_json(base.folder / "config.json"))
        adapters = shape.adapter(config.rank)
    except BadInput:
        adapters = params // 20
    trained = params if config.method == "full" else adapters
    return (CHECKPOINTS_ON_DISK * 12 * trained + (2 if config.method == "full" else 4) * trained) / GIB


MAX_ROUNDING_ERROR = {"bfloat16": 0.02, "float16": 0.005, "float32": 1e-3}
"""Largest difference from fp32 that a dtype's rounding explains."""
MAX_NF4_ERROR = 0.25
"""The same for 4-bit weights: nf4 is off by about a tenth."""
TIGHT_SHARE = 0.9
"""From this share of the free memory on, the rest of the machine must stay quiet."""


def probe_checks(
    found: ProbeResult, config: TrainConfig, steps_tokens: int, free: float | None
) -> Iterator[PreflightCheck]:
    """Yield the checks of device, 4-bit layers, prompt and step; ``steps_tokens`` is what the run trains on."""
    yield _device(found)
    if config.method == "qlora":
        yield _four_bit(found)
    if not found.told.get("prompt", {"same": True})["same"]:
        yield PreflightCheck(
            "PF009",
            "stop",
            "transformers begins an answer with other tokens than training here did",
            next="give the model folder the tokenizer and template that belong together",
        )
    if "free" in found.told:
        yield _step(found, config, steps_tokens, free)


def _device(found: ProbeResult) -> PreflightCheck:
    told = found.told.get("device")
    if told is None:
        return PreflightCheck(
            "PF020", "stop", f"torch does not work here: {found.ended}", next="see `tunewise doctor`"
        )
    text = f"{told['device']}, {told['dtype']} ({told['how']})"
    if told["error"] > MAX_ROUNDING_ERROR.get(told["dtype"], 0.02) or math.isnan(told["error"]):
        return PreflightCheck(
            "PF020",
            "stop",
            f"{text}: a product differs from fp32 by {told['error']:.1%}, which rounding cannot explain",
            next="update torch or the driver: losses would be wrong or NaN",
        )
    return PreflightCheck("PF020", "ok", f"{text}; products agree with fp32 within {told['error']:.1%}")


def _four_bit(found: ProbeResult) -> PreflightCheck:
    told = found.told.get("four_bit")
    if told is None:
        return PreflightCheck(
            "PF021",
            "stop",
            f"a 4-bit layer does not work here: {found.ended}",
            next="use --method lora, or install a bitsandbytes that fits this machine",
        )
    if not told["error"] <= MAX_NF4_ERROR:
        text = f"a 4-bit layer is off by {told['error']:.0%}, forward or back"
        return PreflightCheck("PF021", "stop", text, next="use --method lora, or update bitsandbytes")
    return PreflightCheck(
        "PF021", "ok", f"bitsandbytes {told['version']}, forward and back within {told['error']:.0%}"
    )


def _step(found: ProbeResult, config: TrainConfig, steps_tokens: int, free: float | None) -> PreflightCheck:
    row, batch = found.told.get("row"), found.told.get("batch")
    todo = f"use {smaller_settings(config, row['tokens'] if row else config.micro_tokens)}"
    has = "" if free is None else f" of {free:.1f} GiB free"
    if row is None and found.ended == "memory":
        text = f"not even the longest row fits: over {found.peak_gib:.1f}{has} at {found.doing}"
        return PreflightCheck("PF023", "stop", text, next=todo)
    if row is None:
        return PreflightCheck(
            "PF023", "stop", f"a step failed while {found.doing}: {found.ended}", next="see --debug"
        )
    if not math.isfinite(row["loss"]) or not math.isfinite(row["norm"]):
        text = f"the first loss is {row['loss']}, its gradient's norm {row['norm']}"
        return PreflightCheck(
            "PF023", "stop", text, next="the base is damaged, or its dtype overflows on this device"
        )
    if batch is None:
        text = f"tight: the longest row fits, {config.micro_tokens:,} tokens at once do not{has}"
        return PreflightCheck(
            "PF023", "warn", text, next=f"the run will halve them until they fit; or {todo}"
        )
    speed = batch["tokens"] / max(batch["seconds"], 1e-9)
    text = f"{batch['peak_gib']:.2f} GiB at its peak{has}; {batch['tokens']:,} tokens took {batch['seconds']:.1f} s"
    text += f", so the run about {_duration(steps_tokens / speed)}"
    if free is not None and batch["peak_gib"] > TIGHT_SHARE * free:
        return PreflightCheck("PF023", "warn", f"tight: {text}", next=todo)
    return PreflightCheck("PF023", "ok", f"fits: {text}")


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
