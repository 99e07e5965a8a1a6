"""The command line: registers the verbs of ``advisor/commands`` and turns errors into messages and exit codes."""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from itertools import islice
from typing import Any

import typer
from typer.core import TyperGroup

from advisor import completion, output, terminal
from rag.errors import CannotRun, Problem, UsageProblem

START, MEASURE, USE, INSPECT = "Start", "Measure", "Use", "Inspect"
# Each name is a module of advisor/commands with a function `command` (a verb) or a Typer `group` (a noun with verbs of
# its own), with its heading in `tunewise --help`. Below a heading, verbs are in the order of this table.
VERBS: dict[str, str] = {
    "plan": START,
    "demo": START,
    "doctor": START,
    "probe": MEASURE,
    "run": MEASURE,
    "report": MEASURE,
    "label": MEASURE,
    "eval": MEASURE,
    "why": MEASURE,
    "recheck": MEASURE,
    "curve": MEASURE,
    "history": MEASURE,
    "eval-advice": MEASURE,
    "ask": USE,
    "chat": USE,
    "serve": USE,
    "mcp": USE,
    "export": USE,
    "train": USE,
    "explain": INSPECT,
    "whatif": INSPECT,
    "estimate": INSPECT,
}
GROUPS: dict[str, str] = {
    "examples": START,
    "questions": START,
    "index": USE,
    "models": INSPECT,
    "adapters": INSPECT,
    "runs": INSPECT,
}
OTHER_WORDS: dict[str, str] = {
    **dict.fromkeys(("recommend", "advise", "advice", "decide", "choose", "init", "new", "start"), "plan"),
    **dict.fromkeys(("example", "tutorial", "sample"), "demo"),
    **dict.fromkeys(("check", "info", "status", "diagnose", "version"), "doctor"),
    **dict.fromkeys(("execute", "trial", "measure", "benchmark", "resume"), "run"),
    **dict.fromkeys(("evaluate", "evaluation", "test", "score"), "eval"),
    **dict.fromkeys(("results", "show", "verdict", "summary"), "report"),
    **dict.fromkeys(("annotate", "grade", "rate", "review", "gold"), "label"),
    **dict.fromkeys(("causes", "failures", "errors", "mistakes"), "why"),
    **dict.fromkeys(("query", "answer", "question", "predict"), "ask"),
    **dict.fromkeys(("server", "api", "host", "deploy"), "serve"),
    **dict.fromkeys(("tune", "finetune", "fine-tune", "lora", "qlora", "fit"), "train"),
    **dict.fromkeys(("rules", "help-rule"), "explain"),
    **dict.fromkeys(("cost", "memory", "price"), "estimate"),
    **dict.fromkeys(("search", "retrieve"), "index search"),
    **dict.fromkeys(("build", "ingest", "embed"), "index build"),
    **dict.fromkeys(("generate", "synthesize", "make"), "examples make"),
    **dict.fromkeys(("import", "logs", "log"), "questions import"),
    **dict.fromkeys(("download", "pull"), "models pull"),
    **dict.fromkeys(("list", "ls"), "runs list"),
}
"""Words that users of other programs type, and the verb that does it here."""
PURPOSE = (
    "Find the best way to adapt a language model to your task: a better prompt, search in your documents (RAG) or "
    "fine-tuning. Without a verb, it asks you."
)
CLOSE_WORD = 0.65
"""Similarity from which a word is taken for another one (difflib's ratio)."""
SHORT_OPTIONS = ("debug", "version", "install_completion", "show_completion", "help")
"""Options that `tunewise --help` only names: everybody knows them, or needs them once."""


class VerbsByHeading(TyperGroup):
    """The verbs, listed under the headings of :data:`VERBS` and :data:`GROUPS`, so that the help fits on one screen."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Return the verb of a command line; an unknown one is refused with the verb that is meant, by any usual word."""
        unknown = bool(args) and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None
        if unknown and not ctx.resilient_parsing and (verb := meant_verb(args[0])):
            ctx.fail(f"No such command {args[0]!r}. Did you mean {verb!r}?")
        return super().resolve_command(ctx, args)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the help, as Typer does where rich draws it; a closed pipe ends the program in silence."""
        own = ctx.make_formatter()
        self._write_help(ctx, own)
        try:
            print(own.getvalue(), end="", flush=True)
        except BrokenPipeError:
            terminal.exit_on_closed_pipe()

    def _write_help(self, ctx: Any, formatter: Any) -> None:
        """Write usage, one line for each verb, and the options."""
        formatter.write_usage("tunewise", "[OPTIONS] VERB ...    (about one verb: tunewise VERB --help)")
        formatter.write_text(str(self.help))
        headings = {**VERBS, **GROUPS}
        width = max(map(len, headings))
        for heading in (START, MEASURE, USE, INSPECT):
            names = [name for name in headings if headings[name] == heading]
            rows = [
                (name, command.get_short_help_str(200))
                for name in names
                if (command := self.get_command(ctx, name))
            ]
            _write_rows(formatter, heading, rows, width)
        options = {str(parameter.name): parameter for parameter in self.get_params(ctx)}
        rows = [
            record
            for name, option in options.items()
            if name not in SHORT_OPTIONS and (record := option.get_help_record(ctx))
        ]
        _write_rows(
            formatter,
            "Options, anywhere on the line",
            [(name.split(" ")[0], text) for name, text in rows],
            width,
        )
        others = ", ".join(f"--{name.replace('_', '-')}" for name in options if name in SHORT_OPTIONS)
        formatter.indent()
        formatter.write_text(others)
        formatter.dedent()


def meant_verb(word: str) -> str:
    """Return the verb that an unknown word means: a similar one, or one that other programs name so; "" for none."""
    words = {name: name for name in (*VERBS, *GROUPS)} | OTHER_WORDS
    close = difflib.get_close_matches(word.lower(), words, n=1, cutoff=CLOSE_WORD)
    return words[close[0]] if close else ""


def _write_rows(formatter: Any, heading: str, rows: list[tuple[str, str]], width: int) -> None:
    """Write a heading and rows of a name and a text, the texts below each other in all parts of the help."""
    formatter.write_heading(heading)
    formatter.indent()
    formatter.write_dl([(f"{name:<{width}}", text) for name, text in rows])
    formatter.dedent()


app = typer.Typer(
    name="tunewise",
    cls=VerbsByHeading,
    help=PURPOSE,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Terminated(KeyboardInterrupt):
    """SIGTERM. Like Ctrl-C, it stops a run with its progress kept and the command to resume printed."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; it exits with the codes listed in the README.

    The options of all verbs (``--format``, ``--quiet``, ``--verbose``, ``--debug``) may be anywhere before a ``--``.

    Args:
        arguments: the arguments; those of the process by default.
    """
    from advisor.terminal import install_stand_ins, restart_in_utf8

    if arguments is None:
        restart_in_utf8()
    install_stand_ins(sys.stdout, sys.stderr)
    terminal.patch_rich_broken_pipe()
    given = with_options_first(list(sys.argv[1:] if arguments is None else arguments))
    if len(given) > 1 and given[0] in ("--show-completion", "--install-completion"):
        # Without this Typer ignores the name of the shell that follows.
        os.environ["_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION"] = "1"
    # Idle OpenMP threads spin for a short while, then sleep. With the default time, training nearly stops beside another
    # busy process on two cores; without spinning it loses a third of its speed (benchmarks/LOG.md). The variable is read
    # when torch is first imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    # As in runners.resources.environment, for what computes before training: it is read at the first product.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
    signal.signal(signal.SIGTERM, _terminate)
    if "WORLD_SIZE" in os.environ:  # a launcher started this process, maybe as one of several
        from advisor.workflows.group_member import run_in_group

        run_in_group(lambda: _run_app(given))
    else:
        _run_app(given)


def _run_app(arguments: list[str]) -> None:
    """Run the command line; a full disk becomes a message."""
    try:
        try:
            app(args=arguments, prog_name="tunewise")
        finally:
            terminal.flush_output()
    except OSError as error:
        if error.errno not in terminal.DISK_FULL_ERRORS or os.environ.get("TUNEWISE_DEBUG"):
            raise
        terminal.discard_output()
        with suppress(OSError):  # stderr may go to the same disk
            print_problem(CannotRun(terminal.DISK_FULL_MESSAGE, "free some space and run it again"))
        raise SystemExit(CannotRun.exit_code) from None


def with_options_first(arguments: list[str]) -> list[str]:
    """Return the arguments with the options of all verbs moved before the verb, where Typer expects them."""
    moved, others = [], []
    remaining = iter(arguments)
    for argument in remaining:
        if argument == "--":
            others += [argument, *remaining]
        elif argument in ("--debug", "--quiet", "--verbose") or argument.startswith("--format="):
            moved.append(argument)
        elif argument == "--format" and (value := list(islice(remaining, 1))):
            moved += [argument, *value]
        else:
            others.append(argument)
    return moved + others


def with_problem_handling(command: Callable[..., Any], verb: str = "") -> Callable[..., Any]:
    """Return the command with a Problem or an interruption turned into its message and exit code.

    Before the command runs, the user's settings are applied; a format for programs is passed on as ``as_json``.

    Args:
        command: function of a verb.
        verb: its name.
    """
    takes_json = "as_json" in inspect.signature(command).parameters

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            _prepare(verb)
            if takes_json:
                kwargs["as_json"] = output.for_programs(bool(kwargs.get("as_json")))
            elif output.OUTPUT_SETTINGS.format not in ("", "human"):
                named = output.OUTPUT_SETTINGS.format
                name = f"tunewise {verb}".strip()
                raise UsageProblem(f"{name} has nothing to print as {named}", "leave --format out")
            return command(*args, **kwargs)
        except Problem as problem:
            if os.environ.get("TUNEWISE_DEBUG"):
                raise
            if not _told_by_launcher(problem):
                print_problem(problem, verb)
            raise SystemExit(problem.exit_code) from None
        except KeyboardInterrupt as stop:
            code = 143 if isinstance(stop, Terminated) else 130
            _exit_at_next_signal(code)
            raise SystemExit(code) from None
        except BrokenPipeError:
            terminal.exit_on_closed_pipe()

    return run


def _told_by_launcher(problem: Problem) -> bool:
    """Return whether the launcher says what happened: it knows which process of the group was lost, and how."""
    if "WORLD_SIZE" not in os.environ:
        return False
    from runners.distributed.environment import GroupBroken, launcher_reports

    return isinstance(problem, GroupBroken) and launcher_reports()


def _prepare(verb: str) -> None:
    """Apply the user's settings; `doctor` runs without settings that cannot be read, and shows why."""
    from advisor import settings

    try:
        settings.apply_settings()
    except Problem:
        if verb != "doctor":
            raise


def print_problem(problem: Problem, verb: str = "") -> None:
    """Print what happened and what to do next to stderr, in one to three lines."""
    print(f"tunewise: {problem.message}", file=sys.stderr)
    print(f"  next: {problem.hint or next_command(problem, verb)}", file=sys.stderr)


def next_command(problem: Problem, verb: str) -> str:
    """Return the command that shows more about a problem without a hint."""
    if isinstance(problem, CannotRun):
        return "see what this machine can do: tunewise doctor"
    return f"see what it takes: tunewise {verb} --help" if verb else "see: tunewise --help"


def _terminate(number: int, frame: object) -> None:
    raise Terminated


def _exit_at_next_signal(code: int) -> None:
    """Let a further SIGINT or SIGTERM end the process with this code: what is kept is written, only Python still closes."""

    def exit_now(number: int, frame: object) -> None:
        with suppress(OSError, ValueError, RuntimeError):  # the signal may have come during a flush
            terminal.flush_output()
        os._exit(code)

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, exit_now)


@app.callback(invoke_without_command=True)
def entry(
    context: typer.Context,
    version: bool = typer.Option(False, "--version", help="Print the version."),
    format: str = typer.Option(
        "",
        autocompletion=completion.complete_formats,
        help="Print results as: human or json.",
        show_default=False,
    ),
    quiet: bool = typer.Option(
        False, "--quiet", help="Print results and errors only: no progress, no notes."
    ),
    verbose: bool = typer.Option(
        False, "--verbose", help="Print more, such as the reason for each training setting."
    ),
    debug: bool = typer.Option(False, "--debug", help="Show technical details of errors."),
) -> None:
    """Find the best way to adapt a language model to your task, and prove it on your own questions."""
    if version:
        with suppress(BrokenPipeError):
            from rag.version import __version__

            print(f"tunewise {__version__}", flush=True)
        raise typer.Exit
    if debug:
        os.environ["TUNEWISE_DEBUG"] = "1"
    try:
        output.configure_output(format, quiet, verbose)
    except Problem as problem:
        print_problem(problem)
        raise SystemExit(problem.exit_code) from None
    if context.invoked_subcommand is None:
        from advisor.commands.start import start

        with_problem_handling(start)(context)


def _register() -> None:
    for verb in VERBS:
        module = importlib.import_module(f"advisor.commands.{verb.replace('-', '_')}")
        register = app.command(verb, cls=getattr(module, "Command", None), help=_help_text(module.command))
        register(with_problem_handling(module.command, verb))
    for noun in GROUPS:
        module = importlib.import_module(f"advisor.commands.{noun}")
        for info in module.group.registered_commands:
            info.help = _help_text(info.callback)
            info.callback = with_problem_handling(info.callback, f"{noun} {info.name}")
        app.add_typer(module.group, name=noun)


def _help_text(command: Callable[..., Any]) -> str:
    """Return a docstring whose paragraphs are wrapped by the terminal's width, not by the source's."""
    paragraphs = inspect.cleandoc(command.__doc__ or "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


_register()
