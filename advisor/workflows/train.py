"""The work behind ``tunewise train``: rows, settings with their reasons, preflight, training, and the next commands."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import Any

from advisor.costs.speed_measurement import measure_run_seconds, speed_line
from advisor.display import training
from advisor.display.events import print_event
from advisor.display.progress import watch_progress
from advisor.flags.train import TrainRequest
from advisor.output import emit_result, note, open_console
from advisor.questionnaire.row_sorting import sort_rows_without_documents
from advisor.terminal import resume_hint
from advisor.workflows import train_inputs
from advisor.workflows.dry_run import duration_words
from advisor.workflows.launch import GivenCommand, LaunchRequest, Work, settle_resumption, start_launcher
from advisor.workflows.run import adapt_threads
from advisor.workflows.tracking import show_locations
from advisor.workflows.train_inputs import TrainInputs
from rag.errors import BadInput, UsageProblem
from rag.files import disk_full_as_problem, writer_lock
from rag.types import OnEvent
from runners.models.fingerprint import read_json
from runners.models.resolve import Model, resolve_model
from runners.paths import work_folder
from runners.plan.train_config import TUNING_METHODS, RunOrigin, TrainConfig, TrainResult
from runners.preflight.report import ACCEPTABLE_CODES, CHECK_CODES, count_of_rows
from runners.preflight.run_checks import PreflightReport, run_preflight
from runners.resources.gpu import MachineProbe, find_gpu
from runners.resources.model_shape import read_shape
from runners.tokenization.chat_template import ChatTokenizer
from runners.tokenization.encoding import encode_examples
from runners.tokenization.token_estimate import CHARS_PER_TOKEN
from runners.tracking.records import chosen_trackers
from runners.tracking.tracking import track_training

MAX_SORTED_ROWS = 1_000
"""Most rows that are sorted into facts and behaviour while the user waits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedTraining:
    """Rows, base model and settings of a training, before its checks.

    Attributes:
        request: what was asked for.
        inputs: the rows.
        base: the base model.
        config: the settings.
        reasons: why each setting is as it is.
    """

    request: TrainRequest
    inputs: TrainInputs
    base: Model
    config: TrainConfig
    reasons: Mapping[str, str]

    def preflight(self, measure: bool = False) -> PreflightReport:
        """Return the checks of data and machine; with ``measure`` also of what a step takes."""
        return run_preflight(
            self.inputs.rows,
            self.base,
            self.config,
            valid=self.inputs.valid,
            questions=self.inputs.questions,
            out=self.request.out,
            accept=tuple(self.request.accept or ()),
            measure=measure,
        )

    def train(self, on_event: OnEvent | None) -> TrainResult:
        """Train, publish the weights in the folder ``out``, and return the result."""
        from runners.train import fit

        out = self.request.out
        assert out is not None
        with disk_full_as_problem(out):
            return fit(
                self.inputs.rows,
                self.config,
                self.base,
                out,
                self.inputs.valid,
                on_event,
                self.request.resume,
                RunOrigin(files=self.inputs.files, reasons=self.reasons),
            )


def prepare_training(
    inputs: TrainInputs, request: TrainRequest, settings: Mapping[str, Any], on_event: OnEvent | None
) -> PreparedTraining:
    """Obtain the base model and settle the settings.

    Args:
        inputs: the rows.
        request: what is asked for.
        settings: the training settings that were given, by name.
        on_event: receives the events of a download.

    Raises:
        UsageProblem: a setting has no effect on these rows.
        BadInput, CannotRun: the model cannot be obtained, or the rows cannot be used.
    """
    refuse_flags_without_effect(inputs, settings)
    base = resolve_model(request.model, on_event=on_event)
    config, reasons = train_inputs.settle_settings(inputs, base, request.method, settings)
    return PreparedTraining(request=request, inputs=inputs, base=base, config=config, reasons=reasons)


def tune_model(request: TrainRequest, launch: LaunchRequest | None = None) -> None:
    """Carry out ``tunewise train``. A process that its launcher has started again resumes, whatever the flags say.

    Args:
        request: rows, settings, and what to do.
        launch: the flags of a launcher, and the command line for it; None without.
    """
    resume, overwrite = settle_resumption(request.resume, request.overwrite)
    accept = [code.upper() for code in request.accept or ()]
    request = replace(request, resume=resume, overwrite=overwrite, accept=accept)
    settings = train_inputs.given_settings(request)
    refuse_impossible_request(request)
    train_inputs.refuse_bad_flags(settings, request.method)
    if launch is not None:
        start_launcher(launch.flags, launched_work(launch.command, request))
        return
    inputs = train_inputs.read_train_inputs(request)
    train_inputs.print_indented(inputs.notes)
    adapt_threads()
    prepared = prepare_training(inputs, request, settings, print_event)
    train_inputs.print_indented([f"{name}: {reason}" for name, reason in prepared.reasons.items()])
    if request.show:
        show_rows(prepared)
        if not request.check:
            return
    report = prepared.preflight(measure=request.check)
    if request.check:
        show_checks(report, prepared)
        raise SystemExit(report.exit_code)
    report.require()
    train_and_publish(prepared, report)


def refuse_impossible_request(request: TrainRequest) -> None:
    """Raise UsageProblem for flags that cannot be combined or have no meaning, before anything is read."""
    if request.method not in TUNING_METHODS:
        raise UsageProblem(
            f"--method {request.method} is not a tuning method", f"choose one of {', '.join(TUNING_METHODS)}"
        )
    for code in request.accept or ():
        if code not in ACCEPTABLE_CODES:
            allowed = f"can be accepted: {', '.join(f'{code} ({CHECK_CODES[code]})' for code in sorted(ACCEPTABLE_CODES))}"
            raise UsageProblem(f"--accept {code} cannot be accepted", allowed)
    if request.show < 0:
        raise UsageProblem(f"--show {request.show} is no number of rows", "0 or more")
    if request.out is None and not request.dry:
        raise UsageProblem("--out is missing", "name the folder the tuned weights go to")
    if request.out is not None and not request.dry:
        refuse_in_use(request.out, request.resume, request.overwrite)


def launched_work(command: GivenCommand, request: TrainRequest) -> Work:
    """Return what a launcher's processes carry out; its script is kept in a folder beside the result, OUT.launch."""
    out = request.out
    assert out is not None

    def make_way(remove: bool) -> None:
        if remove:
            remove_result(out)

    named = (
        request.examples,
        request.prompt,
        request.valid,
        request.replay,
        request.questions,
        request.model,
    )
    return Work(
        command=command,
        out=out,
        launch_folder=out.with_name(f"{out.name}.launch"),
        written=work_folder(out),
        make_way=make_way,
        overwrite=request.overwrite,
        files=[Path(name) for name in (*named, request.init_adapter) if name is not None],
    )


def remove_result(out: Path) -> None:
    """Remove a training's result and its checkpoints; BadInput while another process trains there."""
    with writer_lock(work_folder(out)):
        for old in (out, work_folder(out)):
            shutil.rmtree(old, ignore_errors=True)


def refuse_flags_without_effect(inputs: TrainInputs, settings: Mapping[str, Any]) -> None:
    """Raise UsageProblem for a flag that has no effect on these rows."""
    for name in ("eval_steps", "patience"):
        if name in settings and not inputs.valid:
            raise UsageProblem(
                f"{train_inputs.flag_of(name)} needs validation rows",
                "give --valid FILE, or --valid-share 0.1",
            )
    if "turns" in settings and all(row.raw for row in inputs.rows):
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


def show_rows(prepared: PreparedTraining) -> None:
    """Print the first rows as the model sees them; with --json, to stderr."""
    request, config = prepared.request, prepared.config
    chat = ChatTokenizer(prepared.base.folder)
    rows = encode_examples(prepared.inputs.rows[: request.show], chat, config.max_tokens, config.turns)
    screen = open_console(highlight=False, stderr=request.as_json)
    training.show_training_rows(rows, chat, request.show, config.max_tokens, screen)


def sort_rows(inputs: TrainInputs) -> dict[str, Any]:
    """Print which rows are facts that change, stable facts or behaviour, and return the counts; {} for plain text."""
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


def show_checks(report: PreflightReport, prepared: PreparedTraining) -> None:
    """Print every check: for people, or as JSON with the settings and the kinds of rows."""
    teaches = sort_rows(prepared.inputs)
    if prepared.request.as_json:
        settings, reasons = prepared.config.to_json(), dict(prepared.reasons)
        emit_result(
            training.checks_json(report, {"settings": settings, "reasons": reasons, "teaches": teaches})
        )
    else:
        training.show_checks_report(report)


def train_and_publish(prepared: PreparedTraining, report: PreflightReport) -> None:
    """Train, publish the result as --out, and print a summary."""
    request, config = prepared.request, prepared.config
    assert request.out is not None
    train_inputs.print_indented(training.check_warnings(report))
    announce_training(prepared, report)
    if request.overwrite:
        remove_result(request.out)
    with (
        resume_hint(resume_line(sys.argv)),
        watch_progress(request.as_json) as watcher,
        track_training(
            config, prepared.base.name, request.out, request.resume, chosen_trackers()
        ) as tracking,
    ):
        watcher.begin(f"{config.method} on {count_of_rows(report.used)}")

        def on_event(event: dict[str, Any]) -> None:
            # The warnings were printed above, with those that only the preflight finds.
            watcher({**event, "warnings": ()})
            tracking.update(event)

        result = prepared.train(on_event)
    show_locations(tracking)
    if request.as_json:
        emit_result({"schema": 1, "out": str(request.out), **result.to_json()})
    else:
        print("\n".join(training_summary(result, request.out)))


def announce_training(prepared: PreparedTraining, report: PreflightReport) -> None:
    """Print about how long the training takes, by the speed measured on this CPU; nothing for a short one or a GPU."""
    if find_gpu(MachineProbe()).kind == "cuda":
        return
    try:
        shape = read_shape(read_json(prepared.base.folder / "config.json"))
    except BadInput:
        return  # a model of unknown shape, of which the preflight says so
    prompts = ["".join(turn["content"] for turn in row.messages[:-1]) for row in prepared.inputs.rows]
    # In lexicographic order every prompt is between the first and the last, so the prefix of these two is common.
    same = takewhile(lambda pair: pair[0] == pair[1], zip(min(prompts), max(prompts), strict=False))
    prefix = sum(1 for _ in same) / CHARS_PER_TOKEN if len(prompts) > 1 else 0.0
    config = prepared.config
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
