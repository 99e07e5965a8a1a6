"""The cause of each wrong answer of a finished run, on failures planted in a small house and read by a scripted model."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tunewise
from rag.errors import BadInput
from rag.text.words import content_words, sentences
from runners.failures.causes import Cause
from runners.failures.failures import FAILURES_FILE, failures_folder, find_causes
from runners.runs.opened import OpenRun
from runners.trial.trial import ANSWERS

REFUSAL = "That is not in our papers."
DOCUMENTS = {
    "sauna": "The sauna is open to all guests. A ticket for the sauna costs 9 euros.",
    "locker": "A locker for the day costs 3 euros. Bring a coin.",
    "diving": "The diving board is closed while swimming clubs train. Deep water is marked in red.",
    "towels": "Towels are lent at the desk. The deposit for a towel is 4 euros.",
    "stroke": "Infants learn to float with Mrs Ravn. She takes up to 7 of them in a group.",
    "lanes": "Lanes 1 and 2 are kept for clubs. A club has a lane for 90 minutes.",
    "party": "A birthday party in the hall is for at most 20 children. The price of a birthday party was 80 euros. "
    "Since May it has been 95.",
    "keys": "A lost key must be told to the caretaker, who makes a new one within 2 days and asks for 15 euros then.",
    "café": "The café has soup at noon. It closes at 16:00.",
    "hours": "Swimming sessions last 75 minutes.",
    **{
        f"parking-{n}": f"What parking costs for one hour is shown at parking place {n}. Pay the hour of parking there."
        for n in range(3)
    },
    "parking": "Leave the car behind the house. It is 8 euros for sixty minutes.",
    **{
        f"baby-{n}": f"The baby swimming course has a teacher. Baby swimming course {n} is full."
        for n in range(12)
    },
}
QUESTIONS: list[tuple[str, str, list[str], str | None]] = [
    ("right", "What does a ticket for the sauna cost?", ["9 euros"], "sauna.md"),
    (Cause.NOT_IN_DOCUMENTS, "What does a locker for the day cost?", ["5 euros"], "locker.md"),
    (Cause.NOT_FOUND, "How many are in a baby swimming course?", ["7"], "stroke.md"),
    (Cause.CROWDED_OUT, "What does parking cost for one hour?", ["8 euros"], "parking.md"),
    (Cause.IGNORED, "What is the price of a birthday party?", ["95"], "party.md"),
    (Cause.REFUSED_WRONGLY, "How long may I splash about?", ["75 minutes"], "hours.md"),
    (Cause.ANSWERED_WRONGLY, "What is the deposit for a towel rail?", [], None),
    (Cause.FORM, "Who must be told of a lost key?", ["the caretaker"], "keys.md"),
]


def read_passages(body: dict[str, Any]) -> str:
    """Return the sentence of the passages that shares most words with the question; a refusal where none shares any."""
    passages, _, question = body["messages"][-1]["content"].rpartition("Question:")
    asked = set(content_words(question))
    lines = [line for line in passages.splitlines() if not re.match(r"\S+ (\[\d+\]|end)|Data from", line)]
    said = [sentence for line in lines for sentence in sentences(line)]
    best = max(said, key=lambda sentence: len(asked & set(content_words(sentence))), default="")
    return best if asked & set(content_words(best)) else REFUSAL


@pytest.fixture
def finished(tmp_path: Path, server: Any) -> Callable[..., Path]:
    """Run a plan on the house with the scripted model, and return the run's folder."""

    def run(**changes: Any) -> Path:
        (tmp_path / "documents").mkdir()
        for name, text in DOCUMENTS.items():
            (tmp_path / "documents" / f"{name}.md").write_text(f"{text}\n", "utf-8")
        rows = [
            {
                "id": str(id),
                "question": text,
                "answers": answers,
                "doc_id": document,
                "answerable": bool(answers),
            }
            for id, text, answers, document in QUESTIONS
        ]
        (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        (tmp_path / "dev.jsonl").write_text(
            '{"question": "When does the café close?", "answers": ["16:00"]}\n', "utf-8"
        )
        server.answer = read_passages
        plan = {
            "name": "house",
            "choice": "rag",
            "model": {"name": f"openai:tern-2@{server.url}"},
            "data": {"documents": "documents", "questions": "dev.jsonl", "test_questions": "test.jsonl"},
            "prompts": {"refusals": [REFUSAL], "context": "{passages}\n\nQuestion: {question}"},
            "steps": [
                {"kind": "index", "k": 2},
                {"kind": "evaluate", "arm": "prompting"},
                {"kind": "evaluate", "arm": "rag", "retrieval": True},
            ],
            "checks": [{"kind": "max_words", "value": 15, "text": "at most 15 words"}],
            "refusal": {"gate": "off"},
            "weights": {"right": 1},
            **changes,
        }
        (tmp_path / "plan.yaml").write_text(json.dumps(plan), "utf-8")
        done = tunewise.run(tmp_path / "plan.yaml", tmp_path / "run")
        return tunewise.judge(done).path

    return run


def test_each_planted_failure_gets_its_cause_and_nothing_is_asked_twice(
    finished: Callable[..., Path], server: Any
) -> None:
    run = finished()
    asked = len(server.seen)
    failures = find_causes(run, "rag")
    assert {answer.id: answer.cause for answer in failures.answers} == {
        id: id for id, *_ in QUESTIONS if id != "right"
    }
    assert failures.asked == 8
    assert failures.wrong == 6
    assert len(server.seen) - asked == failures.replayed == 4, (
        "one for each that has its passage and is wrong by more than form"
    )
    assert find_causes(run, "rag") == failures
    assert len(server.seen) - asked == 4

    of = {answer.cause: answer for answer in failures.answers}
    assert of[Cause.NOT_FOUND].rank is None
    assert of[Cause.CROWDED_OUT].rank in (3, 4)
    assert "“5 euros”" in of[Cause.NOT_IN_DOCUMENTS].evidence
    assert of[Cause.IGNORED].gold == "party.md:1"
    assert of[Cause.FORM].replay is None


def test_interrupted_search_goes_on_where_it_stopped(finished: Callable[..., Path], server: Any) -> None:
    run = finished()
    whole = find_causes(run, "rag")
    journal = failures_folder(run, "rag") / ANSWERS
    lines = journal.read_text("utf-8").splitlines(keepends=True)
    journal.write_text("".join(lines[:-1]), "utf-8")
    (failures_folder(run, "rag") / FAILURES_FILE).unlink()
    asked = len(server.seen)
    assert find_causes(run, "rag") == whole
    assert len(server.seen) - asked == 1


def test_documents_that_changed_since_the_trial_are_searched_as_they_are(
    finished: Callable[..., Path],
) -> None:
    """The passage of a question that was read wrongly is gone: its cause is another one today, and a note says why."""
    run = finished()
    documents = run.parent / "documents"
    (documents / "party.md").unlink()
    OpenRun.open(run).retrieval.update(documents)
    failures = find_causes(run, "rag")
    assert {answer.id: answer.cause for answer in failures.answers}[Cause.IGNORED] == Cause.NOT_IN_DOCUMENTS
    assert any("the index was updated after the trial" in note for note in failures.notes)


def test_arm_without_a_search_is_asked_with_the_passage(finished: Callable[..., Path]) -> None:
    causes = {answer.id: answer.cause for answer in find_causes(finished(), "prompting").answers}
    assert causes["right"] == Cause.NOT_FOUND
    assert causes[Cause.NOT_IN_DOCUMENTS] == Cause.NOT_IN_DOCUMENTS


def test_shares_have_intervals_and_the_report_has_the_causes(finished: Callable[..., Path]) -> None:
    run = finished()
    body = find_causes(run, "rag").to_json()
    assert set(body["causes"]) == {cause.value for cause in Cause}
    share = body["causes"]["ignored"]
    assert (share["n"], share["of"]) == (1, 7)
    assert 0 < share["low"] < 1 / 7 < share["high"] < 1
    report = tunewise.judge(run)
    assert [data["arm"] for data in report.data["failures"]] == ["rag"]
    page = (run / "report.html").read_text("utf-8")
    assert "Why answers of rag are wrong" in page
    assert "found, but not shown" in (run / "report.md").read_text("utf-8")


def test_run_that_cannot_be_explained_is_refused(finished: Callable[..., Path]) -> None:
    run = finished(
        steps=[{"kind": "evaluate", "arm": "prompting"}],
        choice="prompting",
        data={"questions": "dev.jsonl", "test_questions": "test.jsonl"},
    )
    with pytest.raises(BadInput, match="searches no documents"):
        find_causes(run)
    with pytest.raises(BadInput, match="no arm 'rag'"):
        find_causes(run, "rag")
    (run / "report.json").unlink()
    with pytest.raises(BadInput, match="no report yet"):
        find_causes(run)


def test_command_prints_causes_and_writes_the_report(
    finished: Callable[..., Path], tunewise: Callable[..., Any]
) -> None:
    run = finished()
    shown = tunewise("why", run, "--arm", "rag", cwd=run.parent)
    assert shown.returncode == 0, shown.stderr
    assert "6 of 8 answers of rag are wrong, and 1 right one not in form" in " ".join(shown.stdout.split())
    assert "not in the documents" in shown.stdout
    assert "Why answers of rag are wrong" in (run / "report.html").read_text("utf-8")
    body = json.loads(tunewise("why", run, "--arm", "rag", "--json", cwd=run.parent).stdout)
    assert body["schema"] == 1
    assert {row["id"]: row["cause"] for row in body["questions"]}["not_found"] == "not_found"
    assert all(row["evidence"] for row in body["questions"])
    unknown = tunewise("why", run, "--arm", "lora", cwd=run.parent)
    assert unknown.returncode == 3
    assert "its arms: prompting, rag" in unknown.stderr
