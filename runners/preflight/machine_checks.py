"""Checks of this machine: estimated memory, context length, disk space, and the findings of the device probe.

The probe's findings (:mod:`runners.preflight.probe_process`) become checks of the device, 4-bit layers, the prompt, and
a measured step against the free memory. Imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from rag.errors import BadInput
from runners.distributed import environment
from runners.models.fingerprint import context_length, read_json, tensor_sizes
from runners.models.resolve import Model
from runners.plan.train_config import TrainConfig
from runners.preflight.probe_process import ProbeResult
from runners.preflight.report import PreflightCheck, count_of_rows, first_places
from runners.resources import machine
from runners.resources.gpu import MachineProbe
from runners.resources.machine import GIB, Detected, Machine, detect_machine, free_ram
from runners.resources.memory_estimate import fits
from runners.resources.model_shape import read_shape
from runners.tokenization.chat_template import EncodedRow
from runners.training import gradient_checkpointing, schedule

CHECKPOINTS_ON_DISK = 4
"""Most checkpoints on the disk at once: last good, best, newest, and the one being written."""
SPARE_GIB = 0.5
"""Left free on a disk: a full one harms more than this run."""
MAX_ROUNDING_ERROR = {"bfloat16": 0.02, "float16": 0.005, "float32": 1e-3}
"""Largest relative difference from fp32 that a dtype's rounding explains."""
MAX_NF4_ERROR = 0.25
"""The same for 4-bit weights: nf4 is off by about a tenth."""
TIGHT_SHARE = 0.9
"""From this share of the free memory on a run is tight: other processes must not need more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryNeed:
    """The memory that a run needs on the device, as a range in GiB, and what is free."""

    low: float
    likely: float
    high: float
    free: float | None
    """GiB, None when unknown."""
    how: str
    """How the free memory was determined."""
    checkpointing: bool
    """Whether the run would recompute activations."""
    shared: bool = True
    """Whether it is the memory of the whole machine, and not a GPU's own."""

    @property
    def verdict(self) -> str:
        """Whether the run fits: yes, tight, no or unknown."""
        return fits(self.low, self.high, self.free) or "unknown"


def needed_memory(
    base: Model, config: TrainConfig, longest: int, machine: Machine | None = None
) -> MemoryNeed | None:
    """Return the estimated memory for one micro-batch of the longest rows; None when the model's shape is unknown.

    The range is that of :func:`runners.resources.memory_estimate.estimate_memory` for this project's training loop, with
    its fp32 masters, adapters and loss.

    Args:
        base: The base model.
        config: Settings of the run.
        longest: Tokens of the longest row.
        machine: The machine to estimate for; None for this one.
    """
    machine = machine or detect_machine()
    try:
        shape = read_shape(read_json(base.folder / "config.json"))
    except BadInput:
        return None
    own_memory = machine.own_memory
    if own_memory:
        free, how = machine.gpu_memory_gib.value, f"memory of {machine.gpu_name.value or 'the GPU'}"
    else:
        ram = free_ram(MachineProbe())
        free, how = ram.value, ram.how
    half = machine.dtype[0] != "float32"
    bare = gradient_checkpointing.bare_process_gib(own_memory)
    shards = environment.weight_shards(config.method, config.parallel)
    if free is not None and not own_memory:
        free /= environment.local_world_size()  # the processes of a CPU share its memory
    on = gradient_checkpointing.choose_checkpointing(
        base.folder, config, longest, None if free is None else free - bare, half, own_memory, shards
    ).on
    need = gradient_checkpointing.estimate_largest_pass(shape, config, longest, half, on, own_memory, shards)
    return MemoryNeed(
        low=need.low,
        likely=need.likely,
        high=need.high,
        free=free,
        how=how,
        checkpointing=on,
        shared=not own_memory,
    )


def memory_check(memory: MemoryNeed | None, longest: int, config: TrainConfig) -> PreflightCheck:
    """Return the check of estimated memory (PF022); ``longest`` is the tokens of the longest row."""
    if memory is None:
        return PreflightCheck("PF022", "ok", "not estimated: the model's config does not give its shape")
    need = f"about {memory.likely:.1f} GiB ({memory.low:.1f} to {memory.high:.1f})"
    recomputed = ", activations computed again" if memory.checkpointing else ""
    at = f"for {config.micro_tokens:,} tokens at once{recomputed}"
    if memory.free is None:
        return PreflightCheck("PF022", "ok", f"{need} {at}; what is free is unknown")
    has = f"{memory.free:.1f} GiB free"
    if memory.verdict == "yes":
        return PreflightCheck("PF022", "ok", f"fits: {need} {at}, {has}")
    todo = f"use {smaller_settings(config, longest)}"
    if memory.verdict == "tight":
        return PreflightCheck("PF022", "warn", f"tight: {need} {at}, {has}", next=todo)
    return PreflightCheck("PF022", "stop", f"does not fit: {need} {at}, {has} ({memory.how})", next=todo)


def smaller_settings(config: TrainConfig, longest: int) -> str:
    """Return the settings that would take less memory, most effective first."""
    flags = []
    if config.method == "full":
        flags.append("--method lora")
    if config.method == "lora":
        flags.append("--method qlora")
    if config.checkpointing == "off":
        flags.append("--checkpointing")
    if config.method == "full" and config.optimizer == "adamw":
        flags.append("--optimizer adamw_8bit")
    if config.micro_tokens > longest:
        flags.append(f"--micro-tokens {longest}")
    return ", ".join([*flags, "shorter rows (--max-tokens) or a smaller model"])


def context_check(base: Model, rows: Sequence[EncodedRow]) -> PreflightCheck:
    """Return the check of row lengths against the model's context (PF019): positions beyond it are untrained."""
    context = context_length(read_json(base.folder / "config.json"))
    if context is None:
        return PreflightCheck("PF019", "ok", "the model's config does not say how many tokens it reads")
    over = [row for row in rows if len(row.ids) > context]
    if not over:
        return PreflightCheck(
            "PF019", "ok", f"every row is within the {context:,} tokens that the model reads"
        )
    places = first_places(f"{row.file}:{row.line}" if row.file else row.line for row in over)
    text = f"{count_of_rows(len(over))} are longer than the {context:,} tokens that the model reads"
    return PreflightCheck("PF019", "stop", text, places, f"set --max-tokens {context}, or split them")


def largest_batch(rows: Sequence[EncodedRow], most: int) -> list[EncodedRow]:
    """Return the longest rows, as many as fit into one forward pass of at most ``most`` padded tokens."""
    ordered = sorted(rows, key=lambda row: -len(row.ids))
    return ordered[: max(1, most // len(ordered[0].ids))]


def largest_pass(rows: Sequence[EncodedRow], config: TrainConfig) -> list[EncodedRow]:
    """Return the rows of a run's forward pass with the most padded tokens, the longest first."""
    lengths = [len(row.ids) for row in rows]
    steps = chain.from_iterable(schedule.plan_steps(lengths, config.batch_tokens, config.epochs, config.seed))
    passes = chain.from_iterable(schedule.micro_batches(step, lengths, config.micro_tokens) for step in steps)
    chosen = max(passes, key=lambda indexes: (len(indexes) * max(lengths[i] for i in indexes), indexes))
    return sorted((rows[i] for i in chosen), key=lambda row: -len(row.ids))


def check_training_disk(
    base: Model, config: TrainConfig, out: Path, free: Detected | None = None
) -> PreflightCheck:
    """Return the check of the disk (PF024) that ``out`` is on, for checkpoints and result.

    ``free`` is its free space in GiB; None to read it.
    """
    need = needed_disk_gib(base, config)
    free = free or machine.free_disk(out)
    if free.value is None:
        return PreflightCheck("PF024", "ok", f"about {need:.1f} GiB for checkpoints and result; {free.how}")
    text = f"about {need:.1f} GiB for checkpoints and result, {free.value:.1f} GiB free"
    if need + SPARE_GIB > free.value:
        return PreflightCheck("PF024", "stop", text, next="free some space, or name another disk with --out")
    return PreflightCheck("PF024", "ok", text)


def needed_disk_gib(base: Model, config: TrainConfig) -> float:
    """Return the most GiB that checkpoints and result take on disk.

    A checkpoint has 12 bytes per trained weight (the fp32 weight and two moments), the result 2 for all weights of a
    bf16 model and 4 for an adapter. Adapters of a model of unknown shape are taken as a twentieth of its weights.
    """
    params = sum(tensor_sizes(base.folder))
    try:
        shape = read_shape(read_json(base.folder / "config.json"))
        adapters = shape.adapter(config.rank)
    except BadInput:
        adapters = params // 20
    trained = params if config.method == "full" else adapters
    return (CHECKPOINTS_ON_DISK * 12 * trained + (2 if config.method == "full" else 4) * trained) / GIB


def probe_checks(
    probe: ProbeResult, config: TrainConfig, run_tokens: int, free: float | None
) -> Iterator[PreflightCheck]:
    """Yield the checks of device (PF020), 4-bit layers (PF021), prompt (PF009) and step (PF023).

    Args:
        probe: The findings of the probe.
        config: Settings of the run.
        run_tokens: Tokens of the whole run, all passes together.
        free: Free memory of the device in GiB, None when unknown.
    """
    yield _device(probe)
    if config.method == "qlora":
        yield _four_bit(probe)
    if not probe.findings.get("prompt", {"same": True})["same"]:
        yield PreflightCheck(
            "PF009",
            "stop",
            "transformers begins an answer with other tokens than training here did",
            next="give the model folder the tokenizer and template that belong together",
        )
    # The kind "free" is reported by the child process alone: a quick probe takes no step.
    if "free" in probe.findings:
        yield _step(probe, config, run_tokens, free)


def _device(probe: ProbeResult) -> PreflightCheck:
    """Return the check that torch computes on the device, with errors that rounding explains."""
    device = probe.findings.get("device")
    if device is None:
        return PreflightCheck(
            "PF020", "stop", f"torch does not work here: {probe.ended}", next="see `tunewise doctor`"
        )
    text = f"{device['device']}, {device['dtype']} ({device['how']})"
    error = device["error"]
    if error > MAX_ROUNDING_ERROR.get(device["dtype"], 0.02) or math.isnan(error):
        return PreflightCheck(
            "PF020",
            "stop",
            f"{text}: a product differs from fp32 by {error:.1%}, which rounding cannot explain",
            next="update torch or the driver: losses would be wrong or NaN",
        )
    return PreflightCheck("PF020", "ok", f"{text}; products agree with fp32 within {error:.1%}")


def _four_bit(probe: ProbeResult) -> PreflightCheck:
    """Return the check that a 4-bit layer works, with errors that its rounding explains."""
    four_bit = probe.findings.get("four_bit")
    if four_bit is None:
        return PreflightCheck(
            "PF021",
            "stop",
            f"a 4-bit layer does not work here: {probe.ended}",
            next="use --method lora, or install a bitsandbytes that fits this machine",
        )
    error = four_bit["error"]
    if not error <= MAX_NF4_ERROR:  # so that NaN is refused too
        text = f"a 4-bit layer is off by {error:.0%}, forward or back"
        return PreflightCheck("PF021", "stop", text, next="use --method lora, or update bitsandbytes")
    return PreflightCheck(
        "PF021", "ok", f"bitsandbytes {four_bit['version']}, forward and back within {error:.0%}"
    )


def _step(probe: ProbeResult, config: TrainConfig, run_tokens: int, free: float | None) -> PreflightCheck:
    """Return the check of a step on the longest row, and of one on a whole micro-batch."""
    row, batch = probe.findings.get("row"), probe.findings.get("batch")
    todo = f"use {smaller_settings(config, row['tokens'] if row else config.micro_tokens)}"
    has = "" if free is None else f" of {free:.1f} GiB free"
    if row is None and probe.ended == "memory":
        text = f"not even the longest row fits: over {probe.peak_gib:.1f}{has} at {probe.last_activity}"
        return PreflightCheck("PF023", "stop", text, next=todo)
    if row is None:
        return PreflightCheck(
            "PF023", "stop", f"a step failed while {probe.last_activity}: {probe.ended}", next="see --debug"
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
    text = f"{batch['peak_gib']:.2f} GiB at its peak{has}"
    text += f"; {batch['tokens']:,} tokens took {batch['seconds']:.1f} s, so the run about {_duration(run_tokens / speed)}"
    if free is not None and batch["peak_gib"] > TIGHT_SHARE * free:
        return PreflightCheck("PF023", "warn", f"tight: {text}", next=todo)
    return PreflightCheck("PF023", "ok", f"fits: {text}")


def _duration(seconds: float) -> str:
    """Return a duration in seconds, minutes or hours, as text."""
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
