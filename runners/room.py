"""Whether a run finds room here: memory as estimated before, and the tokens that the model reads. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from rag.errors import BadInput
from runners import recompute, schedule
from runners.accelerator import Probe
from runners.chat import Encoded
from runners.complaints import Check, places, rows_of
from runners.fingerprint import read_json
from runners.machine import Machine, detect, free_ram
from runners.memory import HISTORY, fits
from runners.models import Model
from runners.shape import read_shape
from runners.tuning import TrainConfig

PROCESS_GIB = 0.6
"""What Python with torch, transformers and peft takes before any model is loaded; measured on Linux."""


@dataclass(frozen=True, slots=True)
class Room:
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


def memory(base: Model, config: TrainConfig, longest: int, machine: Machine | None = None) -> Room | None:
    """Estimate one micro-batch of the longest rows; None when the model's shape is not in its config.

    The range is that of :func:`runners.memory.estimate` for this loop's own fp32 masters, adapters and loss.
    """
    machine = machine or detect()
    try:
        shape = read_shape(read_json(base.folder / "config.json"))
    except BadInput:
        return None
    cuda = machine.gpu_kind.value == "cuda"
    if cuda:
        free, how = machine.gpu_memory_gib.value, f"memory of {machine.gpu_name.value or 'the GPU'}"
    else:
        found = free_ram(Probe())
        free, how = found.value, found.how
    half = bool(machine.bf16.value)
    extra = 0.0 if cuda else PROCESS_GIB
    on = recompute.decide(base.folder, config, longest, None if free is None else free - extra, half).on
    high = recompute.need(shape, config, longest, half, on)
    history = HISTORY[config.method]  # type: ignore[index]
    likely = high / history.high
    return Room(likely * history.low + extra, likely + extra, high + extra, free, how, on, not cuda)


def memory_check(room: Room | None, longest: int, config: TrainConfig) -> Check:
    """Return the check of estimated memory: fits, tight, or does not."""
    if room is None:
        return Check("PF022", "ok", "not estimated: the model's config does not tell its shape")
    need = f"about {room.likely:.1f} GiB ({room.low:.1f} to {room.high:.1f})"
    at = f"for {config.micro_tokens:,} tokens at once{', activations computed again' if room.checkpointing else ''}"
    if room.free is None:
        return Check("PF022", "ok", f"{need} {at}; what is free is unknown")
    has = f"{room.free:.1f} GiB free"
    if room.verdict == "yes":
        return Check("PF022", "ok", f"fits: {need} {at}, {has}")
    todo = f"use {smaller(config, longest)}"
    if room.verdict == "tight":
        return Check("PF022", "warn", f"tight: {need} {at}, {has}", next=todo)
    return Check("PF022", "stop", f"does not fit: {need} {at}, {has} ({room.how})", next=todo)


def smaller(config: TrainConfig, longest: int) -> str:
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


def context_check(base: Model, rows: Sequence[Encoded]) -> Check:
    """Return the check of the rows against the tokens that the model reads: beyond, its positions are untrained."""
    context = read_json(base.folder / "config.json").get("max_position_embeddings")
    if not isinstance(context, int):
        return Check("PF019", "ok", "the model's config does not say how many tokens it reads")
    over = [row for row in rows if len(row.ids) > context]
    if not over:
        return Check("PF019", "ok", f"every row is within the {context:,} tokens that the model reads")
    spoilt = places(f"{row.file}:{row.line}" if row.file else row.line for row in over)
    text = f"{rows_of(len(over))} are longer than the {context:,} tokens that the model reads"
    return Check("PF019", "stop", text, spoilt, f"set --max-tokens {context}, or split them")


def largest_batch(rows: Sequence[Encoded], most: int) -> list[Encoded]:
    """Return the longest rows, as many as one forward pass of at most ``most`` padded tokens takes."""
    ordered = sorted(rows, key=lambda row: -len(row.ids))
    return ordered[: max(1, most // len(ordered[0].ids))]


def largest_pass(rows: Sequence[Encoded], config: TrainConfig) -> list[Encoded]:
    """Return the rows of the forward pass with the most padded tokens that a run on ``rows`` takes, the longest first."""
    lengths = [len(row.ids) for row in rows]
    steps = chain.from_iterable(schedule.plan(lengths, config.batch_tokens, config.epochs, config.seed))
    passes = chain.from_iterable(schedule.micro_batches(step, lengths, config.micro_tokens) for step in steps)
    chosen = max(passes, key=lambda one: (len(one) * max(lengths[i] for i in one), one))
    return sorted((rows[i] for i in chosen), key=lambda row: -len(row.ids))
