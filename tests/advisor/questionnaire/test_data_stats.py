"""Counting examples: repeats once, and what is said about them."""

from __future__ import annotations

import json
from pathlib import Path

from advisor.questionnaire import data_stats
from advisor.questionnaire.data_stats import measure_files, token_counting


def row(number: int) -> tuple[str, str]:
    """A long question of its own words, and a reply that all share."""
    return " ".join(f"{letter}{number}" for letter in "abcdefghijklmnopqrstuvwxyz"), "and so it is, madam"


def counts(tmp_path: Path, rows: list[tuple[str, str]]) -> tuple[int, str, tuple[str, ...]]:
    """Write the rows as examples and return the count, its note and the warnings."""
    path = tmp_path / "examples.jsonl"
    path.write_text("".join(json.dumps({"prompt": p, "completion": c}) + "\n" for p, c in rows), "utf-8")
    stats = measure_files(None, path, None, token_counting(None))
    return stats.counted["labelled_examples"], stats.notes["labelled_examples"], stats.warnings


def test_exact_and_near_repeats_count_once(tmp_path: Path) -> None:
    """The note tells the two apart."""
    rows = [row(number) for number in range(30)]
    again = [(prompt + ", please", reply) for prompt, reply in rows[:4]]
    count, note, warnings = counts(tmp_path, [*rows, rows[0], rows[1], *again])
    assert (count, note) == (30, "36 rows (prompt-completion), 2 exact and 4 near repeats counted once")
    assert warnings == ()


def test_many_near_repeats_are_warned_about(tmp_path: Path) -> None:
    """A file that is mostly repeats says so."""
    rows = [row(number) for number in range(12)]
    again = [(prompt + " now", reply) for prompt, reply in rows]
    count, _, warnings = counts(tmp_path, [*rows, *again])
    assert (count, warnings) == (12, ("12 of 24 examples nearly repeat others: they count as 12",))


def test_the_same_text_with_another_label_is_another_example(tmp_path: Path) -> None:
    """With labels, what is learnt is the border between nearly equal texts."""
    text = row(0)[0]
    rows = [(f"{text} {more}", label) for more in ("one", "one more") for label in ("late", "lost", "found")]
    count, note, _ = counts(tmp_path, rows * 3)
    assert (count, note) == (3, "18 rows (prompt-completion), 12 exact and 3 near repeats counted once")


def test_rows_without_repeats_have_no_note_about_them(tmp_path: Path) -> None:
    """Nothing is said that is not so."""
    rows = [(f"a{n} b{n} c{n} d{n}", f"reply {n} of many kinds, number {n}") for n in range(20)]
    assert counts(tmp_path, rows)[:2] == (20, "20 rows (prompt-completion)")


def test_the_shipped_example_repeats_nothing(example: Path) -> None:
    """Its rows are made from few patterns, yet each teaches another answer."""
    stats = measure_files(None, example / "examples.jsonl", None, token_counting(None))
    assert (stats.counted["labelled_examples"], stats.notes["labelled_examples"]) == (
        357,
        "357 rows (messages)",
    )
    assert stats.counted["unlabelled_tokens"] == 0, "chats hold no plain text to learn"


def test_plain_texts_are_counted_in_tokens_and_are_no_examples(tmp_path: Path) -> None:
    """A folder of notes says nothing about a format of answers."""
    for name in ("a.md", "b.txt"):
        (tmp_path / name).write_text("Forty letters are ten tokens, or nearly..", "utf-8")
    stats = measure_files(None, tmp_path, None, token_counting(None))
    assert stats.counted == {"unlabelled_tokens": 20}


def test_many_rows_are_counted_and_only_the_first_read(tmp_path: Path) -> None:
    """The first rows stand for the rest, and it is said."""
    path, most = tmp_path / "many.csv", data_stats.MAX_EXAMPLES
    path.write_text("prompt,completion\n" + "".join(f"q{n},a{n}\n" for n in range(most * 2)), "utf-8")
    stats = measure_files(None, path, None, token_counting(None))
    assert stats.counted["labelled_examples"] == 2 * most
    assert stats.warnings == (f"{path} holds 40,000 rows; the first 20,000 stand for all of them",)


def test_questions_that_nearly_repeat_examples_are_warned_about(tmp_path: Path) -> None:
    """The run would refuse them, and the warning says how to go on."""
    rows = [row(number) for number in range(12)]
    counts(tmp_path, rows)
    asked = [{"question": rows[3][0] + " please"}, {"question": "Is there a lounge on board of it?"}]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(q) + "\n" for q in asked), "utf-8")
    (warning,) = measure_files(
        None, tmp_path / "examples.jsonl", tmp_path / "q.jsonl", token_counting(None)
    ).warnings
    assert warning.startswith(
        "1 held-out questions nearly repeat examples (question line 1 = example line 4)"
    )
    assert "near_repeats: leave_out" in warning
