"""The runs of a folder: listed, shown, compared, removed and restored; links and writers are respected."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rag.errors import BadInput, UsageProblem
from rag.files import has_active_writer, write_json
from runners.plan.schema import Plan, parse_plan
from runners.report.report_file import report_json
from runners.run_folder import RunFolder
from runners.runs import listing
from tests.support.limits import wait_until
from tests.support.reports import report_from

HOLDS = """
import sys, time
from rag.files import writer_lock
with writer_lock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(600)
"""


def plan(name: str, **more: Any) -> Plan:
    """Return a plan with one arm."""
    body = {
        "name": name,
        "choice": "prompting",
        "model": {"name": "m"},
        "data": {"questions": "q.jsonl"},
        "steps": [{"kind": "evaluate", "arm": "prompting"}],
        "weights": {"token_f1": 1},
    }
    return parse_plan(body | more)


def make(folder: Path, name: str, finished: bool = True, **more: Any) -> Path:
    """Write a run folder; a finished one has a report and a manifest."""
    run = RunFolder.create(folder / name, plan(name, **more))
    (run.path / "trial").mkdir()
    (run.path / "trial" / "answers.jsonl").write_text("{}\n" * 100, "utf-8")
    if finished:
        run.finish("evaluate:prompting", {}, {})
        verdict = {"winner": "prompting", "use": "prompting", "text": "It holds."}
        score = {"mean": 0.75, "low": 0.5, "high": 0.9}
        report = report_from({"verdict": verdict, "arms": [{"arm": "prompting", "score": score}]})
        write_json(run.path / "report.json", report_json(report))
        run.seal({})
    return run.path


def tree(path: Path) -> dict[str, bytes]:
    """Return the content of every file below a folder, without locks."""
    files = (p for p in path.rglob("*") if p.is_file() and not p.name.startswith(".writer"))
    return {p.relative_to(path).as_posix(): p.read_bytes() for p in files}


def test_list_reports_state_of_each_run(tmp_path: Path) -> None:
    make(tmp_path, "b")
    make(tmp_path, "a", finished=False)
    broken = make(tmp_path, "c")
    (broken / "plan.yaml").write_text("schema: 9\n", "utf-8")
    (tmp_path / "notes").mkdir()
    (tmp_path / "file.txt").write_text("x", "utf-8")
    runs = listing.find_runs(tmp_path)
    assert [(run.name, run.state) for run in runs] == [
        ("a", "unfinished"),
        ("b", "finished"),
        ("c", "damaged"),
    ]
    assert (runs[0].steps, runs[1].steps) == ("0 of 1", "1 of 1")
    assert (runs[1].outcome, runs[1].winner, runs[1].score) == ("confirmed", "prompting", 0.75)
    assert "newer tunewise" in runs[2].problem
    assert all(run.bytes > 300 for run in runs)
    assert listing.find_runs(tmp_path / "nowhere") == []
    assert not list(tmp_path.rglob(".writer*")), "looking leaves nothing behind"


def test_show_checks_files_against_manifest(tmp_path: Path) -> None:
    path = make(tmp_path, "a")
    summary = listing.describe_run(path)
    assert (summary.state, summary.extra["arms"]["prompting"].mean) == ("finished", 0.75)
    assert summary.extra["parts"]["trial"] == 300
    (path / "trial" / "answers.jsonl").write_text("{}\n", "utf-8")
    summary = listing.describe_run(path)
    assert summary.state == "damaged"
    assert "answers.jsonl" in summary.problem
    with pytest.raises(BadInput, match="not a run folder"):
        listing.describe_run(tmp_path)


def test_diff_reports_keys_and_both_values(tmp_path: Path) -> None:
    a, b = (
        make(tmp_path, "a"),
        make(tmp_path, "b", max_new_tokens=9, answers={"goal": {"value": "x", "source": "asked"}}),
    )
    difference = listing.diff_runs(a, b)
    rows = {row["key"]: (row["a"], row["b"]) for row in difference["plan"]}
    assert set(rows) == {"name", "max_new_tokens", "answers.goal"}
    assert rows["name"] == ("a", "b")
    assert rows["max_new_tokens"][1] == 9
    assert [row["outcome"] for row in difference["runs"]] == ["confirmed", "confirmed"]
    assert listing.diff_runs(a, a)["plan"] == []


def test_undo_restores_removed_runs_last_first(tmp_path: Path) -> None:
    before = {name: tree(make(tmp_path, name)) for name in ("a", "b.c", "000001.d")}
    for name in before:
        listing.remove_run(tmp_path / name)
    assert listing.find_runs(tmp_path) == []
    assert listing.trashed_runs(tmp_path) == list(before)
    for name in reversed(before):
        assert listing.restore_run(tmp_path) == tmp_path / name
        assert tree(tmp_path / name) == before[name]
        RunFolder(tmp_path / name).check()
    with pytest.raises(BadInput, match="in the trash"):
        listing.restore_run(tmp_path)


def test_undo_refuses_to_overwrite_existing_name(tmp_path: Path) -> None:
    """Two runs of one name are in the trash; undo refuses while the name is in use."""
    for _ in range(2):
        listing.remove_run(make(tmp_path, "a"))
    make(tmp_path, "a", finished=False)
    with pytest.raises(UsageProblem, match="exists again"):
        listing.restore_run(tmp_path)
    assert listing.trashed_runs(tmp_path) == ["a", "a"]
    assert listing.summarise_run(tmp_path / "a").state == "unfinished"


def test_empty_trash_deletes_without_following_links(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept.txt").write_text("kept", "utf-8")
    place = tmp_path / "runs"
    path = make(place, "a")
    (path / "link").symlink_to(outside)
    (path / "file").symlink_to(outside / "kept.txt")
    listing.remove_run(path)
    (place / listing.TRASH_FOLDER / "mine.txt").write_text("not ours", "utf-8")
    (place / listing.TRASH_FOLDER / "000009.x").symlink_to(outside)
    count, size = listing.empty_trash(place)
    assert (count, size > 300) == (1, True)
    assert (outside / "kept.txt").read_text("utf-8") == "kept"
    assert sorted(p.name for p in (place / listing.TRASH_FOLDER).iterdir()) == ["000009.x", "mine.txt"]


def test_links_are_not_followed(tmp_path: Path) -> None:
    real = make(tmp_path / "elsewhere", "a")
    place = tmp_path / "runs"
    place.mkdir()
    (place / "link").symlink_to(real)
    with pytest.raises(UsageProblem, match="is a link"):
        listing.remove_run(place / "link")
    (place / listing.TRASH_FOLDER).symlink_to(tmp_path / "elsewhere")
    for act in (
        lambda: listing.remove_run(make(place, "b")),
        lambda: listing.restore_run(place),
        lambda: listing.empty_trash(place),
    ):
        with pytest.raises(BadInput, match="is a link"):
            act()
    assert real.is_dir()
    assert (place / "b").is_dir()


def test_run_being_written_is_not_removed(tmp_path: Path) -> None:
    path = make(tmp_path, "a")
    assert not has_active_writer(path)
    writer = subprocess.Popen([sys.executable, "-c", HOLDS, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "held\n"
        assert has_active_writer(path)
        assert listing.summarise_run(path).state == "writing"
        with pytest.raises(BadInput, match=f"written by another process .pid {writer.pid}"):
            listing.remove_run(path)
    finally:
        writer.kill()
        writer.communicate()
    assert path.is_dir()
    wait_until(lambda: not has_active_writer(path))
    listing.remove_run(path)
    assert not path.exists()


def test_list_show_diff_rm_and_undo_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """list, show, diff, rm and undo in one go, by name in ./runs, for people and as JSON."""
    from advisor import cli

    monkeypatch.chdir(tmp_path)

    def tunewise(line: str) -> tuple[int, str, str]:
        code = 0
        try:
            cli.main(line.split())
        except SystemExit as stop:
            code = int(stop.code or 0)
        return code, *capsys.readouterr()

    assert "no run in runs" in tunewise("runs list")[1]
    make(Path("runs"), "first")
    make(Path("runs"), "second", max_new_tokens=7)
    assert [row["name"] for row in json.loads(tunewise("runs list --json")[1])["runs"]] == ["first", "second"]
    assert "confirmed, prompting 0.75" in tunewise("runs list")[1]
    assert json.loads(tunewise("runs show first --json")[1])["verdict"] == "It holds."
    assert "It holds." in tunewise("runs show runs/first")[1]
    assert "max_new_tokens" in tunewise("runs diff first second")[1]
    assert {"name", "max_new_tokens"} == {
        r["key"] for r in json.loads(tunewise("runs diff first second --json")[1])["plan"]
    }
    assert "tunewise runs undo runs" in tunewise("runs rm first")[1]
    assert json.loads(tunewise("runs rm second --json")[1])["removed"][0]["run"] == "runs/second"
    assert "2 removed; the last was second" in tunewise("runs list")[1]
    assert json.loads(tunewise("runs undo --json")[1])["restored"] == "runs/second"
    assert "runs/first is back" in tunewise("runs undo")[1]
    code, _, err = tunewise("runs show secnd")
    assert (code, "did you mean second?" in err) == (3, True)
    assert tunewise("runs rm")[0] == 2
    tunewise("runs rm first")
    assert "deleted 1 run for good" in tunewise("runs rm --empty-trash")[1]
    assert json.loads(tunewise("runs rm --empty-trash --json")[1]) == {"schema": 1, "deleted": 0, "bytes": 0}


def test_rm_prints_undo_command_and_refuses_second_removal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The printed command restores the run, however its folder was named."""
    from advisor import cli

    def tunewise(*words: str) -> tuple[int, str, str]:
        code = 0
        try:
            cli.main(list(words))
        except SystemExit as stop:
            code = int(stop.code or 0)
        return code, *capsys.readouterr()

    folder = tmp_path / "my runs"
    make(folder, "a")
    make(folder, "b", finished=False)
    monkeypatch.chdir(folder / "a")
    code, output, _ = tunewise("runs", "rm", ".")
    assert (code, f"tunewise runs undo '{folder}'" in output) == (0, True)
    monkeypatch.chdir(tmp_path)
    assert "tunewise runs undo 'my runs' brings it back" in tunewise("runs", "list", "my runs")[1]
    assert tunewise("runs", "undo", str(folder))[0] == 0
    assert tunewise("runs", "rm", "my runs/a", "my runs/../my runs/a")[0] == 0, "one run, named twice"
    with RunFolder(folder / "b").writing():
        make(folder, "c")
        code, output, err = tunewise("runs", "rm", "my runs/c", "my runs/b")
    assert (code, "removed my runs/c" in output, "is being written" in err) == (3, True, True)
    code, _, err = tunewise("runs", "rm", "my runs/.trash/000001.a")
    assert (code, "in the trash already" in err, "runs undo" in err) == (2, True, True)
    assert listing.trashed_runs(folder) == ["a", "c"]


def test_next_step_hints_match_the_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A missing run cannot be finished, and a damaged run is not repaired by --help."""
    from advisor import cli

    monkeypatch.chdir(tmp_path)
    damaged = make(Path("runs"), "damaged")
    (damaged / "trial" / "answers.jsonl").write_text("{}\n", "utf-8")
    unfinished = make(Path("runs"), "unfinished", finished=False)

    def next_of(*words: str) -> str:
        with pytest.raises(SystemExit) as stop:
            cli.main(list(words))
        assert stop.value.code == 3
        return capsys.readouterr().err.split("next: ")[1].strip()

    assert next_of("report", "nosuch") == "make one with: tunewise run plan.yaml"
    again = "put that file back, or run it again: tunewise run runs/damaged --overwrite"
    assert next_of("ask", str(damaged), "When?") == again
    assert next_of("runs", "show", str(damaged)) == again
    assert next_of("report", str(unfinished)) == "finish it with: tunewise run runs/unfinished --resume"


def test_right_answers_of_the_used_arm_are_listed(tmp_path: Path) -> None:
    path = make(tmp_path, "a")
    report = json.loads((path / "report.json").read_text("utf-8"))
    answered, refused = {"n": 37, "of": 53}, {"n": 11, "of": 12}
    right = {"n": 48, "of": 65, "low": 0.6, "high": 0.8, "answered": answered, "refused": refused}
    report["arms"][0]["right"] = right
    for use, shown in (("prompting", "prompting"), (None, None)):
        report["verdict"] |= {"use": use}
        write_json(path / "report.json", report)
        run = listing.summarise_run(path)
        assert (run.use, run.winner, run.best) == (shown, shown, "prompting")
        assert run.to_json()["right"] == right
    assert listing.describe_run(path).to_json()["arms_right"] == {"prompting": right}


@pytest.mark.parametrize("verb", [["ask", "RUN", "When?"], ["export", "RUN", "--to", "peft"]])
def test_run_without_an_arm_to_use_wants_one_named(tmp_path: Path, verb: list[str]) -> None:
    from typer.testing import CliRunner

    from advisor import cli
    from runners.runs.opened import OpenRun
    from runners.serving.served_models import served_models

    path = make(tmp_path, "a")
    report = json.loads((path / "report.json").read_text("utf-8"))
    assert OpenRun.open(path).default_arm == "prompting"
    report["verdict"] |= {"use": None, "use_reason": "answers must name their source"}
    write_json(path / "report.json", report)
    (path / "manifest.json").unlink()
    refused = CliRunner().invoke(cli.app, [str(path) if part == "RUN" else part for part in verb])
    assert refused.exit_code == 2, refused.output
    assert "no arm is asked by default: answers must name their source" in refused.output
    assert "choose one yourself: --arm prompting" in refused.output
    session = OpenRun.open(path)
    with pytest.raises(UsageProblem, match="no arm is asked by default"):
        served_models(session)
    assert session.arm("prompting").arm == "prompting"
