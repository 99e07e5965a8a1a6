"""The share of each process in one optimiser step of a group, and what is left behind when one of them fails.

A step's rows are sorted by length and cut into contiguous runs of about equal tokens, one for each process: rows of like
length share a pass, and on the fast path a shared prefix. Sharded weights are gathered by all processes together, so
all take the same number of passes; one that has fewer repeats its first rows at weight zero.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rag.errors import CannotRun
from rag.files import write_json
from runners.distributed.environment import RestartGroup, was_restarted
from runners.distributed.process_group import ProcessGroup
from runners.tokenization.chat_template import EncodedRow
from runners.training import schedule
from runners.training.runtime import MicroBatchSize, RuntimeChoices, first_error_line, is_out_of_memory

FAILURE_FILES = "memory-rank*.json"
"""Files of a work folder in which processes that ran out of memory left how much they had tried."""


@dataclass(frozen=True, slots=True)
class WeightedPass:
    """The rows of one forward and backward pass."""

    rows: list[EncodedRow]
    weight: float = 1.0
    """Factor on their loss: 0 in a pass that only keeps step with the other processes."""


def process_seed(seed: int, rank: int) -> int:
    """Return the seed of a process's dropout: the run's own in rank 0, one that differs for each rank in the others."""
    if rank == 0:
        return seed
    return int.from_bytes(hashlib.sha256(f"{seed}/{rank}".encode()).digest()[:7])


def split_rows(lengths: Sequence[int], processes: int) -> list[list[int]]:
    """Return the rows of each process as indexes, shortest first: contiguous runs of about equal tokens.

    With fewer rows than processes some runs are empty.

    Args:
        lengths: Number of tokens of each row.
        processes: Number of runs.
    """
    runs: list[list[int]] = [[] for _ in range(processes)]
    share = sum(lengths) / processes
    placed = 0.0
    for row in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
        # A row belongs to the run in whose share of all tokens its middle is.
        runs[min(processes - 1, int((placed + lengths[row] / 2) / share))].append(row)
        placed += lengths[row]
    return runs


def plan_passes(
    rows: Sequence[EncodedRow],
    shared: Callable[[Sequence[EncodedRow]], int],
    most: int,
    processes: int,
) -> list[list[WeightedPass]]:
    """Return the passes of every process for one step: equally many, those without rows at weight zero.

    Args:
        rows: The rows of the step.
        shared: Returns how many first tokens of some rows a pass computes only once.
        most: Padded tokens of one pass.
        processes: Number of processes.
    """
    planned = []
    for run in split_rows([len(row.ids) for row in rows], processes):
        own = [rows[i] for i in run]
        prefix = shared(own) if own else 0
        lengths = [len(row.ids) - prefix for row in own]
        batches = schedule.micro_batches(range(len(own)), lengths, most - prefix)
        planned.append([WeightedPass([own[i] for i in batch]) for batch in batches])
    count = max(map(len, planned))
    shortest = min(rows, key=lambda row: len(row.ids))
    filler = WeightedPass([shortest], 0.0)
    return [[*passes, *[filler] * (count - len(passes))] for passes in planned]


@contextmanager
def failure_recorded(
    group: ProcessGroup,
    work: Path,
    step: int,
    micro: MicroBatchSize | None = None,
    rows: Sequence[EncodedRow] = (),
) -> Iterator[None]:
    """Record memory that runs out in the block, in a group, and raise RestartGroup; nothing in one process.

    Args:
        group: The processes that train together.
        work: Folder of the checkpoints.
        step: Number of steps done.
        micro: The micro-batch sizes where smaller passes may help; None where they would not.
        rows: The rows of the pass.
    """
    if group.size == 1:
        yield
        return
    try:
        yield
    except (RuntimeError, MemoryError, CannotRun) as error:
        if isinstance(error, RestartGroup) or not (isinstance(error, CannotRun) or is_out_of_memory(error)):
            raise
        record = _record_of(group, step, micro, rows, error)
        write_json(work / FAILURE_FILES.replace("*", f"{group.rank:05d}"), record)
        raise RestartGroup(record["message"], record["hint"]) from error


def apply_failures(work: Path, choices: RuntimeChoices) -> list[str]:
    """Add the smaller micro-batch sizes that processes of an earlier start left behind; return what is done, in words.

    The files are removed and the choices written. Raises CannotRun when the launcher has started the group again and
    no smaller pass would help.
    """
    files = sorted(work.glob(FAILURE_FILES))
    records = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    for file in files:
        file.unlink()
    final = next((record for record in records if not record["tokens"]), None)
    if final is not None and was_restarted():
        raise CannotRun(final["message"], final["hint"])
    smaller = [(record["step"], record["tokens"]) for record in records if record["tokens"]]
    if not smaller:
        return []
    step, tokens = min(smaller)[0], min(tokens for _, tokens in smaller)
    choices.sizes.append((step, tokens))
    choices.write(work)
    return [f"out of memory at step {step + 1}: {tokens} tokens at a time from then on in each process"]


def _record_of(
    group: ProcessGroup,
    step: int,
    micro: MicroBatchSize | None,
    rows: Sequence[EncodedRow],
    error: BaseException,
) -> dict[str, Any]:
    """Return what is left behind of memory that ran out: step, tokens of the next try (0: none would help), and why."""
    where = f"process {group.rank} of {group.size}"
    if isinstance(error, CannotRun):
        return {"step": step, "tokens": 0, "message": f"{where}: {error.message}", "hint": error.hint}
    reason = first_error_line(error)
    padded = len(rows) * max((len(row.ids) for row in rows), default=0)
    if micro is not None and len(rows) > 1 and micro.can_halve:
        text = f"{where} ran out of memory at step {step + 1} ({reason})"
        hint = f"start it again with --resume: then {padded // 2} tokens at a time"
        return {"step": step, "tokens": padded // 2, "message": text, "hint": hint}
    text = (
        f"{where}: not enough memory for {len(rows)} row(s) of {padded} tokens at step {step + 1} ({reason})"
    )
    hint = "a shorter --max-tokens, parallel: fsdp, more processes, qlora or --checkpointing on"
    return {"step": step, "tokens": 0, "message": text, "hint": hint}
