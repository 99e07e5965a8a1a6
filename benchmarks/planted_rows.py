"""Planted bad rows among real ones: how many the checks of `tunewise examples make` throw out, and what they lose.

Good rows are questions of public sets with their human replies and gold documents. Bad rows are made from other rows of the
same sets: wrong replies (half of them a good reply with one fact changed), repeats, leaks of held-out questions, questions
that the passage does not answer, and rows that are not one question in the right language. The checks were made on
hybrid_concierge and xquad_en and improved on clapnq_dev, endoflife_dates, tldr_commands and browser_compat (``--tuned``: all
six). The score is that on brand_colours and dstc11_reviews, which were not looked at before.

    python -m benchmarks.planted_rows [--tuned] [--sets NAME,NAME] [--good 200] [--bad 100] [--work DIR] [--show]
"""

from __future__ import annotations

import argparse
import calendar
import json
import os
import random
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rag.grounding.evidence import supports_field
from rag.grounding.fields import Field, structured_fields
from rag.grounding.gold import GoldFinder
from rag.index import Index
from rag.types import Chunk
from runners.data.examples import load_examples, normalise_text
from runners.data.questions import Question, load_questions
from runners.synthesis.passage_reading import CODE_MARK
from runners.synthesis.row_checks import CandidateRow, RowChecker

TUNED_SETS = (
    "hybrid_concierge",
    "xquad_en",
    "clapnq_dev",
    "endoflife_dates",
    "tldr_commands",
    "browser_compat",
)
SCORED_SETS = ("brand_colours", "dstc11_reviews")
KINDS = ("wrong", "repeat", "leak", "unanswerable", "form")
MONTHS = list(calendar.month_name)[1:]
DAYS = list(calendar.day_name)
LEADS = ("Could you tell me: ", "Please tell me, ", "I would like to know: ", "Hi, a quick question: ")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_NAME = re.compile(r"\b[A-Z][a-z]{2,}(?: [A-Z][a-z]+)*")
_BE = re.compile(r"\b(is|are|was|were|can|will|may|must|does|do|did|has|have|should)\b(?! not\b|n't)")
_NOT = re.compile(r"\b(?:not |never )|n't\b|\bno (?=[a-z])", re.I)


@dataclass(frozen=True, slots=True)
class RealRow:
    """A row of a public set with the passage that holds its answer."""

    question: str
    reply: str
    passage: Chunk


@dataclass(frozen=True, slots=True)
class PlantedRow:
    """A row of the test and what it is: good, or a kind of bad row with how it was made."""

    kind: str
    how: str
    row: RealRow


def _in_chunk(field: Field, chunk: Chunk) -> bool:
    """Return whether a chunk has a value of a card; one that is code, letter for letter."""
    if CODE_MARK.search(field.value):
        return " ".join(field.value.split()) in " ".join(chunk.text.split())
    return supports_field(field, chunk)


def read_rows(folder: Path) -> list[tuple[str, str, str, tuple[tuple[int, int], ...]]]:
    """Return (question, reply, document, spans) of every single-turn row of a set that has a reply and a document."""
    rows: list[tuple[str, str, str, tuple[tuple[int, int], ...]]] = []
    if (folder / "train.jsonl").is_file():
        for example in load_examples(folder / "train.jsonl").rows:
            turns = [m for m in example.messages if m["role"] != "system"]
            doc = example.meta.get("doc_id")
            if len(turns) == 2 and doc and not example.refuses:
                rows.append((example.question, example.reply, str(doc), ()))
        return rows
    for question in load_questions(folder / "questions.jsonl"):
        reply = question.reference or next(iter(question.answers), "")
        if question.answerable and reply and question.doc_id:
            rows.append((question.question, reply, question.doc_id, question.spans))
    return rows


class PlantedSet:
    """The rows of one set: good ones, held-out questions, and bad ones made from the rest."""

    def __init__(self, name: str, folder: Path, index: Index, seed: int) -> None:
        """Read a set; its rows are shuffled, and of rows about one fact only the first is taken."""
        self.name, self.index, self.seed = name, index, seed
        self.rng = random.Random(f"{seed}{name}")
        self.chunks: defaultdict[str, list[Chunk]] = defaultdict(list)
        for chunk in index.chunks:
            self.chunks[chunk.doc].append(chunk)
        raw = read_rows(folder)
        self.rng.shuffle(raw)
        self.single = name == "hybrid_concierge"  # each of its documents is one fact
        seen: set[tuple[str, str]] = set()
        self.rows: list[RealRow] = []
        self.same_fact: defaultdict[tuple[str, str], list[RealRow]] = defaultdict(list)
        for question, reply, doc, spans in raw:
            if doc not in self.chunks:
                continue
            key = (doc, "" if self.single else normalise_text(reply))
            row = RealRow(question, reply, self._passage(question, reply, doc, spans))
            self.same_fact[key].append(row)
            if key not in seen:
                seen.add(key)
                self.rows.append(row)
        self.names = sorted({m for row in self.rows for m in _NAME.findall(row.passage.text)})

    def _passage(self, question: str, reply: str, doc: str, spans: Sequence[tuple[int, int]]) -> Chunk:
        chunks = self.chunks[doc]
        touched = [c for c in chunks if any(c.start < e and s < c.end for s, e in spans)]
        if len(touched) > 1 and not any(all(c.start <= s and e <= c.end for s, e in spans) for c in touched):
            # the gold is spread over several chunks: the passage is all of the text that they cover
            return self._joined(touched)
        if spans:
            return max(chunks, key=lambda c: sum(max(0, min(c.end, e) - max(c.start, s)) for s, e in spans))
        if len(chunks) == 1:
            return chunks[0]
        finder = GoldFinder(chunks)
        gold = finder.find_all(reply, question) or finder.most_related(reply, question, 1)
        fields = structured_fields(reply)
        if gold and len(fields) > 1 and not all(_in_chunk(field, gold[0]) for field in fields):
            return self._joined(chunks)  # a card of values from several chunks
        return gold[0] if gold else chunks[0]

    def _joined(self, chunks: Sequence[Chunk]) -> Chunk:
        """Return one passage of all the text that chunks of one document cover."""
        start, end = min(c.start for c in chunks), max(c.end for c in chunks)
        return replace(chunks[0], text=(self.index.raw(chunks[0].doc) or "")[start:end], start=start, end=end)

    def plant(self, good: int, bad: int) -> tuple[list[PlantedRow], list[Question]]:
        """Return the rows of the test, the good ones first, and the held-out questions."""
        goods, rest = self.rows[:good], self.rows[good:]
        held, source = rest[: len(rest) // 3], rest[len(rest) // 3 :]
        questions = [
            Question(f"h{n}", row.question, (row.reply,), row.reply, row.passage.doc, line=n)
            for n, row in enumerate(held, 1)
        ]
        planted = [PlantedRow("good", "", row) for row in goods]
        share = bad // len(KINDS)
        makers: dict[str, list[tuple[str, Callable[[RealRow], RealRow | None]]]] = {
            "wrong": [
                ("number", self.number),
                ("other reply, same document", self.reply_of_document),
                ("date", self.date),
                ("other reply, other document", self.reply_of_other),
                ("name", self.name_changed),
                ("negation", self.negation),
                ("swapped entity", self.swapped),
            ],
            "repeat": [(how, make) for how, make in self.rewordings()],
            "leak": [*self.rewordings(), ("the same fact in other words", self.same_fact_again)],
            "unanswerable": [
                ("question of another document, own reply", self.question_of_other),
                ("row of another document", self.row_of_other),
                ("about something else", self.other_subject),
            ],
            "form": [
                ("two questions", self.double),
                ("another language", self.spanish),
                ("no question", self.statement),
                ("speaks of the passage", self.about_passage),
            ],
        }
        sources = {"repeat": goods, "leak": held}
        for kind in KINDS:
            planted += self._bad(kind, makers[kind], list(sources.get(kind, source)), share)
        return planted, questions

    def _bad(
        self,
        kind: str,
        makers: Sequence[tuple[str, Callable[[RealRow], RealRow | None]]],
        rows: list[RealRow],
        count: int,
    ) -> list[PlantedRow]:
        """Return bad rows of one kind, the ways of making them in turn; a way that fits no row is left out."""
        planted: list[PlantedRow] = []
        usable, turn = list(makers), 0
        self.rng.shuffle(rows)
        while len(planted) < count and usable:
            how, make = usable[turn % len(usable)]
            for n, row in enumerate(rows):
                if (
                    (new := make(row)) is not None and (new.question, new.reply) != (row.question, row.reply)
                ) or (new is not None and how == "the same row"):
                    planted.append(PlantedRow(kind, how, new))
                    rows.append(rows.pop(n))
                    turn += 1
                    break
            else:
                usable.remove((how, make))
        return planted

    def rewordings(self) -> list[tuple[str, Callable[[RealRow], RealRow | None]]]:
        """Return ways to ask the same in nearly the same words."""
        return [
            ("the same row", lambda row: row),
            (
                "other case and punctuation",
                lambda row: replace(row, question=row.question.lower().rstrip("?. ")),
            ),
            ("a lead in front", lambda row: replace(row, question=self.rng.choice(LEADS) + row.question)),
            ("one word left out", self.word_left_out),
        ]

    def word_left_out(self, row: RealRow) -> RealRow | None:
        """Leave one article or preposition out of a question."""
        match = re.search(r" (?:the|a|an|of|in|at|to|for)(?= )", row.question)
        return (
            replace(row, question=row.question[: match.start()] + row.question[match.end() :])
            if match
            else None
        )

    def same_fact_again(self, row: RealRow) -> RealRow | None:
        """Take another real row about the same fact."""
        key = (row.passage.doc, "" if self.single else normalise_text(row.reply))
        others = [r for r in self.same_fact[key] if r.question != row.question]
        return self.rng.choice(others) if others else None

    def number(self, row: RealRow) -> RealRow | None:
        """Change a number of the reply."""
        numbers = [m for m in _NUMBER.finditer(row.reply) if not re.match(r"[-/.:]\d", row.reply[m.end() :])]
        if not numbers:
            return None
        match = self.rng.choice(numbers)
        value = match.group()
        changed = (
            str(int(value) + self.rng.choice((1, 2, 3, 10))) if value.isdigit() else f"{float(value) + 1:g}"
        )
        if changed in row.passage.text:
            return None
        return replace(row, reply=row.reply[: match.start()] + changed + row.reply[match.end() :])

    def date(self, row: RealRow) -> RealRow | None:
        """Change a month, a weekday or a part of an ISO date of the reply."""
        for names in (MONTHS, DAYS):
            for name in names:
                if re.search(rf"\b{name}\b(?! (?:I|we|you|they)\b)", row.reply):
                    other = self.rng.choice([n for n in names if n not in row.passage.text] or ["Smarch"])
                    return replace(row, reply=row.reply.replace(name, other, 1))
        if match := re.search(r"\b(\d{4})-(\d\d)-(\d\d)\b", row.reply):
            month = int(match[2]) % 12 + 1
            return replace(row, reply=row.reply.replace(match.group(), f"{match[1]}-{month:02d}-{match[3]}"))
        if match := re.search(r"\b(1[5-9]|20)\d\d\b", row.reply):
            year = str(int(match.group()) + self.rng.choice((-2, 1, 3)))
            return (
                None
                if year in row.passage.text
                else replace(row, reply=row.reply.replace(match.group(), year))
            )
        return None

    def name_changed(self, row: RealRow) -> RealRow | None:
        """Put a name of another passage in the place of one in the reply."""
        names = [m for m in _NAME.finditer(row.reply) if m.start() > 0 or len(row.reply.split()) < 5]
        names = [m for m in names if m.group() in row.passage.text or m.group() in row.question]
        others = [
            n for n in self.rng.sample(self.names, min(40, len(self.names))) if n not in row.passage.text
        ]
        if not names or not others:
            return None
        match = self.rng.choice(names)
        return replace(row, reply=row.reply[: match.start()] + others[0] + row.reply[match.end() :])

    def negation(self, row: RealRow) -> RealRow | None:
        """Deny what the reply states, or state what it denies."""
        head, dot, tail = row.reply.partition(". ")
        if len(head.split()) < 5 or head.endswith("?"):
            return None
        if match := _NOT.search(head):
            plain = (
                head[: match.start()]
                + ("" if match.group().strip().lower() != "no" else "a ")
                + head[match.end() :]
            )
            plain = re.sub(r"^(?:No|Sorry|Unfortunately),? ", "Yes, ", plain)
            return replace(row, reply=plain + dot + tail)
        if match := _BE.search(head):
            denied = re.sub(r"^Yes,? ", "No, ", f"{head[: match.end()]} not{head[match.end() :]}")
            return replace(row, reply=denied + dot + tail)
        return None

    def swapped(self, row: RealRow) -> RealRow | None:
        """Put another name or number of the same passage in the place of one in the reply."""
        for pattern in self.rng.sample([_NAME, _NUMBER], 2):
            mine = [m for m in pattern.finditer(row.reply) if m.group() in row.passage.text]
            mine = [m for m in mine if pattern is _NUMBER or m.start() > 0 or len(row.reply.split()) < 5]
            others = [
                m.group()
                for m in pattern.finditer(row.passage.text)
                if m.group() not in row.reply and m.group() not in row.question and m.start() > 0
            ]
            if mine and others:
                match = self.rng.choice(mine)
                return replace(
                    row, reply=row.reply[: match.start()] + self.rng.choice(others) + row.reply[match.end() :]
                )
        return None

    def _other(self, row: RealRow, same_document: bool) -> RealRow | None:
        others = [
            r
            for r in self.rng.sample(self.rows, min(len(self.rows), 1500))
            if (r.passage.doc == row.passage.doc) == same_document
            and normalise_text(r.reply) not in normalise_text(row.reply)
            and normalise_text(row.reply) not in normalise_text(r.reply)
            and normalise_text(r.question) != normalise_text(row.question)
        ]
        return others[0] if others else None

    def reply_of_document(self, row: RealRow) -> RealRow | None:
        """Take the reply to another question about the same document."""
        other = self._other(row, True)
        return replace(row, reply=other.reply) if other else None

    def reply_of_other(self, row: RealRow) -> RealRow | None:
        """Take the reply to a question about another document."""
        other = self._other(row, False)
        return replace(row, reply=other.reply) if other else None

    def question_of_other(self, row: RealRow) -> RealRow | None:
        """Take the question about another document."""
        other = self._other(row, False)
        return replace(row, question=other.question) if other else None

    def row_of_other(self, row: RealRow) -> RealRow | None:
        """Take question and reply of another document."""
        other = self._other(row, False)
        return replace(other, passage=row.passage) if other else None

    def other_subject(self, row: RealRow) -> RealRow | None:
        """Ask the same about something else: with a name that the passage does not have."""
        names = [m for m in _NAME.finditer(row.question) if m.start() > 0]
        others = [
            n for n in self.rng.sample(self.names, min(60, len(self.names))) if n not in row.passage.text
        ]
        others = [n for n in others if n not in row.passage.title]
        if not names or not others:
            return None
        match = max(names, key=lambda m: len(m.group()))
        return replace(row, question=row.question[: match.start()] + others[0] + row.question[match.end() :])

    def double(self, row: RealRow) -> RealRow | None:
        """Join two questions in one row."""
        other = self._other(row, True) or self._other(row, False)
        if other is None:
            return None
        second = other.question[0].lower() + other.question[1:]
        joint = self.rng.choice((" and ", " Also, ", " "))
        first = row.question.rstrip("? ") if joint == " and " else row.question
        return replace(
            row,
            question=first + joint + (second if joint != " " else other.question),
            reply=f"{row.reply} {other.reply}",
        )

    def spanish(self, row: RealRow) -> RealRow | None:
        """Take a question in Spanish."""
        path = Path(os.environ.get("TUNEWISE_SHARED", "../shared")) / "data" / "xquad_es" / "questions.jsonl"
        if not path.is_file():
            return None
        rows = path.read_text("utf-8").splitlines()
        return replace(row, question=json.loads(self.rng.choice(rows))["question"])

    def statement(self, row: RealRow) -> RealRow | None:
        """Put a sentence of the passage in the place of the question."""
        sentence = re.split(r"(?<=[.!])\s+", row.passage.text)[0]
        return (
            replace(row, question=sentence) if len(sentence.split()) > 4 and sentence.endswith(".") else None
        )

    def about_passage(self, row: RealRow) -> RealRow | None:
        """Speak of the passage in the question."""
        question = row.question[0].lower() + row.question[1:]
        return replace(
            row,
            question=f"According to the {self.rng.choice(('passage', 'text above', 'document'))}, {question}",
        )


def run_set(name: str, folder: Path, work: Path, good: int, bad: int, seed: int) -> dict[str, Any]:
    """Return the outcome of the checks on one set."""
    from advisor.workflows.index_build import load_embedder

    embedder = load_embedder("all-minilm-l6-v2")
    place = work / name
    if not (place / "CURRENT").is_file():
        Index.build(place, folder / "documents.jsonl", embedder)
    index = Index.open(place, embedder)
    planted, held_out = PlantedSet(name, folder, index, seed).plant(good, bad)
    checker = RowChecker(index, language="English", held_out=held_out)
    checked = checker.check_all([CandidateRow(p.row.question, p.row.reply, p.row.passage) for p in planted])
    return {"set": name, "rows": list(zip(planted, checked, strict=True))}


def summarise(outcomes: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the shares by set, kind and way."""
    by_kind: defaultdict[tuple[str, str], list[bool]] = defaultdict(list)
    by_way: defaultdict[str, list[bool]] = defaultdict(list)
    lost: Counter[str] = Counter()
    for outcome in outcomes:
        for planted, checked in outcome["rows"]:
            for scope in (outcome["set"], "all"):
                by_kind[scope, "good" if planted.kind == "good" else "bad"].append(bool(checked.kind))
                if planted.kind != "good":
                    by_kind[scope, planted.kind].append(bool(checked.kind))
            if planted.kind == "good" and checked.kind:
                lost[f"{checked.kind}: {checked.reason.split(chr(39))[0][:60]}"] += 1
            if planted.kind != "good":
                by_way[f"{planted.kind}: {planted.how}"].append(bool(checked.kind))
    return {
        "out": {f"{scope} {kind}": f"{sum(v)}/{len(v)}" for (scope, kind), v in sorted(by_kind.items())},
        "ways": {way: f"{sum(v)}/{len(v)}" for way, v in sorted(by_way.items())},
        "good_lost_by": dict(lost.most_common()),
    }


def _show(outcome: dict[str, Any]) -> None:
    for planted, checked in outcome["rows"]:
        good = planted.kind == "good"
        if good == bool(checked.kind):
            row = planted.row
            print(
                f"{planted.kind}/{planted.how} -> {checked.kind or 'passed'} {checked.reason} {checked.checks} | "
                f"{row.question} | {row.reply} | {row.passage.title}: {row.passage.text[:260]!r}"
            )


def main() -> None:
    """Run the test and print the shares as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tuned", action="store_true")
    parser.add_argument("--sets", default="")
    parser.add_argument("--good", type=int, default=200)
    parser.add_argument("--bad", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=Path("planted-work"))
    parser.add_argument("--show", action="store_true")
    given = parser.parse_args()
    data = Path(os.environ.get("TUNEWISE_SHARED", "../shared")) / "data"
    names = given.sets.split(",") if given.sets else TUNED_SETS if given.tuned else SCORED_SETS
    outcomes = []
    for name in names:
        outcomes.append(run_set(name, data / name, given.work, given.good, given.bad, given.seed))
        if given.show:
            _show(outcomes[-1])
    json.dump(summarise(outcomes), sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
