"""`tunewise label`: labelling by the keys of the terminal, gold written after agreement, kills, and what is refused."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from advisor import cli, output
from rag.errors import UsageProblem
from runners.plan.schema import read_plan
from runners.run_folder import RunFolder
from tests.support.labelled_run import RIGHT, WRONG, PlantedRun, plant_run, question_rows
from tests.support.limits import HANG_S

Call = Callable[..., tuple[int, str, str]]
KEYS_FOR_ONE = "rw\nb\n\n"


@pytest.fixture
def planted(tmp_path: Path) -> PlantedRun:
    """A run of two arms whose answers differ on every question."""
    arms: dict[str, Callable[[int], str]] = {
        "rag": lambda n: RIGHT.format(n=n),
        "hybrid": lambda n: f"\x1b[31m{WRONG.format(n=n)}",
    }
    return plant_run(tmp_path, question_rows(16), arms)


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Run the verb in this process on what is typed; return exit code, standard output and error."""

    def run(planted: PlantedRun, *arguments: object, typed: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
        capsys.readouterr()
        code: Any = 0
        try:
            cli.main(["label", str(planted.questions), "--run", str(planted.run), *map(str, arguments)])
        except SystemExit as end:
            code = end.code or 0
        finally:
            output.configure_output()
        printed = capsys.readouterr()
        return int(code), printed.out, printed.err

    return run


def clicks(planted: PlantedRun, by: str = "anna") -> list[dict[str, Any]]:
    """Return the rows of a person's journal but the first."""
    file = planted.run / "trial" / "labels" / f"{by}.jsonl"
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()][1:]


def test_every_key_does_what_it_says(planted: PlantedRun, call: Call) -> None:
    typed = "r\nw\n=\nu\n\nn\n\ng It has 3 berths.\ng\n\nx\n\nm 1\ni\n?\nrww\ns\nu\nu\nu\nq\n"
    code, out, err = call(planted, "--by", "anna", "--terminal", typed=typed)
    assert code == 0, err
    kinds = [row["kind"] for row in clicks(planted)]
    assert kinds == ["grade", "grade", "better", "undo", "answerable", "gold", "skip", "undo", "undo", "undo"]
    for text in (
        "a grade is missing",
        "x is no key here",
        "there are no passages",
        "3 letters",
        "undone",
        "Enter",
    ):
        assert text in out
    assert "stays as it is" in out
    assert "\x1b" not in out
    assert "rag" not in out.split("instructions:")[0]
    assert "page 1, comparison 1 of 1: 0 of 16 labels, by all people" in out
    assert "2 pages labelled" in err or "1 page labelled" in err
    assert out.count("partly: part of it") == out.count("── page")
    assert f"tunewise label {planted.questions} --run {planted.run} --by anna --terminal" in err


def test_labelling_ends_when_nothing_is_left(planted: PlantedRun, call: Call) -> None:
    code, out, err = call(planted, "--by", "anna", "--terminal", typed=KEYS_FOR_ONE * 20)
    assert code == 0
    assert "Every question is labelled or skipped." in out
    assert len([row for row in clicks(planted) if row["kind"] == "grade"]) == 32
    assert "all 16 questions are labelled" in err or "told apart" in err
    code, out, err = call(planted, "--by", "bob", "--terminal", "--json", typed=KEYS_FOR_ONE * 20)
    body = json.loads(out.splitlines()[-1])
    assert body["progress"]["agreement"]["both"] == 20
    assert body["gold"]["written"] is False


def test_gold_is_written_only_after_agreement(planted: PlantedRun, call: Call) -> None:
    before = planted.questions.read_bytes()
    code, _, err = call(planted, "--by", "anna", "--terminal", typed="g Just so many.\nq\n")
    assert code == 0
    assert "the gold is not written" in err
    assert "reference is added: Just so many." in err
    assert "a judge that is to count has to grade this run's answers before" in err
    code, _, err = call(planted, "--write")
    assert (code, planted.questions.read_bytes()) == (2, before)
    assert "give --yes" in err
    copy = planted.questions.with_name("copy.jsonl")
    code, out, err = call(planted, "--write", "--yes", "--json", "--out", copy)
    assert (code, planted.questions.read_bytes()) == (0, before)
    assert json.loads(out)["gold"] == {
        "file": str(copy),
        "changed": 1,
        "unlabelled": 15,
        "same": 0,
        "disagree": [],
        "unwritable": [],
        "written": True,
        "backup": None,
    }
    assert f"tunewise recheck {planted.run} --questions {copy}" in err
    code, _, err = call(planted, "--write", "--yes")
    assert code == 0
    assert f"tunewise run {planted.run} --resume" in err
    assert planted.questions.with_name("questions.jsonl.bak").read_bytes() == before
    code, _, err = call(planted, "--write", "--yes")
    assert code == 0
    assert "no gold to write" in err
    assert "unchanged: 1 row with this gold already" in err


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--out", "x.jsonl"], 2, "--out is where --write writes"),
        (["--terminal", "--by", "a b"], 2, "cannot be the name of a file"),
        (["--terminal", "--by", ""], 2, "cannot be the name of a file"),
        (["--write", "--run", "nowhere"], 3, "nowhere does not exist"),
        (["--write", "--yes", "--out", "questions.csv"], 2, "gold is written as JSON lines"),
    ],
)
def test_wrong_use_is_said(
    planted: PlantedRun, call: Call, arguments: list[str], code: int, text: str
) -> None:
    ended, _, err = call(planted, *arguments)
    assert (ended, text in err) == (code, True), err
    assert "Traceback" not in err


def test_no_label_is_lost_by_a_kill(planted: PlantedRun, root: Path) -> None:
    """Killed right after "saved" was shown, again and again: everything that was shown is in the journal."""
    shown = 0
    for _ in range(3):
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "tunewise", "label", str(planted.questions)),
                *("--run", str(planted.run), "--by", "anna", "--terminal"),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
            env={**os.environ, "PYTHONPATH": str(root), "PYTHONUNBUFFERED": "1"},
        )
        assert process.stdin is not None
        assert process.stdout is not None
        for _ in range(2):
            process.stdin.write("rw\n\n")
            process.stdin.flush()
            while not process.stdout.readline().startswith("saved"):
                pass
            shown += 1
        process.kill()
        process.communicate()
        grades = [row for row in clicks(planted) if row["kind"] == "grade"]
        assert len(grades) >= 2 * shown
        shown = len(grades) // 2
    assert len({row["question"] for row in clicks(planted)}) == shown >= 6


def test_a_table_is_not_asked_about_and_the_next_line_names_another_file(
    planted: PlantedRun, call: Call
) -> None:
    table = planted.questions.with_suffix(".csv")
    rows = [f"{row['id']},{row['question']},{row['answers'][0]}" for row in question_rows(16)]
    table.write_text("id,question,answers\n" + "\n".join(rows) + "\n", "utf-8")
    of_table = PlantedRun(planted.run, table)
    code, _, err = call(of_table, "--by", "anna", "--terminal", typed="g Just so many.\nq\n")
    written = f"--write --out {planted.questions}"
    assert (code, written in err) == (0, True), err
    code, _, err = call(of_table, "--write", "--yes")
    assert (code, written in err) == (2, True), err


def test_a_browser_that_does_not_return_does_not_stop_the_page(
    planted: PlantedRun, root: Path, tmp_path: Path
) -> None:
    browser = tmp_path / "browser"
    browser.write_text(
        "#!/bin/sh\nexec >/dev/null 2>&1\nwhile kill -0 $PPID 2>/dev/null; do sleep .1; done\n", "utf-8"
    )
    browser.chmod(0o755)
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "tunewise", "label", str(planted.questions)),
            *("--run", str(planted.run), "--by", "anna"),
        ],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": str(root), "PYTHONUNBUFFERED": "1", "BROWSER": f"{browser} %s"},
    )
    assert process.stderr is not None
    url = next(line for line in process.stderr if "label here:" in line).split()[-1]
    address, token = url.split("#")
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    with urlopen(Request(f"{address}done", b"{}", headers), timeout=HANG_S) as reply:
        assert reply.status == 200
    process.communicate(timeout=HANG_S)
    assert process.returncode == 0


def test_a_labelled_run_is_not_replaced(planted: PlantedRun, call: Call) -> None:
    call(planted, "--by", "anna", "--terminal", typed="s\nq\n")
    with pytest.raises(UsageProblem, match=r"people labelled \(anna\)"):
        RunFolder.create(planted.run, read_plan(planted.run / "plan.yaml"), overwrite=True)
    assert (planted.run / "trial" / "labels" / "anna.jsonl").is_file()
