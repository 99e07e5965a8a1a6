"""A process that has imported torch, and forks a real child for each order: killing one costs no import.

Started by the fixture ``warm``. Each line of its input is an order (see :func:`obey`); it answers with the child's
pid at once and with its exit code (minus the signal that killed it) at the end.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import resource
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import torch

import advisor.cli
from rag.errors import Problem
from runners.data.examples import Example
from runners.models import resolve
from runners.plan.train_config import TrainConfig
from runners.train import fit

LOADED = (
    "advisor.report.report",
    "advisor.display.live_scores",
    "advisor.display.progress",
    "runners.trial.execute",
    "runners.inference.local",
    "runners.trial.step_runner",
    "rag.index",
    "rag.embedding.embedder",
    "transformers.models.llama.modeling_llama",
)
"""What every child would load for itself: a whole run needs it."""
WATCHED = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.chmod"}


def main() -> None:
    """Obey until the input ends."""
    torch.set_num_threads(1)
    for name in LOADED:
        importlib.import_module(name)
    gc.freeze()  # a child's collector need not look through all of that
    print(json.dumps({"ready": os.getpid()}), flush=True)
    for line in sys.stdin:
        pid = os.fork()
        order = json.loads(line)
        if pid == 0:
            obey(order)
        print(json.dumps({"pid": pid}), flush=True)
        status = watch_over(pid, order.get("die_after", 0.0))
        print(json.dumps({"code": os.waitstatus_to_exitcode(status)}), flush=True)


def watch_over(pid: int, die_after: float) -> int:
    """Wait for a child and return its status; kill it after so many seconds when they are not 0."""
    started = time.monotonic()
    while die_after and time.monotonic() - started < die_after:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return status
        time.sleep(0.002)
    if die_after:
        os.kill(pid, signal.SIGKILL)
    return os.waitpid(pid, 0)[1]


def obey(order: dict[str, Any]) -> None:
    """Be the child: run a command line (``args``) or :func:`fit` (``fit``), with all output in ``log``.

    ``die_at``: kill this process before its so-manieth operation on files under ``under``. ``file_limit``: no
    file may grow beyond so many bytes.
    """
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        if limit := order.get("file_limit"):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        if order.get("die_at"):
            die_at(order["die_at"], order["under"])
        if "args" in order:
            os.chdir(order["cwd"])
            sys.argv = ["tunewise", *order["args"]]
            advisor.cli.main(order["args"])
        else:
            train(**order["fit"])
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except Problem as problem:
        print(problem)
        code = problem.exit_code
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def train(rows: str, valid: int, model: str, out: str, config: dict[str, Any]) -> None:
    """Fit the rows of a JSON file, the first few of them held out, and go on with what is there."""
    read = json.loads(Path(rows).read_text("utf-8"))
    examples = [Example(tuple(messages), {}, line) for line, messages in enumerate(read, 1)]
    settings, base = TrainConfig(**config), resolve.resolve_model(model)
    fit(examples[valid:], settings, base, Path(out), examples[:valid], print, resume=True)


def die_at(count: int, under: str) -> None:
    """Die by SIGKILL before the ``count``-th operation on files under a folder; an audit hook sees them all."""
    left = [count]

    def watch(event: str, args: tuple[Any, ...]) -> None:
        if event not in WATCHED:
            return
        place = os.fsdecode(args[0]) if isinstance(args[0], str | bytes | os.PathLike) else ""
        # Files of a folder that is being removed are named without it.
        if place.startswith(under) or (event in ("os.remove", "os.rmdir") and "/" not in place):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


if __name__ == "__main__":
    main()
