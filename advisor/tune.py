"""The `tunewise train` verb: rows, settings with their reasons, preflight, training, and what to do next."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advisor import bounds, chosen, material
from advisor.material import Files, Material
from advisor.output import emit
from advisor.telling import tell
from rag.durable import writing_into
from rag.errors import UsageProblem
from runners.complaints import ACCEPTABLE, CODES, rows_of
from runners.tuning import TUNING_METHODS, TrainConfig, TrainResult

if TYPE_CHECKING:
    from runners.models import Model
    from runners.preflight import Preflight


MOST_SORTED = 1_000
"""Rows that are sorted into facts and behaviour while somebody waits."""


@dataclass(frozen=True, slots=True)
class Order:
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


def tune(files: Files, settings: Mapping[str, Any], order: Order) -> None:
    """Carry out `tunewise train`; see advisor/commands/train.py for the flags."""
    refuse(order)
    bounds.refuse(settings, order.method)
    read = material.gather(files)
    material.say(read.told)
    from runners import models

    refuse_idle(read, settings)
    base = models.resolve(order.model, on_event=tell)
    config, reasons = chosen.settle(read.rows, read.valid, read.distinct, base, order.method, settings)
    material.say([f"{name}: {reason}" for name, reason in reasons.items()])
    if order.show:
        show_rows(read, config, base, order)
        if not order.check:
            return
    from runners.preflight import examine

    report = examine(
        read.rows, base, config, valid=read.valid, questions=read.questions, out=order.out,
        accept=order.accept, measure=order.check,
    )  # fmt: skip
    if order.check:
        show_checks(report, config, reasons, order, sort_rows(read))
        raise SystemExit(report.exit_code)
    report.require()
    train(read, config, base, reasons, report, order)


def refuse(order: Order) -> None:
    """Raise UsageProblem for an order that cannot be meant, before anything is read."""
    if order.method not in TUNING_METHODS:
        raise UsageProblem(
            f"--method {order.method} is not a tuning method", f"choose one of {', '.join(TUNING_METHODS)}"
        )
    for code in order.accept:
        if code not in ACCEPTABLE:
            known = f"can be accepted: {', '.join(f'{c} ({CODES[c]})' for c in sorted(ACCEPTABLE))}"
            raise UsageProblem(f"--accept {code} cannot be accepted", known)
    if order.show < 0:
        raise UsageProblem(f"--show {order.show} is no number of rows", "0 or more")
    if order.resume and order.overwrite:
        raise UsageProblem("--resume and --overwrite exclude each other", "choose one")
    if order.out is None and not order.dry:
        raise UsageProblem("--out is missing", "name the folder the tuned weights go to")
    if order.out is not None and not order.dry:
        refuse_in_use(order.out, order.resume, order.overwrite)


def refuse_idle(read: Material, settings: Mapping[str, Any]) -> None:
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


def show_rows(read: Material, config: TrainConfig, base: Model, order: Order) -> None:
    """Print the first rows as the model sees them; beside JSON, to stderr."""
    from rich.console import Console

    from advisor import maskview
    from runners.chat import Chat
    from runners.encode import encode

    chat = Chat(base.folder)
    rows = encode(read.rows[: order.show], chat, config.max_tokens, config.turns)
    screen = Console(highlight=False, stderr=order.as_json)
    maskview.show(rows, chat, order.show, config.max_tokens, screen)


def sort_rows(read: Material) -> dict[str, Any]:
    """Say which rows are facts that change, stable facts or behaviour, and return the counts; {} for plain texts."""
    from advisor.splitter import split_alone

    found = split_alone(read.rows[:MOST_SORTED])
    if not found.rows:
        return {}
    first = f" (the first {MOST_SORTED:,} of {len(read.rows):,})" if len(read.rows) > MOST_SORTED else ""
    material.say([f"what the rows teach{first}: {found.text}"])
    return {key: value for key, value in found.to_json().items() if key != "each"} | {"text": found.text}


def show_checks(
    report: Preflight, config: TrainConfig, reasons: Mapping[str, str], order: Order, sorted_rows: dict[str, Any]
) -> None:  # fmt: skip
    """Print every check: for people, or as JSON with the settings and what the rows teach."""
    from advisor import checklist

    if order.as_json:
        told = {"settings": config.to_json(), "reasons": dict(reasons), "teaches": sorted_rows}
        emit(checklist.to_json(report, told))
    else:
        checklist.show(report)


def train(
    read: Material, config: TrainConfig, base: Model, reasons: Mapping[str, str], report: Preflight, order: Order
) -> None:  # fmt: skip
    """Train, publish the result as --out, and print what was made."""
    from advisor import checklist
    from advisor.ending import resumable
    from advisor.progress import watching
    from runners.train import Origin, fit, work_of

    assert order.out is not None
    material.say(checklist.warnings(report))
    if order.overwrite:
        for old in (order.out, work_of(order.out)):
            shutil.rmtree(old, ignore_errors=True)
    origin = Origin(files=read.files, reasons=reasons)
    with resumable(resume_line(sys.argv)), watching(order.as_json) as watcher, writing_into(order.out):
        watcher.begin(f"{config.method} on {rows_of(report.used)}")

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
        emit({"schema": 1, "out": str(order.out), **result.to_json()})
    else:
        print("\n".join(summary(result, order.out)))


def summary(result: TrainResult, out: Path) -> Iterator[str]:
    """Yield what was made, how it went, and what to do next."""
    full = result.method == "full"
    yield f"{'model' if full else 'adapter'}: {out}"
    valid = f", on validation rows {result.valid_loss:.3f}" if result.valid_loss is not None else ""
    yield f"loss: {result.first_loss:.3f} at first, {result.last_loss:.3f} at last{valid}"
    yield (
        f"{rows_of(result.rows)}, {result.steps:,} steps, {result.tokens:,} tokens in {result.seconds:,.0f} s "
        f"({result.tokens_per_s:,.0f} tokens/s), {result.trainable:,} weights trained"
    )
    if result.left_out:
        yield f"left out: {rows_of(result.left_out)}"
    yield from result.notes
    yield f"next: tunewise adapters show {shlex.quote(str(out))}"
    if not full:
        yield f"      tunewise train --init-adapter {shlex.quote(str(out))} ...  goes on from it on other rows"


def resume_line(arguments: Sequence[str]) -> str:
    """Return the command line that goes on with the run that these arguments began."""
    given = [part for part in arguments[1:] if part not in ("--overwrite", "--resume", "--debug")]
    return shlex.join(["tunewise", *given, "--resume"])
