"""`tunewise questions`: what is shown, agreed to and written, the file as questions, and rows that are removed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from advisor import cli, output
from benchmarks.log_import import make_log, measure, read_facts
from benchmarks.recheck import make_run, small_embedder, write_rows
from runners.data.questions import read_question_file
from runners.logs.log_import import read_logs
from tests.support.limits import HANG_S

TEXTS = [
    "What does parking at the north gate cost?",
    "When does the ticket office open in summer?",
    "Can visitors bring a dog on board?",
    "Where is lost property kept for collection?",
    "How long does the crossing to the island take?",
]


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_embedder(tmp_path_factory.mktemp("small") / "embedder", TEXTS)


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a verb in this process; return exit code, standard output and error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code: Any = 0
        try:
            cli.main([str(argument) for argument in arguments])
        except SystemExit as end:
            code = end.code or 0
        finally:
            output.configure_output()
        printed = capsys.readouterr()
        return int(code), printed.out, printed.err

    return run


def chats(path: Path, texts: Sequence[str]) -> Path:
    """Write a log of requests."""
    return write_rows(path, [{"messages": [{"role": "user", "content": text}]} for text in texts])


def test_nothing_is_written_before_it_was_agreed_to(
    tmp_path: Path, embedder: Path, call: Callable[..., Any]
) -> None:
    log = chats(tmp_path / "log.jsonl", [*TEXTS * 3, "Mail jane@pellmail.net about the dog", "thanks!"])
    line = ("questions", "import", log, "--out", tmp_path / "q.jsonl", "--embedder", embedder)
    code, _, err = call(*line)
    assert code == 2
    assert "masked: e-mail address in 1" in err
    assert "Mail [e-mail address] about the dog" in err
    assert "--yes" in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.jsonl"]
    code, out, err = call(*line, "--yes", "--wordings", tmp_path / "w.jsonl")
    assert code == 0, err
    assert "6 questions for 16 asked" in out
    assert "1 greetings and thanks" in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.jsonl", "q.jsonl", "w.jsonl"]
    read = read_question_file(tmp_path / "q.jsonl")
    assert sum(question.weight for question in read.questions) == 16
    assert "scores are means over what was asked" in " ".join(read.notes("q.jsonl"))
    assert "pellmail" not in (tmp_path / "q.jsonl").read_text("utf-8") + (tmp_path / "w.jsonl").read_text(
        "utf-8"
    )
    assert call(*line, "--yes")[0] == 2, "it is not replaced"
    assert call("questions", "import", log, "--out", log, "--yes", "--overwrite")[0] == 2, "it is the log"


def test_follow_ups_are_questions_with_their_turns(
    tmp_path: Path, embedder: Path, call: Callable[..., Any]
) -> None:
    turns = [
        {"role": "user", "content": TEXTS[0]},
        {"role": "assistant", "content": "Nine euros."},
        {"role": "user", "content": "And for a week?"},
    ]
    log = write_rows(tmp_path / "log.jsonl", [{"messages": turns[:1]}, {"messages": turns}])
    code, out, err = call(
        "questions", "import", log, "--out", tmp_path / "q.jsonl", "--yes", "--embedder", embedder
    )
    assert code == 0, err
    asked = {question.question: question for question in read_question_file(tmp_path / "q.jsonl").questions}
    assert [turn["content"] for turn in asked["And for a week?"].history] == [TEXTS[0], "Nine euros."]
    assert "fewer than --count 100" in out


def test_logs_that_give_little(tmp_path: Path, embedder: Path, call: Callable[..., Any]) -> None:
    def run(name: str, texts: Sequence[str], *flags: object) -> tuple[int, str, str]:
        log, out = chats(tmp_path / f"{name}.jsonl", texts), tmp_path / f"{name}.q.jsonl"
        line = ("questions", "import", log, "--out", out, "--yes", "--embedder", embedder, *flags)
        return call(*line)  # type: ignore[no-any-return]

    assert "1 question for 40 asked" in run("repeats", [TEXTS[0]] * 40)[1]
    assert "3 questions for 3 asked" in run("three", TEXTS[:3])[1]
    code, _, err = run("none", ["hi", "", "ok"])
    assert code == 3
    assert "no question in 3 rows; left out: 3 turns" in err
    assert run("groups", TEXTS, "--groups", 7, "--count", 5)[0] == 2
    german = [f"Wann öffnet die Kasse am Hafen für Besucher der Insel Nummer {n}?" for n in range(6)]
    code, _, err = run(
        "two", [*german, *(f"{text} Please tell me about ship {n}" for n, text in enumerate(TEXTS))]
    )
    assert code == 0
    assert "more than one language, all kept" in err
    assert "German 6" in err


def test_an_import_says_how_the_log_differs(tmp_path: Path, embedder: Path, call: Callable[..., Any]) -> None:
    log = chats(tmp_path / "log.jsonl", [f"{text} On day {n}" for n in range(8) for text in TEXTS])
    have = write_rows(tmp_path / "have.jsonl", [{"question": f"{TEXTS[0]} On day {n}"} for n in range(12)])
    flags = ("--yes", "--embedder", embedder, "--groups", 5, "--count", 20, "--against", have)
    code, out, err = call("questions", "import", log, "--out", tmp_path / "q.jsonl", *flags, "--json")
    assert code == 0, err
    result = json.loads(out)
    assert result["schema"] == 1
    assert (result["questions"], len(result["groups"])) == (20, 5)
    against = result["against"]
    assert against["differs"]
    assert against["missed_share"] == pytest.approx(0.8, abs=0.05)
    assert len(against["missed_groups"]) == 4


def test_rows_of_a_person_are_removed(tmp_path: Path, call: Callable[..., Any]) -> None:
    log = chats(tmp_path / "log.jsonl", [TEXTS[0], "I am Zoë Quill", "zoë quill again"])
    code, out, _ = call("questions", "forget", log, "Zoë Quill")
    assert (code, out.splitlines()[0]) == (0, "removed 2 rows of 1 file")
    assert json.loads(log.read_text("utf-8"))["messages"][0]["content"] == TEXTS[0]
    assert call("questions", "forget", log, "  ")[0] == 2
    assert call("questions", "forget", tmp_path / "absent.jsonl", "x")[0] == 3


def test_ctrl_c_prints_the_line_that_goes_on(tmp_path: Path, root: Path, embedder: Path) -> None:
    """The vectors of the first block are kept, and the same line goes on."""
    texts = [f"Is berth {n} at pier {n // 7} free for ship {n % 13} on day {n // 3}?" for n in range(2_500)]
    log = chats(tmp_path / "log.jsonl", texts)
    code = (
        "import signal, sys, _thread, numpy as np\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from advisor import cli\n"
        "save, calls = np.save, []\n"
        "def stop(*a, **k):\n    save(*a, **k); calls.append(1); len(calls) == 2 and _thread.interrupt_main()\n"
        "np.save = stop\n"
        "cli.main(sys.argv[1:])\n"
    )
    line = [
        "questions",
        "import",
        str(log),
        "--out",
        str(tmp_path / "q.jsonl"),
        "--yes",
        "--embedder",
        str(embedder),
    ]
    stopped = subprocess.run(
        [sys.executable, "-c", code, *line],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=HANG_S,
        check=False,
    )
    assert stopped.returncode == 130, stopped.stderr
    assert "interrupted; vectors that were computed are saved. Continue with:" in stopped.stderr
    assert f"tunewise questions import {log} --out {tmp_path / 'q.jsonl'}" in stopped.stderr
    assert list((tmp_path / "q.jsonl.work").glob("vectors-*.npy"))


def test_weights_of_rows_are_those_of_report_and_eval(tmp_path: Path, call: Callable[..., Any]) -> None:
    count = 16
    documents = [
        {"id": f"pier{n:02}", "title": f"Pier {n}", "text": f"Pier {n} has {100 + n} berths."}
        for n in range(count)
    ]
    rows = [
        {
            "id": f"q{n}",
            "question": f"How many berths has Pier {n}?",
            # half of the piers hold something else than the documents say, so nothing is right there
            "answers": [str(100 + n) if n % 2 else "9999"],
            "doc_id": f"pier{n:02}",
            "weight": 9 if n % 2 else 1,
        }
        for n in range(count)
    ]
    run = make_run("weighted", documents, rows, tmp_path).run
    report = json.loads((run / "report.json").read_text("utf-8"))
    scores = json.loads((run / "trial" / "scores.json").read_text("utf-8"))
    assert {
        round(scores["asked"][f"q{n}"] / scores["asked"]["q0"]) for n in (1, 3) if f"q{n}" in scores["asked"]
    } <= {9}
    arm = next(arm for arm in report["arms"] if arm["arm"] == "rag")
    right = {id: row["right"] for id, row in scores["arms"]["rag"].items()}
    times = {id: 9.0 if int(id[1:]) % 2 else 1.0 for id in right}
    share = sum(right[id] * times[id] for id in right) / sum(times.values())
    assert arm["right"]["asked_share"] == pytest.approx(share, abs=1e-3)
    assert arm["right"]["asked_share"] != pytest.approx(sum(right.values()) / len(right), abs=0.05)
    assert arm["right"]["low"] <= share <= arm["right"]["high"]
    code, out, err = call("report", run)
    assert code == 0, err
    assert "of what is asked" in out
    assert "fewer than half" not in out, "7 or 8 of 15 rows, but nine tenths of what is asked"
    file = write_rows(tmp_path / "more.jsonl", [{**row, "id": f"m{n}"} for n, row in enumerate(rows)])
    code, out, err = call("eval", run, "--questions", file, "--json", "--arm", "rag")
    assert code == 0, err
    data = json.loads(out)
    assert "asked_share" in data["arms"][0]["right"]
    assert any("weight" in line for line in data["warnings"])


def test_the_rows_of_a_known_log_stand_for_what_was_asked(
    shared: Path, tmp_path: Path, embedder: Path
) -> None:
    """A smaller run of benchmarks/log_import.py, on the small embedder: what holds by design."""
    folder = shared / "cases" / "houses" / "pool"
    if not folder.is_dir():
        pytest.skip("needs the public data: there is no cases/houses/pool (set TUNEWISE_SHARED)")
    from advisor.workflows.index_build import load_embedder

    made = make_log(tmp_path / "log.jsonl", read_facts(folder), 2_000, seed=1)
    log = read_logs([tmp_path / "log.jsonl"])
    assert round(log.asked) == made.asked.total()
    assert len(log.questions) < log.counter.spellings * 0.7, "misspelled repeats are joined"
    groups = log.group(log.embed(load_embedder(str(embedder)), tmp_path / "work"), 100)
    rows = log.rows(groups, 100)
    figures = measure(made, rows)
    assert figures["weight_of_asked"] == pytest.approx(1, abs=1e-3)
    assert figures["asked_share_of_facts_in_rows"] > 0.75
    assert figures["total_variation"] < 0.3
    assert {row["group"] for row in rows} == set(range(1, groups.count + 1))
