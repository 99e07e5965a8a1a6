"""Evaluation of a probe of the base model: shares of right answers with intervals, what they mean, and the questionnaire
answers that they settle.

:func:`diagnose` computes it. An answer is settled when the interval excludes the threshold.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from advisor.questionnaire.probe_facts import ProbeFacts, ProbeShare
from advisor.rules.behaviour import PASSING_RATE
from rag.evaluation.statistics import PairedDifference, WilsonShare, paired_test
from runners.trial.base_probe import ALONE, CLOSED, FEW_SHOT, OPEN, RETRIEVED, ProbeReplies, ProbeReply

MAJORITY = 0.5
"""Threshold below which a mode is wrong more often than right.

For style it is also where tuning pays: prompts met the required style in 23 to 46 % of replies, tuned models in over 95 %
(Marquardt & Brule, arXiv 2507.04889).
"""

STOP_RULE = "stop_rule"
STYLE_SHARES = ("style", "passes", "few_shot")
"""Shares that style is part of."""
UNDECIDED = "nothing is clear from so few answers; more questions would help"
MAX_P = 0.05
"""Largest p of a difference that is called one where few pairs differ: the bootstrap's interval alone is too narrow then."""
MAX_CUT_SHARE = 0.1
"""With a larger share of answers cut at the token limit, style was judged on short answers only and settles nothing."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What the probe measured and what follows.

    Attributes:
        shares: share of right answers of each mode on the same questions; ``style``, ``stop_rule`` (right and in style on
            real examples), ``passes`` (right and in style, everything asked without passages), ``few_shot`` (the same,
            asked again with examples) and ``classifier`` (labels of training examples in cross-validation).
        lift: open-book minus closed-book, on the same questions; None when there are none.
        lost: open-book minus retrieved.
        shown: what passes with examples in the prompt minus without, on the same questions.
        brought: share of questions for which retrieval returned the supporting passage.
        reading: the interpretation, as sentences.
        settled: answers of the questionnaire whose interval excludes the threshold, by question id.
        because: the measurement behind each of them.
        reply_f1: mean token F1 of the replies without passages against the wanted ones; None where none could be compared.
        few_cut: whether few enough answers were cut for style to count.
    """

    shares: dict[str, WilsonShare]
    lift: PairedDifference | None
    lost: PairedDifference | None
    shown: PairedDifference | None
    brought: WilsonShare
    reading: tuple[str, ...]
    settled: dict[str, Any]
    because: dict[str, str]
    reply_f1: float | None = None
    few_cut: bool = True

    def facts(self) -> ProbeFacts:
        """Return the measured values as they are carried with the answers.

        Where many answers were cut, style and what passes were judged on short answers only and are left out.
        """
        measured = {name: share for name, share in self.shares.items() if share.n}
        if not self.few_cut:
            measured = {name: share for name, share in measured.items() if name not in STYLE_SHARES}
        return ProbeFacts(
            **{
                name.replace("-", "_"): ProbeShare(share.hits, share.n)
                for name, share in measured.items()
                if name != STOP_RULE
            },
            reply_f1=None if self.reply_f1 is None else round(self.reply_f1, 4),
        )

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "shares": {name: share.to_json() for name, share in self.shares.items()},
            "retrieval_brought": self.brought.to_json(),
            "lift": _difference(self.lift),
            "lost": _difference(self.lost),
            "few_shot_gain": _difference(self.shown),
            "reply_f1": None if self.reply_f1 is None else round(self.reply_f1, 4),
            "reading": list(self.reading),
            "settled": self.settled,
            "because": self.because,
        }


def diagnose(probe: ProbeReplies, seed: int = 0) -> Diagnosis:
    """Evaluate the replies of a probe.

    Intervals are Wilson's for shares and BCa of the paired bootstrap for differences. Closed-book, open-book and retrieved
    are compared on the same questions: those whose supporting passage is known, or all answerable ones where there are no
    documents.

    Args:
        probe: the replies.
        seed: seed of the bootstrap.
    """
    judged = {mode: _judged_replies(probe, mode) for mode in (CLOSED, OPEN, RETRIEVED)}
    alone = [reply for mode in (CLOSED, ALONE) for reply in probe.of(mode)]
    shares = {mode: _share([reply.right for reply in replies]) for mode, replies in judged.items()}
    shares["style"] = _share([reply.style for reply in alone])
    shares[STOP_RULE] = _share([_passes(reply) for reply in probe.of(ALONE)])
    shares["passes"] = _share([_passes(reply) for reply in alone])
    if with_examples := probe.of(FEW_SHOT):
        shares["few_shot"] = _share([_passes(reply) for reply in with_examples])
    if probe.classified is not None:
        shares["classifier"] = WilsonShare.of(probe.classified.right, probe.classified.n)
    right = {mode: _scores(replies, lambda reply: reply.right) for mode, replies in judged.items()}
    lift = _paired(right, OPEN, CLOSED, seed)
    lost = _paired(right, OPEN, RETRIEVED, seed)
    passing = {"with": _scores(probe.of(FEW_SHOT), _passes), "without": _scores(alone, _passes)}
    shown = _paired(passing, "with", "without", seed)
    brought = WilsonShare.of(probe.brought, len(probe.grounded))
    few_cut = probe.cut <= MAX_CUT_SHARE * len(probe.replies)
    settled, because = _settled(shares, lift, few_cut)
    reading = _reading(shares, lift, lost, brought) or (UNDECIDED,)
    overlaps = [reply.f1 for reply in alone if reply.f1 is not None]
    return Diagnosis(
        shares=shares,
        lift=lift,
        lost=lost,
        shown=shown,
        brought=brought,
        reading=(*reading, *_rival_reading(shares, shown)),
        settled=settled,
        because=because,
        reply_f1=fmean(overlaps) if overlaps else None,
        few_cut=few_cut,
    )


def _judged_replies(probe: ProbeReplies, mode: str) -> list[ProbeReply]:
    """Return the replies of a mode that can be compared with the other modes."""
    return [
        reply
        for reply in probe.of(mode)
        if reply.answerable and reply.right is not None and (not probe.grounded or reply.id in probe.grounded)
    ]


def _passes(reply: ProbeReply) -> bool | None:
    """Return whether a reply is right and in style, as far as each can be judged; None when neither can."""
    known = [value for value in (reply.right, reply.style) if value is not None]
    return all(known) if known else None


def _share(values: Sequence[bool | None]) -> WilsonShare:
    known = [value for value in values if value is not None]
    return WilsonShare.of(sum(known), len(known))


def _scores(replies: Sequence[ProbeReply], judge: Callable[[ProbeReply], bool | None]) -> dict[str, float]:
    """Return 1 or 0 by question for the replies that can be judged."""
    return {reply.id: float(value) for reply in replies if (value := judge(reply)) is not None}


def _paired(scores: dict[str, dict[str, float]], a: str, b: str, seed: int) -> PairedDifference | None:
    scores_a, scores_b = scores[a], scores[b]
    ids = [question_id for question_id in scores_a if question_id in scores_b]
    return (
        paired_test(
            a,
            b,
            [scores_a[question_id] for question_id in ids],
            [scores_b[question_id] for question_id in ids],
            seed,
        )
        if ids
        else None
    )


def _settled(
    shares: dict[str, WilsonShare], lift: PairedDifference | None, few_cut: bool
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the answers whose interval excludes the threshold, and what each rests on.

    Args:
        shares: shares by mode.
        lift: open-book minus closed-book.
        few_cut: whether few enough answers were cut for style to count.
    """
    settled: dict[str, Any] = {}
    because: dict[str, str] = {}
    passes, closed_book = shares["passes"], shares[CLOSED]
    if few_cut and passes.rate is not None and (passes.above(PASSING_RATE) or passes.below(PASSING_RATE)):
        settled["prompting_pass_rate"] = round(passes.rate, 2)
        because["prompting_pass_rate"] = f"right and in your style with a prompt alone: {passes.text()}"
    if closed_book.above(PASSING_RATE):
        settled["task_needs_facts"] = "known"
        because["task_needs_facts"] = f"right from memory: {closed_book.text()}"
    elif closed_book.below(MAJORITY) and lift is not None and _is_above_zero(lift):
        settled["task_needs_facts"] = "new"
        because["task_needs_facts"] = (
            f"right from memory: {closed_book.text()}; with the right passage {_points(lift)}"
        )
    if gap := _behaviour_gap(shares["style"] if few_cut else WilsonShare.of(0, 0), shares[OPEN], passes):
        settled["behaviour_gap"], because["behaviour_gap"] = gap
    return settled, because


def _behaviour_gap(style: WilsonShare, open_book: WilsonShare, passes: WilsonShare) -> tuple[str, str] | None:
    """Return how far behaviour is from what is needed, with the measurement; None where the intervals leave it open.

    The worse of style and skill (being right with the passage given) counts. Where nothing was asked with a passage, there
    is no gap only if the answers pass as well: an answer that is held to one of a few labels is always in style.
    """
    style_text = f"in your style with a prompt alone: {style.text()}"
    skill_text = f"right with the right passage in the prompt: {open_book.text()}"
    if style.below(MAJORITY):
        return "high", style_text
    if open_book.below(MAJORITY):
        return "high", skill_text
    if not style.n or (open_book.n and not open_book.above(MAJORITY)):
        return None
    if style.above(PASSING_RATE):
        skilled = open_book if open_book.n else passes
        return ("none", style_text) if skilled.above(PASSING_RATE) else None
    return ("low", style_text) if style.above(MAJORITY) and style.below(PASSING_RATE) else None


def _reading(
    shares: dict[str, WilsonShare],
    lift: PairedDifference | None,
    lost: PairedDifference | None,
    brought: WilsonShare,
) -> tuple[str, ...]:
    """Return the interpretation of the shares and differences together, as sentences."""
    closed_book, open_book = shares[CLOSED], shares[OPEN]
    sentences: list[str] = []
    if closed_book.above(PASSING_RATE):
        sentences.append(
            "the model answers most questions from memory: it knows this already, so try a prompt first"
        )
    if open_book.above(MAJORITY) and closed_book.below(MAJORITY):
        sentences.append(
            "right with the passage, wrong from memory: only the facts are missing, and a search (RAG) finds them"
        )
    elif open_book.below(MAJORITY):
        sentences.append(
            "most answers are wrong even with the right passage in the prompt: style or skill is missing, which fine-tuning "
            "can teach"
        )
    elif lift is not None and _is_above_zero(lift) and not closed_book.above(PASSING_RATE):
        sentences.append(f"the right passage helps ({_points(lift)}), so a search (RAG) is worth trying")
    if lost is not None and _is_above_zero(lost) and not open_book.below(MAJORITY):
        sentences.append(_retrieval_loss_text(lost, brought))
    style = shares["style"]
    if style.below(MAJORITY):
        sentences.append(
            "a prompt alone misses the style of the examples in most answers: fine-tuning is worth trying"
        )
    elif style.above(PASSING_RATE):
        sentences.append("a prompt alone achieves your style: fine-tuning is not needed for it")
    if closed_book.n and not open_book.n and closed_book.below(MAJORITY):
        sentences.append(
            "most answers from memory are wrong; without documents it is not known whether facts or skill are missing"
        )
    return tuple(sentences)


def _rival_reading(shares: dict[str, WilsonShare], shown: PairedDifference | None) -> tuple[str, ...]:
    """Return what examples in the prompt, and a classifier, do against prompting alone, as sentences."""
    sentences: list[str] = []
    if shown is not None and _is_above_zero(shown):
        sentences.append(
            f"examples in the prompt help ({_points(shown)}): try few-shot before a prompt alone"
        )
    elif shown is not None and shown.high < 0 and shown.p <= MAX_P:
        sentences.append(
            f"examples in the prompt do harm ({_points(shown)}): try a prompt alone before few-shot"
        )
    classified = shares.get("classifier")
    if classified is not None and classified.n:
        best = max((shares[name] for name in ("passes", "few_shot") if name in shares), key=lambda s: s.high)
        against = ""
        if best.n and classified.low > best.high:
            against = ", more than the model with a prompt: measure it first"
        elif best.n and classified.high < best.low:
            against = ", fewer than the model with a prompt"
        sentences.append(
            f"a classifier over embeddings gives the right label to {classified.text()} training examples{against}"
        )
    return tuple(sentences)


def _retrieval_loss_text(lost: PairedDifference, brought: WilsonShare) -> str:
    """Return how much retrieval loses against the given passage, and whether search or reading is the cause."""
    loss = (
        f"with the search results {100 * lost.difference:.0f} points fewer are right than with the right passage alone "
        f"({100 * lost.low:.0f} to {100 * lost.high:.0f})"
    )
    if brought.above(PASSING_RATE):
        return (
            f"{loss}, though the search found the passage for {brought.text()}: the other passages mislead the model; show "
            "fewer (k of the index step), or train on examples with search results (hybrid)"
        )
    return f"{loss}; the search found the passage for {brought.text()}: improve the search first, with tunewise index tune"


def _is_above_zero(pair: PairedDifference) -> bool:
    return pair.low > 0 and pair.p <= MAX_P


def _points(lift: PairedDifference) -> str:
    return f"{100 * lift.difference:+.0f} points, {100 * lift.low:+.0f} to {100 * lift.high:+.0f}"


def _difference(pair: PairedDifference | None) -> dict[str, float] | None:
    if pair is None:
        return None
    values = {"difference": pair.difference, "low": pair.low, "high": pair.high, "p": pair.p}
    return {name: round(value, 4) for name, value in values.items()}
