"""A process that has imported torch and forks a child for each order, so that killing one costs no import.

Started by the fixture ``warm``. Each line of its input is an order in JSON (see :func:`run_order`); the process answers
with the child's pid at once, and with its exit code (minus the signal that killed it) at the end.
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

PRELOADED = (
    "advisor.report.report",
    "advisor.display.progress",
    "runners.trial.execute",
    "runners.inference.local",
    "runners.trial.step_runner",
    "rag.index",
    "rag.embedding.embedder",
    "sentence_transformers",
    "transformers.models.llama.modeling_llama",
)
"""Modules that a whole run needs, which every child would import otherwise."""
FILE_OPERATIONS = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.chmod"}


def main() -> None:
    """Run the orders until the input ends."""
    torch.set_num_threads(1)
    for name in PRELOADED:
        importlib.import_module(name)
    gc.freeze()  # the collector of a child need not visit what is loaded so far
    print(json.dumps({"ready": os.getpid()}), flush=True)
    for line in sys.stdin:
        pid = os.fork()
        order = json.loads(line)
        if pid == 0:
            run_order(order)
        print(json.dumps({"pid": pid}), flush=True)
        status = wait_or_kill(pid, order.get("die_after", 0.0))
        print(json.dumps({"code": os.waitstatus_to_exitcode(status)}), flush=True)


def wait_or_kill(pid: int, die_after: float) -> int:
    """Wait for a child and return its status; kill it after ``die_after`` seconds unless they are 0."""
    started = time.monotonic()
    while die_after and time.monotonic() - started < die_after:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return status
        time.sleep(0.002)
    if die_after:
        os.kill(pid, signal.SIGKILL)
    return os.waitpid(pid, 0)[1]


def run_order(order: dict[str, Any]) -> None:
    """Run a command line (``args``) or :func:`fit` (``fit``) in this child process, with all output in ``log``.

    With ``die_at`` the process is killed before its operation of this number on files under ``under``; ``file_limit`` is
    the most bytes of a file.
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
            kill_at(order["die_at"], order["under"])
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
    """Fit the rows of a JSON file, the first ``valid`` of them held out; an unfinished run is resumed."""
    chats = json.loads(Path(rows).read_text("utf-8"))
    examples = [Example(tuple(messages), {}, line) for line, messages in enumerate(chats, 1)]
    settings, base = TrainConfig(**config), resolve.resolve_model(model)
    fit(examples[valid:], settings, base, Path(out), examples[:valid], print, resume=True)


def kill_at(count: int, under: str) -> None:
    """Kill this process by SIGKILL before the ``count``-th operation on files under a folder, by an audit hook."""
    left = [count]

    def watch(event: str, args: tuple[Any, ...]) -> None:
        if event not in FILE_OPERATIONS:
            return
        path = os.fsdecode(args[0]) if isinstance(args[0], str | bytes | os.PathLike) else ""
        # Files of a folder that is being removed are named without their folder.
        if path.startswith(under) or (event in ("os.remove", "os.rmdir") and "/" not in path):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


if __name__ == "__main__":
    main()
