"""Decisions of a run that depend on the machine, recorded with its checkpoints so that a resumed run repeats them.

:class:`RuntimeChoices` holds dtype, gradient checkpointing, path of the loss and micro-batch sizes.
:class:`MicroBatchSize` halves the forward passes when memory runs out. :func:`expected_gib` is the memory estimate for
a run's own settings, to be compared with what it took. Imports torch.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from rag.errors import BadInput, CannotRun
from rag.files import write_json
from runners.inference.weights import dtype_for, free_gib
from runners.models.fingerprint import read_json
from runners.models.resolve import Model
from runners.plan.train_config import KERNELS, TrainConfig
from runners.resources.device import DEVICE_TABLE, device_kind, device_name, free_device_cache
from runners.resources.model_shape import read_shape
from runners.tokenization.chat_template import EncodedRow
from runners.training import gradient_checkpointing, schedule
from runners.training.group.parallel_choice import ONE_PROCESS, ParallelChoice
from runners.training.loss import TrainingLoss

CHOICES_FILE = "choices.json"
MAX_HALVINGS = 6
"""Halvings of the micro-batch before giving up: below a 64th of what was meant to fit, something else is wrong."""
_OUT_OF_MEMORY_TEXTS = (
    "out of memory",
    "defaultcpuallocator",
    "can't allocate memory",
    "alloc_failed",
    "bad_alloc",
)
"""Parts of messages, in lower case, by which a RuntimeError is recognised as memory that ran out."""


@dataclass(slots=True)
class RuntimeChoices:
    """Everything that was decided by free memory, by a trial or by timing, and the machine it was decided on."""

    identity: str
    """Hash of everything the result depends on."""
    settings: dict[str, Any]
    """The settings of the run, as JSON."""
    dtype: str
    """Dtype the base computes in: float32, bfloat16 or float16."""
    checkpointing: gradient_checkpointing.CheckpointingChoice
    path: str = ""
    """Path of the loss (:mod:`runners.training.loss`); "" until it was chosen."""
    reason: str = ""
    """Why not a faster path, "" for the fastest."""
    sizes: list[tuple[int, int]] = field(default_factory=list)
    """Padded tokens of one forward pass, by the step they hold from (:class:`MicroBatchSize`)."""
    parallel: str = "single"
    """How processes share the run: single, ddp or fsdp."""
    parallel_reason: str = ""
    """Why, "" in one process."""
    load: str = "device"
    """How the base is loaded: device, host (in the host's memory, before it is sharded) or shards."""
    replicas: int = 1
    """Number of nodes that hold all shards each."""
    machine: dict[str, Any] = field(default_factory=lambda: numeric_environment())

    def write(self, work: Path) -> None:
        """Write the choices into the work folder: before the first step, and again when one changes."""
        write_json(work / CHOICES_FILE, asdict(self))

    @property
    def processes(self) -> int:
        """The number of processes that trained last."""
        return int(self.machine.get("processes", 1))

    def environment_changes(self, processes: int = 1) -> list[str]:
        """Return what differs on this machine: a resumed run may differ in the last digits there.

        ``processes`` is the number of processes that train now.
        """
        now = {"processes": 1, **numeric_environment(processes)}
        before = {"processes": 1, **self.machine}  # not recorded for one process
        return [f"{key} was {was}, is {now.get(key)}" for key, was in before.items() if now.get(key) != was]

    def to_json(self) -> dict[str, Any]:
        """Return the choices as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> RuntimeChoices:
        """Return the choices that :meth:`to_json` described."""
        checkpointing = gradient_checkpointing.CheckpointingChoice(**values["checkpointing"])
        sizes = [(step, tokens) for step, tokens in values["sizes"]]
        return cls(**{**values, "checkpointing": checkpointing, "sizes": sizes})


def numeric_environment(processes: int = 1) -> dict[str, Any]:
    """Return what the last digits of a sum depend on: device, threads, torch's version, and processes if several."""
    one = {"device": device_name(), "threads": torch.get_num_threads(), "torch": torch.__version__}
    return one | ({"processes": processes} if processes > 1 else {})


def choose_runtime(
    base: Model,
    config: TrainConfig,
    rows: list[EncodedRow],
    identity: str,
    free: float | None = None,
    parallel: ParallelChoice = ONE_PROCESS,
) -> RuntimeChoices:
    """Return the choices for a new run, but for the path of the loss, which needs the model in memory.

    Args:
        base: The base model.
        config: Settings of the run.
        rows: The training rows.
        identity: Hash of everything the result depends on.
        free: GiB of memory that each process may use; None measures it here.
        parallel: How several processes share the run.
    """
    dtype = dtype_for()[0]
    own_memory = DEVICE_TABLE[device_kind()].own_memory
    longest = max(len(row.ids) for row in rows)
    free = free_gib() if free is None else free
    memory = gradient_checkpointing.choose_checkpointing(
        base.folder, config, longest, free, dtype.itemsize == 2, own_memory, parallel.shards
    )
    return RuntimeChoices(
        identity,
        config.to_json(),
        str(dtype).removeprefix("torch."),
        memory,
        sizes=[(0, config.micro_tokens)],
        parallel=parallel.kind,
        parallel_reason=parallel.reason,
        load=parallel.load,
        replicas=parallel.replicas,
        machine=numeric_environment(parallel.processes),
    )


def recorded_choices(work: Path) -> RuntimeChoices | None:
    """Return the choices recorded in a work folder, None when there are none that can be read."""
    try:
        return RuntimeChoices.from_json(json.loads((work / CHOICES_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def changed_settings(settings: Mapping[str, Any], config: TrainConfig) -> str:
    """Return why a run cannot be resumed: which of its ``settings`` differ from ``config``."""
    now = json.loads(json.dumps(config.to_json()))
    settings = {"kernels": KERNELS[0], **settings}  # runs of versions without this setting
    names = [f"{k} was {v}, is {now[k]}" for k, v in settings.items() if k in now and now[k] != v]
    return "; ".join(names) or "the base or the rows are others than before"


def expected_gib(
    folder: Path, config: TrainConfig, loss: TrainingLoss, rows: Sequence[EncodedRow], checkpointing: bool
) -> float | None:
    """Return the estimated GiB that training takes, for the forward pass of ``rows`` as the run computes it.

    Dtype, checkpointing, padding, shared prefixes and the path of the loss are the run's own. None where the model's
    config does not describe its shape.

    Args:
        folder: Folder of the base model.
        config: Settings of the run.
        loss: The loss of the run.
        rows: The rows of the largest forward pass.
        checkpointing: Whether activations are recomputed in the backward pass.
    """
    try:
        shape = read_shape(read_json(folder / "config.json"))
    except BadInput:
        return None
    longest, tokens = max(len(row.ids) for row in rows), int(loss.collate(rows).ids.numel())
    half = loss.causal.dtype.itemsize == 2
    cuda = DEVICE_TABLE[device_kind()].own_memory
    learnt = sum(len(row.learnt) for row in rows)
    return round(
        gradient_checkpointing.likely_training_gib(
            shape,
            config,
            longest,
            tokens,
            half,
            checkpointing,
            loss.fuses_blocks,
            cuda,
            learnt,
            loss.path == "fast",
            loss.path in ("plain", "alone"),
        ),
        3,
    )


@dataclass
class MicroBatchSize:
    """The most padded tokens of one forward pass, by the step from which they hold.

    A step that runs out of memory is repeated from its start in smaller forward passes. It keeps its rows, and the loss
    is a sum over target tokens, so neither the effective batch nor the result changes but for rounding and the dropout
    masks.
    """

    sizes: list[tuple[int, int]]
    """(steps done, padded tokens): each holds from then on; the first one's step is 0."""
    shared: Callable[[Sequence[EncodedRow]], int] = lambda _: 0
    """Returns how many first tokens of some rows a forward pass computes only once."""

    @property
    def can_halve(self) -> bool:
        """Whether the size may be halved once more."""
        return len(self.sizes) <= MAX_HALVINGS

    def tokens_at(self, step: int) -> int:
        """Return the padded tokens of a forward pass when ``step`` steps are done."""
        return min(tokens for since, tokens in self.sizes if since <= step)

    def total(
        self,
        rows: Sequence[EncodedRow],
        step: int,
        part: Callable[[list[EncodedRow]], float],
        on_halved: Callable[[str], None],
    ) -> float:
        """Return the sum of ``part`` over the micro-batches of ``rows``.

        When memory runs out, the size is halved, ``on_halved`` is called, and the sum starts over.

        Args:
            rows: The rows to split.
            step: Number of steps done.
            part: Computes one micro-batch and returns its share of the sum.
            on_halved: Called with the reason; has to undo what the parts have done.

        Raises CannotRun when a single row does not fit, and at the seventh halving.
        """
        prefix = self.shared(rows)
        # A shared prefix is held once for a whole pass, so rows and limit are counted without it.
        lengths = [len(row.ids) - prefix for row in rows]
        while True:
            total, failed, reason = 0.0, None, ""
            for chosen in schedule.micro_batches(range(len(rows)), lengths, self.tokens_at(step) - prefix):
                try:
                    total += part([rows[i] for i in chosen])
                except (RuntimeError, MemoryError) as error:
                    if not is_out_of_memory(error):
                        raise
                    failed, reason = chosen, first_error_line(error)
                    break
            if failed is None:
                return total
            # Outside the except block, because the error's traceback refers to the tensors of the failed pass.
            free_device_memory()
            self._halve(prefix + len(failed) * max(lengths[i] for i in failed), len(failed), step, reason)
            on_halved(f"{reason}; {self.tokens_at(step)} tokens at a time from step {step + 1} on")

    def notes(self) -> list[str]:
        """Return a note for each halving, with its step."""
        return [
            f"out of memory at step {step + 1}: {tokens} tokens at a time from here on, with the same rows in each step"
            for step, tokens in self.sizes[1:]
        ]

    def _halve(self, padded: int, rows: int, step: int, reason: str) -> None:
        """Record half of the ``padded`` tokens of the pass that failed, which may be fewer than were allowed."""
        if rows == 1:
            raise CannotRun(
                f"not enough memory for one row of {padded} tokens at step {step + 1} ({reason})",
                f"skip long rows with a lower --max-tokens, such as {padded // 2}; or try qlora, "
                "--checkpointing on or a smaller model",
            )
        if not self.can_halve:
            raise CannotRun(
                f"out of memory at step {step + 1} after {MAX_HALVINGS} smaller tries ({reason})",
                "close other programs that use the memory and continue with --resume; or try qlora or a smaller model",
            )
        self.sizes.append((step, padded // 2))


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that memory ran out; on a CPU torch raises an ordinary RuntimeError."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(
        text in str(error).lower() for text in _OUT_OF_MEMORY_TEXTS
    )


@contextmanager
def out_of_memory_as_problem(subject: str, step: int) -> Iterator[None]:
    """Raise CannotRun for memory that runs out in the block, where smaller forward passes would not help.

    ``subject`` names what did not fit, ``step`` is the number of steps done.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise CannotRun(
            f"not enough memory for {subject} at step {step + 1} ({first_error_line(error)})",
            "another --optimizer (adamw_8bit, adafactor) needs less memory; or try lora or qlora",
        ) from error


def free_device_memory() -> None:
    """Return memory that nothing refers to any more to the device."""
    gc.collect()
    free_device_cache()


def first_error_line(error: BaseException) -> str:
    """Return the first line of an error's message, at most 200 characters of it, or its type."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
