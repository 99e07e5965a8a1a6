"""Leakage of held-out rows into training rows and instructions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from runners.data import duplicates
from runners.data.examples import Example, load_examples, normalise_text
from runners.data.leakage import find_all_leaks, find_leaks
from runners.data.questions import Question, load_questions
from runners.preflight.data_checks import check_held_out_questions, check_validation_rows

LONG = "which of the two early ferries to the outer island takes bicycles on a sunday morning in the winter season"


def row(question: str, line: int = 1, file: str = "", **meta: str) -> Example:
    """One training row."""
    turns = ({"role": "user", "content": question}, {"role": "assistant", "content": "Yes. Anything else?"})
    return Example(turns, dict(meta), line, file)


def asked(text: str, line: int = 1, **gold: str) -> Question:
    """One held-out question."""
    return Question(f"q{line}", text, line=line, **gold)  # type: ignore[arg-type]


ROWS = (
    row("When does the bar open?", 1, doc_id="bar.md", fact="The bar opens at six."),
    row(LONG, 2),
    row("May I bring a dog?", 3, doc_id="rules.md", fact="Dogs are welcome."),
)


def kinds(*held_out: Question) -> list[tuple[str, object, object]]:
    """Every leak as plain values."""
    return [(leak.kind, leak.held_out, leak.row) for leak in find_leaks(ROWS, held_out)]


def test_every_kind_of_leak_is_found() -> None:
    near_by = LONG.replace("sunday", "saturday", 1).replace("saturday", "sunday") + " really"
    found = kinds(
        asked("When does the bar open?", 1),
        asked("when does THE bar open", 2),
        asked(near_by, 3),
        asked("Are animals allowed?", 4, doc_id="rules.md", fact="dogs are welcome"),
        asked("Is smoking allowed?", 5, doc_id="rules.md", fact="Smoking is not allowed."),
        asked("Where is the pier?", 6, doc_id="pier.md"),
    )
    assert found == [
        ("word for word", 1, 1),
        ("but for case and punctuation", 2, 1),
        ("nearly", 3, 2),
        ("by the same fact", 4, 3),
        ("same document", 5, 3),
    ]


def test_a_question_leaks_by_any_of_its_wordings_and_counts_once() -> None:
    worded = replace(
        asked("Where can I smoke?", 4, doc_id="rules.md"),
        wordings=("may I bring a dog", "MAY i bring A dog?", f"{LONG} really"),
    )
    found = find_all_leaks(ROWS, [worded, asked("Where is the pier?", 5)], "Say: may i bring a dog, please")
    assert [[(leak.kind, leak.held_out, leak.row) for leak in leaks] for leaks in found] == [
        [
            ("but for case and punctuation", 4, 3),
            ("nearly", 4, 3),
            ("in the instructions", 4, "prompt"),
            ("same document", 4, 3),
        ],
        [],
    ]
    check = check_held_out_questions(ROWS, [worded, asked("Where is the pier?", 5)])
    assert (check.level, check.rows) == ("stop", ("4 = 3",))
    assert check.text.startswith("1 of 2 held-out questions")


def test_same_words_about_other_document_are_no_leak() -> None:
    assert kinds(asked("When does the bar open?", 1, doc_id="other_bar.md")) == []
    assert kinds(asked("When does the bar open?", 1, doc_id="bar.md"))[0][0] == "word for word"


def test_leaked_question_is_refused_but_shared_document_is_not() -> None:
    check = check_held_out_questions(
        ROWS, [asked("When does the bar open?", 7), asked("May I bring a dog", 9)]
    )
    assert (check.code, check.level, check.rows) == ("PF013", "stop", ("7 = 1", "9 = 3"))
    assert "2 of 2 held-out questions" in check.text
    check = check_held_out_questions(ROWS, [asked("Is smoking allowed?", 7, doc_id="rules.md")])
    assert (check.level, check.rows) == ("ok", ())
    assert "1 are about documents that rows are about too" in check.text


def test_validation_rows_share_neither_question_nor_document() -> None:
    assert check_validation_rows(ROWS, [row("Where is the pier?", 4)]).level == "ok"
    same_fact = row("Are pets fine?", 4, doc_id="rules.md", fact="Dogs are welcome.")
    assert check_validation_rows(ROWS, [same_fact]).level == "warn"
    check = check_validation_rows(ROWS, [row("May I smoke?", 4, "v.jsonl", doc_id="rules.md")])
    assert (check.code, check.level, check.rows) == ("PF014", "warn", ("v.jsonl:4 = 3",))
    assert check_validation_rows(ROWS, [row("may I bring a dog", 4)]).level == "stop"


def test_raw_texts_are_compared_whole() -> None:
    text = Example(({"role": "assistant", "content": LONG},), {}, 1)
    assert [leak.kind for leak in find_leaks([text], [Example(text.messages, {}, 2)])] == ["word for word"]


@settings(max_examples=60)
@given(
    st.lists(st.text("abc ", max_size=40), max_size=14), st.lists(st.text("abc ", max_size=40), max_size=14)
)
def test_near_matches_equal_definition(texts: list[str], among: list[str]) -> None:
    words = [normalise_text(text).split() for text in (*among, *texts)]
    sets = [{tuple([*w, "", ""][i : i + 3]) for i in range(max(1, len(w) - 2))} for w in words]
    different = {frozenset(s) for s in sets}
    frame = {
        x
        for x in set().union(*sets)
        if len(different) >= duplicates.MIN_NGRAMS and sum(x in s for s in different) > len(different) / 2
    }
    sets = [s - frame for s in sets]
    held, kept = sets[len(among) :], sets[: len(among)]
    expected = [
        [at for at, other in enumerate(kept) if own and 5 * len(own & other) >= 4 * len(own | other)]
        for own in held
    ]
    assert duplicates.near_duplicate_matches(texts, among) == expected


def test_public_and_shipped_data_do_not_leak(shared: Path, example: Path) -> None:
    public = shared / "data" / "hybrid_concierge"
    pairs = [
        (public / "train.jsonl", public / "test.jsonl"),
        (example / "examples.jsonl", example / "questions.jsonl"),
    ]
    for rows, held_out in pairs:
        assert check_held_out_questions(load_examples(rows).rows, load_questions(held_out)).level == "ok"
    leaking = check_held_out_questions(
        load_examples(public / "train.jsonl").rows, load_questions(public / "questions.jsonl")
    )
    assert leaking.level == "stop"


def test_an_instruction_that_all_rows_begin_with_does_not_hide_a_leak() -> None:
    """Rows of Alpaca's form have it in front of the input, and the questions are the input alone."""
    instruction = "Turn the request into JSON.\n\nOnly the JSON.\n\n"
    rows = [row(f"{instruction}{text}", line) for line, text in enumerate(("Play some jazz.", LONG), 1)]
    held_out = [
        asked("Play some jazz.", 1),
        asked("play SOME jazz", 2),
        asked(LONG + " really", 3),
        asked(f"{instruction}Play some jazz.", 4),
        asked(f"{instruction}Book a table.", 5),
    ]
    found = [(leak.kind, leak.held_out, leak.row) for leak in find_leaks(rows, held_out)]
    assert found == [
        ("word for word", 1, 1),
        ("but for case and punctuation", 2, 1),
        ("nearly", 3, 2),
        ("word for word", 4, 1),
    ]
