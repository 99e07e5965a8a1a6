"""Examples and questions: every format, every kind of invalid row, and overlap."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rag.errors import BadInput
from runners.data.examples import load_examples
from runners.data.leakage import LEAKING, find_leaks
from runners.data.questions import (
    count_questions,
    load_questions,
    read_question_file,
    with_wordings,
)

USER, REPLY = {"role": "user", "content": "Where?"}, {"role": "assistant", "content": "Here."}
FORMATS: dict[str, dict[str, Any]] = {
    "messages": {"messages": [USER, REPLY]},
    "sharegpt": {"conversations": [{"from": "human", "value": "Where?"}, {"from": "gpt", "value": "Here."}]},
    "alpaca": {"instruction": "Where?", "input": "", "output": "Here."},
    "prompt-completion": {"prompt": "Where?", "completion": "Here."},
}


def write(path: Path, rows: list[Any]) -> Path:
    """Write JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_example(tmp_path: Path, name: str) -> None:
    row = {**FORMATS[name], "meta": {"doc_id": "a.md"}, "note": 1}
    found = load_examples(write(tmp_path / "e.jsonl", [row]))
    assert found.format == name
    assert found.rows[0].question == "Where?"
    assert found.rows[0].reply == "Here."
    assert found.rows[0].meta == {"doc_id": "a.md", "note": 1}


def test_text_rows_are_one_assistant_turn(tmp_path: Path) -> None:
    found = load_examples(write(tmp_path / "e.jsonl", [{"text": "All of it."}]))
    assert found.rows[0].reply == "All of it."
    assert found.rows[0].question == ""


def test_csv_and_json_read_like_jsonl(tmp_path: Path) -> None:
    table = tmp_path / "e.csv"
    table.write_text('Prompt,Completion,Source\n"Where, then?","Here.\nReally.",web\n', encoding="utf-8")
    row = load_examples(table).rows[0]
    assert (row.question, row.reply, row.meta) == ("Where, then?", "Here.\nReally.", {"Source": "web"})
    listed = tmp_path / "e.json"
    listed.write_text(json.dumps({"data": [FORMATS["alpaca"]]}), encoding="utf-8")
    assert load_examples(listed).rows[0].reply == "Here."


def test_a_system_turn_is_kept(tmp_path: Path) -> None:
    row = {"system": "Be brief.", "prompt": "Where?", "response": "Here."}
    example = load_examples(write(tmp_path / "e.jsonl", [row])).rows[0]
    assert example.system == "Be brief."


def test_invalid_line_is_refused_with_file_line_and_reason(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    path.write_text(json.dumps(FORMATS["messages"]) + "\n{oops\n", encoding="utf-8")
    with pytest.raises(BadInput, match=r"e\.jsonl:2: broken JSON"):
        load_examples(path)


def test_invalid_utf8_is_refused_with_line_and_offset(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    path.write_bytes(b'{"prompt": "a", "completion": "b"}\n{"prompt": "\xff"}\n')
    with pytest.raises(BadInput, match=r"e\.jsonl:2: not UTF-8"):
        load_examples(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("e.jsonl", "", "has no rows"),
        ("e.jsonl", "[1]\n", "must be an object"),
        ("e.parquet", "x", "is not Parquet"),
        ("e.docx", "x", "is not read"),
        ("e.csv", "prompt,completion\na\n", "one value per column"),
        ("e.json", "{", "broken JSON"),
    ],
)
def test_unreadable_file_is_refused_with_reason(
    tmp_path: Path, name: str, content: str, message: str
) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(BadInput, match=message):
        load_examples(tmp_path / name)


def test_missing_file_and_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="does not exist"):
        load_examples(tmp_path / "none.jsonl")
    with pytest.raises(BadInput, match="folder without a file of examples"):
        load_examples(tmp_path)


def test_few_unusable_rows_are_reported_many_are_refused(tmp_path: Path) -> None:
    good, bad = FORMATS["prompt-completion"], {"prompt": "Where?", "completion": ""}
    found = load_examples(write(tmp_path / "few.jsonl", [good] * 20 + [bad]))
    assert len(found.rows) == 20
    assert [(r.line, r.reason) for r in found.rejected] == [(21, "no answer")]
    assert found.duplicates == 19
    with pytest.raises(BadInput, match=r"2 of 22 examples cannot be used .lines 21, 22: no answer"):
        load_examples(write(tmp_path / "many.jsonl", [good] * 20 + [bad] * 2))


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"messages": [USER]}, "no answer"),
        ({"messages": [{"role": "wizard", "content": "x"}, REPLY]}, "unknown role 'wizard'"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}, REPLY]}, "not text"),
        ({"messages": [{"role": "user", "content": " "}, REPLY]}, "an empty turn"),
        ({"words": 1}, "no known format has the keys words"),
    ],
)
def test_unusable_rows_have_reasons(tmp_path: Path, row: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadInput, match=reason):
        load_examples(write(tmp_path / "e.jsonl", [row]))


def test_questions_keep_all_their_gold(tmp_path: Path) -> None:
    gold = {"answers": ["six"], "reference": "At six.", "doc_id": "a.md", "spans": [{"start": 3, "end": 9}]}
    row = {"id": 7, "question": "When?", **gold, "answerable": False, "meta": {"fact": "It is six."}}
    (q,) = load_questions(write(tmp_path / "q.jsonl", [row]))
    assert (q.id, q.answers, q.reference, q.doc_id) == ("7", ("six",), "At six.", "a.md")
    assert (q.spans, q.answerable, q.fact) == (((3, 9),), False, "It is six.")


def test_questions_are_read_from_chat_rows(tmp_path: Path) -> None:
    turns = [{"role": "system", "content": "S"}, USER, REPLY, {"role": "user", "content": "And?"}, REPLY]
    row = {"messages": turns, "meta": {"references": ["There.", "Here."]}}
    (q,) = load_questions(write(tmp_path / "q.jsonl", [row]))
    assert (q.question, q.system, q.reference) == ("And?", "S", "Here.")
    assert q.references == ("Here.", "There.")
    assert q.history == (USER, REPLY)


@pytest.mark.parametrize(
    ("names", "columns"),
    [
        ("nachricht;kategorie", {"prompt": "nachricht", "reply": "kategorie"}),
        ("text;team", {"prompt": "text", "reply": "team"}),
        ("query;team", {"prompt": "query", "reply": "team"}),
        ("question;team", {"prompt": "question", "reply": "team"}),
        ("question;label", None),
        ("question;expected_answer", None),
    ],
)
def test_questions_are_read_from_a_table_like_that_of_the_examples(
    tmp_path: Path, names: str, columns: dict[str, str] | None
) -> None:
    table = tmp_path / "q.csv"
    table.write_text(f"{names}\nWhere?;lost card\n", encoding="utf-8-sig")
    (q,) = load_questions(table, columns)
    assert (q.question, q.reference) == ("Where?", "lost card")
    assert load_examples(table, columns).rows[0].reply == "lost card"


@pytest.mark.parametrize("gold", [{"answers": ["six"]}, {"doc_id": "a.md"}, {"answerable": False}])
def test_a_question_with_gold_keeps_other_columns_as_metadata(tmp_path: Path, gold: dict[str, Any]) -> None:
    path = write(tmp_path / "q.jsonl", [{"question": "When?", "label": "hours", **gold}])
    for columns in (None, {"prompt": "question", "reply": "team"}):
        assert load_questions(path, columns)[0].reference is None


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [{"question": "a", "id": 1}] * 2,
            "the id '1' was already used on line 1",
        ),
        ([{"question": ""}], r"q\.jsonl:1: not a question row"),
        ([{"question": "a", "spans": [{"start": 4, "end": 4}]}], "span is empty"),
        ([{"question": "a", "answerable": "perhaps"}], "answerable must be true or false"),
        ([{"answers": ["x"]}], "it has the keys answers"),
    ],
)
def test_invalid_questions_are_refused_with_place(tmp_path: Path, rows: list[Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        load_questions(write(tmp_path / "q.jsonl", rows))


def test_overlap_is_found_by_words_and_by_fact(tmp_path: Path) -> None:
    meta = {"doc_id": "a.md", "fact": "Open at six."}
    examples = load_examples(write(tmp_path / "e.jsonl", [{**FORMATS["messages"], "meta": meta}])).rows
    asked = [{"question": "where ?!"}, {"question": "When?", **meta}, {"question": "How?", "doc_id": "a.md"}]
    found = find_leaks(examples, load_questions(write(tmp_path / "q.jsonl", asked)))
    assert [(leak.held_out, leak.row, leak.kind) for leak in found if leak.kind in LEAKING] == [
        (1, 1, "but for case and punctuation"),
        (2, 1, "by the same fact"),
    ]


def test_public_train_and_test_do_not_overlap(shared: Path) -> None:
    folder = shared / "data" / "hybrid_concierge"
    examples = load_examples(folder / "train.jsonl")
    questions = load_questions(folder / "test.jsonl")
    assert (len(examples.rows), len(questions)) == (1500, 1078)
    assert not [leak for leak in find_leaks(examples.rows, questions) if leak.kind in LEAKING]


def ask(question: str, wordings: object = None, **gold: object) -> dict[str, Any]:
    return {"question": question, **({} if wordings is None else {"wordings": wordings}), **gold}


def test_each_wording_is_asked_with_the_gold_of_its_question(tmp_path: Path) -> None:
    rows = [
        ask(
            "When does the pool open?",
            ["what time can i get in", "Opening hours?"],
            answers=["7 am"],
            doc_id="a",
        ),
        ask("Who was Plato?"),
    ]
    questions = load_questions(write(tmp_path / "q.jsonl", rows))
    asked = with_wordings(questions)
    assert [(q.id, q.question, q.answers, q.doc_id, q.wording_of) for q in asked] == [
        ("q1", "When does the pool open?", ("7 am",), "a", None),
        ("q1~1", "what time can i get in", ("7 am",), "a", "q1"),
        ("q1~2", "Opening hours?", ("7 am",), "a", "q1"),
        ("q2", "Who was Plato?", (), None, None),
    ]
    assert [q.original for q in asked] == ["q1", "q1", "q1", "q2"]
    assert with_wordings(asked) == asked
    assert (count_questions(asked), count_questions(questions)) == (2, 2)


def test_one_wording_may_be_a_plain_text_and_stand_in_meta(tmp_path: Path) -> None:
    chat = {"messages": [USER, REPLY], "meta": {"wordings": " whereabouts? "}}
    assert load_questions(write(tmp_path / "q.jsonl", [chat]))[0].wordings == ("whereabouts?",)


@pytest.mark.parametrize(
    ("wordings", "fault"),
    [
        (["  "], "wording 1 is empty: '  '"),
        (["in other words", 7], "wording 2 must be a text, found 7"),
        ({"a": "b"}, "wordings must be a list of texts, found {'a': 'b'}"),
        (["WHEN does it  open"], "wording 1 is the question itself again: 'WHEN does it  open'"),
        (["Opens when?", "opens when"], "wording 2 is wording 1 again: 'opens when'"),
    ],
)
def test_an_unusable_wording_is_named_with_its_line(tmp_path: Path, wordings: object, fault: str) -> None:
    file = write(tmp_path / "q.jsonl", [ask("Why?"), ask("When does it open?", wordings)])
    with pytest.raises(BadInput) as raised:
        load_questions(file)
    assert raised.value.message == f"{file}:2: {fault}"
    assert raised.value.hint.startswith("wordings: a list of texts")


@pytest.mark.parametrize(
    "other",
    [
        ask("opens when?", answers=["8 am"]),
        ask("Till when?", ["Opens  when"], reference="At 8 am."),
        ask("Opens when?", answerable=False),
    ],
)
def test_a_wording_whose_words_have_another_answer_is_refused(tmp_path: Path, other: dict[str, Any]) -> None:
    file = write(tmp_path / "q.jsonl", [ask("When does it open?", ["Opens when?"], answers=["7 am"]), other])
    with pytest.raises(BadInput, match=r":[12]: wording 1, .* is also on line [12], whose answer differs"):
        load_questions(file)


def test_a_wording_that_repeats_a_question_with_the_same_answer_is_dropped_and_said(tmp_path: Path) -> None:
    rows = [
        ask("When does it open?", ["Opens when?", "What is the time of opening?"], answers=["7 am"]),
        ask("opens when", answers=["7 AM"]),
    ]
    file = write(tmp_path / "q.jsonl", rows)
    read = read_question_file(file)
    assert [q.id for q in with_wordings(read.questions)] == ["q1", "q1~1", "q2"]
    assert read.notes(file) == [
        f"{file}: 1 wording dropped (line 1): another question with the same answer has its words"
    ]


def test_the_same_last_turn_after_other_turns_is_another_question(tmp_path: Path) -> None:
    def chat(first: str, reply: str, **more: object) -> dict[str, Any]:
        turns = [first, "Go on.", "And on Sunday?", reply]
        roles = ["user", "assistant", "user", "assistant"]
        return {"messages": [{"role": r, "content": t} for r, t in zip(roles, turns, strict=True)], **more}

    rows = [
        chat("The pool?", "At 7.", wordings=["sundays?"]),
        chat("The sauna?", "At 9.", wordings=["Sundays?"]),
    ]
    assert len(with_wordings(load_questions(write(tmp_path / "q.jsonl", rows)))) == 4


def test_a_wording_in_another_language_is_noted(tmp_path: Path) -> None:
    spanish = "¿A qué hora abre la piscina los domingos por la mañana?"
    row = ask("When does the pool open on a Sunday morning?", ["Sunday opening, when?", spanish])
    file = write(tmp_path / "q.jsonl", [row])
    (note,) = read_question_file(file).notes(file)
    assert note == (
        f"{file}:1: 1 wording in another language than the question (English), such as Spanish: {spanish!r}"
    )


def test_the_id_of_a_wording_must_be_free(tmp_path: Path) -> None:
    file = write(tmp_path / "q.jsonl", [ask("Why?", ["How come?"], id="a"), ask("When?", id="a~1")])
    with pytest.raises(BadInput, match=r":2: the id a~1 is that of a wording of line 1"):
        load_questions(file)


@pytest.mark.parametrize(
    ("gold", "problem"),
    [
        ({"all_of": {"when": "7 pm"}}, "all_of must be a text or a list of texts, found {'when': '7 pm'}"),
        ({"all_of": ["7 pm", None]}, "all_of, number 2, must be a text, found None"),
        ({"all_of": ["7 pm", " "]}, "all_of, number 2, is empty"),
        ({"all_of": [], "answers": []}, "answers and all_of are both empty"),
        ({"answers": [["7 pm"]]}, "answers, number 1, must be a text, found ['7 pm']"),
    ],
)
def test_unusable_answers_and_parts_are_refused_with_their_place(
    tmp_path: Path, gold: dict[str, Any], problem: str
) -> None:
    file = write(
        tmp_path / "q.jsonl", [{"question": "Where?", "answers": ["here"]}, {"question": "When?"} | gold]
    )
    with pytest.raises(BadInput) as raised:
        load_questions(file)
    assert raised.value.message.startswith(f"{file}:2: {problem}")
    assert "all_of: a list of parts that must all be stated" in raised.value.hint


def test_empty_answers_and_parts_are_allowed_where_something_else_is_right(tmp_path: Path) -> None:
    empty: dict[str, Any] = {"question": "When?", "answers": [], "all_of": []}
    rows = [
        empty | {"answerable": False},
        empty | {"reference": "At noon."},
        {"question": "Who?", "answers": [""]},
    ]
    assert [q.short_answers for q in load_questions(write(tmp_path / "q.jsonl", rows))] == [(), (), ()]


@pytest.mark.parametrize("value", [0, -1, "2 kg", True, float("inf"), [1]])
def test_a_weight_that_is_no_number_above_zero_is_refused(tmp_path: Path, value: object) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text(json.dumps({"question": "Open?", "weight": value}) + "\n", "utf-8")
    with pytest.raises(BadInput, match="weight must be a number above 0"):
        load_questions(path)


def test_weights_are_read_and_wordings_have_that_of_their_row(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    rows = [{"question": "Open?", "weight": 3.5, "wordings": ["When open?"]}, {"question": "Free?"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    questions = load_questions(path)
    assert [question.weight for question in with_wordings(questions)] == [3.5, 3.5, 1.0]
