"""Two runs side by side: the same arms, and the winners, on the questions that both runs asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from advisor.report.data import read_report, read_scores
from advisor.verdict.comparison import corrected_comparisons
from rag.errors import BadInput
from rag.evaluation.statistics import PairedDifference, paired_test
from runners.data.examples import normalise_text
from runners.run_folder import TRIAL, read_journal
from runners.scoring.scores import combined_score
from runners.trial.trial import ANSWERS, ArmScores

ScoredQuestion = tuple[float, float, str | None]
"""One question's score in each run, and its document."""
COMPARISON_KEYS = ("difference", "low", "high", "p", "p_holm", "units")


@dataclass(frozen=True, slots=True)
class ComparedRun:
    """One of the two runs: its report, its arms by name, and the words of its questions by id."""

    path: Path
    report: Mapping[str, Any]
    arms: Mapping[str, ArmScores]
    texts: Mapping[str, str]

    @property
    def questions(self) -> list[str]:
        """The ids of all questions that an arm answered, in order."""
        return list(dict.fromkeys(q for arm in self.arms.values() for q in arm.questions))

    @property
    def weights(self) -> dict[str, float]:
        """The weights of its combined score."""
        return dict(self.report.get("weights") or {})

    def to_json(self) -> dict[str, Any]:
        """What is told of the run itself."""
        verdict = self.report["verdict"]
        kept = {key: verdict[key] for key in ("outcome", "strength", "recommended", "winner", "model")}
        return {"run": str(self.path), "name": self.report["name"], **kept}


def compare_runs(first: Path, second: Path) -> dict[str, Any]:
    """Compare two finished runs; every difference is the first run minus the second, paired by question.

    A question is the same when its words are; ids count where words were not kept. p is corrected over the arms
    (Holm), the winners are one comparison of their own. BadInput when a run has no report, or when no question is
    in both.
    """
    a, b = _side(first), _side(second)
    same = match_questions(a, b)
    if not same:
        raise BadInput(
            f"{first} and {second} have no question in common",
            "run both on the same questions: data.test_questions in the plan",
        )
    notes = _notes(a, b)
    if a.weights != b.weights:
        a, b = (replace(side, arms=_weighed(side.arms, a.weights or b.weights)) for side in (a, b))
    values = {name: _values(a.arms[name], b.arms[name], same) for name in a.arms if name in b.arms}
    found = corrected_comparisons(_pair(name, rows) for name, rows in values.items() if rows)
    winners = [str(side.report["verdict"]["winner"]) for side in (a, b)]
    last = _values(a.arms[winners[0]], b.arms[winners[1]], same)
    final = corrected_comparisons([_pair(winners[1], last)] if last else [])
    return {
        "schema": 1,
        "a": a.to_json(),
        "b": b.to_json(),
        "questions": {
            "common": len(same),
            "only_a": len(a.questions) - len(same),
            "only_b": len(b.questions) - len(same),
        },
        "arms": [{"arm": name, **_row(contest.pair, values[name])} for name, contest in found.items()],
        "winners": {"a": winners[0], "b": winners[1]}
        | {key: value for c in final.values() for key, value in _row(c.pair, last).items()},
        "only_in_a": [name for name in a.arms if name not in found],
        "only_in_b": [name for name in b.arms if name not in found],
        "notes": notes,
    }


def match_questions(a: ComparedRun, b: ComparedRun) -> dict[str, str]:
    """Return which question of the second run is the same as one of the first, by their ids."""
    theirs = {q: b.texts.get(q) for q in b.questions}
    found = {
        q: q
        for q in a.questions
        if q in theirs and (None in (a.texts.get(q), theirs[q]) or a.texts[q] == theirs[q])
    }
    taken = set(found.values())
    by_text: dict[str, list[str]] = {}
    for q, text in theirs.items():
        if text and q not in taken:
            by_text.setdefault(text, []).append(q)
    for q in a.questions:
        same = by_text.get(a.texts.get(q, ""), [])
        if q not in found and same:
            found[q] = same.pop(0)
    return found


def _side(run: Path) -> ComparedRun:
    rows = read_journal(run / TRIAL / ANSWERS)
    texts = {str(row["id"]): normalise_text(str(row["question"])) for row in rows if "question" in row}
    report = read_report(run)
    return ComparedRun(run, report, {arm.arm: arm for arm in read_scores(run) if arm.combined}, texts)


def _weighed(arms: Mapping[str, ArmScores], weights: dict[str, float]) -> dict[str, ArmScores]:
    return {
        name: replace(arm, combined=tuple(combined_score(scores, weights) for scores in arm.scores))
        for name, arm in arms.items()
    }


def _values(a: ArmScores, b: ArmScores, same: Mapping[str, str]) -> list[ScoredQuestion]:
    """Return both arms' scores of every question they share, with its document."""
    of_b = {
        q: (score, document) for q, score, document in zip(b.questions, b.combined, b.sources(), strict=True)
    }
    rows = zip(a.questions, a.combined, a.sources(), strict=True)
    return [
        (x, of_b[same[q]][0], document or of_b[same[q]][1])
        for q, x, document in rows
        if q in same and same[q] in of_b
    ]


def _pair(name: str, rows: Sequence[ScoredQuestion]) -> PairedDifference:
    return paired_test(
        name, name, [x for x, _, _ in rows], [y for _, y, _ in rows], documents=[d for _, _, d in rows]
    )


def _row(pair: PairedDifference, rows: Sequence[ScoredQuestion]) -> dict[str, Any]:
    count = len(rows)
    means = {"mean_a": sum(x for x, _, _ in rows) / count, "mean_b": sum(y for _, y, _ in rows) / count}
    return {**means, **{key: getattr(pair, key) for key in COMPARISON_KEYS}, "n": pair.questions}


def _notes(a: ComparedRun, b: ComparedRun) -> list[str]:
    """Return what makes the two runs differ beside the arms themselves."""
    found = []
    models = [side.report["verdict"]["model"] for side in (a, b)]
    if models[0] != models[1]:
        found.append(f"the models differ: {models[0]} and {models[1]}")
    if a.weights != b.weights:
        found.append(
            f"the weights of the scores differ: both are weighed as in {a.path if a.weights else b.path}"
        )
    return found
