"""Questions that are asked in other words too: trial, report, `eval` and `recheck` of one small run."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from advisor import cli, output
from advisor.display.trial_table import show_report
from advisor.report.markdown import report_markdown
from advisor.report.report import Report
from advisor.verdict.made_questions import MEASURED_LOSS, words_note
from benchmarks.recheck import Base, make_run, write_rows
from rag.errors import BadInput
from runners.plan.schema import parse_plan, read_plan, read_plan_file
from runners.recheck.inputs import find_changes, present_inputs
from runners.recheck.recheck import RecheckRequest, recheck
from runners.run_folder import read_journal
from runners.runs.dataset import read_data
from runners.trial.execute import run_plan
from runners.trial.trial import ANSWERS

COUNT = 24
TITLE = "In the documents' words and in others"


def questions() -> list[dict[str, Any]]:
    """A question about each pier, most of them in other words too."""
    rows = [
        {
            "id": f"q{n}",
            "question": f"How many berths has Pier {n}?",
            "wordings": [f"pier {n}, boats it can take", "how much room for us"],
            "answers": [str(100 + n)],
            "doc_id": f"pier{n:02}",
        }
        for n in range(COUNT)
    ]
    for n, row in enumerate(rows):
        row["wordings"][1] += f", say {chr(97 + n) * 3}"  # type: ignore[index]
        if n % 4 == 3:
            del row["wordings"]
    return rows


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    texts = [f"Pier {n} has {100 + n} berths for visitors." for n in range(COUNT)]
    documents = [{"id": f"pier{n:02}", "title": f"Pier {n}", "text": text} for n, text in enumerate(texts)]
    return make_run("worded", documents, questions(), tmp_path_factory.mktemp("worded"))


@pytest.fixture
def tunewise(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a verb in this process; return exit code, standard output and error."""

    def call(*arguments: object) -> tuple[int, str, str]:
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

    return call


def test_every_wording_is_asked_once_and_counted_apart(base: Base) -> None:
    rows = read_journal(base.run / "trial" / ANSWERS)
    of_arm = [row["id"] for row in rows if row["arm"] == "rag"]
    originals = [id for id in of_arm if "~" not in id]
    assert len(of_arm) == len(set(of_arm))
    wordings = [id for id in of_arm if "~" in id]
    assert set(wordings) == {f"{id}~{k}" for id in originals for k in (1, 2) if int(id[1:]) % 4 != 3}
    report = json.loads((base.run / "report.json").read_text("utf-8"))
    for arm in report["arms"]:
        parts = arm["by_wording"]
        assert (arm["n"], arm["questions"]) == (len(of_arm), len(originals))
        assert (parts["question"]["right"]["of"], parts["wordings"]["right"]["of"]) == (
            len(originals),
            len(wordings),
        )
        assert sum(part["right"]["n"] for part in parts.values()) == arm["right"]["n"]
        assert arm["right"]["of"] == len(of_arm)
        for part in parts.values():
            assert {"right", "refused_wrongly", "refused_rightly"} <= set(part)
            assert part["refused_wrongly"]["of"] == part["right"]["of"]
            assert part["refused_rightly"] == {"n": 0, "of": 0}
            assert ("hit" in part) is (arm["arm"] == "rag")
    by_arm = {arm["arm"]: arm for arm in report["arms"]}
    found = by_arm["rag"]["by_wording"]
    assert found["question"]["hit"] == {"n": len(originals), "of": len(originals)}
    assert found["wordings"]["hit"]["n"] < found["wordings"]["hit"]["of"]
    assert report["paired"][0]["n"] == len(originals)
    assert report["verdict"]["strength"] == "proxy" or len(originals) < 30
    right = found["question"]["right"]
    shown = f"({right['n']} of {right['of']} as the file words them, "
    if report["verdict"]["use"] == "rag":
        assert shown in report["verdict"]["conclusion"][0]


def test_all_views_show_both_wordings_side_by_side(base: Base) -> None:
    report = Report.read(base.run).content
    parts = next(arm.by_wording for arm in report.arms if arm.arm == "rag")
    assert parts is not None
    own, other = parts.question.right, parts.wordings.right
    assert own is not None
    assert other is not None
    printed = Console(file=io.StringIO(), width=80, record=True)
    show_report(report, printed)
    page = (base.run / "report.html").read_text("utf-8").replace("&#39;", "'")
    for view in (printed.export_text(), report_markdown(report), page):
        assert TITLE in view
        for title, count in zip(("documents' words", "other words"), (own, other), strict=True):
            line = next(line for line in view.splitlines() if "rag" in line and title in line)
            assert count.text in line
    assert page.count('<span class="tag">other wording</span>') == other.of
    assert f"Counted are all wordings of {own.of} questions" in report.verdict.text
    assert f"{own.of} held-out questions and " in report_markdown(report)
    arms = tuple(replace(arm, by_wording=None, questions=None) for arm in report.arms)
    assert TITLE not in report_markdown(replace(report, arms=arms))


def test_a_verdict_says_that_questions_are_in_the_documents_words(
    base: Base, tmp_path: Path, tunewise: Callable[..., Any]
) -> None:
    """Where they were asked in other words too, these were counted, and nothing is guessed."""
    counted = Report.read(base.run).content
    assert counted.question_words is not None
    assert counted.question_words.documents_words
    assert "may do worse" not in counted.verdict.text
    plain = [{key: value for key, value in row.items() if key != "wordings"} for row in questions()]
    run = make_run("plain", base.documents, plain, tmp_path).run
    report = Report.read(run).content
    assert report.question_words == counted.question_words
    sentence = words_note(report.question_words, report.arms)
    assert sentence.startswith("The questions are in the documents' words (100% of the content words of ")
    assert MEASURED_LOSS in sentence
    printed = Console(file=io.StringIO(), width=400, record=True)
    show_report(report, printed)
    assert tunewise("export", run, "--to", "index", "--out", tmp_path / "index")[0] == 0
    card = (tmp_path / "index" / "README.md").read_text("utf-8")
    page = (run / "report.html").read_text("utf-8").replace("&#39;", "'").replace("&#34;", '"')
    for view in (report.verdict.text, printed.export_text(), report_markdown(report), page, card):
        assert sentence in " ".join(view.split())
    body = json.loads((run / "report.json").read_text("utf-8"))
    assert body["question_words"] == {"n": report.question_words.n, "share": 1.0, "documents_words": True}
    assert words_note(replace(report.question_words, documents_words=False), report.arms) == ""


def test_eval_asks_and_counts_wordings(base: Base, tmp_path: Path, tunewise: Callable[..., Any]) -> None:
    rows: list[dict[str, Any]] = [
        {
            "question": "Pier 3: berths?",
            "wordings": ["Pier 3 - how many boats?"],
            "answers": ["103"],
            "doc_id": "pier03",
        },
        {"question": "Is there a pier 99?", "wordings": ["pier 99 please", "PIER 99"], "answerable": False},
    ]
    file = write_rows(tmp_path / "more.jsonl", rows)
    code, out, _ = tunewise("eval", base.run, "--questions", file, "--json")
    assert code == 0
    data = json.loads(out)
    assert (data["questions"]["asked"], data["questions"]["wordings"]) == (5, 3)
    for arm in data["arms"]:
        parts = arm["by_wording"]
        assert [parts[key]["refused_rightly"]["of"] for key in ("question", "wordings")] == [1, 2]
        assert [parts[key]["refused_wrongly"]["of"] for key in ("question", "wordings")] == [1, 1]
    code, out, _ = tunewise("eval", base.run, "--questions", file)
    assert TITLE in out
    bad = write_rows(tmp_path / "bad.jsonl", [{**rows[0], "wordings": [" "]}])
    code, _, err = tunewise("eval", base.run, "--questions", bad)
    assert (code, f"{bad}:1: wording 1 is empty" in err) == (3, True)


def test_recheck_asks_the_wordings_of_the_trial(base: Base, tmp_path: Path) -> None:
    same = recheck(base.run, RecheckRequest(out=tmp_path / "same"))
    (arm,) = [arm for arm in same.arms if arm.arm == "rag"]
    assert same.asked == 0
    assert len(arm.now.questions) > arm.now.question_count
    assert arm.now.wording_of == arm.before.wording_of
    # A wording that came later was not in the trial; as its question was, it is no dev question either.
    rows = [{**row, "wordings": [*row.get("wordings", []), f"the {row['id']} pier?"]} for row in questions()]
    file = write_rows(tmp_path / "questions.jsonl", rows)
    later = recheck(base.run, RecheckRequest(questions=file, out=tmp_path / "later"))
    assert (later.questions, later.missing, later.asked) == (len(arm.now.questions), 0, 0)


def test_gold_that_the_documents_lost_is_counted_by_question(base: Base, tmp_path: Path) -> None:
    (question, *_) = read_data(parse_plan(base.plan)).split.test
    number = int(question.id[1:])
    changed = [
        {**row, "text": row["text"].replace(str(100 + number), "900")}
        if row["id"] == question.doc_id
        else row
        for row in base.documents
    ]
    file = write_rows(tmp_path / "documents.jsonl", changed)
    found = recheck(base.run, RecheckRequest(documents=file, out=tmp_path / "lost"))
    assert list(found.lost_gold) == [question.id]
    for arm in found.arms:
        assert question.id not in arm.now.originals
        assert arm.now.questions == arm.before.questions


def test_the_split_keeps_a_question_with_its_wordings(base: Base) -> None:
    split = read_data(parse_plan(base.plan)).split
    assert not {q.id for q in split.dev} & {q.original for q in split.test}


def test_a_dry_run_counts_what_is_asked(base: Base, tmp_path: Path, tunewise: Callable[..., Any]) -> None:
    plan = tmp_path / "plan.yaml"
    plan.write_text(json.dumps(base.plan), "utf-8")
    code, out, _ = tunewise("run", plan, "--dry-run", "--json", "--out", tmp_path / "never")
    counts = json.loads(out)
    assert code == 0
    assert counts["dev"] + counts["test"] == COUNT
    assert counts["wordings"] == len([q for q in read_data(parse_plan(base.plan)).split.test if q.wording_of])
    _, out, err = tunewise("run", plan, "--dry-run", "--out", tmp_path / "never")
    assert f"{counts['test']} test questions and their {counts['wordings']} other wordings" in " ".join(
        (out + err).split()
    )


LOG = [
    "where can i put my boat",
    "",
    "mail me: skipper@boats-of-kiel.de",
    "where can i put my boat",
    "pier 1, boats it can take",
]


def test_plan_stores_the_questions_of_a_log(base: Base, tmp_path: Path, tunewise: Callable[..., Any]) -> None:
    log, plan = tmp_path / "chats.txt", tmp_path / "plan.yaml"
    log.write_text("\n".join(LOG), "utf-8")
    flags = [
        "--documents",
        base.plan["data"]["documents"],
        "--questions",
        base.plan["data"]["questions"],
        "--yes",
    ]
    code, _, err = tunewise("plan", *flags, "--wordings", log, "--out", plan)
    assert code == 0, err
    assert "3 questions of 5 lines; left out: 1 blank, 1 repeated" in " ".join(err.split())
    assert "masked in what is stored: e-mail address in 1 question" in " ".join(err.split())
    stored = tmp_path / "wordings.jsonl"
    rows = [json.loads(line)["question"] for line in stored.read_text("utf-8").splitlines()]
    assert rows == [LOG[0], "mail me: [e-mail address]", LOG[4]]
    assert read_plan(plan).data.wordings == stored
    assert read_plan_file(plan).data.wordings == Path("wordings.jsonl")
    # The same log again changes nothing; another one is kept beside it.
    tunewise("plan", *flags, "--wordings", log, "--out", plan)
    assert not stored.with_name("wordings.jsonl.bak").exists()
    log.write_text("where else?", "utf-8")
    tunewise("plan", *flags, "--wordings", log, "--out", plan)
    assert json.loads(stored.read_text("utf-8"))["question"] == "where else?"
    assert len(stored.with_name("wordings.jsonl.bak").read_text("utf-8").splitlines()) == 3
    # The stored file may be given itself, as long as nothing in it would be lost.
    assert tunewise("plan", *flags, "--wordings", stored, "--out", plan)[0] == 0
    stored.write_text("\n".join(json.dumps(text) for text in LOG), "utf-8")
    code, _, err = tunewise("plan", *flags, "--wordings", stored, "--out", plan)
    assert (code, "would replace it" in err) == (2, True)
    code, _, err = tunewise("plan", *flags, "--wordings", tmp_path / "gone.txt", "--out", plan)
    assert (code, "gone.txt does not exist" in err) == (3, True)


def test_a_run_reads_the_log_before_it_fits_refusals(base: Base, tmp_path: Path) -> None:
    """The index step depends on the log, leaves out what the test asks, and stops early without it."""
    log = tmp_path / "wordings.jsonl"
    test = [question.question for question in read_data(parse_plan(base.plan)).split.test]
    write_rows(log, [{"question": text} for text in (*LOG, test[-1])])
    body = {**base.plan, "data": {**base.plan["data"], "wordings": str(log)}}
    plan = parse_plan(body)

    def index_results() -> list[dict[str, Any]]:
        events = [
            json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text("utf-8").splitlines()
        ]
        return [e["result"] for e in events if e["event"] == "step.done" and e["step"] == "index"]

    run_plan(plan, tmp_path / "run", only="index")
    counted = index_results()[0]["refusal"]["wordings"]
    assert (counted["read"], counted["blank"], counted["repeated"]) == (6, 1, 1)
    assert counted["questions"] == 2 + (LOG[4] not in test)
    run_plan(plan, tmp_path / "run", resume=True, only="index")
    assert len(index_results()) == 1
    before = present_inputs(plan, {})
    write_rows(log, [{"question": "where else?"}])
    (change,) = find_changes(before, present_inputs(plan, {}))
    assert (change.kind, change.text, change.arms) == (
        "settings",
        "wordings.jsonl has other content",
        ("rag",),
    )
    run_plan(plan, tmp_path / "run", resume=True, only="index")
    assert [result["refusal"]["wordings"]["questions"] for result in index_results()][-1] == 1
    log.unlink()
    with pytest.raises(BadInput, match="does not exist"):
        run_plan(plan, tmp_path / "other", only="index")
