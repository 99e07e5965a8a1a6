"""What would ruin a training run, told before time is spent: on rows, tokens, held-out rows and this machine.

:func:`inspect` is what every run passes: it needs the rows and the tokenizer. :func:`examine` adds what takes
more to know: held-out rows, repeats, personal data, memory, the device. Every check has a code; the list is
:data:`runners.preflight.report.CHECK_CODES`. Imports no torch: the device is tried in a child process.
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
    """What the rows look like as tokens, and everything that was checked."""

    rows: int
    used: int
    """Rows trained on; of raw text its pieces."""
    tokens: int
    learnt: int
    """Tokens the loss is taken on."""
    longest: int
    p95: int
    too_long: tuple[int, ...]
    """Lines of the rows over max_tokens, which are left out."""
    left_out: int
    """Rows that are not trained on: too long, nothing to learn, refused by the template."""
    checks: tuple[PreflightCheck, ...]

    @property
    def stops(self) -> tuple[str, ...]:
        """Return what refuses the run, as sentences."""
        return tuple(check.sentence() for check in self.checks if check.level == "stop")

    @property
    def warnings(self) -> tuple[str, ...]:
        """Return what is worth knowing, as sentences."""
        return tuple(check.sentence() for check in self.checks if check.level == "warn")

    @property
    def exit_code(self) -> int:
        """Return 0 when nothing stands in the way, 3 for the data, 4 when only this machine does."""
        stops = [check for check in self.checks if check.level == "stop"]
        machine = all(check.code in MACHINE_CODES for check in stops)
        return 0 if not stops else CannotRun.exit_code if machine else BadInput.exit_code

    def require(self) -> None:
        """Raise BadInput with every reason not to train; CannotRun when this machine is the only one."""
        found = [check for check in self.checks if check.level == "stop"]
        if not found:
            return
        data = [check for check in found if check.code not in MACHINE_CODES]
        hint = "; ".join(dict.fromkeys(check.next for check in data or found if check.next))
        if data:
            raise BadInput(f"this data would ruin the training run: {'; '.join(self.stops)}", hint)
        raise CannotRun(f"this run does not work here: {'; '.join(self.stops)}", hint)

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        counts = {name: getattr(self, name) for name in self.__slots__ if name not in ("checks", "too_long")}
        return {"ok": not self.stops, "checks": [check.to_json() for check in self.checks], **counts}


def inspect_rows(
    rows: Sequence[Example], chat: ChatTokenizer, config: TrainConfig, tokens: TokenCache | None = None
) -> tuple[list[EncodedRow], PreflightReport]:
    """Return the rows that can be trained on as tokens, and the report over all of them.

    ``tokens`` may know them from an earlier start of the run.
    """
    found = encoding.encode_rows(rows, chat, config, tokens)
    checks = [
        *data_checks.check_targets(rows, found, chat, config),
        *template_checks.check_template(rows, found, chat),
    ]
    used = found.used
    report = PreflightReport(
        rows=len(rows),
        used=len(used),
        tokens=sum(len(e.ids) for e in used),
        learnt=sum(len(e.learnt) for e in used),
        longest=found.within(1),
        p95=found.within(0.95),
        too_long=tuple(row.line for row, _ in found.long),
        left_out=found.left_out,
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
    """Return what :func:`inspect` reports, with every other check added.

    ``valid`` and ``questions`` must not be learnt. ``out`` is where the result goes: its disk counts. ``accept``
    names codes of which a stop is only a warning. ``measure`` takes one real step in a child process; without
    it that is done only when the estimate is not sure that the run fits.
    """
    chat = ChatTokenizer(base.folder)
    used, report = inspect_rows(rows, chat, config)
    checks = [*report.checks, data_checks.check_repeats(rows), *data_checks.check_personal_data(rows)]
    if found := data_checks.check_label_balance(rows):
        checks.append(found)
    if questions:
        checks.append(data_checks.check_held_out_questions(rows, questions))
    if valid:
        checks += [data_checks.check_validation_rows(rows, valid), *_validation(valid, chat, config)]
    if used:
        checks += _machine(rows, used, base, config, out, measure)
    return replace(report, checks=tuple(_accepted(check, accept) for check in gravest_per_code(checks)))


def _validation(valid: Sequence[Example], chat: ChatTokenizer, config: TrainConfig) -> list[PreflightCheck]:
    """Return what :func:`inspect` finds wrong with the validation rows, as checks of these."""
    _, report = inspect_rows(valid, chat, config)
    wrong = [check for check in report.checks if check.level != "ok"]
    return [replace(c, code="PF014", text=f"validation rows: {c.title}: {c.text}") for c in wrong]


def _machine(
    rows: Sequence[Example],
    used: Sequence[EncodedRow],
    base: Model,
    config: TrainConfig,
    out: Path | None,
    measure: bool,
) -> list[PreflightCheck]:
    """Return the checks of this machine; where a step was measured, the estimate does not decide."""
    longest = max(len(row.ids) for row in used)
    estimated = machine_checks.needed_memory(base, config, longest)
    memory = machine_checks.memory_check(estimated, longest, config)
    space = [] if out is None else [machine_checks.check_training_disk(base, config, out)]
    free = estimated.free if estimated else None
    if measure or memory.level != "ok":
        picked = machine_checks.largest_batch(used, config.micro_tokens)
        first = next((row for row in rows if not row.raw), None)
        most = free if estimated and estimated.shared else None
        found = probe_process.run_probe(
            base, config, picked, first, bool(estimated and estimated.checkpointing), most
        )
        free = found.told.get("free", {}).get("gib", free)
    else:
        found = probe_process.quick_probe(config)
    tokens = round(config.epochs * sum(len(row.ids) for row in used))
    tried = list(machine_checks.probe_checks(found, config, tokens, free))
    if any(check.code == "PF023" and check.level != "stop" for check in tried) and memory.level == "stop":
        memory = replace(memory, level="warn", text=f"{memory.text}; the measured step decides")
    return [machine_checks.context_check(base, used), memory, *space, *tried]


def _accepted(check: PreflightCheck, accept: Sequence[str]) -> PreflightCheck:
    if check.level != "stop" or check.code not in accept:
        return check
    return replace(check, level="warn", text=f"{check.text}; accepted", next="")
