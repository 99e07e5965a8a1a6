"""The verbs of the command line, nothing else: flags in `advisor/commands/`, work elsewhere."""

from __future__ import annotations

import functools
import importlib
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import typer

from advisor import __version__
from rag.errors import Problem

# The table of contents of the command line: a file of advisor/commands each, holding a function `command`
# (a verb) or a Typer `group` (a noun with verbs of its own).
VERBS: tuple[str, ...] = (
    "plan",
    "probe",
    "run",
    "ask",
    "chat",
    "report",
    "export",
    "train",
    "explain",
    "whatif",
    "estimate",
    "eval-advice",
    "history",
    "doctor",
    "demo",
)
GROUPS: tuple[str, ...] = ("index", "models", "adapters")

app = typer.Typer(
    name="tunewise",
    help="Choose how to adapt a language model, do it, and measure every branch on your own questions.",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Terminated(KeyboardInterrupt):
    """SIGTERM, which stops a run as Ctrl-C does: progress kept, the line to resume printed."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; it exits with the codes of the README's table.

    ``--debug`` anywhere (or TUNEWISE_DEBUG=1) shows the traceback of a refusal.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if "--debug" in given:
        given.remove("--debug")
        os.environ["TUNEWISE_DEBUG"] = "1"
    # Idle threads spin for a short while, then sleep. Spinning as long as they do by default makes training nearly stand
    # still beside another busy process on two cores; not at all costs a third of its speed (benchmarks/LOG.md). Read
    # when torch is first imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    signal.signal(signal.SIGTERM, _terminate)
    app(args=given, prog_name="tunewise")


def guarded(command: Callable[..., Any]) -> Callable[..., Any]:
    """Turn a Problem or an interruption of a command into its message and exit code."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except Problem as problem:
            if os.environ.get("TUNEWISE_DEBUG"):
                raise
            print_problem(problem)
            raise SystemExit(problem.exit_code) from None
        except Terminated:
            raise SystemExit(143) from None
        except KeyboardInterrupt:
            raise SystemExit(130) from None
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(0) from None

    return run


def print_problem(problem: Problem) -> None:
    """Print what happened and what to do next, in one to three lines, to stderr."""
    print(f"tunewise: {problem.message}", file=sys.stderr)
    if problem.hint:
        print(f"  next: {problem.hint}", file=sys.stderr)


def _terminate(number: int, frame: object) -> None:
    raise Terminated


@app.callback(invoke_without_command=True)
def entry(
    context: typer.Context, version: bool = typer.Option(False, "--version", help="Print the version.")
) -> None:
    """Choose how to adapt a language model, do it, and measure every branch on your own questions."""
    if version:
        print(f"tunewise {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        from advisor.commands.start import start

        guarded(start)(context)


def _register() -> None:
    for verb in VERBS:
        module = importlib.import_module(f"advisor.commands.{verb.replace('-', '_')}")
        app.command(verb)(guarded(module.command))
    for noun in GROUPS:
        module = importlib.import_module(f"advisor.commands.{noun}")
        for info in module.group.registered_commands:
            info.callback = guarded(info.callback)
        app.add_typer(module.group, name=noun)


_register()
