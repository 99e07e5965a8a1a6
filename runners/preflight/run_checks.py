"""Preflight: the checks before a training run, on rows, tokens, held-out rows and this machine.

:func:`inspect_rows` is part of every run and needs only the rows and the tokenizer. :func:`run_preflight` adds the
checks of held-out rows, repeats, personal data, memory and the device. Every check has a code; they are listed in
:data:`runners.preflight.report.CHECK_CODES`. Imports no torch: the device is probed in a child process.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rag.errors import BadInput, CannotRun
from runners.data.examples import Example
from runners.data.questions import Question
from runners.models.resolve import Model
from runners.plan.train_config import TrainConfig
from runners.preflight import data_checks, machine_checks, probe_process, template_checks
from runners.preflight.report import MACHINE_CODES, PreflightCheck, gravest_per_code
from runners.tokenization import encoding
from runners.tokenization.chat_template import ChatTokenizer, EncodedRow
from runners.tokenization.token_cache import TokenCache


@dataclass(frozen=True, slots=True)
class PreflightReport:
    """Counts of rows and tokens, and the results of all checks."""

    rows: int
    """Rows given."""
    used: int
    """Rows trained on; for raw text the pieces it is divided into."""
    tokens: int
    """Tokens of the rows trained on."""
    learnt: int
    """Target tokens: those with a loss."""
    longest: int
    """Tokens of the longest row."""
    p95: int
    """Tokens that 95 % of the rows do not exceed."""
    too_long: tuple[int, ...]
    """Line numbers of the rows over max_tokens, which are left out."""
    left_out: int
    """Rows that are not trained on: too long, without targets, or refused by the template."""
    checks: tuple[PreflightCheck, ...]

    @property
    def stops(self) -> tuple[str, ...]:
        """The findings that stop the run, as sentences."""
        return tuple(check.sentence() for check in self.checks if check.level == "stop")

    @property
    def warnings(self) -> tuple[str, ...]:
        """The findings that are worth knowing, as sentences."""
        return tuple(check.sentence() for check in self.checks if check.level == "warn")

    @property
    def exit_code(self) -> int:
        """0 when nothing stops the run, 3 when the data does, 4 when only this machine does."""
        stops = [check for check in self.checks if check.level == "stop"]
        if not stops:
            return 0
        only_machine = all(check.code in MACHINE_CODES for check in stops)
        return CannotRun.exit_code if only_machine else BadInput.exit_code

    def require(self) -> None:
        """Raise BadInput with every reason not to train, CannotRun when all of them are this machine's."""
        stops = [check for check in self.checks if check.level == "stop"]
        if not stops:
            return
        of_data = [check for check in stops if check.code not in MACHINE_CODES]
        hint = "; ".join(dict.fromkeys(check.next for check in of_data or stops if check.next))
        if of_data:
            raise BadInput(f"this data would ruin the training run: {'; '.join(self.stops)}", hint)
        raise CannotRun(f"this run does not work here: {'; '.join(self.stops)}", hint)

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        counts = {name: getattr(self, name) for name in self.__slots__ if name not in ("checks", "too_long")}
        return {"ok": not self.stops, "checks": [check.to_json() for check in self.checks], **counts}


def inspect_rows(
    rows: Sequence[Example], chat: ChatTokenizer, config: TrainConfig, tokens: TokenCache | None = None
) -> tuple[list[EncodedRow], PreflightReport]:
    """Return the encoded rows that can be trained on, and the report on all rows.

    Args:
        rows: The examples.
        chat: Tokenizer and template of the base.
        config: Settings of the run.
        tokens: Cache of encoded rows from an earlier start of the run; None for none.
    """
    encoded = encoding.encode_rows(rows, chat, config, tokens)
    checks = [
        *data_checks.check_targets(rows, encoded, chat, config),
        *template_checks.check_template(rows, encoded, chat),
    ]
    used = encoded.used
    report = PreflightReport(
        rows=len(rows),
        used=len(used),
        tokens=sum(len(row.ids) for row in used),
        learnt=sum(len(row.learnt) for row in used),
        longest=encoded.within(1),
        p95=encoded.within(0.95),
        too_long=tuple(row.line for row, _ in encoded.long),
        left_out=encoded.left_out,
        checks=gravest_per_code(checks),
    )
    return used, report


def run_preflight(
    rows: Sequence[Example],
    base: Model,
    config: TrainConfig,
    *,
    valid: Sequence[Example] = (),
    questions: Sequence[Question] = (),
    out: Path | None = None,
    accept: Sequence[str] = (),
    measure: bool = True,
) -> PreflightReport:
    """Return the report of :func:`inspect_rows` with all other checks added.

    Args:
        rows: The training examples.
        base: The base model.
        config: Settings of the run.
        valid: Validation examples, which must not occur in ``rows``.
        questions: Held-out questions, which must not occur in ``rows``.
        out: Folder of the result, whose disk is checked; None for no such check.
        accept: Codes of checks whose stop becomes a warning.
        measure: Whether to take real steps in a child process; without it they are taken only when the memory estimate
            does not say that the run fits.
    """
    chat = ChatTokenizer(base.folder, config.thinking)
    used, report = inspect_rows(rows, chat, config)
    checks = [*report.checks, data_checks.check_repeats(rows), *data_checks.check_personal_data(rows)]
    if label_check := data_checks.check_label_balance(rows):
        checks.append(label_check)
    if questions:
        checks.append(data_checks.check_held_out_questions(rows, questions))
    if valid:
        checks += [data_checks.check_validation_rows(rows, valid), *_validation(valid, chat, config)]
    if used:
        checks += _machine_checks(rows, used, base, config, out, measure)
    return replace(report, checks=tuple(_accepted(check, accept) for check in gravest_per_code(checks)))


def _validation(valid: Sequence[Example], chat: ChatTokenizer, config: TrainConfig) -> list[PreflightCheck]:
    """Return what :func:`inspect_rows` finds wrong with the validation rows, as checks of these."""
    _, report = inspect_rows(valid, chat, config)
    return [
        replace(check, code="PF014", text=f"validation rows: {check.title}: {check.text}")
        for check in report.checks
        if check.level != "ok"
    ]


def _machine_checks(
    rows: Sequence[Example],
    used: Sequence[EncodedRow],
    base: Model,
    config: TrainConfig,
    out: Path | None,
    measure: bool,
) -> list[PreflightCheck]:
    """Return the checks of this machine; where a step was measured, the memory estimate cannot stop the run."""
    longest = max(len(row.ids) for row in used)
    estimated = machine_checks.needed_memory(base, config, longest)
    memory = machine_checks.memory_check(estimated, longest, config)
    disk = [] if out is None else [machine_checks.check_training_disk(base, config, out)]
    free = estimated.free if estimated else None
    if measure or memory.level != "ok":
        batch = machine_checks.largest_batch(used, config.micro_tokens)
        first_chat = next((row for row in rows if not row.raw), None)
        most_gib = free if estimated and estimated.shared else None
        recompute = bool(estimated and estimated.checkpointing)
        probe = probe_process.run_probe(base, config, batch, first_chat, recompute, most_gib)
        free = probe.findings.get("free", {}).get("gib", free)
    else:
        probe = probe_process.quick_probe(config)
    tokens = round(config.epochs * sum(len(row.ids) for row in used))
    probed = list(machine_checks.probe_checks(probe, config, tokens, free))
    if any(check.code == "PF023" and check.level != "stop" for check in probed) and memory.level == "stop":
        memory = replace(memory, level="warn", text=f"{memory.text}; the measured step decides")
    return [machine_checks.context_check(base, used), memory, *disk, *probed]


def _accepted(check: PreflightCheck, accept: Sequence[str]) -> PreflightCheck:
    """Return the check, as a warning where it is a stop that the user accepts."""
    if check.level != "stop" or check.code not in accept:
        return check
    return replace(check, level="warn", text=f"{check.text}; accepted", next="")
