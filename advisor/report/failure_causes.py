"""Why answers are wrong, as the terminal, the page and report.md show it: causes with their shares and what mends each."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rag.errors import BadInput
from rag.files import check_schema
from rag.text.words import count_noun
from runners.failures.causes import Cause
from runners.failures.failures import FAILURES_FILE
from runners.made_from import recorded_answers
from runners.run_folder import FAILURES_FOLDER, TRIAL

CAUSE_COLUMNS = ("cause", "answers", "95 %", "right with the passage", "what mends it")
TITLES: Mapping[Cause, str] = {
    Cause.NOT_IN_DOCUMENTS: "not in the documents",
    Cause.NOT_FOUND: "not found by the search",
    Cause.CROWDED_OUT: "found, but not shown",
    Cause.IGNORED: "not used by the model, though shown",
    Cause.REFUSED_WRONGLY: "refused, though it has an answer",
    Cause.ANSWERED_WRONGLY: "answered, though it has none",
    Cause.FORM: "right, but not in form",
}
MENDED_BY: Mapping[Cause, str] = {
    Cause.NOT_IN_DOCUMENTS: "documents that state it, or a correct gold answer",
    Cause.NOT_FOUND: "a retriever tuned on questions in these words, or headings that have them",
    Cause.CROWDED_OUT: "more passages: a larger k or context_tokens in the plan's index step, or a reranker",
    Cause.IGNORED: "a larger model, or tuning on examples with passages (hybrid)",
    Cause.REFUSED_WRONGLY: "dev questions in customers' words (wordings), or refusal.gate: lenient in the plan",
    Cause.ANSWERED_WRONGLY: "dev questions without an answer, or refusals among the examples",
    Cause.FORM: "tuning on examples, or an instruction that names the form",
}
ALONE_MENDS = "fewer passages, as other passages misled it"
"""What mends an answer that is right with its gold passage alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CauseRow:
    """One cause in a table."""

    cause: Cause
    title: str
    count: str
    interval: str
    with_passage: str
    """How many of those asked again with their gold passage alone are right then; "–" where none was asked."""
    mended_by: str
    questions: tuple[Mapping[str, Any], ...]
    """The wrong answers with this cause, as ``why --json`` lists them."""

    @property
    def cells(self) -> tuple[str, ...]:
        """The row of a table with the columns of :data:`CAUSE_COLUMNS`."""
        return self.title, self.count, self.interval, self.with_passage, self.mended_by


def cause_rows(data: Mapping[str, Any]) -> list[CauseRow]:
    """Return the causes that occur, the most frequent first."""
    rows = []
    for cause in Cause:
        share = data["causes"][cause.value]
        own = tuple(row for row in data["questions"] if row["cause"] == cause.value)
        if not own:
            continue
        rows.append(
            CauseRow(
                cause=cause,
                title=TITLES[cause],
                count=f"{share['n']} of {share['of']}",
                interval=f"{share['low']:.0%}–{share['high']:.0%}",
                with_passage=_with_passage(own),
                mended_by=_mended_by(cause, own),
                questions=own,
            )
        )
    return sorted(rows, key=lambda row: -len(row.questions))


def causes_sentence(data: Mapping[str, Any]) -> str:
    """Return how many answers are wrong, the most frequent cause, and what deciding it took."""
    others = len(data["questions"]) - data["wrong"]
    beside = f", and {count_noun(others, 'right one')} not in form" if others else ""
    counted = f"{data['wrong']} of {count_noun(data['asked'], 'answer')} of {data['arm']} are wrong{beside}"
    if not data["questions"]:
        return f"{counted}."
    first = cause_rows(data)[0]
    again = (
        f"{count_noun(data['replayed'], 'question')} asked again with the gold passage"
        if data["replayed"]
        else "no question had to be asked again"
    )
    return f"{counted}. Most frequent: {first.title} ({first.count}). {again[0].upper()}{again[1:]}."


def read_failures(run: Path) -> tuple[dict[str, Any], ...]:
    """Return the causes of each arm's wrong answers, as far as they are of the trial's present answers.

    BadInput for a damaged or newer file.
    """
    answers, known = recorded_answers(run / TRIAL), []
    for file in sorted((run / FAILURES_FOLDER).glob(f"*/{FAILURES_FILE}")):
        try:
            data = check_schema(json.loads(file.read_text("utf-8")), "failures", file)
        except (OSError, ValueError) as error:
            raise BadInput(
                f"{file} is damaged: {error!r}",
                f"write it again: tunewise why {run} --arm {file.parent.name}",
            ) from None
        if answers.get(data["arm"]) == data["answers_from"]:
            known.append(data)
    return tuple(known)


def _with_passage(answers: Sequence[Mapping[str, Any]]) -> str:
    asked, right = _replays(answers)
    return f"{right} of {asked}" if asked else "–"


def _replays(answers: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
    """Return how many questions were asked again, and how many of them are right with their gold passage."""
    replays = [row["replay"] for row in answers if row["replay"]]
    return len(replays), sum(replay["right"] for replay in replays)


def _mended_by(cause: Cause, answers: Sequence[Mapping[str, Any]]) -> str:
    asked, right = _replays(answers)
    if cause == Cause.IGNORED and 2 * right > asked:
        return f"{ALONE_MENDS}; else {MENDED_BY[cause]}"
    if cause in (Cause.NOT_FOUND, Cause.CROWDED_OUT) and 2 * right < asked:
        return f"{MENDED_BY[cause]}; and then {MENDED_BY[Cause.IGNORED]}"
    return MENDED_BY[cause]
