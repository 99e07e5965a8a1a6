"""Counting examples: repeats, notes and warnings."""

from __future__ import annotations

import json
from pathlib import Path

from advisor.questionnaire import data_stats
from advisor.questionnaire.data_stats import measure_files, token_counting


def row(number: int) -> tuple[str, str]:
    """Return a long question of unique words, and a reply that all rows share."""
    return " ".join(f"{letter}{number}" for letter in "abcdefghijklmnopqrstuvwxyz"), "and so it is, madam"


def counts(tmp_path: Path, rows: list[tuple[str, str]]) -> tuple[int, str, tuple[str, ...]]:
    """Write the rows as examples and return the count, its note and the warnings."""
    path = tmp_path / "examples.jsonl"
    path.write_text("".join(json.dumps({"prompt": p, "completion": c}) + "\n" for p, c in rows), "utf-8")
    stats = measure_files(None, path, None, token_counting(None))
    return stats.counted["labelled_examples"], stats.notes["labelled_examples"], stats.warnings


def test_exact_and_near_repeats_are_counted_once(tmp_path: Path) -> None:
    rows = [row(number) for number in range(30)]
    again = [(prompt + ", please", reply) for prompt, reply in rows[:4]]
    count, note, warnings = counts(tmp_path, [*rows, rows[0], rows[1], *again])
    assert (count, note) == (30, "36 rows (prompt-completion), 2 exact and 4 near repeats counted once")
    assert warnings == ()


def test_many_near_repeats_give_a_warning(tmp_path: Path) -> None:
    rows = [row(number) for number in range(12)]
    again = [(prompt + " now", reply) for prompt, reply in rows]
    count, _, warnings = counts(tmp_path, [*rows, *again])
    assert (count, warnings) == (12, ("12 of 24 examples nearly repeat others: they count as 12",))


def test_same_text_with_other_label_is_another_example(tmp_path: Path) -> None:
    """With labels, nearly equal texts show where the classes divide."""
    text = row(0)[0]
    rows = [(f"{text} {more}", label) for more in ("one", "one more") for label in ("late", "lost", "found")]
    count, note, _ = counts(tmp_path, rows * 3)
    assert (count, note) == (3, "18 rows (prompt-completion), 12 exact and 3 near repeats counted once")


def test_no_repeat_note_without_repeats(tmp_path: Path) -> None:
    rows = [(f"a{n} b{n} c{n} d{n}", f"reply {n} of many kinds, number {n}") for n in range(20)]
    assert counts(tmp_path, rows)[:2] == (20, "20 rows (prompt-completion)")


def test_shipped_examples_have_no_repeats(example: Path) -> None:
    """The rows follow few patterns, yet all differ."""
    stats = measure_files(None, example / "examples.jsonl", None, token_counting(None))
    assert (stats.counted["labelled_examples"], stats.notes["labelled_examples"]) == (
        357,
        "357 rows (messages)",
    )
    assert stats.counted["unlabelled_tokens"] == 0, "chats hold no plain text to learn"


def test_raw_texts_are_counted_in_tokens_only(tmp_path: Path) -> None:
    """Raw texts give no count of examples and no output format."""
    for name in ("a.md", "b.txt"):
        (tmp_path / name).write_text("Forty letters are ten tokens, or nearly..", "utf-8")
    stats = measure_files(None, tmp_path, None, token_counting(None))
    assert stats.counted == {"unlabelled_tokens": 20}


def test_counts_of_long_files_are_scaled_from_first_rows(tmp_path: Path) -> None:
    """A warning says so."""
    path, most = tmp_path / "many.csv", data_stats.MAX_EXAMPLES
    path.write_text("prompt,completion\n" + "".join(f"q{n},a{n}\n" for n in range(most * 2)), "utf-8")
    stats = measure_files(None, path, None, token_counting(None))
    assert stats.counted["labelled_examples"] == 2 * most
    assert stats.warnings == (f"{path} holds 40,000 rows; the first 20,000 stand for all of them",)


def test_questions_near_examples_give_a_warning(tmp_path: Path) -> None:
    """The warning names the plan key that leaves them out."""
    rows = [row(number) for number in range(12)]
    counts(tmp_path, rows)
    questions = [{"question": rows[3][0] + " please"}, {"question": "Is there a lounge on board of it?"}]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(q) + "\n" for q in questions), "utf-8")
    (warning,) = measure_files(
        None, tmp_path / "examples.jsonl", tmp_path / "q.jsonl", token_counting(None)
    ).warnings
    assert warning.startswith(
        "1 held-out questions nearly repeat examples (question line 1 = example line 4)"
    )
    assert "near_repeats: leave_out" in warning
