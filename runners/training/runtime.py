"""What a run decided by looking at this machine, kept beside its checkpoints: a resumed run does the same. Heavy.

What the estimate says of a run's own settings, to be held against what it took. Heavy.

Micro-batch size: halved when memory runs out, and recorded so that a resumed run has the same. Imports torch.
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
from runners.inference.weights import default_device, dtype_for, free_gib
from runners.models.fingerprint import read_json
from runners.models.resolve import Model
from runners.plan.train_config import KERNELS, TrainConfig
from runners.resources.model_shape import read_shape
from runners.tokenization.chat_template import EncodedRow
from runners.training import gradient_checkpointing, schedule
from runners.training.loss import TrainingLoss

CHOICES_FILE = "choices.json"


@dataclass(slots=True)
class RuntimeChoices:
    """Everything that free memory, probing or timing decided, and the machine it was decided on."""

    identity: str
    settings: dict[str, Any]
    dtype: str
    """What the base computes in: float32 or bfloat16."""
    checkpointing: gradient_checkpointing.CheckpointingChoice
    path: str = ""
    """How the loss is computed (:mod:`runners.training.loss`); "" until it was probed."""
    reason: str = ""
    sizes: list[tuple[int, int]] = field(default_factory=list)
    """Padded tokens of one forward pass, by the step they hold from (:class:`runners.training.runtime.MicroBatchSize`)."""
    machine: dict[str, Any] = field(default_factory=lambda: numeric_environment())

    def write(self, work: Path) -> None:
        """Put them beside the checkpoints; before the first step, and again when one changes."""
        write_json(work / CHOICES_FILE, asdict(self))

    def moved(self) -> list[str]:
        """Say what is another machine now: there a resumed run may differ in the last digits."""
        now = numeric_environment()
        return [
            f"{key} was {was}, is {now.get(key)}" for key, was in self.machine.items() if now.get(key) != was
        ]


def numeric_environment() -> dict[str, Any]:
    """Return what the last digits of a sum depend on here."""
    kind = default_device()
    name = torch.cuda.get_device_name(kind) if kind.type == "cuda" else "cpu"
    return {"device": name, "threads": torch.get_num_threads(), "torch": torch.__version__}


def choose_runtime(base: Model, config: TrainConfig, rows: list[EncodedRow], identity: str) -> RuntimeChoices:
    """Choose for a new run; how the loss is computed can only be probed with the model in memory."""
    dtype = dtype_for()[0]
    longest = max(len(row.ids) for row in rows)
    memory = gradient_checkpointing.choose_checkpointing(
        base.folder, config, longest, free_gib(), dtype == torch.bfloat16
    )
    return RuntimeChoices(
        identity,
        config.to_json(),
        str(dtype).removeprefix("torch."),
        memory,
        sizes=[(0, config.micro_tokens)],
    )


def recorded_choices(work: Path) -> RuntimeChoices | None:
    """Return the choices of the run whose work folder it is, None when there are none that can be read."""
    try:
        found = json.loads((work / CHOICES_FILE).read_text(encoding="utf-8"))
        found["checkpointing"] = gradient_checkpointing.CheckpointingChoice(**found["checkpointing"])
        found["sizes"] = [(step, tokens) for step, tokens in found["sizes"]]
        return RuntimeChoices(**found)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def changed_settings(settings: Mapping[str, Any], config: TrainConfig) -> str:
    """Say why a run cannot be gone on with: which settings differ from those it began with."""
    now = json.loads(json.dumps(config.to_json()))
    settings = {"kernels": KERNELS[0], **settings}  # runs from before there was a choice
    names = [f"{k} was {v}, is {now[k]}" for k, v in settings.items() if k in now and now[k] != v]
    return "; ".join(names) or "the base or the rows are others than before"


def expected_gib(
    folder: Path, config: TrainConfig, loss: TrainingLoss, rows: Sequence[EncodedRow], checkpointing: bool
) -> float | None:
    """Return the GiB of tensors that training takes, estimated for the forward pass of ``rows`` as it is really made.

    Dtype, checkpointing, padding, shared beginnings and the way of the loss are the run's; None where the model's
    config does not tell its shape.
    """
    try:
        shape = read_shape(read_json(folder / "config.json"))
    except BadInput:
        return None
    longest, tokens = max(len(row.ids) for row in rows), int(loss.collate(rows).ids.numel())
    half = loss.causal.dtype.itemsize == 2
    return round(
        gradient_checkpointing.likely_training_gib(
            shape, config, longest, tokens, half, checkpointing, loss.fuses_blocks
        ),
        3,
    )


MAX_HALVINGS = 6
"""A sixty-fourth of what was meant to fit: below that something else is wrong."""
_TEXTS = ("out of memory", "defaultcpuallocator", "can't allocate memory", "alloc_failed", "bad_alloc")


@dataclass
class MicroBatchSize:
    """The padded tokens of one forward pass, by the step from which they hold.

    A step that fails for memory is taken again from its start in smaller passes: it keeps its rows, and the
    loss is a sum over learnt tokens, so neither the effective batch nor the result changes but for rounding
    and where dropout falls.
    """

    sizes: list[tuple[int, int]]
    """(steps done, padded tokens): each holds from then on; the first one's step is 0."""
    shared: Callable[[Sequence[EncodedRow]], int] = lambda _: 0
    """How many first tokens of some rows a forward pass computes only once."""

    def tokens_at(self, step: int) -> int:
        """Return the padded tokens of a forward pass after so many steps."""
        return min(tokens for since, tokens in self.sizes if since <= step)

    def total(
        self,
        rows: Sequence[EncodedRow],
        step: int,
        part: Callable[[list[EncodedRow]], float],
        again: Callable[[str], None],
    ) -> float:
        """Return the sum of ``part`` over the micro-batches of ``rows``.

        When memory runs out the size is halved, ``again`` is called with the reason and has to undo what the parts
        have done, and the sum begins anew. Raises CannotRun at one row, and at the seventh time.
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
                    failed, reason = chosen, _first_line(error)
                    break
            if failed is None:
                return total
            # Only here is the error gone, and with its traceback the tensors of the failed pass.
            free_device_memory()
            self._halve(prefix + len(failed) * max(lengths[i] for i in failed), len(failed), step, reason)
            again(f"{reason}; {self.tokens_at(step)} tokens at a time from step {step + 1} on")

    def notes(self) -> list[str]:
        """Say what was halved and when."""
        return [
            f"out of memory at step {step + 1}: {tokens} tokens at a time from then on, the step kept its rows"
            for step, tokens in self.sizes[1:]
        ]

    def _halve(self, padded: int, rows: int, step: int, reason: str) -> None:
        """Record half of the ``padded`` tokens of the pass that failed, which may be less than was allowed."""
        if rows == 1:
            raise CannotRun(
                f"not enough memory for one row of {padded} tokens at step {step + 1} ({reason})",
                f"leave long rows out with a shorter --max-tokens, such as {padded // 2}; or try qlora, "
                "--checkpointing on or a smaller model",
            )
        if len(self.sizes) > MAX_HALVINGS:
            raise CannotRun(
                f"out of memory at step {step + 1} after {MAX_HALVINGS} smaller tries ({reason})",
                "close what else uses the memory and go on with --resume; or try qlora or a smaller model",
            )
        self.sizes.append((step, padded // 2))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out; a CPU's is an ordinary RuntimeError."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error).lower() for text in _TEXTS)


@contextmanager
def out_of_memory_as_problem(what: str, step: int) -> Iterator[None]:
    """Turn memory running out where smaller passes would not help into CannotRun."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise CannotRun(
            f"not enough memory for {what} at step {step + 1} ({_first_line(error)})",
            "another --optimizer (adamw_8bit, adafactor) keeps less; or try lora or qlora",
        ) from error


def free_device_memory() -> None:
    """Give memory that nothing refers to any more back to the device."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
