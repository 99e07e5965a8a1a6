"""Questions of a log: every format, what is left out and counted, masked personal data, and samples of long logs."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from rag.errors import BadInput
from runners.data.log_questions import MAX_LOG_QUESTIONS, load_log_questions, log_rows
from runners.data.personal_data import mask_personal_data
from runners.data.questions import Question, load_questions

ASKED = ("when do you open", "can i bring my dog?", "how much is a key")
CHAT = {"messages": [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "Hi."}]}


def lines(rows: list[object]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


CONTENTS = {
    "log.txt": "\n".join(ASKED),
    "log": "\r\n".join(ASKED) + "\r\n",
    "texts.jsonl": lines(list(ASKED)),
    "questions.jsonl": lines([{"question": text, "label": "x"} for text in ASKED]),
    "text.jsonl": lines([{"text": text, "answer": "no"} for text in ASKED]),
    "prompt.jsonl": lines([{"prompt": text, "completion": "yes"} for text in ASKED]),
    "chats.jsonl": lines(
        [{"messages": [*CHAT["messages"], {"role": "user", "content": text}]} for text in ASKED]
    ),
    "list.json": json.dumps([{"query": text} for text in ASKED]),
    "one.csv": "\n".join(ASKED),
    "named.csv": "Question\n" + "\n".join(ASKED),
    "wide.csv": "when;Customer Question;channel\n" + "\n".join(f"1;{text};mail" for text in ASKED),
    "tabs.tsv": "text\tid\n" + "\n".join(f"{text}\t7" for text in ASKED),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_every_format_gives_the_same_questions(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(CONTENTS[name], "utf-8")
    log = load_log_questions(tmp_path / name)
    assert log.texts == ASKED
    assert (log.damaged, log.repeated, log.blank, log.left_out) == (0, 0, 0, 0)


def test_wide_and_parquet_files_are_read(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    (tmp_path / "wide.txt").write_text("\n".join(ASKED), "utf-16")
    pq.write_table(pa.table({"question": list(ASKED)}), tmp_path / "log.parquet")
    for name in ("wide.txt", "log.parquet"):
        assert load_log_questions(tmp_path / name).texts == ASKED


def test_what_is_no_question_is_counted_and_named_by_its_line(tmp_path: Path) -> None:
    body = [
        b'{"question": "a b"}',
        b"",
        b'{"question": "  "}',
        b'{"broken',
        b'{"id": 7}',
        b"null",
        b"\xff\xfe{}",
        b'{"question": "a  b"}',
        b'"c\\ud800"',
        b'"c d"',
    ]
    file = tmp_path / "log.jsonl"
    file.write_bytes(b"\n".join(body))
    log = load_log_questions(file)
    assert log.texts == ("a b", "c d")
    assert (log.read, log.blank, log.repeated, log.damaged) == (10, 2, 1, 5)
    assert log.damaged_lines == (4, 5, 6)
    (note,) = log.notes(file)
    assert (
        note
        == f"{file}: 2 questions of 10 lines; left out: 2 blank, 1 repeated, 5 damaged (lines 4, 5, 6, …)"
    )
    assert json.loads(json.dumps(log.counts()))["damaged"] == 5


def test_a_table_with_damaged_rows_keeps_the_others(tmp_path: Path) -> None:
    file = tmp_path / "log.csv"
    file.write_bytes(
        "id,question\n1,how much größer, äöüäöüäöü\n".replace(", ", " ").encode()
        + b'2,too,many\n3,"in\ntwo lines"\n4,\xe9t\xe9\n5,last one\n6,"never closed\n7,lost\n'
    )
    log = load_log_questions(file)
    assert log.texts == ("how much größer äöüäöüäöü", "in two lines", "last one", "never closed 7,lost")
    assert (log.damaged, log.damaged_lines) == (2, (3, 6))


def test_a_table_of_windows_is_read(tmp_path: Path) -> None:
    file = tmp_path / "log.csv"
    file.write_bytes("id;question\n1;Wann öffnet ihr?\n2;Was kostet das Brötchen?\n".encode("cp1252"))
    log = load_log_questions(file)
    assert (log.texts, log.damaged) == (("Wann öffnet ihr?", "Was kostet das Brötchen?"), 0)


def test_a_pasted_document_is_no_question(tmp_path: Path) -> None:
    file = tmp_path / "log.txt"
    file.write_text(f"where?\n{'long ' * 2000}\n", "utf-8")
    assert (load_log_questions(file).texts, load_log_questions(file).damaged_lines) == (("where?",), (2,))


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("log.txt", "", "no question in 0 lines"),
        ("log.txt", "\n \n", "no question in 2 lines"),
        ("log.csv", "id,when\n1,2\n", "no question in 1 line"),
        ("log.jsonl", '{"id": 1}\n', "no question in 1 line"),
    ],
)
def test_a_log_without_a_question_is_refused(tmp_path: Path, name: str, content: str, reason: str) -> None:
    file = tmp_path / name
    file.write_text(content, "utf-8")
    with pytest.raises(BadInput, match=reason) as refused:
        load_log_questions(file)
    assert "one question a line" in refused.value.hint
    with pytest.raises(BadInput, match="does not exist"):
        load_log_questions(tmp_path / "gone.txt")
    with pytest.raises(BadInput, match="is a folder"):
        load_log_questions(tmp_path)


def test_of_a_long_log_the_same_sample_is_kept_in_any_order(tmp_path: Path) -> None:
    asked = [f"question {n} about the pool" for n in range(100_000 - 9)]
    file, shuffled = tmp_path / "log.txt", tmp_path / "shuffled.txt"
    file.write_text("\n".join([*asked, *asked[:9]]), "utf-8")
    log = load_log_questions(file, seed=1)
    assert (len(log.texts), log.read, log.repeated) == (MAX_LOG_QUESTIONS, 100_000, 9)
    assert log.left_out == 100_000 - 9 - MAX_LOG_QUESTIONS
    assert "97,991 beyond the sample of 2,000" in log.notes(file)[0]
    random.Random(3).shuffle(asked)
    shuffled.write_text("\n".join(asked), "utf-8")
    assert set(load_log_questions(shuffled, seed=1).texts) == set(log.texts)
    assert set(load_log_questions(shuffled, seed=2).texts) != set(log.texts)
    numbers = [int(text.split()[1]) for text in log.texts]
    assert numbers == sorted(numbers), "in the order of the log"
    assert 40_000 < sum(numbers) / len(numbers) < 60_000


def test_personal_data_is_masked_in_what_is_stored(tmp_path: Path) -> None:
    file = tmp_path / "log.txt"
    file.write_text(
        "i am jo@mail-of-jo.de, call 0171 2345678\nmy card 4012 8888 8888 1881 was charged\nwrite to a.b@c-d.org\nwhen?\n",
        "utf-8",
    )
    log = load_log_questions(file)
    assert log.texts == (
        "i am [e-mail address], call [phone number]",
        "my card [payment card] was charged",
        "write to [e-mail address]",
        "when?",
    )
    assert log.masked == {"e-mail address": 2, "phone number": 1, "payment card": 1}
    assert log.notes(file)[1].startswith("masked in what is stored: e-mail address in 2 questions, ")
    stored = tmp_path / "wordings.jsonl"
    stored.write_text(log_rows(log), "utf-8")
    again = load_log_questions(stored)
    assert (again.texts, again.masked) == (log.texts, {})
    assert [question.question for question in load_questions(stored)] == list(log.texts)
    assert mask_personal_data("nothing here") == ("nothing here", ())


def test_another_language_than_the_documents_is_counted(tmp_path: Path) -> None:
    file = tmp_path / "log.txt"
    spanish = [
        "¿a qué hora abre la piscina los domingos por la mañana?",
        "¿cuánto cuesta la entrada para dos niños pequeños?",
    ]
    file.write_text("\n".join(["what time do you open on a sunday morning", *spanish, "ok"]), "utf-8")
    log = load_log_questions(file, language="English")
    assert (len(log.texts), log.languages) == (4, {"Spanish": 2})
    assert log.notes(file)[-1] == "2 questions in another language than the documents: Spanish 2"
    assert load_log_questions(file).languages == {}


def test_questions_of_the_test_are_left_out(tmp_path: Path) -> None:
    file = tmp_path / "log.txt"
    file.write_text("\n".join(ASKED), "utf-8")
    asked = [Question("q1", "Can I bring my dog"), Question("q1~1", "How much is a KEY?", wording_of="q1")]
    log = load_log_questions(file).without(asked)
    assert (log.texts, log.tested) == (("when do you open",), 2)
