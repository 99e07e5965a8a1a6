"""The verdict as a few plain sentences: which arm to use, what it needs, and what is not settled yet.

:func:`conclude` builds them from the content of a report alone, so that they say nothing that was not measured or
stated in the run. The first sentence always names the right answers, where answers could be judged.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rag.text.words import count_noun
from runners.arms.few_shot import PLAN_INSTRUCTIONS

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Reader:
    """A report's content, with what the sentences need of it at hand."""

    data: Row
    prompt_in_use: bool
    """Whether the plan holds instructions, so that the arm prompting answers as today."""

    @property
    def verdict(self) -> Row:
        """The verdict's keys."""
        return dict(self.data["verdict"])

    def arm(self, name: str | None) -> Row:
        """Return an arm's row; {} without one."""
        return next((row for row in self.data["arms"] if row["arm"] == name), {})

    def right(self, name: str | None) -> Row:
        """Return an arm's right answers; {} where none could be judged."""
        return dict(self.arm(name).get("right") or {})

    @property
    def best(self) -> str:
        """The arm with the highest combined score, whatever was said."""
        return str(max(self.data["arms"], key=lambda row: row["score"]["mean"])["arm"])

    @property
    def measured(self) -> Row:
        """What the run took; {} in an evaluation on other questions."""
        return dict(self.data.get("measured") or {})


def conclude(data: Row, prompt_in_use: bool) -> list[str]:
    """Return the plain conclusion of a report, one to seven entries of one or two sentences each.

    Args:
        data: the content of report.json: verdict, arms, measured and guards; those of an evaluation serve too.
        prompt_in_use: whether the plan holds instructions, so that the arm prompting answers as today.
    """
    reader = Reader(data, prompt_in_use)
    use = reader.verdict.get("use")
    if use is None:
        lines = [_nothing_to_use(reader), _what_to_do(reader)]
    else:
        lines = [
            _use_line(reader, use),
            _weak_line(reader, use),
            _standing_line(reader, use),
            _refusal_line(reader, use),
            _needs_line(reader, use),
            _change_line(reader, use),
        ]
    return [line for line in (*lines, _limits_line(reader)) if line]


def _use_line(reader: Reader, use: str) -> str:
    """Return which arm to use and how many answers are right, beside today's prompt and the best alternative."""
    verdict, right = reader.verdict, reader.right(use)
    stay = use == "prompting"
    settled = verdict["outcome"] == "confirmed" and verdict["strength"] == "measured"
    first = (
        ("Stay with your prompt" if reader.prompt_in_use else "A prompt is enough") if stay else f"Use {use}"
    )
    first += "." if settled or verdict["outcome"] == "overturned" else " for now."
    if not right:
        score = reader.arm(use).get("score") or {}
        return (
            f"{first} It scored {score['mean']:.2f}; which answers are right was not counted."
            if score
            else first
        )
    pairs = verdict.get("compared") or {}
    text = f"It answers {right['n']} of {right['of']} questions right{_in_both_wordings(reader.arm(use))}"
    today, other = (pairs.get(key) or {} for key in ("today", "alternative"))
    beside = []
    if today.get("right"):
        mine = own_prompt(reader.data, reader.prompt_in_use)
        beside.append(f"{mine} answers {_beside(today['right'], right)}")
    if other.get("right"):
        verb = "" if beside else " answers"
        beside.append(f"{other['arm']}{verb} {_beside(other['right'], right)}")
    return f"{first} {text}" + (f"; {', '.join(beside)}." if beside else ".")


def _in_both_wordings(arm: Row) -> str:
    """Return right answers in the questions' own words and in others, in brackets; "" without other wordings."""
    own, other = ((arm.get("by_wording") or {}).get(key, {}).get("right") for key in ("question", "wordings"))
    if not (own and other):
        return ""
    return (
        f" ({own['n']} of {own['of']} as the file words them, {other['n']} of {other['of']} in other words)"
    )


def question_count(data: Row) -> int:
    """Return how many questions the arms of a report answered, other wordings of one not counted."""
    return max((row.get("questions", row["n"]) for row in data["arms"]), default=0)


def own_prompt(data: Row, in_use: bool) -> str:
    """Return what the arm prompting is called beside the arm to use.

    Its instructions may have been worded anew on dev questions; then the words say so.

    Args:
        data: a report's content.
        in_use: whether the plan holds instructions.
    """
    rows: Iterable[Row] = data.get("dev_budget") or ()
    row: Row = next((row for row in rows if row["arm"] == "prompting"), {})
    wording = row.get("chosen")
    if wording in (None, PLAN_INSTRUCTIONS):
        return "your prompt today" if in_use else "the model alone"
    return f"your prompt with its {wording}" if in_use else f"the model with its {wording}"


def _beside(right: Row, first: Row) -> str:
    """Return a count, with its number of questions where that is another one than in the count before."""
    return str(right["n"]) if right["of"] == first["of"] else f"{right['n']} of {right['of']}"


def _weak_line(reader: Reader, use: str) -> str:
    """Return a warning where the arm to use answers fewer than half of the questions right."""
    right = reader.right(use)
    if not right or 2 * right["n"] >= right["of"]:
        return ""
    return "That is fewer than half: have a person check its answers, or try a larger model first."


def _standing_line(reader: Reader, use: str) -> str:
    """Return what the trial says of the recommendation."""
    verdict = reader.verdict
    recommended, advised = verdict["recommended"], verdict.get("advised") or verdict["recommended"]
    excluded = verdict.get("excluded") or {}
    if advised != recommended:
        return f"{advised} was recommended but could not be measured, so whether it would do better is not known."
    if verdict["outcome"] == "confirmed":
        if use == recommended:
            return f"{use} was recommended, and the trial confirms it."
        return f"{recommended} was recommended, but {_why_not(reader, recommended)}."
    if use != recommended and recommended in excluded:
        return f"{recommended} was recommended, but it {excluded[recommended]}."
    best = reader.best
    better = best if best != use and best in excluded else ""
    beside = f" {better} scored best, but it {excluded[better]}." if better else ""
    if verdict["outcome"] == "overturned":
        return f"{recommended} was recommended, but the trial speaks against it: {_why_not(reader, recommended)}.{beside}"
    margin = verdict.get("margin") or {}
    if not margin:
        return ""
    pair = " and ".join((recommended, margin["against"]))
    count = reader.right(recommended).get("of") or reader.arm(recommended).get("n")
    questions = f" with {count_noun(count, 'question')}" if count else ""
    return f"The result is too close to call{questions}: {pair} could be equally good.{beside}"


def _why_not(reader: Reader, recommended: str) -> str:
    """Return why the recommended arm is not the one to use, as a clause."""
    verdict = reader.verdict
    reason = (verdict.get("excluded") or {}).get(recommended)
    if reason:
        return f"it {reason}"
    margin = verdict.get("margin") or {}
    mine, theirs = reader.right(recommended), reader.right(margin.get("against"))
    if mine and theirs:
        return f"it answers {mine['n']} right, {margin['against']} {_beside(theirs, mine)}"
    return str(verdict.get("use_reason") or "another arm did better")


def _refusal_line(reader: Reader, use: str) -> str:
    """Return how it treats questions without an answer, and whether it refuses others wrongly."""
    right = reader.right(use)
    refused, answered = right.get("refused") or {}, right.get("answered") or {}
    if not refused.get("of"):
        return ""
    wrongly = (reader.arm(use).get("scores") or {}).get("false_refusal") or {}
    line = f"Of {count_noun(refused['of'], 'question')} without an answer in the documents {use} refuses {refused['n']}"
    if wrongly and answered.get("of"):
        count = round(wrongly["mean"] * wrongly["n"])
        line += f"; of the {answered['of']} with an answer it wrongly refuses {count or 'none'}"
    return f"{line}."


def _needs_line(reader: Reader, use: str) -> str:
    """Return what it takes: training, memory, and the seconds of an answer, alone and in a batch."""
    arm, parts = reader.arm(use), []
    runs = (reader.measured.get("training") or {}).get(_weights_of(reader, use)) or []
    gib = max((run.get("peak_gib") or 0.0 for run in runs), default=0.0)
    seconds = sum(run.get("seconds") or 0.0 for run in runs)
    if runs and seconds:
        memory = f" and {gib:.2g} GiB of memory" if gib else ""
        parts.append(f"Training {use} took {duration_text(seconds)}{memory} on this machine.")
    alone, batch = arm.get("alone") or {}, arm.get("batch")
    each = arm.get("seconds_per_answer")
    in_batch = f"{each:.2g} s in a batch of {batch}" if each and batch and batch > 1 else ""
    if alone:
        beside = f" ({in_batch})" if in_batch else ""
        parts.append(f"An answer takes {alone['seconds']:.2g} s when asked alone on this machine{beside}.")
    elif in_batch:
        parts.append(f"An answer takes {in_batch}; alone it takes longer, which was not measured.")
    elif each:
        parts.append(f"An answer took {each:.2g} s in the trial.")
    if arm.get("usd_per_1000"):
        parts.append(f"1,000 answers cost {arm['usd_per_1000']:.2g} USD.")
    return " ".join(parts)


def _weights_of(reader: Reader, use: str) -> str:
    """Return the name of the arm whose weights an arm answers with; its own where it has none of another."""
    return str(reader.arm(use).get("weights") or use)


def _change_line(reader: Reader, use: str) -> str:
    """Return what to do when documents change, with what the staleness test measured."""
    arm = reader.arm(use)
    seconds = (reader.measured.get("seconds") or {}).get("index")
    tuned = bool((reader.measured.get("training") or {}).get(_weights_of(reader, use)))
    if arm.get("retrieval"):
        built = f": building it again took {duration_text(seconds)} here" if seconds else ""
        stays = "; no new training is needed" if tuned else ""
        line = f"When documents change, update the index{built}{stays}."
    elif tuned:
        line = f"When facts change, {use} must be trained again."
    else:
        return ""
    stale = ((reader.data.get("guards") or {}).get("staleness") or {}).get("arms") or []
    row = next((row for row in stale if row.get("arm") == use), None)
    if row and row.get("n"):
        line += (
            f" After a test update it gave the new fact on {row['new_after']} of {row['n']} questions, "
            f"the old one on {row['old_after']}."
        )
    return line


def _nothing_to_use(reader: Reader) -> str:
    """Return the first line where no arm can be used: what the best one answers, and why it cannot be taken."""
    verdict = reader.verdict
    best = reader.best
    right = reader.right(best)
    if not right:
        return "No arm can be used as it is."
    reason = (verdict.get("excluded") or {}).get(best)
    count = f"{best}, the best by its score, answers {right['n']} of {right['of']} right"
    return f"No arm can be used as it is: {count}" + (f", but it {reason}." if reason else ".")


def _what_to_do(reader: Reader) -> str:
    """Return why no arm can be used, and what to do."""
    reason = str(reader.verdict.get("use_reason") or "")
    return f"{reason[:1].upper()}{reason[1:]}." if reason else ""


def _limits_line(reader: Reader) -> str:
    """Return how far the numbers can be trusted: a quick run, another model, few questions."""
    verdict, full = reader.verdict, reader.data.get("full_run") or {}
    if full.get("quick"):
        minutes = full.get("minutes")
        about = f" (about {duration_text(60 * minutes)})" if minutes else ""
        return f"This was a quick run, for a first impression: run it in full before you decide{about}."
    if verdict["strength"] == "proxy":
        return f"Measured with {verdict['model']} in place of the planned model: take the result as a hint."
    count = question_count(reader.data)
    if verdict["strength"] == "made":
        return (
            f"All {count_noun(count, 'test question')} were generated from the documents: take the result as a hint, and "
            "test with questions that people asked before you decide."
        )
    if verdict["strength"] == "leaning":
        return f"{count_noun(count, 'question')} show a tendency only; with 30 or more the result is firm."
    return ""


def duration_text(seconds: float) -> str:
    """Return a duration in words: 5 seconds, 17 minutes, 1.5 hours."""
    if seconds < 90:
        whole = max(1, round(seconds))
        return count_noun(whole, "second")
    if seconds < 5400:
        return count_noun(round(seconds / 60), "minute")
    return f"{seconds / 3600:.1f} hours"
