"""The `tunewise train` verb: rows, settings with their reasons, preflight, training, and what to do next."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advisor.display.events import print_event
from advisor.output import emit_result
from advisor.workflows import train_inputs
from advisor.workflows.train_inputs import TrainFiles, TrainInputs
from rag.errors import UsageProblem
from rag.files import disk_full_as_problem
from runners.plan.train_config import TUNING_METHODS, TrainConfig, TrainResult
from runners.preflight.report import ACCEPTABLE_CODES, CHECK_CODES, count_of_rows

if TYPE_CHECKING:
    from runners.models.resolve import Model
    from runners.preflight.run_checks import PreflightReport


MAX_SORTED_ROWS = 1_000
"""Rows that are sorted into facts and behaviour while somebody waits."""


@dataclass(frozen=True, slots=True)
class TrainRequest:
    """What is to be done with rows and settings."""

    method: str = "lora"
    model: str = "smollm2-135m-instruct"
    out: Path | None = None
    check: bool = False
    show: int = 0
    accept: tuple[str, ...] = ()
    resume: bool = False
    overwrite: bool = False
    as_json: bool = False

    @property
    def dry(self) -> bool:
        """Return whether nothing is trained."""
        return self.check or self.show > 0


def tune_model(files: TrainFiles, settings: Mapping[str, Any], order: TrainRequest) -> None:
    """Carry out `tunewise train`; see advisor/commands/train.py for the flags."""
    refuse_impossible_request(order)
    train_inputs.refuse_bad_flags(settings, order.method)
    read = train_inputs.read_train_inputs(files)
    train_inputs.print_indented(read.told)
    from runners.models import resolve

    refuse_flags_without_effect(read, settings)
    base = resolve.resolve_model(order.model, on_event=print_event)
    config, reasons = train_inputs.settle_settings(
        read.rows, read.valid, read.distinct, base, order.method, settings
    )
    train_inputs.print_indented([f"{name}: {reason}" for name, reason in reasons.items()])
    if order.show:
        show_rows(read, config, base, order)
        if not order.check:
            return
    from runners.preflight.run_checks import run_preflight

    report = run_preflight(
        read.rows,
        base,
        config,
        valid=read.valid,
        questions=read.questions,
        out=order.out,
        accept=order.accept,
        measure=order.check,
    )
    if order.check:
        show_checks(report, config, reasons, order, sort_rows(read))
        raise SystemExit(report.exit_code)
    report.require()
    train_and_publish(read, config, base, reasons, report, order)


def refuse_impossible_request(order: TrainRequest) -> None:
    """Raise UsageProblem for an order that cannot be meant, before anything is read."""
    if order.method not in TUNING_METHODS:
        raise UsageProblem(
            f"--method {order.method} is not a tuning method", f"choose one of {', '.join(TUNING_METHODS)}"
        )
    for code in order.accept:
        if code not in ACCEPTABLE_CODES:
            known = (
                f"can be accepted: {', '.join(f'{c} ({CHECK_CODES[c]})' for c in sorted(ACCEPTABLE_CODES))}"
            )
            raise UsageProblem(f"--accept {code} cannot be accepted", known)
    if order.show < 0:
        raise UsageProblem(f"--show {order.show} is no number of rows", "0 or more")
    if order.resume and order.overwrite:
        raise UsageProblem("--resume and --overwrite exclude each other", "choose one")
    if order.out is None and not order.dry:
        raise UsageProblem("--out is missing", "name the folder the tuned weights go to")
    if order.out is not None and not order.dry:
        refuse_in_use(order.out, order.resume, order.overwrite)


def refuse_flags_without_effect(read: TrainInputs, settings: Mapping[str, Any]) -> None:
    """Raise UsageProblem for a flag that these rows leave without effect."""
    for name, value in (("--eval-steps", settings["eval_steps"]), ("--patience", settings["patience"])):
        if value is not None and not read.valid:
            raise UsageProblem(f"{name} needs validation rows", "give --valid FILE, or --valid-share 0.1")
    if settings["turns"] is not None and all(row.raw for row in read.rows):
        raise UsageProblem("--turns is about chats, and these rows are plain text", "leave it out")


def refuse_in_use(out: Path, resume: bool, overwrite: bool) -> None:
    """Refuse a folder that is in use, unless asked to go on with it or to replace what it made before."""
    if out.exists() and not out.is_dir():
        raise UsageProblem(f"{out} is a file", "name a folder for the tuned weights")
    if not out.exists() or not any(out.iterdir()) or resume:
        return
    if not overwrite:
        raise UsageProblem(f"{out} exists", "continue with --resume, or start again with --overwrite")
    if not (out / "manifest.json").is_file():
        raise UsageProblem(f"{out} was not made by tunewise train", "choose another --out")


def show_rows(read: TrainInputs, config: TrainConfig, base: Model, order: TrainRequest) -> None:
    """Print the first rows as the model sees them; beside JSON, to stderr."""
    from rich.console import Console

    from advisor.display import training
    from runners.tokenization.chat_template import ChatTokenizer
    from runners.tokenization.encoding import encode_examples

    chat = ChatTokenizer(base.folder)
    rows = encode_examples(read.rows[: order.show], chat, config.max_tokens, config.turns)
    screen = Console(highlight=False, stderr=order.as_json)
    training.show_training_rows(rows, chat, order.show, config.max_tokens, screen)


def sort_rows(read: TrainInputs) -> dict[str, Any]:
    """Say which rows are facts that change, stable facts or behaviour, and return the counts; {} for plain texts."""
    from advisor.drafting.row_sorting import sort_rows_without_documents

    found = sort_rows_without_documents(read.rows[:MAX_SORTED_ROWS])
    if not found.rows:
        return {}
    first = (
        f" (the first {MAX_SORTED_ROWS:,} of {len(read.rows):,})" if len(read.rows) > MAX_SORTED_ROWS else ""
    )
    train_inputs.print_indented([f"what the rows teach{first}: {found.text}"])
    return {key: value for key, value in found.to_json().items() if key != "each"} | {"text": found.text}


def show_checks(
    report: PreflightReport,
    config: TrainConfig,
    reasons: Mapping[str, str],
    order: TrainRequest,
    sorted_rows: dict[str, Any],
) -> None:
    """Print every check: for people, or as JSON with the settings and what the rows teach."""
    from advisor.display import training

    if order.as_json:
        told = {"settings": config.to_json(), "reasons": dict(reasons), "teaches": sorted_rows}
        emit_result(training.checks_json(report, told))
    else:
        training.show_checks_report(report)


def train_and_publish(
    read: TrainInputs,
    config: TrainConfig,
    base: Model,
    reasons: Mapping[str, str],
    report: PreflightReport,
    order: TrainRequest,
) -> None:
    """Train, publish the result as --out, and print what was made."""
    from advisor.display import training
    from advisor.display.progress import watch_progress
    from advisor.terminal import resume_hint
    from runners.plan.train_config import RunOrigin
    from runners.train import fit, work_folder

    assert order.out is not None
    train_inputs.print_indented(training.check_warnings(report))
    if order.overwrite:
        for old in (order.out, work_folder(order.out)):
            shutil.rmtree(old, ignore_errors=True)
    origin = RunOrigin(files=read.files, reasons=reasons)
    with (
        resume_hint(resume_line(sys.argv)),
        watch_progress(order.as_json) as watcher,
        disk_full_as_problem(order.out),
    ):
        watcher.begin(f"{config.method} on {count_of_rows(report.used)}")

        def tell(event: dict[str, Any]) -> None:
            watcher(
                {**event, "warnings": ()}
            )  # they were said above, with those that only the preflight knows

        result = fit(
            read.rows,
            config,
            base,
            order.out,
            valid=read.valid,
            on_event=tell,
            resume=order.resume,
            origin=origin,
        )
    if order.as_json:
        emit_result({"schema": 1, "out": str(order.out), **result.to_json()})
    else:
        print("\n".join(training_summary(result, order.out)))


def training_summary(result: TrainResult, out: Path) -> Iterator[str]:
    """Yield what was made, how it went, and what to do next."""
    full = result.method == "full"
    yield f"{'model' if full else 'adapter'}: {out}"
    valid = f", on validation rows {result.valid_loss:.3f}" if result.valid_loss is not None else ""
    yield f"loss: {result.first_loss:.3f} at first, {result.last_loss:.3f} at last{valid}"
    yield (
        f"{count_of_rows(result.rows)}, {result.steps:,} steps, {result.tokens:,} tokens in {result.seconds:,.0f} s "
        f"({result.tokens_per_s:,.0f} tokens/s), {result.trainable:,} weights trained"
    )
    if result.left_out:
        yield f"left out: {count_of_rows(result.left_out)}"
    yield from result.notes
    yield f"next: tunewise adapters show {shlex.quote(str(out))}"
    if not full:
        yield f"      tunewise train --init-adapter {shlex.quote(str(out))} ...  goes on from it on other rows"


def resume_line(arguments: Sequence[str]) -> str:
    """Return the command line that goes on with the run that these arguments began."""
    given = [part for part in arguments[1:] if part not in ("--overwrite", "--resume", "--debug")]
    return shlex.join(["tunewise", *given, "--resume"])
