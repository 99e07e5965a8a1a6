"""The log of a server: what is written of whole and streamed requests, rotation, and rows that are removed again."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rag.errors import CannotRun
from runners.logs.log_reader import LogReader
from runners.logs.question_log import KEPT_FILES, QuestionLog, forget, log_files, rotated
from runners.serving.http.server import ServeOptions
from runners.serving.http.server import serve as serve_run
from runners.serving.http.service import ServerLimits
from tests.support.limits import HANG_S

HERON = "How many berths has the Heron Pier?"
BEFORE = [{"role": "user", "content": "Which piers are there?"}, {"role": "assistant", "content": "Two."}]


def rows(path: Path, count: int) -> list[dict[str, Any]]:
    """Return the rows of a log once it has as many."""
    until = time.monotonic() + HANG_S
    while True:
        lines = path.read_text("utf-8").splitlines() if path.exists() else []
        if len(lines) >= count or time.monotonic() > until:
            return [json.loads(line) for line in lines]
        time.sleep(0.05)


@pytest.mark.parametrize("answers", [False, True])
def test_requests_are_written_whole_and_streamed(
    serve: Callable[..., Any], tmp_path: Path, answers: bool
) -> None:
    path = tmp_path / "asked.jsonl"
    served = serve(log=QuestionLog(path=path, answers=answers))
    with served.client() as http:
        page = http.get("/").text
        assert "written to a log" in page
        assert ("and answers are" in page) is answers
        body = {"model": "rag", "messages": [{"role": "system", "content": "Be brief."}, *BEFORE]}
        body["messages"] += [{"role": "user", "content": HERON}]  # type: ignore[operator]
        whole = http.post("/v1/chat/completions", json=body).json()["choices"][0]["message"]["content"]
        http.post("/v1/chat/completions", json={**body, "stream": True})
        http.post("/v1/completions", json={"model": "prompting", "prompt": [HERON, "And the other?"]})
    written = rows(path, 4)
    assert [row["arm"] for row in written] == ["rag", "rag", "prompting", "prompting"]
    earlier = [turn for turn in BEFORE if answers or turn["role"] == "user"]
    for row in written[:2]:
        assert row["turns"] == [*earlier, {"role": "user", "content": HERON}], "without the system turn"
        assert row.get("answer") == (whole if answers else None)
    assert answers or "answer" not in path.read_text("utf-8").replace("answers", "")
    assert path.stat().st_mode & 0o077 == 0
    reader = LogReader()
    assert [asked.text for asked in reader.read(path)] == [HERON, HERON, HERON, "And the other?"]


def test_without_a_log_the_page_says_nothing(http: Any) -> None:
    assert "written to a log" not in http.get("/").text


def test_rotated_files_are_kept_and_rows_are_removed_from_all(tmp_path: Path) -> None:
    log = QuestionLog(path=tmp_path / "asked.jsonl", rotate_bytes=1_000)
    for number in range(60):
        name = "Zoë  Quill" if number % 10 == 0 else "somebody"
        log.add("rag", [{"role": "user", "content": f"I am {name}: is room {number} free?"}])
    files = log_files(log.path)
    assert len(files) == KEPT_FILES + 1, "the oldest are gone"
    assert all(file.stat().st_size <= 1_000 for file in files)
    before = {file: file.read_text("utf-8").count("\n") for file in files}
    removed = forget(log.path, "zoë quill")
    assert sum(removed.values()) > 0
    assert not any("Quill" in file.read_text("utf-8") for file in files)
    assert {file: file.read_text("utf-8").count("\n") + removed[file] for file in files} == before
    assert rotated(log.path, 1).stat().st_mode & 0o077 == 0
    assert sum(forget(log.path, "zoë quill").values()) == 0


def test_no_row_is_lost_when_rows_are_removed_while_others_are_written(tmp_path: Path) -> None:
    log = QuestionLog(path=tmp_path / "asked.jsonl")
    log.add("rag", [{"role": "user", "content": "Quill asks"}])

    def write() -> None:
        for number in range(100):
            log.add("rag", [{"role": "user", "content": f"question {number}"}])

    threads = [threading.Thread(target=write) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(10):
        log.add("rag", [{"role": "user", "content": "Quill again"}])
        forget(log.path, "Quill")
    for thread in threads:
        thread.join(HANG_S)
    assert len(log.path.read_text("utf-8").splitlines()) == 200


def test_a_log_that_cannot_be_written_stops_the_server_before_it_starts(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    options = ServeOptions(run=tmp_path / "run", log=QuestionLog(path=tmp_path / "folder"))
    with pytest.raises(CannotRun, match="cannot write"):
        serve_run(options, ServerLimits(), 4)


def test_a_full_disk_is_said_once_and_stops_no_answer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = QuestionLog(path=tmp_path / "asked.jsonl")
    (tmp_path / "asked.jsonl").mkdir()
    for _ in range(3):
        log.add_or_warn("rag", [{"role": "user", "content": "?"}])
    assert capsys.readouterr().err.count("cannot be written") == 1
    assert log.failures.total() == 3
