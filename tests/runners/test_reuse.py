"""What was made from other files than there are now is not reused in silence: measured again, or said in one line."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from advisor.cli import main
from advisor.report.report import Report, judge
from benchmarks.recheck import small_embedder
from rag.errors import UsageProblem
from runners.plan.schema import Plan, parse_plan
from runners.run_folder import read_journal
from runners.runs.opened import OpenRun
from runners.serving.server_record import run_fingerprint
from runners.trial.curve import open_curves
from runners.trial.curve_points import CurvePointName
from runners.trial.evaluate import evaluate
from runners.trial.execute import run, run_plan

ROWS = 36
LINE = "is not what the run was made from"
Rows = list[dict[str, Any]]


def examples(reply: str = "Aye", count: int = ROWS) -> Rows:
    """Return examples whose replies begin with a word of three letters."""
    return [
        {"prompt": f"Is boat {n} painted?", "completion": f"{reply}, boat {n} is painted."}
        for n in range(count)
    ]


def questions(gold: str = "Aye.") -> Rows:
    """Return twelve questions with the same answer."""
    return [
        {"id": f"q{n}", "question": f"Is gate {n} shut on day {n * 7}?", "answers": [gold]} for n in range(12)
    ]


def write(file: Path, rows: Rows) -> Path:
    """Write rows as JSON lines."""
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return file


def plan_for(folder: Path, server: Any, bank: str = "fixed") -> Plan:
    """Return a plan of two prompted arms behind an endpoint, one of which shows examples."""
    shown = {"kind": "evaluate", "arm": "few-shot", "shots": 2, "bank": bank, "budget": 0}
    return parse_plan(
        {
            "name": "ferry",
            "choice": "few-shot",
            "model": {"name": f"openai:tern-2@{server.url}", "per_minute": 6000},
            "data": {
                "examples": str(write(folder / "examples.jsonl", examples())),
                "questions": str(write(folder / "questions.jsonl", questions())),
            },
            "steps": [{"kind": "evaluate", "arm": "prompting"}, shown],
            "weights": {"token_f1": 1},
            "max_new_tokens": 4,
            "forgetting": {"prompts": 0},
        }
    )


def searching_plan(folder: Path, server: Any, documents: Rows) -> Plan:
    """Return a plan of one arm that shows examples and the passages of an index."""
    body = plan_for(folder, server).model_dump(mode="json", by_alias=True)
    body["data"]["documents"] = str(write(folder / "documents.jsonl", documents))
    body["embedder"] = {"name": str(small_embedder(folder / "embedder", [row["text"] for row in documents]))}
    body["steps"] = [{"kind": "index", "k": 1}, body["steps"][1] | {"retrieval": True}]
    return parse_plan(body)


@pytest.fixture
def finished(server: Any, tmp_path: Path) -> Path:
    """A finished run with its report; the files that it was made from are beside it."""
    judge(run(plan_for(tmp_path, server), tmp_path / "run"))
    return tmp_path / "run"


def as_0_2_0(folder: Path) -> None:
    """Take out of a run's log what 0.2.0 did not record."""
    rows = [
        {key: value for key, value in event.items() if key not in ("parts", "files")}
        for event in read_journal(folder / "events.jsonl")
    ]
    write(folder / "events.jsonl", rows)


def curve_of(folder: Path, name: str, rows: int) -> tuple[bool, list[str]]:
    """Open a curve of a run; return whether the run's answers are taken for all rows, and the notes."""
    plan = OpenRun.open(folder).plan
    (setup,) = open_curves(plan, folder, folder.parent / name, ["few-shot"], (9, rows), 1).setups
    return setup.reused(CurvePointName("few-shot", len(setup.rows), setup.seeds[0])), setup.notes


@pytest.mark.parametrize("old", [False, True])
def test_curve_takes_the_runs_answers_only_from_the_same_files(finished: Path, old: bool) -> None:
    """Rows added, a file replaced by one of the same length, other words under an id; corrected gold is said."""
    if old:
        as_0_2_0(finished)
    reworded = [row | {"question": row["question"].replace("shut", "open")} for row in questions()]
    changes = {
        "examples": [(examples(count=ROWS + 60), questions()), (examples("Nay"), questions())],
        "questions": [(examples(), reworded)],
        "": [(examples(), questions("Nay.")), (examples(), questions())],
    }
    for what, files in changes.items():
        for number, (rows, asked) in enumerate(files):
            write(finished.parent / "examples.jsonl", rows)
            write(finished.parent / "questions.jsonl", asked)
            taken, notes = curve_of(finished, f"{what}{number}", len(rows))
            assert taken is (what == "")
            if what:
                what = "something that its answers depend on" if old else what
                said = f"all rows are trained and asked again, not taken from the run: {what} changed since"
                assert notes == [said]
            elif asked == questions():
                assert notes == []
            else:
                (note,) = notes
                assert f"questions.jsonl {LINE}: all sizes are scored by today's gold" in note


def test_curve_after_the_runs_index_was_updated(server: Any, tmp_path: Path) -> None:
    """The other sizes search the index of today, so all rows do too."""
    from rag.index import Index

    piers = [{"id": f"p{n}", "text": f"Pier {n} has {100 + n} berths for visitors."} for n in range(12)]
    plan = searching_plan(tmp_path, server, piers)
    judge(run(plan, tmp_path / "run"))
    assert curve_of(tmp_path / "run", "before", ROWS) == (True, [])
    other = write(tmp_path / "other.jsonl", [*piers[1:], {"id": "p0", "text": "Pier 0 has 7 berths."}])
    # The documents of the plan stay those of the run, its index does not.
    Index.update(tmp_path / "run" / "index", other, OpenRun.open(tmp_path / "run").obtain().models.embedder)
    taken, (note,) = curve_of(tmp_path / "run", "after", ROWS)
    assert not taken
    assert note.endswith(": index changed since")


def test_run_goes_on_with_the_index_that_it_began_with(server: Any, tmp_path: Path) -> None:
    """Else arms of one table would have searched different documents."""
    from rag.index import Index

    piers = [{"id": f"p{n}", "text": f"Pier {n} has {100 + n} berths for visitors."} for n in range(12)]
    plan = searching_plan(tmp_path, server, piers)
    run(plan, tmp_path / "run", only="index")
    other = write(tmp_path / "other.jsonl", piers[1:])
    Index.update(tmp_path / "run" / "index", other, OpenRun.open(tmp_path / "run").obtain().models.embedder)
    with pytest.raises(UsageProblem, match="updated after it was built for this run: evaluate:few-shot"):
        run(plan, tmp_path / "run", resume=True)


def test_report_written_again_names_the_files_that_the_run_read(finished: Path) -> None:
    """A curve writes it: the content of today would hide that the run was made from another."""
    before = Report.read(finished).data["data"]["files"]
    write(finished.parent / "examples.jsonl", examples("Nay"))
    judge(run(OpenRun.open(finished).plan, finished, only="evaluate:prompting", resume=True))
    assert Report.read(finished).data["data"]["files"] == before
    as_0_2_0(finished)
    from advisor.report.report import write_report

    opened = OpenRun.open(finished)
    write_report(opened.folder, opened.plan, opened.split.test)
    assert Report.read(finished).data["data"]["files"] == before


@pytest.fixture
def tunewise(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Run a verb in this process; return its exit code and its standard error."""

    def call(*arguments: object) -> tuple[int, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(list(map(str, arguments)))
        return int(ended.value.code or 0), capsys.readouterr().err

    return call


@pytest.mark.parametrize("old", [False, True])
def test_ask_says_that_other_examples_are_shown(
    finished: Path, tunewise: Callable[..., tuple[int, str]], old: bool
) -> None:
    if old:
        as_0_2_0(finished)
        (finished / "manifest.json").unlink()
    file = finished.parent / "examples.jsonl"
    assert tunewise("ask", finished, "Is boat 3 painted?", "--arm", "few-shot", "--json") == (0, "")
    write(file, examples("Nay"))
    code, err = tunewise("ask", finished, "Is boat 3 painted?", "--arm", "few-shot", "--json")
    (line,) = err.splitlines()
    assert code == 0
    assert f"few-shot: {file} {LINE}: the examples shown may be others" in line
    assert "tunewise recheck" in line
    assert tunewise("ask", finished, "Is boat 3 painted?", "--arm", "prompting", "--json") == (0, "")
    if old:
        report = json.loads((finished / "report.json").read_text("utf-8"))
        del report["data"]["files"]["examples"]
        (finished / "report.json").write_text(json.dumps(report), "utf-8")
        code, err = tunewise("ask", finished, "Is boat 3 painted?", "--arm", "few-shot", "--json")
        (line,) = err.splitlines()
        assert code == 0
        assert f"whether {file} is what the run was made from was not recorded" in line


def test_eval_asks_again_what_the_run_answers_otherwise_now(finished: Path, server: Any) -> None:
    """Other examples in the file, and a trial that was carried out again with them; an unchanged run asks nothing."""
    file = write(
        finished.parent / "other.jsonl",
        [{"question": f"Is hut {n} warm?", "answers": ["Aye."]} for n in range(3)],
    )
    shown = finished.parent / "examples.jsonl"

    def asked() -> tuple[int, tuple[str, ...], list[str]]:
        events: list[dict[str, Any]] = []
        before = len(server.seen)
        done = evaluate(finished, file, ["few-shot"], on_event=events.append)
        return (
            len(server.seen) - before,
            done.asked.notes,
            [str(e["reason"]) for e in events if "reason" in e],
        )

    assert asked() == (3, (), [])
    assert asked() == (0, (), [])
    write(shown, examples("Nay"))
    count, (note,), (line,) = asked()
    assert count == 3, "they are shown other examples"
    assert f"{shown} {LINE}" in note
    assert f"{shown} {LINE}" in line
    judge(run(OpenRun.open(finished).plan, finished, resume=True))
    count, notes, lines = asked()
    assert (notes, lines) == ((), []), "the trial was carried out with them"


def test_server_of_a_run_is_known_by_the_content_of_its_examples(finished: Path) -> None:
    """Not by their size and time of change, which a file that was copied over them can have too."""
    plan, file = OpenRun.open(finished).plan, finished.parent / "examples.jsonl"
    before, times = run_fingerprint(finished, plan), file.stat()
    os.utime(file)
    assert run_fingerprint(finished, plan) == before
    write(file, examples("Nay"))
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert file.stat().st_size == times.st_size
    assert run_fingerprint(finished, plan) != before


def test_one_step_that_is_repeated_leaves_the_files_of_the_others_known(finished: Path) -> None:
    """The run is of two states of a file then; what the arms that were not repeated show is that of the first."""
    write(finished.parent / "examples.jsonl", examples("Nay"))
    run_plan(OpenRun.open(finished).plan, finished, resume=True, only="evaluate:prompting")
    starts = [
        event["files"] for event in read_journal(finished / "events.jsonl") if event["event"] == "run.start"
    ]
    assert len(starts) == 2
    assert starts[0] == starts[1]
