"""Score the advice on published cases: situations in which one way of adapting a model came out ahead."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.padding import Padding
from rich.text import Text

from advisor.display.console import table
from advisor.methods.registry import methods_by_name
from advisor.questionnaire.profile import Profile
from advisor.recommendation.ranking import Ranking, rank_methods
from rag.errors import BadInput, Problem

CASE_USES = ("winner_only", "winner_or_also", "constraint")
PROMPTED_METHODS = {"prompting", "few-shot"}
STYLE_EXAMPLES, LABEL_EXAMPLES = 50, 100
"""Examples from which the rule of thumb tunes for style, and trains a classifier."""
OPTION_WORDS: Mapping[str, str] = {
    "prompting": r"base|prompting|zero-shot|base prompted|prompt only|system prompt|prompted \S+|model alone",
    "few-shot": r"(in-context )?few-shot( prompting)?|\d+-shot|in-context (learning|examples)|icl",
    "rag": r"((optimised|cosine) )?rag( only| \(.*\)| over user history)?|base ?\+ ?rag|model with retrieved .*",
    "long-context": r"(whole (text|base)|knowledge base|all documents) in (the |a )?(cached )?prompt",
    "lora": r"lora( \S+| fine-tun\w+)?",
    "qlora": r"q-?lora( \S+)?",
    "full": r"full(-parameter)?( \(.*\)| sft| fine-?tun\w+)?",
    "hybrid": r"(q?lora|fine-?tun\w+) ?\+ ?rag",
}
"""For each method the words, as a regular expression, in which sources name it beyond doubt; others are left out."""


@dataclass(frozen=True, slots=True)
class AdviceCase:
    """One published situation with the method that won in it."""

    id: str
    source: str
    profile: Profile
    winner: str
    also: frozenset[str]
    use: str
    forbidden: frozenset[str]
    compared: frozenset[str] = frozenset()
    """The methods that the source compared, the winner among them; empty where fewer than two are known."""

    def accepts(self, choice: str) -> bool:
        """Whether a choice counts as right.

        ``constraint``: anything the hardware does not forbid; ``winner_only``: the winner; else the winner or
        what the source supports nearly as well, and prompting and few-shot stand for each other.
        """
        choice = self.coded(choice)
        if self.use == "constraint":
            return choice not in self.forbidden
        if self.use == "winner_only":
            return choice == self.winner
        both = PROMPTED_METHODS if self.winner in PROMPTED_METHODS else frozenset()
        return choice == self.winner or choice in self.also or choice in both

    def coded(self, choice: str) -> str:
        """Return a choice in the words of the case.

        Cases coded before all documents in the prompt had a name of its own call that prompting; those that say
        long-context mean it.
        """
        named = "long-context" in (self.winner, *self.also)
        return "prompting" if choice == "long-context" and not named else choice


@dataclass(frozen=True, slots=True)
class ScoredCase:
    """A case and the advice given on it."""

    case: AdviceCase
    ranking: Ranking

    @property
    def accepted(self) -> bool:
        """Whether the choice counts as right."""
        return self.case.accepts(self.ranking.choice)

    @property
    def exact(self) -> bool:
        """Whether the choice is the winner itself."""
        return self.case.winner == self.case.coded(self.ranking.choice)

    @property
    def of_compared(self) -> str | None:
        """The best ranked of the methods that the source compared; None where it is not known what it compared."""
        ranked = (scored.method.name for scored in self.ranking.methods)
        return next((name for name in ranked if name in self.case.compared), None)


def rule_of_thumb(profile: Profile) -> str:
    """Return what a rule of thumb advises: the baseline beside every rate of the advice.

    New facts: rag. Style far off and 50 examples: lora. Both: hybrid. Labels to choose from and 100 examples: classifier,
    unless new facts are needed. Else prompting.
    """
    new = profile.task_needs_facts == "new"
    if profile.gives_labels and profile.examples_known >= LABEL_EXAMPLES and not new:
        return "classifier"
    if profile.behaviour_gap == "high" and profile.examples_known >= STYLE_EXAMPLES:
        return "hybrid" if new else "lora"
    return "rag" if new else "prompting"


def sign_test(first: Sequence[bool], second: Sequence[bool]) -> dict[str, Any]:
    """Return on how many cases only the first, and only the second, was right, and the exact two-sided sign test's p."""
    from scipy.stats import binomtest

    pairs = list(zip(first, second, strict=True))
    ahead, behind = pairs.count((True, False)), pairs.count((False, True))
    p = binomtest(ahead, ahead + behind).pvalue if ahead + behind else 1.0
    return {"advice_only": ahead, "rule_of_thumb_only": behind, "p": float(f"{p:.3g}")}


def read_cases(path: Path) -> tuple[AdviceCase, ...]:
    """Read ``{"cases": [...]}``; BadInput names the file, the case and the key that cannot be used."""
    try:
        data = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise BadInput(f"the case file {path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise BadInput(f"the case file {path} is not JSON: {error}") from None
    rows = data.get("cases") if isinstance(data, dict) else None
    if not isinstance(rows, list) or not rows:
        raise BadInput(
            f"{path} has no cases", 'it must be {"cases": [{"id", "answers", "winner", ...}, ...]}'
        )
    return tuple(_case(row, f"{path}, case {number}") for number, row in enumerate(rows, 1))


def score_cases(cases: Sequence[AdviceCase]) -> tuple[ScoredCase, ...]:
    """Rank the methods for every case."""
    return tuple(ScoredCase(case, rank_methods(case.profile)) for case in cases)


def cases_json(scored: Sequence[ScoredCase]) -> dict[str, Any]:
    """Return what ``eval-advice --json`` prints: counts beside those of the baselines, who was mistaken for whom, misses.

    ``of_compared`` counts the cases, of ``compared``, in which the best ranked of the compared methods is accepted;
    ``best_constant`` is the one method that would be accepted most often.
    """
    cases = [result.case for result in scored]
    confusion = Counter((result.case.winner, result.ranking.choice) for result in scored)
    names = _winners()
    table = {
        winner: {choice: confusion[winner, choice] for choice in names if confusion[winner, choice]}
        for winner in names
        if any(confusion[winner, choice] for choice in names)
    }
    thumbs = [rule_of_thumb(case.profile) for case in cases]
    thumb_accepted = [case.accepts(thumb) for case, thumb in zip(cases, thumbs, strict=True)]
    constant = Counter({name: sum(case.accepts(name) for case in cases) for name in names}).most_common(1)[0]
    compared = [result.case.accepts(choice) for result in scored if (choice := result.of_compared)]
    return {
        "schema": 1,
        "n": len(scored),
        "accepted": sum(result.accepted for result in scored),
        "exact": sum(result.exact for result in scored),
        "of_compared": sum(compared),
        "compared": len(compared),
        "baselines": {
            "rule_of_thumb": {
                "accepted": sum(thumb_accepted),
                "exact": sum(
                    case.winner == case.coded(thumb) for case, thumb in zip(cases, thumbs, strict=True)
                ),
            },
            "best_constant": {"method": constant[0], "accepted": constant[1]},
        },
        "sign_test": sign_test([result.accepted for result in scored], thumb_accepted),
        "confusion": table,
        "cases": [
            {
                "id": result.case.id,
                "winner": result.case.winner,
                "choice": result.ranking.choice,
                "of_compared": result.of_compared,
                "accepted": result.accepted,
                "exact": result.exact,
            }
            for result in scored
        ],
        "misses": [_miss(result) for result in scored if not result.accepted],
        "near": [
            {"id": result.case.id, "winner": result.case.winner, "choice": result.ranking.choice}
            for result in scored
            if result.accepted and not result.exact
        ],
    }


def render_case_scores(scores: dict[str, Any]) -> Group:
    """Return the score of the advice on published cases: counts, confusion table, and each miss with its reasons.

    Args:
        scores: the object of ``eval-advice --json``.
    """
    names = list(
        dict.fromkeys(
            [*scores["confusion"], *(choice for row in scores["confusion"].values() for choice in row)]
        )
    )
    rows = [
        (
            winner,
            *(
                f"[green]{count}[/]" if (count := row.get(name, 0)) and name == winner else str(count or "·")
                for name in names
            ),
        )
        for winner, row in scores["confusion"].items()
    ]
    count = scores["n"]
    parts: list[RenderableType] = [
        Text.from_markup(
            f"[bold]{scores['accepted']}[/] of {count} accepted, [bold]{scores['exact']}[/] exact\n"
        ),
        table(("won \\ advised", *names), rows, right=range(1, len(names) + 1)),
        Text(),
        Text(baselines_text(scores)),
    ]
    for miss in scores["misses"]:
        lines = [f"{escape(reason['text'])} [dim](rule {reason['rule']})[/]" for reason in miss["reasons"]]
        lines += [f"[red]blocked[/] {escape(blocker['text'])}" for blocker in miss["winner_blockers"]]
        head = f"\n[bold]{escape(miss['id'])}[/]  {miss['winner']} won, {miss['choice']} was advised"
        shown = Group(*(Text.from_markup(f"• {line}") for line in lines))
        source = Text.from_markup(f"{head} [dim]{escape(miss['source'])}[/]")
        parts += [source, Padding(shown, (0, 0, 0, 2), expand=False)]
    return Group(*parts)


def baselines_text(scores: Mapping[str, Any]) -> str:
    """Return the advice beside the rule of thumb, the best constant method and the methods that sources compared."""
    thumb, constant = scores["baselines"]["rule_of_thumb"], scores["baselines"]["best_constant"]
    sign = scores["sign_test"]
    lines = [
        f"rule of thumb: {thumb['accepted']} accepted, {thumb['exact']} exact; only the advice was right in "
        f"{sign['advice_only']}, only the rule of thumb in {sign['rule_of_thumb_only']} (sign test, p = {sign['p']:.2g})",
        f"always {constant['method']}: {constant['accepted']} accepted",
    ]
    if scores["compared"]:
        lines.append(
            f"best ranked of the methods that the source compared: {scores['of_compared']} of {scores['compared']} accepted"
        )
    return "\n".join(lines)


def _miss(result: ScoredCase) -> dict[str, Any]:
    """Return a case on which the advice was wrong, with the reasons of the advice and what blocked the winner."""
    first = result.ranking.methods[0]
    counted = [
        finding
        for finding in result.ranking.findings
        if finding.need and first.method.serves.get(finding.need, 0) >= 0.5
    ]
    by_name = {scored.method.name: scored for scored in result.ranking.methods}
    winner = by_name.get(result.case.winner)
    return {
        "id": result.case.id,
        "source": result.case.source,
        "winner": result.case.winner,
        "choice": result.ranking.choice,
        "reasons": [{"rule": finding.rule.code(), "text": finding.text} for finding in counted],
        "winner_score": winner.score if winner else None,
        "choice_score": first.score,
        "winner_blockers": [blocker.to_json() for blocker in winner.blockers] if winner else [],
    }


def _case(row: Any, location: str) -> AdviceCase:
    """Return a case from its row; BadInput names ``location`` and the key that cannot be used."""
    if not isinstance(row, dict):
        raise BadInput(f"{location} is not an object")
    name = str(row.get("id") or location)
    location = f"{location} ({name})" if row.get("id") else location
    winner, use = row.get("winner"), row.get("test_use") or "winner_or_also"
    if winner not in _winners():
        raise BadInput(f"{location}: winner cannot be {winner!r}", f"allowed: {', '.join(_winners())}")
    if use not in CASE_USES:
        raise BadInput(f"{location}: test_use cannot be {use!r}", f"allowed: {', '.join(CASE_USES)}")
    answers = row.get("answers")
    if not isinstance(answers, dict):
        raise BadInput(f"{location}: answers is missing", "an object with the questionnaire's keys")
    answers = {**answers, **_of_labels(row.get("coded"))}
    try:
        # Published runs are judged as they were made: other programs shard 4-bit weights and answer from several GPUs.
        profile = replace(Profile.of(answers), other_program=True)
    except Problem as problem:
        raise BadInput(f"{location}: {problem.message}", problem.hint) from None
    forbids = row.get("hardware_forbids") or {}
    also_acceptable = _names(row.get("also_acceptable") or (), f"{location}: also_acceptable")
    forbidden = _names(
        forbids.get("methods") or () if isinstance(forbids, Mapping) else (), f"{location}: methods"
    )
    if use == "constraint" and not forbidden:
        raise BadInput(f"{location}: test_use is constraint, but hardware_forbids names no method")
    source = row.get("source")
    title = source.get("title") if isinstance(source, Mapping) else source
    case = AdviceCase(name, str(title or ""), profile, winner, also_acceptable, use, forbidden)
    return replace(case, compared=_compared(row, case, location))


def _compared(row: Mapping[str, Any], case: AdviceCase, location: str) -> frozenset[str]:
    """Return the methods that a source compared: as coded in ``compared``, else ``options_compared`` by their words."""
    if "compared" in row:
        names = _names(row["compared"] or (), f"{location}: compared")
    else:
        options = [str(option).lower() for option in row.get("options_compared") or ()]
        names = frozenset(
            name
            for name, words in OPTION_WORDS.items()
            if any(re.fullmatch(words, option) for option in options)
        )
    known = len(names) > 1 and case.winner in {case.coded(name) for name in names}
    return names if known else frozenset()


def _of_labels(coded: Any) -> dict[str, Any]:
    """Return the answers that ``coded`` gives: number of labels, and whether they need knowledge.

    These keys were coded before the questionnaire asked for them.
    """
    if not isinstance(coded, Mapping) or coded.get("labels") is None:
        return {}
    return {
        "output_format": "labels",
        "label_count": coded["labels"],
        "labels_need_knowledge": coded.get("world_knowledge"),
    }


def _winners() -> tuple[str, ...]:
    return tuple(methods_by_name())


def _names(given: Any, location: str) -> frozenset[str]:
    unknown = (
        [name for name in given if name not in _winners()] if isinstance(given, list | tuple) else [given]
    )
    if unknown:
        raise BadInput(f"{location} cannot contain {unknown[0]!r}", f"allowed: {', '.join(_winners())}")
    return frozenset(given)
