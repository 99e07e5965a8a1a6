"""The forms of logs: what counts as one question in each, damaged rows, and forms that nobody knows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from rag.errors import BadInput
from runners.logs.log_forms import CHATS, SPANS, TABLE
from runners.logs.log_reader import LogReader

ASK = {"role": "user", "content": "When does it open?"}
REPLY = {"role": "assistant", "content": "At nine."}
NEXT = {"role": "user", "content": "And on Sundays?"}


def write(path: Path, rows: Sequence[Any]) -> Path:
    """Write rows as JSON lines; a text is written as it is."""
    lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    path.write_text("".join(line + "\n" for line in lines), "utf-8")
    return path


def read(path: Path, **columns: str) -> tuple[LogReader, list[str]]:
    """Return the reader and the texts that were asked."""
    reader = LogReader(columns or None)
    return reader, [asked.text for asked in reader.read(path)]


@pytest.mark.parametrize(
    "row",
    [
        {"model": "m", "messages": [{"role": "system", "content": "s"}, ASK]},
        {"request": {"messages": [ASK]}, "response": {"choices": []}},
        {"custom_id": "1", "method": "POST", "body": {"messages": [ASK]}},
        {
            "model": "m",
            "input": [{"role": "user", "content": [{"type": "input_text", "text": ASK["content"]}]}],
        },
        {"model": "m", "input": ASK["content"]},
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": ASK["content"]}, {"type": "image_url"}]}
            ]
        },
        {"conversations": [{"from": "human", "value": ASK["content"]}]},
    ],
)
def test_requests_of_chats(tmp_path: Path, row: dict[str, Any]) -> None:
    reader, asked = read(write(tmp_path / "log.jsonl", [row]))
    assert asked == [ASK["content"]]
    assert list(reader.forms.values()) == [CHATS]


def span(attributes: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"name": "chat", "attributes": attributes, **more}


MESSAGES = [
    {"role": "system", "parts": [{"type": "text", "content": "s"}]},
    {"role": "user", "parts": [{"type": "text", "content": ASK["content"]}]},
]


@pytest.mark.parametrize(
    "row",
    [
        span({"gen_ai.input.messages": json.dumps(MESSAGES), "gen_ai.output.messages": "[]"}),
        span({"gen_ai.input.messages": MESSAGES}),
        {"resourceSpans": [{"scopeSpans": [{"spans": [{"attributes": [
            {"key": "gen_ai.operation.name", "value": {"stringValue": "chat"}},
            {"key": "gen_ai.input.messages", "value": {"arrayValue": {"values": [{"kvlistValue": {"values": [
                {"key": "role", "value": {"stringValue": "user"}},
                {"key": "parts", "value": {"arrayValue": {"values": [{"kvlistValue": {"values": [
                    {"key": "type", "value": {"stringValue": "text"}},
                    {"key": "content", "value": {"stringValue": ASK["content"]}},
                ]}}]}}},
            ]}}]}}},
        ]}]}]}]},
        span({}, events=[{"name": "gen_ai.content.prompt", "attributes": {"gen_ai.prompt": json.dumps([ASK])}}]),
        span({"gen_ai.system": "x"}, events=[
            {"name": "gen_ai.system.message", "attributes": {"content": "s"}},
            {"name": "gen_ai.user.message", "attributes": {"content": ASK["content"]}},
            {"name": "gen_ai.choice", "attributes": {"message": "{}"}},
        ]),
        span({"gen_ai.prompt.0.role": "user", "gen_ai.prompt.0.content": ASK["content"]}),
        span({"gen_ai.prompt": ASK["content"]}),
        {"resourceLogs": [{"scopeLogs": [{"logRecords": [
            span({"gen_ai.input.messages": MESSAGES}, eventName="gen_ai.client.inference.operation.details")
        ]}]}]},
    ],
)  # fmt: skip
def test_spans_of_all_conventions(tmp_path: Path, row: dict[str, Any]) -> None:
    for name, rows in (("log.jsonl", [row]), ("log.json", [json.dumps([row], indent=1)])):
        reader, asked = read(write(tmp_path / name, rows))
        assert asked == [ASK["content"]]
        assert list(reader.forms.values()) == [SPANS]


def test_a_question_of_one_trace_counts_once_and_other_spans_are_none(tmp_path: Path) -> None:
    tool = [ASK, {"role": "assistant", "content": "", "tool_calls": []}, {"role": "tool", "content": "9"}]
    agent = span({"gen_ai.input.messages": json.dumps([ASK])}, trace_id="a")
    rows = [
        agent,
        agent,
        span({"gen_ai.input.messages": json.dumps(tool)}, trace_id="a"),
        span({"db.system": "x"}),
    ]
    reader, asked = read(write(tmp_path / "log.jsonl", [*rows, {**agent, "trace_id": "b"}]))
    assert asked == [ASK["content"]] * 2
    assert (reader.counts["continued"], reader.counts["without"]) == (2, 1)


def test_follow_ups_have_the_turns_before_them_and_no_turn_counts_twice(tmp_path: Path) -> None:
    requests = [{"messages": [ASK]}, {"messages": [ASK, REPLY, NEXT]}]
    assert read(write(tmp_path / "log.jsonl", requests))[1] == [ASK["content"], NEXT["content"]]
    # whole chats, stored again with each further turn
    chats = [
        {"messages": [ASK, REPLY]},
        {"messages": [ASK, REPLY, NEXT, {"role": "assistant", "content": "At ten."}]},
    ]
    path = write(tmp_path / "chats.jsonl", chats)
    assert read(path)[1] == [ASK["content"], NEXT["content"]]
    assert [len(asked.before) for asked in LogReader().read(path)] == [0, 2]


def test_a_table_of_a_help_desk(tmp_path: Path) -> None:
    path = tmp_path / "tickets.csv"
    path.write_text(
        "Ticket ID,From,Subject,Description\n"
        "7,customer,Opening,When does it open?\n"
        '8,customer,Fee,"What does it cost,\nper day?"\n'
        "7,agent,Re: Opening,At nine.\n"
        "7,customer,Re: Opening,And on Sundays?\n"
        "9,customer,Only a subject?,\n"
        "broken row\n",
        "utf-8",
    )
    reader = LogReader()
    asked = list(reader.read(path))
    texts = [ASK["content"], "What does it cost,\nper day?", NEXT["content"], "Only a subject?"]
    assert [question.text for question in asked] == texts
    assert [turn.role for turn in asked[2].before] == ["user", "assistant"]
    assert reader.forms == {str(path): TABLE}
    assert (reader.counts["rows"], reader.counts["damaged"], reader.counts["without"]) == (6, 1, 1)
    assert not reader.unknown_authors
    path.write_text(path.read_text("utf-8").replace("agent", "Zoë"), "utf-8")
    reader = LogReader()
    assert "At nine." in [question.text for question in reader.read(path)]
    assert reader.unknown_authors == {"zoë": 1}


def test_columns_are_named_where_none_has_a_usual_name(tmp_path: Path) -> None:
    path = tmp_path / "tickets.csv"
    path.write_text("Message ID;anliegen\n1;Wann ist offen?\n", "utf-8")
    with pytest.raises(
        BadInput, match="no column of the table holds questions: Message ID, anliegen"
    ) as error:
        read(path)
    assert "--columns question=" in error.value.hint
    assert read(path, question="anliegen")[1] == ["Wann ist offen?"]
    with pytest.raises(BadInput, match="no column 'x'"):
        read(path, question="x")
    with pytest.raises(BadInput, match="'prompt' is not known"):
        read(path, prompt="anliegen")


def test_damaged_rows_are_counted_and_named(tmp_path: Path) -> None:
    path = write(
        tmp_path / "log.jsonl", [{"messages": [ASK]}, '{"messages": [', {"messages": []}, {"messages": [ASK]}]
    )
    path.write_bytes(path.read_bytes() + b"\xff\xfe{}\n" + b'{"messages": [1]}\n')
    reader, asked = read(path)
    assert len(asked) == 2
    assert (reader.counts["rows"], reader.counts["damaged"]) == (6, 4)
    assert reader.damaged == ["log.jsonl:2", "log.jsonl:3", "log.jsonl:5"]


def test_an_unknown_form_is_refused_with_three_masked_rows(tmp_path: Path) -> None:
    rows = [{"foo": n, "mail": f"jane{n}@pellmail.net"} for n in range(5)]
    with pytest.raises(BadInput, match="no row has a known form") as error:
        read(write(tmp_path / "log.jsonl", rows))
    assert error.value.message.count("[e-mail address]") == 3
    assert "pellmail" not in error.value.message
    assert "gen_ai.input.messages" in error.value.hint
    with pytest.raises(BadInput, match="is empty"):
        read(write(tmp_path / "empty.jsonl", []))
    with pytest.raises(BadInput, match="does not exist"):
        read(tmp_path / "absent.jsonl")
