"""Records as JSON and back: what is written, what is left out, and what is no record."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rag.errors import BadInput
from rag.files import write_json
from runners.report.json_records import from_json, to_json
from runners.report.records import ArmReport, Outcome
from runners.report.report_file import read_report, report_json
from tests.support.reports import report_from

ARMS = [
    {
        "arm": "rag",
        "scores": {"right": {"mean": 0.5, "low": 0.25, "high": 1, "n": 4}},
        "right": {"n": 2, "of": 4},
        "seeds": [{"seed": 3, "mean": 0.5}],
    },
    {"arm": "prompting", "questions": 2, "alone": {"seconds": 1.5, "p95": 2.0, "n": 3}, "batch": 8},
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    outcome: Outcome
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    name: str
    known: int | None
    parts: tuple[Part, ...]
    by_name: Mapping[str, Part]
    facts: Mapping[str, Any] | None = None
    more: tuple[str, ...] = ()


WHOLE = Whole(
    name="x", known=None, parts=(), by_name={"a": Part(outcome=Outcome.CONFIRMED, share=1)}, facts={"n": [1]}
)


def test_a_field_without_a_default_is_always_written() -> None:
    body = to_json(WHOLE)
    assert body == {
        "name": "x",
        "known": None,
        "parts": [],
        "by_name": {"a": {"outcome": "confirmed", "share": 1}},
        "facts": {"n": [1]},
    }
    assert from_json(Whole, json.loads(json.dumps(body))) == WHOLE
    assert from_json(Whole, {key: body[key] for key in body if key != "known"} | {"later": 1}) == WHOLE


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"name": None}, TypeError),
        ({"name": 3}, TypeError),
        ({"known": True}, TypeError),
        ({"parts": [{"outcome": "won", "share": 1.0}]}, ValueError),
        ({"parts": [{"outcome": "confirmed"}]}, KeyError),
        ({"by_name": []}, AttributeError),
    ],
)
def test_what_is_no_such_record_is_refused(changes: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        from_json(Whole, to_json(WHOLE) | changes)


def test_report_is_the_same_after_writing_and_reading(tmp_path: Path) -> None:
    report = report_from({"arms": ARMS, "environment": {"cores": 2}, "curves": [{"arm": "rag"}]})
    body = report_json(report)
    assert body["schema"] == 1
    assert ("questions" in body["arms"][0], body["arms"][1]["questions"]) == (False, 2)
    assert body["drift"] is None
    assert "forecast" not in body
    write_json(tmp_path / "report.json", body)
    assert read_report(tmp_path) == report
    assert from_json(ArmReport, body["arms"][1]).question_count == 2


def test_report_that_is_damaged_says_how_to_write_it_again(tmp_path: Path) -> None:
    assert read_report(tmp_path) is None
    body = report_json(report_from({"arms": ARMS}))
    del body["verdict"]["use_reason"]
    write_json(tmp_path / "report.json", body)
    with pytest.raises(BadInput, match=r"report\.json is damaged: KeyError") as caught:
        read_report(tmp_path)
    assert caught.value.hint == f"write it again with: tunewise run {tmp_path} --resume"
