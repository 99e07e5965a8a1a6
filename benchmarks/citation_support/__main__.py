"""Altered and restated sentences of public passages, human replies, and the time of a comparison.

Altered: one thing of a true sentence is changed (eight kinds), so that no passage says it. Restated: a true sentence in
other words. Sets and templates are divided into two halves; rules were made looking at the dev half only, and the report
half is only counted. A statement counts as supported where every citation of it says so.

    python -m benchmarks.citation_support SHARED/data
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import rag
from benchmarks.citation_support.altered import ALTERED
from benchmarks.citation_support.edits import Template
from benchmarks.citation_support.passages import DEV_SETS, REPORT_SETS, Passage, passages
from benchmarks.citation_support.restated import RESTATED
from benchmarks.citation_support.spanish import SPANISH_ALTERED, SPANISH_RESTATED
from rag.grounding.citations import is_factual, strip_marks
from rag.text.words import sentences
from rag.types import Chunk, Hit

HALVES = ("dev", "report")
MOST_ALTERED = 120
"""Statements of each altered kind and half at most."""
MOST_RESTATED = 70
REPLIES = 600
FACTS_BESIDE = 8


@dataclass(frozen=True)
class Made:
    """A statement made of one sentence of a passage."""

    kind: str
    template: str
    source: str
    text: str
    passage: Passage

    @property
    def support(self) -> str:
        """The level of all its citations, the lowest where they differ."""
        levels = {c.support for c in rag.cite(self.text, self.passage.hits)}
        return next((x for x in ("unsupported", "partly", "supported") if x in levels), "unsupported")


def main() -> None:
    """Print a table of each half, the human replies, Spanish and the time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--half", choices=HALVES, help="only this half, and not the rest")
    parser.add_argument(
        "--show", type=int, default=0, help="wrongly judged statements of each dev kind to print"
    )
    given = parser.parse_args()
    for half in (given.half,) if given.half else HALVES:
        sets = DEV_SETS if half == "dev" else REPORT_SETS
        shown = given.show if half == "dev" else 0
        pool = [passages(given.data, name) for name in sets]
        index = HALVES.index(half)
        print(f"\n{half} half: {', '.join(sets)}")
        judge("altered, not supported", statements(ALTERED, index, pool, MOST_ALTERED), False, shown)
        judge("restated, supported", statements(RESTATED, index, pool, MOST_RESTATED), True, shown)
    if not given.half:
        pool = [passages(given.data, "xquad_es")]
        print("\nSpanish: xquad_es")
        judge("altered, not supported", statements(SPANISH_ALTERED, 0, pool, MOST_ALTERED), False, 0)
        judge("restated, supported", statements(SPANISH_RESTATED, 0, pool, MOST_RESTATED), True, 0)
    replies(given.data / "hybrid_concierge")
    seconds([p for name in DEV_SETS for p in passages(given.data, name)[:60]])


def statements(
    kinds: Mapping[str, Sequence[Sequence[Template]]], half: int, pool: Sequence[Sequence[Passage]], most: int
) -> Iterator[Made]:
    """Yield statements of each kind, as many of each template as there are, spread over sets and passages."""
    for kind, halves in kinds.items():
        templates = halves[half]
        left = most
        for n, template in enumerate(templates):
            per_template = -(-left // (len(templates) - n))
            # drawn again for each template, so that a change of one leaves the others as they are
            rng = Random(f"{kind}/{template.__name__}")
            made = list(_of_template(kind, template, pool, per_template, rng))
            left -= len(made)
            yield from made


def _of_template(
    kind: str, template: Template, pool: Sequence[Sequence[Passage]], most: int, rng: Random
) -> Iterator[Made]:
    """Yield at most one statement of a passage, the sets in turn."""
    turns = [iter(_of_set(kind, template, rng.sample(each, len(each)), rng)) for each in pool]
    count = 0
    while turns and count < most:
        for turn in list(turns):
            made = next(turn, None)
            if made is None:
                turns.remove(turn)
            elif count < most:
                count += 1
                yield made


def _of_set(kind: str, template: Template, order: Sequence[Passage], rng: Random) -> Iterator[Made]:
    for passage in order:
        choices = passage.sentences
        for sentence in rng.sample(choices, len(choices)):
            text = template(sentence, passage, rng)
            if text and text != sentence and text not in passage.text:
                yield Made(kind, template.__name__, sentence, text, passage)
                break


def judge(title: str, made: Iterator[Made], true: bool, shown: int) -> None:
    """Print for each kind how many are judged rightly, and examples of those that are not."""
    levels: defaultdict[str, Counter[str]] = defaultdict(Counter)
    wrong: defaultdict[str, list[Made]] = defaultdict(list)
    for each in made:
        support = each.support
        levels[each.kind][support] += 1
        if (support == "supported") is not true:
            wrong[each.kind].append(each)
    print(f"\n| {title} | n | right | share | partly |\n|---|---:|---:|---:|---:|")
    for kind, counts in levels.items():
        _row(kind, counts, true)
    _row("all", sum(levels.values(), Counter()), true)
    for kind, several in wrong.items():
        for each in several[:shown]:
            print(f"\n[{kind}: {each.template}, {each.passage.set}]\n  {each.source}\n  {each.text}")


def _row(kind: str, counts: Counter[str], true: bool) -> None:
    n = counts.total()
    right = counts["supported"] if true else n - counts["supported"]
    print(f"| {kind} | {n} | {right} | {right / n:.3f} | {counts['partly']} |", flush=True)


def replies(folder: Path) -> None:
    """Count the human replies whose first statement their own fact supports, and those that others of the place do."""
    facts: defaultdict[str, list[dict]] = defaultdict(list)
    for line in (folder / "documents.jsonl").read_text("utf-8").strip().split("\n"):
        row = json.loads(line)
        facts[row["id"].rpartition("/")[0]].append(row)
    own: Counter[str] = Counter()
    beside: Counter[str] = Counter()
    for line in (folder / "train.jsonl").read_text("utf-8").strip().split("\n")[:REPLIES]:
        row = json.loads(line)
        said = [s for s in sentences(strip_marks(row["messages"][2]["content"])) if is_factual(s)]
        if not said:
            continue
        doc = row["meta"]["doc_id"]
        place = facts[doc.rpartition("/")[0]]
        for fact in [f for f in place if f["id"] == doc]:
            own[_level(said[0], fact)] += 1
        others = [f for f in place if f["id"] != doc]
        for fact in Random(doc).sample(others, min(FACTS_BESIDE, len(others))):
            beside[_level(said[0], fact)] += 1
    print(
        "\n| human replies of hybrid_concierge | n | supported | share | partly |\n|---|---:|---:|---:|---:|"
    )
    _row("by their own fact", own, True)
    _row("by other facts of the place", beside, True)


def _level(statement: str, fact: dict) -> str:
    chunk = Chunk(0, fact["id"], fact["title"], 0, fact["text"], 0, len(fact["text"]))
    cited = rag.cite(statement, [Hit(chunk, 1.0, 1.0, 1.0)])
    return cited[0].support if cited else "unsupported"


def seconds(some: Sequence[Passage]) -> None:
    """Print the milliseconds of one sentence against 5 passages: when they are new, and when they were seen."""
    first: list[float] = []
    again: list[float] = []
    for passage in some:
        choices = passage.sentences
        for n, sentence in enumerate(choices[:4]):
            started = time.perf_counter()
            rag.cite(sentence.rstrip(".") + " too.", passage.hits)
            (first if n == 0 else again).append(1000 * (time.perf_counter() - started))
    for name, values in (("passages read first", sorted(first)), ("passages known", sorted(again))):
        print(
            f"{name}: median {values[len(values) // 2]:.2f} ms, 95 % {values[int(0.95 * len(values))]:.2f} ms"
        )


if __name__ == "__main__":
    main()
