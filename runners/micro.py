"""Micro-batch size: halved when memory runs out, and recorded so that a resumed run has the same. Imports torch."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from rag.errors import CannotRun
from runners import schedule
from runners.chat import Encoded

HALVINGS = 6
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
    shared: Callable[[Sequence[Encoded]], int] = lambda _: 0
    """How many first tokens of some rows a forward pass computes only once."""

    def tokens_at(self, step: int) -> int:
        """Return the padded tokens of a forward pass after so many steps."""
        return min(tokens for since, tokens in self.sizes if since <= step)

    def total(
        self,
        rows: Sequence[Encoded],
        step: int,
        part: Callable[[list[Encoded]], float],
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
                    if not out_of_memory(error):
                        raise
                    failed, reason = chosen, _first_line(error)
                    break
            if failed is None:
                return total
            # Only here is the error gone, and with its traceback the tensors of the failed pass.
            free()
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
        if len(self.sizes) > HALVINGS:
            raise CannotRun(
                f"out of memory at step {step + 1} after {HALVINGS} smaller tries ({reason})",
                "close what else uses the memory and go on with --resume; or try qlora or a smaller model",
            )
        self.sizes.append((step, padded // 2))


def out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out; a CPU's is an ordinary RuntimeError."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error).lower() for text in _TEXTS)


@contextmanager
def memory_for(what: str, step: int) -> Iterator[None]:
    """Turn memory running out where smaller passes would not help into CannotRun."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise CannotRun(
            f"not enough memory for {what} at step {step + 1} ({_first_line(error)})",
            "another --optimizer (adamw_8bit, adafactor) keeps less; or try lora or qlora",
        ) from error


def free() -> None:
    """Give memory that nothing refers to any more back to the device."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
