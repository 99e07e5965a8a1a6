"""The test questions of a report: the answer of every arm, the words it shares with the gold, and the passages it cites."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from advisor.verdict.right_answers import is_beside
from advisor.verdict.run_records import RunRecords
from rag.text.numbers import extract_numbers
from rag.text.sanitize import defang_text, strip_invisible
from rag.text.words import content_words
from runners.data.questions import Question
from runners.plan.arm_names import method_of, split_arm
from runners.run_folder import SCORES, TRIAL
from runners.scoring.correctness import stored_right

MAX_CHARACTERS = 4_000_000
"""Most characters of answers and quotes on the page; the questions beyond are left out and counted."""
_PIECES = re.compile(r"(\[\d{1,3}\])|(\d[\d.,:]*\d|\w[\w'’-]*)|(\s+|.)", re.S)


@dataclass(frozen=True, slots=True)
class BrowsedQuestions:
    """The questions that the page shows.

    Attributes:
        rows: what the template needs of each question.
        left_out: number of questions that are not shown.
        disagreeing: number of questions shown on which some arms are right and others are not.
        seeds: number of training seeds of the arm with most; the answers shown are those of the first seed.
    """

    rows: list[dict[str, Any]]
    left_out: int
    disagreeing: int
    seeds: int


def browse_questions(
    records: RunRecords, arms: Sequence[str], max_characters: int = MAX_CHARACTERS
) -> BrowsedQuestions:
    """Return every test question with the answers of all arms (of the first seed), in the order of the trial.

    Each answer is split into pieces: see :func:`answer_pieces`.

    Args:
        records: of the run; a question that is not among its test questions is shown without gold.
        arms: names of the arms, in the order to show.
        max_characters: of answers and quotes on the page.
    """
    gold = {question.id: question for question in records.questions}
    scores = _scores(records.path)
    by_id: dict[str, dict[str, Mapping[str, Any]]] = {}
    seeds: dict[str, set[int]] = {}
    for row in records.answers:
        seeds.setdefault(row["arm"], set()).add(row["seed"])
        by_id.setdefault(row["id"], {}).setdefault(row["arm"], row)
    rows: list[dict[str, Any]] = []
    size, max_seeds = 0, max(map(len, seeds.values()), default=0)
    for number, (key, answers) in enumerate(by_id.items()):
        size += sum(
            len(row["marked"]) + sum(len(citation["quote"]) for citation in row.get("citations", ()))
            for row in answers.values()
        )
        if size > max_characters:
            return BrowsedQuestions(rows, len(by_id) - number, _disagreeing(rows), max_seeds)
        rows.append(_row(len(rows) + 1, key, answers, arms, scores, gold.get(key)))
    return BrowsedQuestions(rows, 0, _disagreeing(rows), max_seeds)


def arm_letters(arms: Sequence[str]) -> dict[str, str]:
    """Return one capital letter for each arm: the first of its name that no earlier arm has, else a digit.

    Of several models it is the letter of the method, with the number of the model.
    """
    if any(split_arm(arm)[1] for arm in arms):
        methods = arm_letters(list(dict.fromkeys(map(method_of, arms))))
        aliases = list(dict.fromkeys(alias for arm in arms if (alias := split_arm(arm)[1])))
        numbers = {alias: str(number) for number, alias in enumerate(aliases, 1)}
        return {arm: methods[method_of(arm)] + numbers.get(split_arm(arm)[1], "") for arm in arms}
    letters: dict[str, str] = {}
    for number, arm in enumerate(arms, 1):
        free = [letter for letter in arm.upper() if letter.isalpha() and letter not in letters.values()]
        letters[arm] = free[0] if free else str(number % 10)
    return letters


def example_answers(browsed: BrowsedQuestions, arm: str, count: int = 3) -> dict[str, list[dict[str, Any]]]:
    """Return right and wrong answers of an arm to show first: ``right`` and ``wrong``, up to ``count`` each.

    They are the first in the order of the trial, but at most one right answer is a refusal, and at most one wrong answer
    is to a question without an answer, unless there are too few others. Each has the number of its question, the
    question, what was wanted, and the answer as in ``rows``.
    """
    examples: dict[str, list[dict[str, Any]]] = {"right": [], "wrong": []}
    for row in browsed.rows:
        answer = next((shown for shown in row["answers"] if shown["arm"] == arm), None)
        if answer is None or answer["score"] is None:
            continue
        wanted = (
            ("; ".join(row["gold"]) or row["reference"])
            if row["answerable"]
            else "a refusal: the documents do not say"
        )
        kind = "right" if answer["right"] else "wrong"
        examples[kind].append(
            {
                "number": row["number"],
                "question": row["question"],
                "answerable": row["answerable"],
                "wanted": wanted,
                "answer": answer,
            }
        )
    return {
        "right": _varied(examples["right"], count, lambda row: row["answer"]["refused"]),
        "wrong": _varied(examples["wrong"], count, lambda row: not row["answerable"]),
    }


def _varied(
    rows: Sequence[dict[str, Any]], count: int, is_rare: Callable[[dict[str, Any]], bool]
) -> list[dict[str, Any]]:
    """Return up to ``count`` rows in their order, at most one of them rare, unless there are too few others."""
    rare, others = [row for row in rows if is_rare(row)], [row for row in rows if not is_rare(row)]
    first = others[: count - min(1, len(rare))]
    return sorted([*first, *rare[: count - len(first)]], key=lambda row: int(row["number"]))


def first_opened(browsed: BrowsedQuestions, arm: str) -> int:
    """Return the number of the question to open first: one that the arm answers right and another arm does not.

    Without one it is the first that any arm answers right, else the first.
    """
    right = {
        row["number"]: {shown["arm"]: shown["right"] for shown in row["answers"]} for row in browsed.rows
    }
    telling = [number for number, arms in right.items() if arms.get(arm) and not all(arms.values())]
    solved = [number for number, arms in right.items() if any(arms.values())]
    return int([*telling, *solved, 1][0])


def answer_pieces(marked: str, gold: Sequence[str], known: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Split an answer and yield (kind, text) of each piece.

    Args:
        marked: the answer with its citation marks.
        gold: texts of the gold.
        known: texts of the reference, the question and the like.

    Yields:
        "cite" for a citation, "gold" for a word of the gold, "odd" for a content word in neither ``gold`` nor ``known``,
        "plain" for the rest.
    """
    gold_words = {word for text in gold for word in (*content_words(text), *extract_numbers(text))}
    known_words = gold_words | {
        word for text in known for word in (*content_words(text), *extract_numbers(text))
    }
    plain = ""
    for cite, word, rest in _PIECES.findall(marked):
        word_keys = {*content_words(word), *extract_numbers(word)} if word else set()
        kind = (
            "cite"
            if cite
            else "gold"
            if word_keys & gold_words
            else "odd"
            if word_keys and not word_keys & known_words
            else "plain"
        )
        if kind == "plain" or (kind == "odd" and not known and not gold):
            plain += cite + word + rest
            continue
        if plain:
            yield "plain", plain
        plain = ""
        yield kind, cite or word
    if plain:
        yield "plain", plain


def _row(
    number: int,
    key: str,
    answers: Mapping[str, Mapping[str, Any]],
    arms: Sequence[str],
    scores: Mapping[str, Mapping[str, dict[str, float]]],
    question: Question | None,
) -> dict[str, Any]:
    any_answer = next(iter(answers.values()))
    gold = [*question.short_answers, *([question.fact] if question.fact else [])] if question else []
    reference = [*(question.references or ()), question.reference or ""] if question else []
    known_texts = [strip_invisible(any_answer["question"]), *reference]
    answerable = question.answerable if question else True
    shown_answers = []
    for arm in [arm for arm in arms if arm in answers]:
        row = answers[arm]
        # Without gold, an answer is compared with those of the other arms.
        other_answers = (
            [row["answer"] for name, row in answers.items() if name != arm]
            if not (gold or any(reference))
            else []
        )
        score = scores.get(arm, {}).get(key)
        shown_answers.append(
            {
                "arm": arm,
                "score": score["combined"] if score else None,
                "right": score is not None and stored_right(score, answerable),
                "refused": row.get("refused", False),
                "cut": row.get("finish") == "length",
                "beside": is_beside(row),
                "pieces": list(
                    answer_pieces(defang_text(row["marked"]), gold, [*known_texts, *other_answers, *gold])
                ),
                "citations": {
                    citation["n"]: _citation(citation)
                    for citation in row.get("citations", ())
                    if citation["n"] > 0
                },
                "seconds": row.get("seconds", 0.0),
            }
        )
    judged = [shown["right"] for shown in shown_answers if shown["score"] is not None]
    return {
        "number": number,
        "id": key,
        "question": defang_text(any_answer["question"]),
        "reworded": question is not None and question.wording_of is not None,
        "gold": [defang_text(text) for text in gold],
        "reference": defang_text(question.reference or "") if question else "",
        "answerable": answerable,
        "answers": shown_answers,
        "disagree": len(set(judged)) > 1,
    }


def _citation(citation: Mapping[str, Any]) -> dict[str, str | bool]:
    location = (
        f"lines {citation['line_start']}–{citation['line_end']}"
        if citation["line_end"] > citation["line_start"]
        else f"line {citation['line_start']}"
    )
    location = f"page {citation['page']}, {location}" if citation.get("page") else location
    date_text = f", of {citation['date']}" if citation.get("date") else ""
    validity = f", valid until {citation['valid_until']}" if citation.get("valid_until") else ""
    return {
        "doc": defang_text(citation["doc"]),
        "title": defang_text(citation.get("title") or ""),
        "quote": defang_text(citation["quote"]),
        "where": defang_text(f"{location}{date_text}{validity}"),
        "support": citation.get("support", "supported"),
        "limited": citation.get("limited", False),
    }


def _scores(run: Path) -> dict[str, dict[str, dict[str, float]]]:
    path = run / TRIAL / SCORES
    return dict(json.loads(path.read_text("utf-8"))["arms"]) if path.is_file() else {}


def _disagreeing(rows: Sequence[Mapping[str, Any]]) -> int:
    return sum(row["disagree"] for row in rows)
