"""Files and folders of examples: every format and encoding, what is left out, and the notes about it."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag.errors import BadInput
from runners.data.examples import load_examples
from runners.data.questions import read_question_file
from runners.data.tabular import count_rows, detect_delimiter, read_rows, text_lines

USER, REPLY = {"role": "user", "content": "Where?"}, {"role": "assistant", "content": "Here."}
PAIR = {"question": "Where?", "answer": "Here."}


def write(path: Path, rows: list[Any]) -> Path:
    """Write JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def parquet(tmp_path: Path) -> Callable[..., Path]:
    """Return the writer of a Parquet file from columns."""

    def make(name: str = "e.parquet", **columns: Any) -> Path:
        import pyarrow as pa
        import pyarrow.parquet as pq

        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(columns), tmp_path / name)
        return tmp_path / name

    return make


@pytest.mark.parametrize(
    "name", ["e.jsonl", "e.ndjson", "e.json", "lines.json", "e.csv", "e.tsv", "semi.csv"]
)
def test_every_file_type_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    rows = [{"question": f"Where, {n}?", "answer": 'A "b"\nc; d', "source": "web"} for n in range(3)]
    path = tmp_path / name
    mark = {"e.tsv": "\t", "semi.csv": ";"}.get(name, ",")
    if name == "e.json":
        path.write_text(json.dumps({"version": 1, "data": rows}), "utf-8")
    elif path.suffix in (".csv", ".tsv"):
        cells = [list(rows[0]), *(row.values() for row in rows)]
        quoted = [mark.join('"' + c.replace('"', '""') + '"' for c in line) for line in cells]
        path.write_text("\r\n".join(quoted) + "\r\n", "utf-8", newline="")
    else:
        write(path, rows)
    found = load_examples(path)
    assert [(r.question, r.reply, r.meta) for r in found.rows] == [
        (row["question"], row["answer"], {"source": "web"}) for row in rows
    ]
    assert (found.columns, found.meta_columns) == ({"prompt": "question", "reply": "answer"}, ("source",))
    assert (found.total, count_rows(path)) == (3, 3)
    assert found.notes == (("semi.csv: columns are separated by ';'",) if name == "semi.csv" else ())


def test_parquet_reads_chats_and_skips_vectors(parquet: Callable[..., Path]) -> None:
    from datetime import date

    path = parquet(
        messages=[[USER, REPLY], [USER, REPLY]],
        day=[date(2026, 1, 2), None],
        vector=[[0.1, 0.2]] * 2,
        image=[b"x", b"y"],
        tags=[["a"], []],
    )
    found = load_examples(path)
    assert found.format == "messages"
    assert [r.meta for r in found.rows] == [{"day": "2026-01-02", "tags": ["a"]}, {"day": None, "tags": []}]
    assert found.notes == ("e.parquet: columns left unread (bytes or vectors): vector, image",)
    assert count_rows(path) == 2


def test_parquet_turns_stored_by_column_are_read(parquet: Callable[..., Path]) -> None:
    turns = {"from": ["system", "human", "gpt"], "value": ["Be brief.", "Where?", "Here."]}
    row = load_examples(parquet(conversations=[turns])).rows[0]
    assert (row.system, row.question, row.reply) == ("Be brief.", "Where?", "Here.")


def test_damaged_parquet_is_refused(parquet: Callable[..., Path]) -> None:
    path = parquet(prompt=["a" * 100] * 500, completion=["b"] * 500)
    whole = path.read_bytes()
    path.write_bytes(whole[:8] + b"\xff" * 40 + whole[48:])
    with pytest.raises(BadInput, match=r"e\.parquet is (not Parquet|damaged)"):
        load_examples(path)


def test_counting_large_parquet_takes_no_memory(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "large.parquet"
    some = pa.table({"prompt": ["Where is it? " * 5] * 50_000, "completion": ["Here."] * 50_000})
    with pq.ParquetWriter(path, some.schema) as writer:
        for _ in range(20):
            writer.write_table(some)
    tracemalloc.start()
    pa_before = pa.total_allocated_bytes()
    found = load_examples(path, most=500)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (len(found.rows), found.total) == (500, 1_000_000)
    assert peak < 8e6
    assert pa.total_allocated_bytes() - pa_before < 8e6


def test_folder_is_read_in_order_of_file_names(tmp_path: Path, parquet: Callable[..., Path]) -> None:
    write(tmp_path / "b.jsonl", [PAIR] * 2)
    write(tmp_path / "a" / "z.jsonl", [{"question": "First?", "answer": "Yes."}])
    parquet("c.parquet", prompt=["Last?"], completion=["No."])
    for name in (".hidden.jsonl", ".git/x.jsonl", "README.md", "logo.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{", "utf-8")
    found = load_examples(tmp_path)
    assert found.files == ("a/z.jsonl", "b.jsonl", "c.parquet")
    assert [r.place for r in found.rows] == ["a/z.jsonl:1", "b.jsonl:1", "b.jsonl:2", "c.parquet:1"]
    assert [(s.file, s.reason) for s in found.skipped] == [
        ("README.md", "a text among files of rows"),
        ("logo.png", ".png is not read"),
    ]
    assert found.columns == {"prompt": "question, prompt", "reply": "answer, completion"}


def test_folder_of_texts_gives_raw_rows(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("One.\n", "utf-8")
    (tmp_path / "b.md").write_text("# Two\n", "utf-8-sig")
    found = load_examples(tmp_path)
    assert (found.format, [(r.place, r.reply, r.raw) for r in found.rows]) == (
        "text",
        [("a.txt:1", "One.\n", True), ("b.md:1", "# Two\n", True)],
    )
    assert load_examples(tmp_path / "b.md").rows[0].reply == "# Two\n"
    (tmp_path / "b.md").write_text(" \n", "utf-8")
    with pytest.raises(BadInput, match=r"1 of 2 examples cannot be used \(b\.md:1: an empty text\)"):
        load_examples(tmp_path)


def test_mixed_chats_and_texts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="2 chats and 1 plain texts are mixed"):
        load_examples(write(tmp_path / "e.jsonl", [PAIR, {"text": "All of it."}, PAIR]))


def test_rejected_rows_name_file_line_and_reason(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", [PAIR] * 30)
    write(tmp_path / "b.jsonl", [{"question": "", "answer": "Here."}, *[PAIR] * 30])
    found = load_examples(tmp_path)
    assert [(r.file, r.line, r.reason) for r in found.rejected] == [("b.jsonl", 1, "no prompt")]


def test_declared_columns_are_used(tmp_path: Path) -> None:
    rows = [{"prompt": "x", "question": "Where?", "answer": "Here.", "who": "Be brief."}]
    path = write(tmp_path / "e.jsonl", rows)
    with pytest.raises(BadInput, match=r"e\.jsonl:1: which column is the prompt\?.*--columns"):
        load_examples(path)
    found = load_examples(path, {"prompt": "question", "reply": "answer", "system": "who"})
    assert (found.rows[0].system, found.rows[0].question, found.meta_columns) == (
        "Be brief.",
        "Where?",
        ("prompt",),
    )
    with pytest.raises(BadInput, match=r"no column 'quest' \(there are: prompt, question, answer, who\)"):
        load_examples(path, {"prompt": "quest", "reply": "answer"})


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_byte_order_mark_decides_encoding(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "e.csv"
    path.write_text("question,answer\nWo?,Über all.\n", encoding=encoding)
    found = load_examples(path)
    assert found.rows[0].reply == "Über all."
    note = f"e.csv: read as {encoding.upper()}, as its byte order mark says"
    assert found.notes == (() if encoding == "utf-8-sig" else (note,))


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        (
            "e.jsonl",
            '{"a": "Über"}\n'.encode("latin-1"),
            r"e\.jsonl:1: not UTF-8 \(byte 0xdc at offset 7; often Windows-1252",
        ),
        ("e.jsonl", '{}\n{"c": "ä"}\n'.encode("latin-1"), r"e\.jsonl:2: not UTF-8 \(byte 0xe4 at offset 10"),
        ("e.jsonl", "{}\n".encode("utf-16-le"), r"byte 0x00 at offset 1; UTF-16 without a mark"),
        ("e.csv", f"a,{'äöü' * 9}\nc,".encode() + b"\xff\n", r"e\.csv:2: not UTF-8 \(byte 0xff at offset 59"),
        ("e.csv", bytes(range(256)), r"e\.csv:1: not UTF-8 \(byte 0x00 at offset 0"),
        ("e.csv", "a,b".encode("utf-16") + b"\x00", "begins as UTF-16, but byte 8 is not"),
        ("e.csv", b"question,answer,question\nx,y,z\n", "the column 'question' occurs twice"),
        (
            "e.csv",
            b'question,answer\n"a\nb",c\n"x\ny"\n',
            r"e\.csv:4: the row does not have one value per column \(1 val.*put values in double quotes",
        ),
        (
            "e.csv",
            b'question,answer\nWho?,"Ann"\nWhat?,"He said "hi" to me"\n',
            r"""csv:3: broken CSV: in column 2 'answer' a quote inside a quoted value is not doubled, near '"He said "hi""",
        ),
        (
            "e.csv",
            b'question;answer\n"a;b\n";c\n"Where to;Here\nWhen?;Now\n',
            r"""e\.csv:4: broken CSV: in column 1 'question' the quote is never closed that opens at '"Where to;Here""",
        ),
    ],
)
def test_errors_of_encoding_and_tables_name_the_place(
    tmp_path: Path, name: str, data: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(BadInput, match=message) as refused:
        load_examples(tmp_path / name)
    assert refused.value.hint


@pytest.mark.parametrize(
    ("encoding", "said", "reply"),
    [
        ("cp1252", "Windows-1252", "Ein Brötchen kostet 0,40 €, schöne Grüße"),
        ("cp1252", "Windows-1252", "Désolé, nous sommes fermés à Noël"),
        ("cp1250", "Windows-1250", "Žitný chléb stojí třicet korun, děkujeme"),
        ("cp1250", "Windows-1250", "Chleb żytni kosztuje dziesięć złotych"),
        ("cp1251", "Windows-1251", "Хлеб стоит сорок рублей, спасибо"),
        ("cp1254", "Windows-1254", "Ekmek beş lira, teşekkür ederiz, iyi günler"),
        ("mac_roman", "Mac Roman", "Ein Brötchen für Großkunden, schöne Grüße"),
        ("cp850", "CP850", "Ein Brötchen für Großkunden, schöne Grüße"),
        ("cp932", "CP932", "パンは二百円です。ありがとうございます。"),
        ("utf-16-le", "UTF-16-LE", "Ein Brötchen, bitte"),
    ],
)
def test_tables_of_a_spreadsheet_are_read_in_their_encoding(
    tmp_path: Path, encoding: str, said: str, reply: str
) -> None:
    """Excel writes CSV with semicolons in the encoding of the system; what it was read as is said, with a word of it."""
    text = f"Question;Answer\nHow much, please?;{reply}\nHow much today?;{reply}!\n"
    (tmp_path / "e.csv").write_bytes(text.encode(encoding))
    found = load_examples(tmp_path / "e.csv")
    assert [row.reply for row in found.rows] == [reply, f"{reply}!"]
    assert found.notes[0].startswith(f"e.csv: not UTF-8: read as {said}, as in '")
    assert (
        read_question_file(tmp_path / "e.csv")
        .notes("e.csv")[0]
        .startswith(f"e.csv: not UTF-8: read as {said}")
    )


def test_delimiter_is_the_one_that_fits_the_rows(tmp_path: Path) -> None:
    """A comma in a header of two columns makes it three values by either mark; in the rows it does not."""
    path = tmp_path / "e.csv"
    path.write_text("Question, in short;Answer\nHow much?;Two\nFor four, please?;Yes, of course\n", "utf-8")
    assert detect_delimiter(path) == ";"
    path.write_text("question,answer; long\nHow much?,Two; three\nWhen?,Now\n", "utf-8")
    assert detect_delimiter(path) == ","


def test_columns_are_proposed_by_their_texts(tmp_path: Path) -> None:
    head = "Nr;Kundentext;Antwort an Kunden;CSAT\n"
    rows = "".join(
        f"{n};Wo ist mein Brot mit der Nummer {n}?;Es kommt morgen früh um sechs;{n % 5 + 1 if n % 3 else ''}\n"
        for n in range(30)
    )
    path = tmp_path / "e.csv"
    path.write_text(head + rows, "utf-8")
    with pytest.raises(BadInput, match="--columns 'prompt=Kundentext,reply=Antwort an Kunden'"):
        load_examples(path)
    with pytest.raises(
        BadInput, match=r"no column 'Antwort' \(there are: .*\); did you mean 'Antwort an Kunden'\?"
    ):
        load_examples(path, {"prompt": "Kundentext", "reply": "Antwort"})


def test_a_column_of_ratings_as_reply_is_named(tmp_path: Path) -> None:
    """It is refused where ratings are missing, with the column as the reason and not the empty rows; else it is said."""
    path = tmp_path / "e.csv"

    def table(*ratings: str) -> None:
        rows = "".join(f"Is loaf {n} fresh?;Yes, it is;{ratings[n % len(ratings)]}\n" for n in range(20))
        path.write_text("question;our text;csat\n" + rows, "utf-8")

    columns = {"prompt": "question", "reply": "csat"}
    table("4", "5", "", "3")
    with pytest.raises(BadInput) as refused:
        load_examples(path, columns)
    said = (
        "the column 'csat' is taken as the reply and holds numbers or ratings (4, 5, 3); "
        "the other columns are question, our text"
    )
    assert refused.value.message == f"{path}: 5 of 20 examples have no reply: {said}"
    for ratings in (("4", "5"), ("4/5", "5/5"), ("★★★★", "★★"), ("4 stars", "1 star"), ("90 %", "100 %")):
        table(*ratings)
        assert said.partition(" (")[0] in load_examples(path, columns).notes[-1]
    table("Thanks", "Great")
    assert load_examples(path, columns).notes == ("e.csv: columns are separated by ';'",)
    sums = [{"question": f"What is {n} and {n}?", "answer": n + n} for n in range(20)]
    assert load_examples(write(tmp_path / "sums.jsonl", sums)).notes == ()


def test_json_object_with_several_lists_is_refused(tmp_path: Path) -> None:
    (tmp_path / "e.json").write_text('{"train": [], "test": []}', "utf-8")
    with pytest.raises(BadInput, match="an object with lists under train, test"):
        load_examples(tmp_path / "e.json")


def test_long_csv_field_is_read(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text(f"question,answer\nq,{'a' * 200_000}\n", "utf-8")
    assert len(load_examples(tmp_path / "e.csv").rows[0].reply) == 200_000


@pytest.mark.parametrize(
    ("row", "turns"),
    [
        ({"prompt": [USER], "completion": [REPLY]}, [USER, REPLY]),
        (
            {"instruction": "Where?", "input": "the pier", "output": "Here.", "history": [["Hi", "Hello"]]},
            [
                {"role": "user", "content": "Hi"},
                {"role": "assistant", "content": "Hello"},
                {"role": "user", "content": "Where?\n\nthe pier"},
                REPLY,
            ],
        ),
        (
            {
                "conversations": [
                    {"from": "system", "value": "S"},
                    {"from": "human", "value": "Where?"},
                    {"from": "gpt", "value": "Here."},
                ]
            },
            [{"role": "system", "content": "S"}, USER, REPLY],
        ),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [{"type": "text", "text": "Whe"}, {"type": "text", "text": "re?"}],
                    },
                    REPLY,
                ]
            },
            [USER, REPLY],
        ),
        ({"messages": json.dumps([USER, REPLY])}, [USER, REPLY]),
        (
            {"question": "Where?", "answer": {"at": "pier"}},
            [USER, {"role": "assistant", "content": '{"at": "pier"}'}],
        ),
        (
            {"system": "S", "messages": [{"role": "system", "content": "S"}, USER, REPLY]},
            [{"role": "system", "content": "S"}, USER, REPLY],
        ),
    ],
)
def test_row_formats_give_the_same_turns(tmp_path: Path, row: dict[str, Any], turns: list[Any]) -> None:
    assert list(load_examples(write(tmp_path / "e.jsonl", [row])).rows[0].messages) == turns


def test_tool_calls_and_tools_are_read(tmp_path: Path) -> None:
    call = {"type": "function", "function": {"name": "hours", "arguments": {"at": "pier"}}}
    tools = [{"type": "function", "function": {"name": "hours"}}]
    tool = {"role": "tool", "content": "10"}
    openai = {"messages": [USER, {"role": "assistant", "content": None, "tool_calls": [call]}, tool, REPLY]}
    shared = [
        {"from": "human", "value": "Where?"},
        {"from": "function_call", "value": json.dumps(call["function"])},
        {"from": "observation", "value": "10"},
        {"from": "gpt", "value": "Here."},
    ]
    for row in ({**openai, "tools": tools}, {"conversations": shared, "tools": json.dumps(tools)}):
        example = load_examples(write(tmp_path / "e.jsonl", [row])).rows[0]
        assert example.messages == (
            USER,
            {"role": "assistant", "content": "", "tool_calls": [call]},
            tool,
            REPLY,
        )
        assert example.tools == tuple(tools)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"messages": [REPLY]}, "no prompt"),
        ({"prompt": "Where?", "completion": None}, "no answer"),
        ({"messages": [USER, {"role": "assistant", "content": "", "tool_calls": [{}]}]}, "no answer"),
        (
            {"system": "A", "messages": [{"role": "system", "content": "B"}, USER, REPLY]},
            "both a system column",
        ),
        ({"instruction": "a", "output": "b", "history": "c"}, "history must be a list"),
        (
            {"instruction": "a", "output": "b", "history": [["c"]]},
            "history must be a list of .prompt, reply. pairs",
        ),
        ({"messages": "[oops"}, "the list of turns is broken JSON"),
        ({"messages": [USER, REPLY], "tools": "{"}, "tools is broken JSON"),
        (
            {"conversations": [{"from": "function_call", "value": "x"}]},
            "a function_call turn is not a JSON object",
        ),
    ],
)
def test_unusable_rows_have_a_reason(tmp_path: Path, row: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadInput, match=f"line 1: {reason}"):
        load_examples(write(tmp_path / "e.jsonl", [row]))


cells = (
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r")).map(str.strip).filter(bool)
)


@settings(max_examples=150)
@given(
    rows=st.lists(st.tuples(cells, cells), min_size=1, max_size=5),
    encoding=st.sampled_from(["utf-8", "utf-16"]),
)
def test_written_rows_are_read_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]], encoding: str
) -> None:
    import csv

    folder = tmp_path_factory.mktemp("round", numbered=True)
    with (folder / "e.tsv").open("w", encoding=encoding, newline="") as file:
        csv.writer(file, delimiter="\t").writerows([("prompt", "completion"), *rows])
    text = "".join(json.dumps({"prompt": p, "completion": c}, ensure_ascii=False) + "\n" for p, c in rows)
    (folder / "e.jsonl").write_text(text, encoding)
    for name in ("e.tsv", "e.jsonl"):
        assert [(r["prompt"], r["completion"]) for _, r in read_rows(folder / name)] == rows


def test_jsonl_lines_end_at_newlines_only(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a\u2028b\r\nc", "utf-8", newline="")
    assert list(text_lines(tmp_path / "a")) == ["a\u2028b\r\n", "c"]


@pytest.mark.parametrize("name", ["hybrid_concierge", "snips_json", "banking77", "gsm8k_format"])
def test_public_chat_files_are_read(shared: Path, name: str) -> None:
    found = load_examples(shared / "data" / name / "train.jsonl", most=500)
    assert (found.format, found.columns, found.rejected) == ("messages", {"turns": "messages"}, ())
    assert found.total > len(found.rows) == 500


def test_public_texts_and_pairs_are_read(shared: Path, tmp_path: Path, parquet: Callable[..., Path]) -> None:
    texts = load_examples(shared / "data" / "chunk_eval" / "documents")
    assert (texts.format, len(texts.rows)) == ("text", 4)
    rows = load_examples(shared / "data" / "hybrid_concierge" / "train.jsonl", most=200).rows
    asked, replies = [r.question for r in rows], [r.reply for r in rows]
    again = load_examples(parquet(question=asked, answer=replies)).rows
    assert [(r.question, r.reply) for r in again] == list(zip(asked, replies, strict=True))
