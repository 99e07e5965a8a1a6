"""The test questions of a report: what every arm answered, which words the gold holds, and the passages cited."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rag.text.numbers import extract_numbers
from rag.text.sanitize import defang_text, strip_invisible
from rag.text.words import content_words
from runners.data.questions import Question
from runners.run_folder import SCORES, TRIAL, read_journal
from runners.trial.trial import ANSWERS

RIGHT_SHARE = 0.5
"""The share of the gold's words, or without gold the combined score, from which an answer can count as right."""
MAX_CHARACTERS = 4_000_000
"""Of answers and quotes on the page; further questions are left out, counted and said."""
_PIECES = re.compile(r"(\[\d{1,3}\])|(\d[\d.,:]*\d|\w[\w'’-]*)|(\s+|.)", re.S)


@dataclass(frozen=True, slots=True)
class BrowsedQuestions:
    """The questions that the page shows, and how many it does not."""

    rows: list[dict[str, Any]]
    left_out: int
    disagreeing: int
    seeds: int
    """Of the arm with most training seeds; the answers shown are those of the first."""


def browse_questions(run: Path, arms: Sequence[str], questions: Sequence[Question]) -> BrowsedQuestions:
    """Return every test question with the answers of all arms (of the first seed), in the order of the trial.

    Each answer is a list of pieces: plain words, words of the gold, words that stand in neither gold, reference
    nor question, and citations.
    """
    gold = {q.id: q for q in questions}
    scores = _scores(run)
    by_id: dict[str, dict[str, dict[str, Any]]] = {}
    seeds: dict[str, set[int]] = {}
    for row in read_journal(run / TRIAL / ANSWERS):
        seeds.setdefault(row["arm"], set()).add(row["seed"])
        by_id.setdefault(row["id"], {}).setdefault(row["arm"], row)
    found: list[dict[str, Any]] = []
    size, most = 0, max(map(len, seeds.values()), default=0)
    for number, (key, answers) in enumerate(by_id.items()):
        size += sum(
            len(r["marked"]) + sum(len(c["quote"]) for c in r.get("citations", ())) for r in answers.values()
        )
        if size > MAX_CHARACTERS:
            return BrowsedQuestions(found, len(by_id) - number, _disagreeing(found), most)
        found.append(_row(len(found) + 1, key, answers, arms, scores, gold.get(key)))
    return BrowsedQuestions(found, 0, _disagreeing(found), most)


def answer_pieces(marked: str, gold: Sequence[str], known: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield (kind, text) of an answer: "gold", "odd" (a word of content outside ``known``), "cite" or "plain"."""
    told = {w for text in gold for w in (*content_words(text), *extract_numbers(text))}
    fine = told | {w for text in known for w in (*content_words(text), *extract_numbers(text))}
    held = ""
    for cite, word, rest in _PIECES.findall(marked):
        means = {*content_words(word), *extract_numbers(word)} if word else set()
        kind = (
            "cite" if cite else "gold" if means & told else "odd" if means and not means & fine else "plain"
        )
        if kind == "plain" or (kind == "odd" and not known and not gold):
            held += cite + word + rest
            continue
        if held:
            yield "plain", held
        held = ""
        yield kind, cite or word
    if held:
        yield "plain", held


def _row(
    number: int,
    key: str,
    answers: Mapping[str, dict[str, Any]],
    arms: Sequence[str],
    scores: Mapping[str, Mapping[str, dict[str, float]]],
    question: Question | None,
) -> dict[str, Any]:
    first = next(iter(answers.values()))
    gold = [*question.answers, *([question.fact] if question.fact else [])] if question else []
    reference = [*(question.references or ()), question.reference or ""] if question else []
    said = [strip_invisible(first["question"]), *reference]
    answerable = question.answerable if question else True
    told = []
    for arm in [a for a in arms if a in answers]:
        row = answers[arm]
        # Without gold, what other arms said is what an answer can be held against.
        others = (
            [r["answer"] for name, r in answers.items() if name != arm]
            if not (gold or any(reference))
            else []
        )
        score = scores.get(arm, {}).get(key)
        told.append(
            {
                "arm": arm,
                "score": score["combined"] if score else None,
                "right": score is not None and is_right(score, answerable),
                "refused": row.get("refused", False),
                "cut": row.get("finish") == "length",
                "pieces": list(answer_pieces(defang_text(row["marked"]), gold, [*said, *others, *gold])),
                "citations": {c["n"]: _citation(c) for c in row.get("citations", ()) if c["n"] > 0},
                "seconds": row.get("seconds", 0.0),
            }
        )
    known = [t["right"] for t in told if t["score"] is not None]
    return {
        "number": number,
        "id": key,
        "question": defang_text(first["question"]),
        "gold": [defang_text(g) for g in gold],
        "reference": defang_text(question.reference or "") if question else "",
        "answerable": answerable,
        "answers": told,
        "disagree": len(set(known)) > 1,
    }


def _citation(c: Mapping[str, Any]) -> dict[str, str]:
    where = (
        f"lines {c['line_start']}–{c['line_end']}"
        if c["line_end"] > c["line_start"]
        else f"line {c['line_start']}"
    )
    where = f"page {c['page']}, {where}" if c.get("page") else where
    dated = f", of {c['date']}" if c.get("date") else ""
    expired = f", valid until {c['valid_until']}" if c.get("valid_until") else ""
    return {
        "doc": defang_text(c["doc"]),
        "title": defang_text(c.get("title") or ""),
        "quote": defang_text(c["quote"]),
        "where": defang_text(f"{where}{dated}{expired}"),
        "support": c.get("support", "supported"),
    }


def is_right(scores: Mapping[str, float], answerable: bool = True) -> bool:
    """Whether an answer refuses exactly when it should and, answering, has every number and half the words of the gold.

    Manner (style, citation) does not make a wrong fact right. Where the facts are not scored, the combined score
    decides.
    """
    if "refusal" in scores and (scores["refusal"] < 1.0 or not answerable):
        return scores["refusal"] >= 1.0
    if "fact_recall" in scores:
        return scores["fact_recall"] >= RIGHT_SHARE and scores.get("agreement", 1.0) >= 1.0
    return scores["combined"] >= RIGHT_SHARE


def _scores(run: Path) -> dict[str, dict[str, dict[str, float]]]:
    path = run / TRIAL / SCORES
    return dict(json.loads(path.read_text("utf-8"))["arms"]) if path.is_file() else {}


def _disagreeing(rows: Sequence[Mapping[str, Any]]) -> int:
    return sum(row["disagree"] for row in rows)
