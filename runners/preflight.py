"""What would ruin a training run, checked on the tokens before any weight is loaded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rag.errors import BadInput
from runners.chat import Chat, Encoded, pieces
from runners.data import Example
from runners.models import Model
from runners.tuning import TrainConfig

MAX_LONG_SHARE = 0.05
"""More rows over max_tokens than this refuse the run: the rest would no longer be the user's data."""


@dataclass(frozen=True, slots=True)
class Preflight:
    """What the rows look like as tokens, what stops the run and what is only worth knowing."""

    rows: int
    used: int
    tokens: int
    learnt: int
    """Tokens the loss is taken on."""
    longest: int
    p95: int
    too_long: tuple[int, ...]
    """Lines of the rows that are left out."""
    stops: tuple[str, ...]
    warnings: tuple[str, ...]

    def require(self) -> None:
        """Raise BadInput with every reason not to train, if there is one."""
        if self.stops:
            raise BadInput("this data would ruin the training run: " + "; ".join(self.stops))

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {name: getattr(self, name) for name in self.__slots__}


def inspect(rows: Sequence[Example], chat: Chat, config: TrainConfig) -> tuple[list[Encoded], Preflight]:
    """Return the rows that fit as tokens, and the report over all of them."""
    encoded = [chat.example(row) for row in rows]
    lengths = sorted(len(e.ids) for e in encoded)
    p95 = lengths[int(0.95 * (len(lengths) - 1))] if lengths else 0
    used = [e for e in encoded if len(e.ids) <= config.max_tokens]
    long = [e for e in encoded if len(e.ids) > config.max_tokens]
    report = Preflight(
        rows=len(rows),
        used=len(used),
        tokens=sum(len(e.ids) for e in used),
        learnt=sum(len(e.learnt) for e in used),
        longest=lengths[-1] if lengths else 0,
        p95=p95,
        too_long=tuple(e.line for e in long),
        stops=tuple(_stops(rows, used, long, chat, config, p95)),
        warnings=tuple(_warnings(used, long, chat, config)),
    )
    return used, report


def lines(rows: Sequence[Example], config: TrainConfig, base: Model, show: int = 0) -> Iterator[str]:
    """Yield ``show`` rows with their learnt parts in ⟦ ⟧, then the report; BadInput on a stopper."""
    chat = Chat(base.folder)
    used, report = inspect(rows, chat, config)
    for encoded in used[:show]:
        yield f"--- line {encoded.line}: {len(encoded.ids)} tokens, {len(encoded.learnt)} learnt"
        yield "".join(f"⟦{text}⟧" if learnt else text for text, learnt in pieces(encoded, chat))
    yield f"{report.used} of {report.rows} rows used, {report.tokens} tokens, {report.learnt} of them learnt"
    yield f"row length: longest {report.longest}, 95 % within {report.p95}, limit {config.max_tokens}"
    for warning in report.warnings:
        yield f"warning: {warning}"
    report.require()
    yield "nothing stands in the way"


def _stops(
    rows: Sequence[Example],
    used: list[Encoded],
    long: list[Encoded],
    chat: Chat,
    config: TrainConfig,
    p95: int,
) -> Iterator[str]:
    if not rows:
        yield "there are no rows"
        return
    if len(long) > MAX_LONG_SHARE * len(rows):
        yield (
            f"{len(long)} of {len(rows)} rows are longer than max_tokens {config.max_tokens} "
            f"(lines {_some(long)}); 95 % are within {p95}, so set max_tokens to {p95} or more"
        )
    if masked := [e for e in used if not e.learnt]:
        yield f"{len(masked)} rows have nothing to learn, every token is masked (lines {_some(masked)})"
    if not chat.eos_ids:
        yield "the tokenizer has no end token, so the model could never learn to stop"
    elif endless := [e for e in used if e.learnt and e.ids[e.learnt[-1]] not in chat.eos_ids]:
        yield f"{len(endless)} answers lack the end token, so it would not be learnt (lines {_some(endless)})"
    dirty = [r for r in rows if any(t in m["content"] for m in r.messages for t in chat.control_tokens)]
    if dirty:
        found = ", ".join(str(r.line) for r in dirty[:5])
        yield f"{len(dirty)} rows contain the model's own control tokens as text (lines {found})"


def _warnings(used: list[Encoded], long: list[Encoded], chat: Chat, config: TrainConfig) -> Iterator[str]:
    if long:
        yield f"{len(long)} rows over max_tokens {config.max_tokens} are left out (lines {_some(long)})"
    if not chat.own_template:
        yield "the model has no chat template; a plain one is used and kept with the tuned weights"
    if chat.pad is None:
        yield "the vocabulary has no padding token apart from the end token; rows are masked by position"
    tokens = sum(len(e.ids) for e in used)
    if tokens and sum(len(e.learnt) for e in used) < 0.02 * tokens:
        yield "under 2 % of the tokens are learnt; are the prompts meant to be this long?"


def _some(rows: list[Encoded]) -> str:
    more = f" and {len(rows) - 5} more" if len(rows) > 5 else ""
    return ", ".join(str(e.line) for e in rows[:5]) + more
