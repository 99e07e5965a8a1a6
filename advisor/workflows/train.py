"""The work behind ``tunewise train``: rows, settings with their reasons, preflight, training, and the next commands."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advisor.display.events import print_event
from advisor.output import emit_result, note
from advisor.workflows import train_inputs
from advisor.workflows.launch import GivenCommand, LaunchRequest, Work, settle_resumption, start_launcher
from advisor.workflows.train_inputs import TrainFiles, TrainInputs
from rag.errors import BadInput, UsageProblem
from rag.files import disk_full_as_problem, writer_lock
from runners.paths import work_folder
from runners.plan.train_config import TUNING_METHODS, TrainConfig, TrainResult
from runners.preflight.report import ACCEPTABLE_CODES, CHECK_CODES, count_of_rows

if TYPE_CHECKING:
    from runners.models.resolve import Model
    from runners.preflight.run_checks import PreflightReport


MAX_SORTED_ROWS = 1_000
"""Most rows that are sorted into facts and behaviour while the user waits."""


@dataclass(frozen=True, slots=True)
class TrainRequest:
    """What to do with rows and settings; see advisor/commands/train.py for the flags."""

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
        """Whether nothing is trained."""
        return self.check or self.show > 0


def tune_model(
    files: TrainFiles, settings: Mapping[str, Any], request: TrainRequest, launch: LaunchRequest | None = None
) -> None:
    """Carry out ``tunewise train``. A process that its launcher has started again resumes, whatever the flags say.

    Args:
        files: the files and shares that the flags name.
        settings: training settings by name; None where a flag was not given.
        request: what to do.
        launch: the flags of a launcher, and the command line for it; None without.
    """
    resume, overwrite = settle_resumption(request.resume, request.overwrite)
    request = replace(request, resume=resume, overwrite=overwrite)
    refuse_impossible_request(request)
    train_inputs.refuse_bad_flags(settings, request.method)
    if launch is not None:
        start_launcher(launch.flags, launched_work(launch.command, files, settings, request))
        return
    inputs = train_inputs.read_train_inputs(files)
    train_inputs.print_indented(inputs.notes)
    from advisor.workflows.run import adapt_threads
    from runners.models import resolve

    adapt_threads()
    refuse_flags_without_effect(inputs, settings)
    base = resolve.resolve_model(request.model, on_event=print_event)
    config, reasons = train_inputs.settle_settings(
        inputs.rows, inputs.valid, inputs.distinct, base, request.method, settings
    )
    train_inputs.print_indented([f"{name}: {reason}" for name, reason in reasons.items()])
    if request.show:
        show_rows(inputs, config, base, request)
        if not request.check:
            return
    from runners.preflight.run_checks import run_preflight

    report = run_preflight(
        inputs.rows,
        base,
        config,
        valid=inputs.valid,
        questions=inputs.questions,
        out=request.out,
        accept=request.accept,
        measure=request.check,
    )
    if request.check:
        show_checks(report, config, reasons, request, sort_rows(inputs))
        raise SystemExit(report.exit_code)
    report.require()
    train_and_publish(inputs, config, base, reasons, report, request)


def refuse_impossible_request(request: TrainRequest) -> None:
    """Raise UsageProblem for flags that cannot be combined or have no meaning, before anything is read."""
    if request.method not in TUNING_METHODS:
        raise UsageProblem(
            f"--method {request.method} is not a tuning method", f"choose one of {', '.join(TUNING_METHODS)}"
        )
    for code in request.accept:
        if code not in ACCEPTABLE_CODES:
            allowed = f"can be accepted: {', '.join(f'{code} ({CHECK_CODES[code]})' for code in sorted(ACCEPTABLE_CODES))}"
            raise UsageProblem(f"--accept {code} cannot be accepted", allowed)
    if request.show < 0:
        raise UsageProblem(f"--show {request.show} is no number of rows", "0 or more")
    if request.out is None and not request.dry:
        raise UsageProblem("--out is missing", "name the folder the tuned weights go to")
    if request.out is not None and not request.dry:
        refuse_in_use(request.out, request.resume, request.overwrite)


def launched_work(
    command: GivenCommand, files: TrainFiles, settings: Mapping[str, Any], request: TrainRequest
) -> Work:
    """Return what a launcher's processes carry out; its script is kept in a folder beside the result, OUT.launch."""
    out = request.out
    assert out is not None

    def make_way(remove: bool) -> None:
        if remove:
            remove_result(out)

    named = (files.examples, files.prompt, files.valid, files.replay, files.questions, request.model)
    return Work(
        command,
        out,
        out.with_name(f"{out.name}.launch"),
        work_folder(out),
        make_way,
        request.overwrite,
        [Path(name) for name in (*named, settings["init_adapter"]) if name is not None],
    )


def remove_result(out: Path) -> None:
    """Remove a training's result and its checkpoints; BadInput while another process trains there."""
    with writer_lock(work_folder(out)):
        for old in (out, work_folder(out)):
            shutil.rmtree(old, ignore_errors=True)


def refuse_flags_without_effect(inputs: TrainInputs, settings: Mapping[str, Any]) -> None:
    """Raise UsageProblem for a flag that has no effect on these rows."""
    for name, value in (("--eval-steps", settings["eval_steps"]), ("--patience", settings["patience"])):
        if value is not None and not inputs.valid:
            raise UsageProblem(f"{name} needs validation rows", "give --valid FILE, or --valid-share 0.1")
    if settings["turns"] is not None and all(row.raw for row in inputs.rows):
        raise UsageProblem("--turns is about chats, and these rows are plain text", "remove it")


def refuse_in_use(out: Path, resume: bool, overwrite: bool) -> None:
    """Raise UsageProblem for a folder that is not empty, unless its training is to be resumed or replaced."""
    if out.exists() and not out.is_dir():
        raise UsageProblem(f"{out} is a file", "name a folder for the tuned weights")
    if not out.exists() or not any(out.iterdir()) or resume:
        return
    if not overwrite:
        raise UsageProblem(f"{out} exists", "continue with --resume, or start again with --overwrite")
    if not (out / "manifest.json").is_file():
        raise UsageProblem(f"{out} was not made by tunewise train", "choose another --out")


def show_rows(inputs: TrainInputs, config: TrainConfig, base: Model, request: TrainRequest) -> None:
    """Print the first rows as the model sees them; with --json, to stderr."""
    from rich.console import Console

    from advisor.display import training
    from runners.tokenization.chat_template import ChatTokenizer
    from runners.tokenization.encoding import encode_examples

    chat = ChatTokenizer(base.folder)
    rows = encode_examples(inputs.rows[: request.show], chat, config.max_tokens, config.turns)
    screen = Console(highlight=False, stderr=request.as_json)
    training.show_training_rows(rows, chat, request.show, config.max_tokens, screen)


def sort_rows(inputs: TrainInputs) -> dict[str, Any]:
    """Print which rows are facts that change, stable facts or behaviour, and return the counts; {} for plain text."""
    from advisor.drafting.row_sorting import sort_rows_without_documents

    sorting = sort_rows_without_documents(inputs.rows[:MAX_SORTED_ROWS])
    if not sorting.rows:
        return {}
    sample = (
        f" (the first {MAX_SORTED_ROWS:,} of {len(inputs.rows):,})"
        if len(inputs.rows) > MAX_SORTED_ROWS
        else ""
    )
    train_inputs.print_indented([f"what the rows teach{sample}: {sorting.text}"])
    return {key: value for key, value in sorting.to_json().items() if key != "each"} | {"text": sorting.text}


def show_checks(
    report: PreflightReport,
    config: TrainConfig,
    reasons: Mapping[str, str],
    request: TrainRequest,
    sorted_rows: dict[str, Any],
) -> None:
    """Print every check: for people, or as JSON with the settings and the kinds of rows."""
    from advisor.display import training

    if request.as_json:
        extra = {"settings": config.to_json(), "reasons": dict(reasons), "teaches": sorted_rows}
        emit_result(training.checks_json(report, extra))
    else:
        training.show_checks_report(report)


def train_and_publish(
    inputs: TrainInputs,
    config: TrainConfig,
    base: Model,
    reasons: Mapping[str, str],
    report: PreflightReport,
    request: TrainRequest,
) -> None:
    """Train, publish the result as --out, and print a summary."""
    from advisor.display import training
    from advisor.display.progress import watch_progress
    from advisor.terminal import resume_hint
    from advisor.workflows.tracking import show_locations
    from runners.plan.train_config import RunOrigin
    from runners.tracking.records import chosen_trackers
    from runners.tracking.tracking import track_training
    from runners.train import fit

    assert request.out is not None
    train_inputs.print_indented(training.check_warnings(report))
    announce_training(inputs, config, base, report)
    if request.overwrite:
        remove_result(request.out)
    origin = RunOrigin(files=inputs.files, reasons=reasons)
    with (
        resume_hint(resume_line(sys.argv)),
        watch_progress(request.as_json) as watcher,
        disk_full_as_problem(request.out),
        track_training(config, base.name, request.out, request.resume, chosen_trackers()) as tracking,
    ):
        watcher.begin(f"{config.method} on {count_of_rows(report.used)}")

        def on_event(event: dict[str, Any]) -> None:
            # The warnings were printed above, with those that only the preflight finds.
            watcher({**event, "warnings": ()})
            tracking.update(event)

        result = fit(
            inputs.rows,
            config,
            base,
            request.out,
            valid=inputs.valid,
            on_event=on_event,
            resume=request.resume,
            origin=origin,
        )
    show_locations(tracking)
    if request.as_json:
        emit_result({"schema": 1, "out": str(request.out), **result.to_json()})
    else:
        print("\n".join(training_summary(result, request.out)))


def announce_training(inputs: TrainInputs, config: TrainConfig, base: Model, report: PreflightReport) -> None:
    """Print about how long the training takes, by the speed measured on this CPU; nothing for a short one or a GPU."""
    from advisor.costs.speed_measurement import measure_run_seconds, speed_line
    from advisor.workflows.dry_run import duration_words
    from runners.models.fingerprint import read_json
    from runners.resources.gpu import MachineProbe, find_gpu
    from runners.resources.model_shape import read_shape
    from runners.tokenization.token_estimate import CHARS_PER_TOKEN

    if find_gpu(MachineProbe()).kind == "cuda":
        return
    try:
        shape = read_shape(read_json(base.folder / "config.json"))
    except BadInput:
        return  # a model of unknown shape, of which the preflight says so
    prompts = ["".join(turn["content"] for turn in row.messages[:-1]) for row in inputs.rows]
    # In lexicographic order every prompt is between the first and the last, so the prefix of these two is common.
    same = takewhile(lambda pair: pair[0] == pair[1], zip(min(prompts), max(prompts), strict=False))
    prefix = sum(1 for _ in same) / CHARS_PER_TOKEN if len(prompts) > 1 else 0.0
    measured = measure_run_seconds(shape, config, report.used, report.tokens, report.learnt, prefix)
    if measured is not None:
        seconds, speed = measured
        note(f"{speed_line(config.method, speed)}; about {duration_words(seconds)} in all")


def training_summary(result: TrainResult, out: Path) -> Iterator[str]:
    """Yield lines with what was trained, how it went, and what to do next."""
    full = result.method == "full"
    yield f"{'model' if full else 'adapter'}: {out}"
    valid = f", on validation rows {result.valid_loss:.3f}" if result.valid_loss is not None else ""
    yield f"loss: {result.first_loss:.3f} at first, {result.last_loss:.3f} at last{valid}"
    yield (
        f"{count_of_rows(result.rows)}, {result.steps:,} steps, {result.tokens:,} tokens in {result.seconds:,.0f} s "
        f"({result.tokens_per_s:,.0f} tokens/s), {result.trainable:,} weights trained"
    )
    if result.left_out:
        yield f"skipped: {count_of_rows(result.left_out)}"
    yield from result.notes
    yield f"next: tunewise adapters show {shlex.quote(str(out))}"
    if not full:
        yield f"      tunewise train --init-adapter {shlex.quote(str(out))} ...  continues from it on other rows"


def resume_line(arguments: Sequence[str]) -> str:
    """Return the command that resumes the training started with these arguments."""
    given = [part for part in arguments[1:] if part not in ("--overwrite", "--resume", "--debug")]
    return shlex.join(["tunewise", *given, "--resume"])
