"""What `tunewise examples make` says: the requests and their cost before, and what came of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from advisor.output import command_line, note
from rag.text.words import count_noun
from runners.data.teachers import LICENSE_QUESTION, NOT_ANSWERED
from runners.models.resolve import RemoteModel
from runners.run_folder import read_journal
from runners.synthesis.drawing import usable_passages
from runners.synthesis.making import MOST_ASKED
from runners.synthesis.rewording import needs_wordings, rewording_chat
from runners.synthesis.teacher import QUESTION_STYLES, teacher_chat
from runners.tokenization.token_estimate import estimate_tokens

if TYPE_CHECKING:
    from advisor.flags.examples import MakeFlags
    from rag.types import Chunk
    from runners.data.questions import Question
    from runners.synthesis.making import BaseModelCheck, MakingOutcome, Teacher, TeacherUse
    from runners.synthesis.rewording import RewordingOutcome
    from runners.synthesis.teacher import TeacherTask

JOURNAL = "teacher.jsonl"
"""File of the teacher's texts in the work folder."""
EXPECTED_SHARE = 0.5
"""Share of a teacher's rows that are expected to pass, for the estimate of the cost."""
EXPECTED_REPLY_TOKENS = 80
"""Tokens of a teacher's text, for the estimate of the cost."""
REASON_TEXTS = {
    "malformed": "the teacher's text has no question and reply",
    "form": "not one question in the right language that can be read by itself, or a reply not of the form of the examples",
    "unsupported": "the passage does not support the reply, or the reply does not answer the question",
    "not retrieved": "retrieval does not find the passage for the question",
    "leak": "a held-out question",
    "repeat": "a repeat of another row",
    "known": "the base model knows it without the passage",
}


WORDING_REASON_TEXTS = {
    "malformed": "the teacher's text has no two wordings",
    "long": "far too long for a question",
    "repeat": "the words of the question, or of another one",
    "lost name": "it does not say which thing is meant: a number or a name of the question is missing",
    "answer": "it has the answer in it",
    "language": "in another language than the question",
}
EXPECTED_WORDING_TOKENS = 50
"""Tokens of a teacher's two wordings, for the estimate of the cost."""


def estimate_requests(
    flags: MakeFlags, task: TeacherTask, chunks: Sequence[Chunk], price: tuple[float, float] | None
) -> dict[str, Any]:
    """Return about how many requests and tokens are needed, and at most."""
    usable = usable_passages(chunks)
    sample = usable[:: max(1, len(usable) // 40)][:40]
    sizes = [
        sum(estimate_tokens(m["content"]) for m in teacher_chat(task, chunk, 0)) for chunk in sample
    ] or [0]
    each = sum(sizes) / len(sizes)
    most = min(MOST_ASKED * flags.count, len(usable) * len(QUESTION_STYLES))
    likely = min(most, round(flags.count / EXPECTED_SHARE))
    tokens = {"prompt": round(likely * each), "completion": likely * EXPECTED_REPLY_TOKENS}
    usd = _usd(tokens, price)
    return {
        "passages": len(usable),
        "requests": likely,
        "most_requests": most,
        "answered_before": _texts_before(flags),
        "tokens": tokens,
        "usd": None if usd is None else round(usd, 4),
        "most_usd": None if usd is None else round(usd * most / max(1, likely), 4),
    }


def estimate_rewording(
    flags: MakeFlags, questions: Sequence[Question], language: str, price: tuple[float, float] | None
) -> dict[str, Any]:
    """Return the requests and about how many tokens the rewording of questions needs: one request for each."""
    wanted = [question.question for question in questions if needs_wordings(question)]
    prompt = sum(
        estimate_tokens(turn["content"]) for text in wanted for turn in rewording_chat(text, language)
    )
    tokens = {"prompt": prompt, "completion": EXPECTED_WORDING_TOKENS * len(wanted)}
    usd = _usd(tokens, price)
    return {
        "questions": len(wanted),
        "requests": len(wanted),
        "most_requests": len(wanted),
        "answered_before": _texts_before(flags),
        "tokens": tokens,
        "usd": None if usd is None else round(usd, 4),
        "most_usd": None if usd is None else round(usd, 4),
    }


def _texts_before(flags: MakeFlags) -> int:
    """Return how many texts of the teacher an earlier call left."""
    return sum("text" in row for row in read_journal(flags.work / JOURNAL)) if flags.resume else 0


def _usd(tokens: Mapping[str, int], price: tuple[float, float] | None) -> float | None:
    """Return what tokens of prompts and completions cost; None without a price."""
    return (tokens["prompt"] * price[0] + tokens["completion"] * price[1]) / 1e6 if price else None


def show_request_estimate(flags: MakeFlags, estimate: dict[str, Any], remote: RemoteModel | None) -> None:
    """Print how often the teacher is asked and what that costs."""
    tokens = estimate["tokens"]["prompt"] + estimate["tokens"]["completion"]
    money = ""
    if remote is not None:
        money = (
            f", about ${estimate['usd']:.2f} (at most ${estimate['most_usd']:.2f})"
            if estimate["usd"] is not None
            else "; no price is known for it (--price IN/OUT)"
        )
    about = next(key for key in ("passages", "questions") if key in estimate)
    note(
        f"{count_noun(estimate[about], about.removesuffix('s'))} to ask about; {flags.teacher} is asked about "
        f"{estimate['requests']:,} times, at most {estimate['most_requests']:,}: about {tokens:,} tokens{money}"
    )
    if estimate["answered_before"]:
        note(f"{estimate['answered_before']:,} of its texts are from an earlier run and not asked for again")


def summarise_making(
    flags: MakeFlags,
    kind: str,
    teacher: Teacher | None,
    base: BaseModelCheck | None,
    outcome: MakingOutcome,
    chunks: Sequence[Chunk],
    price: tuple[float, float] | None,
    seconds: float,
) -> dict[str, Any]:
    """Return the summary as ``--json`` prints it."""
    documents = {chunk.doc for chunk in chunks}
    return {
        "schema": 1,
        "out": str(flags.out),
        "rejected_file": str(flags.rejected),
        "as": kind,
        "rows": len(outcome.passed),
        "wanted": flags.count,
        "asked": outcome.asked,
        "reused": outcome.reused,
        "rejected": outcome.by_reason,
        "known": sum(bool(row.checks.get("known")) for _, row in outcome.passed) if base else None,
        "documents": len(documents),
        "documents_with_rows": len({row.row.passage.doc for _, row in outcome.passed}),
        "passages": outcome.passages,
        "short_because": outcome.exhausted or None,
        "teacher": _teacher(flags, teacher, kind) if teacher else None,
        "model": base.name if base else None,
        **_spent(outcome, price, seconds),
    }


def _teacher(flags: MakeFlags, teacher: Teacher, kind: str) -> dict[str, str]:
    """Return who wrote the rows; of rows to train on with the answer whether its licence allows that."""
    named = {"name": teacher.name, "host": teacher.host}
    return named | ({"license": flags.teacher_license or NOT_ANSWERED} if kind == "examples" else {})


def _spent(use: TeacherUse, price: tuple[float, float] | None, seconds: float) -> dict[str, Any]:
    """Return the tokens, the money and the time that a teacher took."""
    tokens = {"prompt": use.prompt_tokens, "completion": use.completion_tokens}
    usd = _usd(tokens, price)
    return {
        "tokens": {**tokens, "new": use.new_tokens, "estimated": use.estimated},
        "usd": None if usd is None else round(usd, 4),
        "seconds": round(seconds, 1),
    }


def summarise_rewording(
    flags: MakeFlags,
    teacher: Teacher,
    outcome: RewordingOutcome,
    questions: int,
    price: tuple[float, float] | None,
    seconds: float,
) -> dict[str, Any]:
    """Return the summary of reworded questions as ``--json`` prints it."""
    return {
        "schema": 1,
        "out": str(flags.out),
        "rejected_file": str(flags.rejected),
        "as": "wordings",
        "questions": questions,
        "reworded": len(outcome.wordings),
        "wordings": sum(map(len, outcome.wordings.values())),
        "skipped": outcome.skipped,
        "asked": outcome.asked,
        "reused": outcome.reused,
        "rejected": outcome.by_reason,
        "teacher": {"name": teacher.name, "host": teacher.host},
        **_spent(outcome, price, seconds),
    }


def show_rewording(summary: dict[str, Any]) -> None:
    """Print the summary of reworded questions for a person."""
    print(
        f"{count_noun(summary['wordings'], 'wording')} of {summary['reworded']:,} of "
        f"{count_noun(summary['questions'], 'question')}: {summary['out']}"
    )
    if summary["skipped"]:
        print(f"  {summary['skipped']:5,} not reworded: they have other wordings, or follow on earlier turns")
    _show_rejected(summary, WORDING_REASON_TEXTS)
    _show_spent(summary)
    print("  written by a model, not by customers: read some before you use them")


def _show_rejected(summary: Mapping[str, Any], texts: Mapping[str, str]) -> None:
    for kind, number in summary["rejected"].items():
        print(f"  {number:5,} thrown out: {texts[kind]}")
    if summary["rejected"]:
        print(f"  each with its reason: {summary['rejected_file']}")


def _show_spent(summary: Mapping[str, Any]) -> None:
    tokens = summary["tokens"]
    if tokens["prompt"]:
        counted = "estimated" if tokens["estimated"] else "counted by the teacher"
        money = f", ${summary['usd']:.4f}" if summary["usd"] is not None else ""
        print(
            f"  {tokens['prompt'] + tokens['completion']:,} tokens, {counted}{money}; {summary['seconds']:.0f} s"
        )


def show_summary(summary: dict[str, Any]) -> None:
    """Print the summary for a person."""
    noun = "question" if summary["as"] == "questions" else "row"
    asked = f" of {summary['asked']:,} that were looked at" if summary["asked"] else ""
    print(
        f"{count_noun(summary['rows'], noun)}{asked}, from {summary['documents_with_rows']:,} of "
        f"{count_noun(summary['documents'], 'document')}: {summary['out']}"
    )
    _show_rejected(summary, REASON_TEXTS)
    if summary["known"]:
        print(f"  {summary['known']:,} are marked known: {summary['model']} answers them without the passage")
    if summary["short_because"]:
        print(f"  {summary['wanted']:,} were requested, but {summary['short_because']}")
    _show_spent(summary)
    if license := (summary["teacher"] or {}).get("license"):
        how = "; answer it with --resume --teacher-license yes, no or unknown" * (license == NOT_ANSWERED)
        print(f"  {LICENSE_QUESTION} {license}, stored with each row{how}")
    if summary["rows"]:
        flag = "--questions" if summary["as"] == "questions" else "--examples"
        print(f"  read some before you use them; then: {command_line('plan', flag, summary['out'])}")
