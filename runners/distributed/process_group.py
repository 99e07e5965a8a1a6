"""The group of processes that carry out one training together.

:class:`ProcessGroup` is what the training loop asks: sums, maxima and broadcasts over the processes, which cost nothing in
one process. Rank 0 alone decides and writes; the others follow. :func:`lead` and :func:`next_training` bring them
together for each training: the followers wait in the launcher's key-value store, where a wait has no time limit and
signals are obeyed, not in a collective operation. Values travel as JSON over gloo; gradients over the device's own
backend. Imports torch.
"""

from __future__ import annotations

import json
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.checkpoint import CheckpointException
from torch.distributed.rendezvous import rendezvous

from rag.errors import BadInput, CannotRun, Problem, UsageProblem
from runners.distributed import environment
from runners.distributed.environment import GroupBroken, RestartGroup
from runners.resources.device import DEVICE_TABLE, device_kind

T = TypeVar("T")
BACKENDS = {"cpu": "gloo", "cuda": "cpu:gloo,cuda:nccl", "xpu": "cpu:gloo,xpu:xccl"}
"""torch.distributed's backends by torch's name of the device: control values always travel over gloo."""
END_KEY = "end"
"""Key of the store that tells followers that no training comes any more."""
POLL_SECONDS = 0.2
"""How often a follower looks whether a training begins; it sleeps in between."""
_LOST_TEXTS = (
    "gloo",
    "nccl",
    "connection closed by peer",
    "connection reset",
    "connection refused",
    "broken pipe",
    "timed out",
    "socket",
)
"""Parts of messages, in lower case, by which the failure of a collective operation is recognised."""
_SOURCE_PLACE = re.compile(r"^\[[^\]]*\.cc:\d+\] ")
_PROBLEMS: dict[str, type[Problem]] = {kind.__name__: kind for kind in (BadInput, CannotRun, UsageProblem)}


class ProcessGroup:
    """The processes of one training; without arguments, this process alone."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        """Take this process's rank and the number of processes, whose default group torch.distributed has."""
        self.rank = rank
        self.size = size

    @property
    def is_first(self) -> bool:
        """Whether this process decides, writes and reports."""
        return self.rank == 0

    def sum(self, value: float) -> float:
        """Return the sum of a number over all processes, in float64, the same in each."""
        return self._reduce(value, dist.ReduceOp.SUM)

    def most(self, value: float) -> float:
        """Return the largest of a number over all processes."""
        return self._reduce(value, dist.ReduceOp.MAX)

    def least(self, value: float) -> float:
        """Return the smallest of a number over all processes."""
        return -self.most(-value)

    def any(self, flag: bool) -> bool:
        """Return whether the flag is set in at least one process."""
        return self.most(float(flag)) > 0

    def broadcast(self, value: T | None) -> T:
        """Return rank 0's value in every process; it has to be JSON (tuples arrive as lists)."""
        if self.size == 1:
            return value  # type: ignore[return-value]
        data = json.dumps(value).encode() if self.is_first else b""
        with lost_group_as_problem():
            length = torch.tensor([len(data)])
            dist.broadcast(length, 0)
            buffer = torch.empty(int(length), dtype=torch.uint8)
            if self.is_first:
                buffer.copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))
            dist.broadcast(buffer, 0)
        return value if self.is_first else json.loads(buffer.numpy().tobytes())  # type: ignore[return-value]

    def gather(self, tensors: dict[str, torch.Tensor]) -> list[dict[str, torch.Tensor]]:
        """Return the named CPU tensors of every process, by rank; names, shapes and dtypes may differ between them."""
        if self.size == 1:
            return [tensors]
        from safetensors.torch import load, save

        data = torch.frombuffer(bytearray(save(tensors)), dtype=torch.uint8)
        with lost_group_as_problem():
            longest = int(self.most(len(data)))
            lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
            dist.all_gather(lengths, torch.tensor([len(data)]))
            # all_gather takes tensors of one size.
            buffers = [torch.zeros(longest, dtype=torch.uint8) for _ in range(self.size)]
            dist.all_gather(buffers, torch.cat([data, data.new_zeros(longest - len(data))]))
        return [
            load(buffer[: int(length)].numpy().tobytes())
            for buffer, length in zip(buffers, lengths, strict=True)
        ]

    def barrier(self) -> None:
        """Wait until every process is here."""
        self.sum(0.0)

    def first(self, action: Callable[[], T]) -> T:
        """Carry out an action in rank 0 alone; every process returns its result, or raises its Problem.

        The result has to be JSON. Without this, a full disk would stop rank 0 and leave the others waiting.
        """
        if self.size == 1:
            return action()
        outcome: dict[str, Any] = {}
        failure: Problem | None = None
        if self.is_first:
            try:
                outcome = {"result": action()}
            except Problem as problem:
                failure, outcome = problem, problem_to_json(problem)
        outcome = self.broadcast(outcome)
        if failure is not None:
            raise failure
        if "problem" in outcome:
            raise problem_from_json(outcome)
        result: T = outcome["result"]
        return result

    def _reduce(self, value: float, operation: Any) -> float:
        if self.size == 1:
            return value
        tensor = torch.tensor([value], dtype=torch.float64)
        with lost_group_as_problem():
            dist.all_reduce(tensor, operation)
        return float(tensor)


class TrainingLead:
    """Rank 0's side of the beginning of one training."""

    def __init__(self) -> None:
        """Start with no group joined."""
        self.joined = False
        self.skipped: dict[str, Any] = {}
        """What the followers are told where there is nothing to train, as JSON values."""

    def join(self) -> ProcessGroup:
        """Tell the followers that a training begins and return the group; in one process, this process alone."""
        self.joined = True
        if environment.world_size() == 1:
            return ProcessGroup()
        _store().set(_next_key(), json.dumps({"join": True}))
        return _joined_group()


@contextmanager
def lead() -> Iterator[TrainingLead]:
    """Surround one training in rank 0; on leaving, followers are told when there was nothing to join, and why.

    In one process nothing is done.
    """
    leader = TrainingLead()
    # None after an interruption: rank 0 ends, and its launcher ends the others, which may not have started yet.
    outcome: dict[str, Any] | None = None
    try:
        with _group_left():
            yield leader
        outcome = {"skipped": leader.skipped}
    except Problem as problem:
        outcome = problem_to_json(problem)
        raise
    except Exception as fault:
        outcome = problem_to_json(CannotRun(f"the first process failed: {fault}"))
        raise
    finally:
        if environment.world_size() > 1:
            if outcome is not None and not leader.joined:
                _tell_followers(_next_key(), json.dumps(outcome))
            _NEXT_TRAINING.value += 1


@contextmanager
def next_training() -> Iterator[ProcessGroup | dict[str, Any]]:
    """Wait in a follower for rank 0's next training and give its group, or what rank 0 tells where there is none.

    Raises the Problem for which rank 0 refused the training, and GroupEnded when no training comes any more.
    """
    outcome = _wait_for_training()
    _refuse_ended(outcome)
    if "problem" in outcome:
        _NEXT_TRAINING.value += 1
        raise problem_from_json(outcome)
    if "join" not in outcome:
        _NEXT_TRAINING.value += 1
        yield outcome["skipped"]
        return
    try:
        with _group_left():
            yield _joined_group()
    finally:
        _NEXT_TRAINING.value += 1


class GroupEnded(Exception):
    """Rank 0 has ended: no training comes any more."""


def end_group() -> None:
    """Tell the followers, from rank 0, that no training comes any more; nothing in one process."""
    if environment.world_size() > 1 and not environment.is_follower():
        _tell_followers(END_KEY, "1")


def leave_group() -> None:
    """Leave the group of a training that ended in the same way in every process.

    The group stays referenced: if DDP's reducer held the last reference, its end would wait for gloo's thread while it
    holds Python's lock, for which that thread waits (torch 2.13).
    """
    if dist.is_initialized():
        _LEFT_GROUPS.append(dist.group.WORLD)
        dist.destroy_process_group()


def problem_to_json(problem: Problem) -> dict[str, Any]:
    """Return a Problem as JSON values for the other processes."""
    kind = next((name for name, cls in _PROBLEMS.items() if isinstance(problem, cls)), "CannotRun")
    return {"problem": kind, "message": problem.message, "hint": problem.hint}


def problem_from_json(values: dict[str, Any]) -> Problem:
    """Return the Problem that :func:`problem_to_json` described."""
    return _PROBLEMS[values["problem"]](values["message"], values["hint"])


def is_lost_group(error: BaseException) -> bool:
    """Return whether an error means that another process of the group has ended or does not answer."""
    if isinstance(error, dist.DistError):
        return True
    if isinstance(error, CheckpointException):
        return any(is_lost_group(failure) for failure, _ in error.failures.values())
    text = str(error).lower()
    known = any(part in text for part in _LOST_TEXTS)
    return isinstance(error, RuntimeError) and (known or _raised_in_collective(error))


def _raised_in_collective(error: BaseException) -> bool:
    """Return whether an error was raised by a collective operation of torch.distributed."""
    traceback, last = error.__traceback__, ""
    while traceback is not None:
        last, traceback = traceback.tb_frame.f_code.co_filename, traceback.tb_next
    return Path(last).name in ("distributed_c10d.py", "c10d_logger.py")


@contextmanager
def lost_group_as_problem() -> Iterator[None]:
    """Raise GroupBroken where a collective operation fails because another process is gone."""
    try:
        yield
    except (RuntimeError, CheckpointException) as error:
        if not is_lost_group(error):
            raise
        detail = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        # Without the place in torch's source, and without the advice that follows what happened.
        detail = _SOURCE_PLACE.sub("", detail).partition(". ")[0]
        raise GroupBroken(
            f"another process of the group has ended or does not answer ({detail})",
            "continue from the last checkpoint with --resume",
        ) from error


@contextmanager
def _group_left() -> Iterator[None]:
    """Leave the group after the block, also when all processes refuse alike; not after another failure.

    When a process is lost, leaving may wait for it.
    """
    try:
        with lost_group_as_problem():
            yield
    except RestartGroup:
        raise
    except Problem:
        leave_group()
        raise
    leave_group()


_LEFT_GROUPS: list[Any] = []
"""The groups of earlier trainings; see :func:`leave_group`."""


@dataclass
class _TrainingNumber:
    """Number of the next training of this process, from 0; the same in every process of the group."""

    value: int = 0


_NEXT_TRAINING = _TrainingNumber()


def _next_key() -> str:
    """Return the name of the next training in the launcher's store."""
    return f"training/{_NEXT_TRAINING.value}"


def _connection() -> Any:
    """Return a new connection to the launcher's key-value store; under torchrun it is that of the agent."""
    seconds = timedelta(seconds=environment.group_timeout_s())
    store, _, _ = next(iter(rendezvous("env://", timeout=seconds)))
    return store


@lru_cache(maxsize=1)
def _store() -> Any:
    """Return the launcher's store below a prefix of this start of the group.

    The agent's store outlives a restart, and addresses of processes that are gone would be read in the next start. The
    number of the restart is no such prefix: agents of several nodes count differently. So rank 0 draws one, and tells
    it to every process that asks under a name of its own.
    """
    store = _connection()
    if not environment.is_follower():
        prefix = uuid.uuid4().hex
        threading.Thread(target=_answer_followers, args=(prefix,), daemon=True).start()
        return dist.PrefixStore(prefix, store)
    own = uuid.uuid4().hex
    store.set(f"follower/{environment.rank()}", own)
    while not store.check([f"prefix/{own}"]):
        time.sleep(POLL_SECONDS)
    own_start = dist.PrefixStore(store.get(f"prefix/{own}").decode(), store)
    own_start.set(f"ready/{environment.rank()}", "1")
    return own_start


def _answer_followers(prefix: str) -> None:
    """Tell the prefix to every process that asks, until all have it; a process of before a restart may still be named."""
    answered: dict[int, bytes] = {}
    with suppress(RuntimeError):  # the store is gone: so are the processes
        store = _connection()
        while not _all_ready(dist.PrefixStore(prefix, store)):
            for rank in range(1, environment.world_size()):
                if not store.check([f"follower/{rank}"]):
                    continue
                asking = store.get(f"follower/{rank}")
                if answered.get(rank) != asking:
                    store.set(f"prefix/{asking.decode()}", prefix)
                    answered[rank] = asking
            time.sleep(POLL_SECONDS)


def _all_ready(store: Any) -> bool:
    """Return whether every other process of this start has the prefix of ``store``."""
    return bool(store.check([f"ready/{rank}" for rank in range(1, environment.world_size())]))


def _tell_followers(key: str, value: str) -> None:
    """Set a key of the store that followers wait for, and return when all of them can read it.

    Rank 0 may end after this, and with it the thread that answers them.
    """
    store = _store()
    store.set(key, value)
    until = time.monotonic() + environment.group_timeout_s()
    while not _all_ready(store) and time.monotonic() < until:
        time.sleep(POLL_SECONDS)


def _joined_group() -> ProcessGroup:
    """Return the group after torch.distributed has connected all processes for the next training."""
    rank, size = environment.rank(), environment.world_size()
    device = DEVICE_TABLE[device_kind()].torch_type
    if device not in BACKENDS:
        raise CannotRun(
            f"torch has no way to train in several processes on {device}", "start it without a launcher"
        )
    if device == "cuda":
        torch.cuda.set_device(environment.local_rank())
    elif device == "xpu":
        torch.xpu.set_device(environment.local_rank())
    with lost_group_as_problem():
        dist.init_process_group(
            BACKENDS[device],
            store=dist.PrefixStore(_next_key(), _store()),
            rank=rank,
            world_size=size,
            timeout=timedelta(seconds=environment.group_timeout_s()),
        )
    return ProcessGroup(rank, size)


def _wait_for_training() -> dict[str, Any]:
    """Return what rank 0 says about the next training, ``{"ended": True}`` when none comes any more."""
    key = _next_key()
    with lost_group_as_problem():
        store = _store()
        while True:
            if store.check([key]):
                outcome: dict[str, Any] = json.loads(store.get(key))
                return outcome
            if store.check([END_KEY]):
                return {"ended": True}
            time.sleep(POLL_SECONDS)


def _refuse_ended(outcome: dict[str, Any]) -> None:
    """Raise GroupEnded when no training comes any more."""
    if "ended" in outcome:
        raise GroupEnded


def require_devices(processes: int, gpus: int) -> None:
    """Raise CannotRun when a node has fewer GPUs than processes; on a CPU any number of processes may share it.

    Args:
        processes: Number of processes on this node.
        gpus: Number of GPUs that torch sees on it.
    """
    if gpus and processes > gpus:
        raise CannotRun(
            f"{processes} processes were started on a machine with {gpus} GPU{'s' * (gpus > 1)}",
            f"--gpus-per-node {gpus}",
        )
