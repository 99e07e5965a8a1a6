"""Sorting training rows into changing facts, stable facts and behaviour."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from advisor.questionnaire.row_sorting import (
    BEHAVIOUR,
    CHANGING,
    STABLE,
    kinds_of_change,
    share_stating_facts,
    sort_rows_by_kind,
    sort_rows_of_files,
    sort_rows_without_documents,
)
from runners.data.examples import Example, load_examples


def row(question: str, reply: str, line: int = 1, **meta: Any) -> Example:
    """Return one training row."""
    turns = ({"role": "user", "content": question}, {"role": "assistant", "content": reply})
    return Example(turns, meta, line)


@pytest.mark.parametrize(
    ("statement", "kinds"),
    [
        ("A single costs 12 euros.", ("price",)),
        ("The fee is €7.50.", ("price",)),
        ("Children get 20 % off.", ("price",)),
        ("It leaves at 16:45.", ("time",)),
        ("We open at 7 am.", ("time",)),
        ("The feast is on 12 July.", ("date",)),
        ("Call 0451 220 7733.", ("telephone",)),
        ("Use version 3 of the form.", ("version",)),
        ("It needs v2.1.", ("version",)),
        ("The quay has 12 berths.", ()),
        ("Dogs travel on deck.", ()),
    ],
)
def test_kinds_of_change(statement: str, kinds: tuple[str, ...]) -> None:
    assert kinds_of_change(statement) == kinds


def test_sort_rows_of_files_uses_documents(tmp_path: Path) -> None:
    (tmp_path / "fares.md").write_text("# Fares\n\nA single to Mirrow costs 12 euros.\n", "utf-8")
    (tmp_path / "dogs.md").write_text("# Dogs\n\nDogs travel on the open deck.\n", "utf-8")
    rows = [
        row("What does a single to Mirrow cost?", "A single to Mirrow costs 12 euros. May I book it?", 1),
        row("Where do dogs travel?", "Dogs travel on the open deck. Shall I note it?", 2),
        row("Who made you?", "I am glad to help with anything about our boats. What may I do?", 3),
        row("When does the zoo open?", "Our notes do not say. Shall I ask?", 4, refusal=True),
        row("When does the bar open?", "The bar opens at 18:30. Shall I book a table?", 5),
        row("Who is the captain?", "Petra Hollin is our captain. May I pass a message on?", 6),
        Example(({"role": "assistant", "content": "A text at 18:30."},), {}, 7),
    ]
    sorting = sort_rows_of_files(rows, tmp_path)
    assert [(r.line, r.kind, r.doc) for r in sorting.rows] == [
        (1, CHANGING, "fares.md"),
        (2, STABLE, "dogs.md"),
        (3, BEHAVIOUR, None),
        (4, BEHAVIOUR, None),
        (5, CHANGING, None),
        (6, STABLE, None),
    ]
    assert [r.line for r in sorting.missing] == [5]
    assert sorting.text == (
        "of 6 rows, 2 state facts that change (price 1, time 1), 2 facts that do not, 2 show style only. "
        "2 of the 4 facts are in the documents already: look them up there, and use training only for style. "
        "1 fact that may change is in no document (line 5): write it into one, or a fine-tuned model will repeat old "
        "values."
    )
    data = sorting.to_json()
    assert (data["changing"], data["stable"], data["behaviour"], data["in_documents"]) == (2, 2, 2, 2)
    assert data["missing"] == [5]
    assert data["each"][0] == {"line": 1, "kind": CHANGING, "says": ["price"], "doc": "fares.md"}


def test_sort_rows_without_matching_documents(tmp_path: Path) -> None:
    sorting = sort_rows_by_kind([row("When?", "At 18:30. Anything else?")])
    assert (sorting.rows[0].kind, sorting.rows[0].doc) == (CHANGING, None)
    assert sort_rows_by_kind([]).text == "no rows to sort"


def test_sort_rows_without_documents_reports_none_missing() -> None:
    sorting = sort_rows_without_documents(
        [row("When?", "At 18:30. Anything else?"), row("Hello?", "Good day. What may I do?")]
    )
    assert not sorting.missing
    assert (sorting.to_json()["missing"], sorting.to_json()["in_documents"]) == (None, None)
    assert sorting.text.startswith(
        "of 2 rows, 1 state facts that change (time 1), 0 facts that do not, 1 show style only."
    )
    assert "No documents were read" in sorting.text
    assert "stand in" not in sorting.text.replace("what a fact stands in", "")


def test_share_of_replies_that_state_facts_of_their_own() -> None:
    """Values that the prompt holds, results of a calculation and a number in a long reply do not count."""
    plain = [
        row(f"How nice is the {word}?", "Very nice. Enjoy it!") for word in ("rye", "bun", "pie", "tart")
    ]
    stating = [
        row("What is a rye loaf?", "A rye loaf is £2.40. Anything else?"),
        row("When does the van leave?", "At 5:30 am. Good night!"),
        row("How long does it keep?", "It keeps 3 days. Enjoy it!"),
        row("When is the fair?", "It is on 12 July. See you there!"),
    ]
    repeated = [row("Is it on 12 July?", "Yes, on 12 July."), row("Is it £4?", "It is £4.")]
    assert share_stating_facts([*plain, *stating] * 5) == 0.5
    assert share_stating_facts([*plain, *repeated] * 5) == 0.0
    worked_out = [row("Two trays at £4 and 3 at £5: what is it?", "It is £23.")] * 30
    assert share_stating_facts([*worked_out, *stating * 5]) is None, "most replies can be worked out"
    assert share_stating_facts(stating * 4) is None, "too few to tell"
    essay = " ".join(["Bread is a friend of every meal."] * 9)
    assert share_stating_facts([row("What of bread?", f"{essay} It keeps 3 days.")] * 30) == 0.0


def test_public_replies_that_are_facts(shared: Path) -> None:
    """One set of twenty is about dates; code, sums, labels, rewriting and dialogue are not facts to look up."""
    shares = {}
    for path in sorted((shared / "data").glob("*/train.jsonl")):
        shares[path.parent.name] = share_stating_facts(load_examples(path, None, 300).rows[::3])
    assert len(shares) >= 20
    high = {name for name, share in shares.items() if share is not None and share >= 0.3}
    assert high == {"endoflife_dates"}


def test_shipped_facts_are_found_in_documents(example: Path) -> None:
    rows = load_examples(example / "examples.jsonl").rows
    sorting = sort_rows_of_files(rows, example / "documents")
    refusing = {r.line for r in rows if r.meta.get("refusal")}
    assert refusing <= {r.line for r in sorting.of(BEHAVIOUR)}
    facts = [r for r in sorting.rows if r.kind != BEHAVIOUR]
    named = {r.line: r.meta.get("doc_id") for r in rows}
    assert sum(r.doc == named[r.line] for r in facts) >= 0.95 * len(facts)
    assert len(sorting.of(CHANGING)) >= 100
    # "From the age of 63 you get the senior discount of 22 percent" is a wording that support does not recognise
    assert [row.line for row in sorting.missing] == [243]


def test_row_sorting_imports_no_torch() -> None:
    import subprocess

    code = "import sys, advisor.questionnaire.row_sorting; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
