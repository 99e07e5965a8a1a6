"""The three report files of a made-up run: complete, escaped, without remote resources, and deterministic."""

from __future__ import annotations

import base64
import io
import json
import re
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import cmarkgfm
import pytest
from rich.console import Console

from advisor.display.trial_table import show_report
from advisor.methods.registry import METHOD_BY_NAME
from advisor.questionnaire.profile import Profile
from advisor.recommendation.break_even import break_even
from advisor.report.data import read_report
from advisor.report.dev_budget import dev_budget, dev_budget_line
from advisor.report.markdown import report_markdown
from advisor.report.report import Report, write_report
from advisor.verdict.guards import guard_warnings
from advisor.verdict.run_records import RunRecords
from rag.errors import BadInput
from rag.evaluation.statistics import risk_coverage
from rag.files import write_json
from rag.grounding.curve import RefusalPoint
from rag.grounding.refusal import RefusalThreshold, default_threshold
from runners.data.questions import Question
from runners.plan.schema import RecordedAnswer, parse_plan
from runners.plan.steps import QUANTIZED_ANSWERS
from runners.report.report_file import report_json
from runners.report.trial_report import DevBudget
from runners.resources.environment import ENVIRONMENT_EVENT
from runners.run_folder import RunFolder
from runners.trial.staleness import keep_staleness
from runners.trial.trial import ArmScores, write_scores
from tests.support.reports import report_from, written

PLAN = parse_plan(
    {
        "name": "desk",
        "choice": "rag",
        "model": {"name": "smollm2-135m-instruct"},
        "data": {"documents": "d", "questions": "q"},
        "steps": [
            {"kind": "index"},
            {"kind": "evaluate", "arm": "prompting"},
            {"kind": "evaluate", "arm": "rag", "retrieval": True},
        ],
        "weights": {"fact_recall": 2, "style": 1},
        "gate": {"must_beat": ["prompting"]},
        "predicted": {
            "ranked": [{"method": "rag", "reasons": [{"rule": "KN001", "text": "facts <change>"}]}]
        },
    }
)
NASTY = "<script>alert(1)</script> & more"


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder.create(tmp_path / "run", PLAN)
    folder.write({"event": "run.start", "split": "abc"})
    folder.write({"event": "step.start", "step": "index", "number": 1, "total": 3})
    folder.finish("index", {}, {})
    folder.write({"event": "train.step", "arm": "lora", "step": 1, "loss": 2.0})
    folder.write({"event": "train.step", "arm": "lora", "step": 2, "loss": 1.0})
    ids = tuple(f"q{n}" for n in range(40))
    arms = [
        ArmScores(
            arm,
            ids,
            tuple({"style": 1.0, "fact_recall": value} for _ in ids),
            tuple(value + (n % 3) / 30 for n in range(40)),
            (0.2,) * 40,
            (50,) * 40,
            (20,) * 40,
        )
        for arm, value in (("prompting", 0.1), ("rag", 0.7))
    ]
    write_scores(arms, folder.path / "trial" / "scores.json")
    row = {"arm": "rag", "seed": 0, "id": "q0", "question": NASTY, "marked": NASTY}
    (folder.path / "trial" / "answers.jsonl").write_text(json.dumps(row) + "\n", "utf-8")
    return folder


def test_report_json_has_all_parts(run: RunFolder) -> None:
    data = written(run, PLAN, [Question("q0", NASTY, ("gold",))])
    assert {"schema", "verdict", "arms", "paired", "predicted", "measured", "guards"} <= set(data)
    assert data == report_json(read_report(run.path))
    assert data["verdict"]["outcome"] == "confirmed"
    assert (data["judge"], data["weight_reasons"]) == (None, {})
    assert {arm["usd_basis"] for arm in data["arms"]} == {"no price of an hour of this machine is known"}
    assert [arm["arm"] for arm in data["arms"]] == ["rag", "prompting"]
    rag = data["arms"][0]
    assert rag["n"] == 40
    assert rag["score"]["low"] <= rag["score"]["mean"] <= rag["score"]["high"]
    assert rag["scores"]["fact_recall"]["mean"] == pytest.approx(0.7)
    assert data["paired"][0]["a"] == "rag"
    assert "index" in data["measured"]["seconds"]


class CountingRun(RunFolder):
    """A run folder that counts how often its event log is read."""

    reads = 0

    def events(self) -> list[dict[str, Any]]:
        self.reads += 1
        return super().events()


def test_event_log_is_read_once_for_a_report(run: RunFolder) -> None:
    counting = CountingRun(run.path)
    opened = counting.reads
    write_report(counting, PLAN)
    assert counting.reads == opened + 1


def test_report_shows_what_each_arm_was_given_on_dev_questions(run: RunFolder) -> None:
    body = PLAN.model_dump(mode="json", by_alias=True)
    body["steps"][1]["instructions"] = "chosen"
    body["prompts"]["system"] = "Be brief."
    plan = parse_plan(body)
    wording = {"name": "rules listed", "system": "s", "shots": []}
    choice = {
        "chosen": wording,
        "reason": "rules listed leads the plan's instructions",
        "used": 36,
        "tried": [{**wording, "name": NASTY, "questions": 18, "score": 0.25}],
        "untried": ["keys named"],
        "lead": {"difference": 0.2, "error": 0.1, "questions": 18, "differing": 6},
    }
    write_json(
        run.path / "trial" / "prompts.json", {"schema": 1, "settings": {}, "arms": {"prompting": choice}}
    )
    data = written(run, plan)
    chosen, fixed = data["dev_budget"]
    assert (chosen["arm"], chosen["allowed"], chosen["used"], chosen["chosen"]) == (
        "prompting",
        40,
        36,
        "rules listed",
    )
    assert chosen["tried"] == [{"prompt": NASTY, "questions": 18, "score": 0.25}]
    assert (fixed["arm"], fixed["allowed"], fixed["used"], fixed["chosen"]) == ("rag", 40, 0, None)
    report = read_report(run.path)
    page = (run.path / "report.html").read_text("utf-8")
    assert "How the prompts were chosen (dev questions)" in page
    assert "your prompt with its rules listed" in page
    assert page.count("<script") == 1
    markdown = (run.path / "report.md").read_text("utf-8")
    assert "| prompting | 40 | 36 |" in markdown
    assert "| +0.20 on 18, 6 differ |" in markdown
    assert "+0.20 on 18, 6 differ" in page
    console = Console(file=io.StringIO(), width=300)
    show_report(report, console)
    assert "up to 40 answers for every arm" in console.file.getvalue()  # type: ignore[attr-defined]


def test_sentence_on_dev_questions_of_quick_runs_and_scored_arms(run: RunFolder) -> None:
    prompting = DevBudget(
        arm="prompting", allowed=6, used=4, tried=(), untried=(), chosen="rules listed", lead=None, how=""
    )
    rows = [prompting, replace(prompting, arm="prompting-scored", used=0, chosen=None)]
    assert dev_budget_line(rows).endswith("used: prompting 4; the other arms used none")
    quick = [replace(row, allowed=0) for row in rows]
    assert dev_budget_line(quick).startswith("No prompt was chosen on dev questions")
    body = PLAN.model_dump(mode="json", by_alias=True)
    arm = {"kind": "evaluate", "instructions": "chosen"}
    scored = {**arm, "arm": "prompting-scored", "labels": "scored"}
    plan = parse_plan(
        {
            **body,
            "steps": [{**arm, "arm": "prompting"}, scored],
            "gate": {"must_beat": []},
            "checks": [{"kind": "labels", "value": ["a", "b"]}],
        }
    )
    assert "the prompt that prompting chose" in dev_budget(RunRecords.read(run, plan), 10)[1].how


def test_page_is_escaped_and_loads_nothing(run: RunFolder) -> None:
    write_report(run, PLAN)
    page = (run.path / "report.html").read_text("utf-8")
    assert page.count("<script") == 1
    assert "&lt;script&gt;" in page
    assert "facts &lt;change&gt;" in page
    assert "confirmed" in page
    assert "loss per label token" in page
    assert not re.findall(r"""(?:src|href)=["'](?!#)|url\(|@import|\sstyle=|\son\w+=""", page)


def test_content_policy_allows_own_style_and_script_by_hash(run: RunFolder) -> None:
    write_report(run, PLAN)
    page = (run.path / "report.html").read_text("utf-8")
    policy = re.findall(r'content="(default-src [^"]*)"', page)[0]
    assert "unsafe" not in policy
    for tag in ("style", "script"):
        (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.S)
        assert f"{tag}-src 'sha256-{base64.b64encode(sha256(text.encode()).digest()).decode()}'" in policy


def test_page_strips_escapes_and_links_from_answers(run: RunFolder) -> None:
    answer = "\x1b[31mred\x07 \u202e![x](http://evil.example/a) <img src='http://evil.example'> \u200b[1]"
    row = {"arm": "rag", "seed": 0, "id": "q0", "question": answer, "marked": answer}
    (run.path / "trial" / "answers.jsonl").write_text(json.dumps(row) + "\n", "utf-8")
    write_report(run, PLAN)
    page = (run.path / "report.html").read_text("utf-8")
    assert "evil.example" in page
    assert not {"\x1b", "\x07", "\u202e", "\u200b"} & set(page)
    assert not re.findall(r"""<(?:img|iframe|link)\b|<a (?!class="skip"|href="#)|://evil""", page)


def test_page_shows_refusal_threshold(run: RunFolder) -> None:
    data = written(run, PLAN)
    assert "When it refuses" not in (run.path / "report.html").read_text("utf-8")
    assert "Gate:" not in report_markdown(read_report(run.path))
    points = tuple(RefusalPoint(cut, cut, cut / 2) for cut in (0.0, 0.5, 1.0))
    fitted = RefusalThreshold(
        weights={"dense": 1.0},
        bias=0.0,
        how="logistic",
        answerable=20,
        unanswerable=10,
        made=5,
        balanced_accuracy=0.9,
        auroc=0.95,
        chosen=points[1],
        at_most=points[2],
        curve=points,
    )
    read = replace(fitted, how="answers", read=12, wordings=4, note="for other words it is the shipped one")
    none = RefusalThreshold(
        weights={}, bias=1.0, how="off", gate="off", note="nothing is refused before the model is asked"
    )
    for threshold, gate, sentence in (
        (fitted, "Gate: fitted; a question is refused by signals", "refuses 50 % of the unanswerable ones"),
        (read, "which are read, seems to answer it. For other words it is the shipped one.", "; 4 are other"),
        (replace(read, gate="lenient"), "Gate: lenient; a question", "It was measured on dev questions"),
        (default_threshold(2, 1), "Gate: default; ", "are too few to fit"),
        (none, "Gate: off. No question is refused before the model is asked.", ""),
    ):
        run.unseal()
        write_json(run.path / "refusal.json", threshold.to_json())
        data = written(run, PLAN)
        assert data["guards"]["refusal"] == json.loads(json.dumps(threshold.to_json()))
        page = (run.path / "report.html").read_text("utf-8")
        assert gate in page
        assert sentence in page
        line = next(line for line in report_markdown(read_report(run.path)).splitlines() if "Gate:" in line)
        assert gate in line
        # 15 of the 20 answerable and 5 of the 10 unanswerable dev questions are answered.
        assert ("it answers 67%; without an answer in the documents of these: 5 of 20 (95 %" in line) is bool(
            threshold.chosen
        )


def test_answers_beside_the_question_are_marked_and_counted(run: RunFolder) -> None:
    def row(arm: str, number: int, support: str) -> dict[str, Any]:
        cited = {
            "n": 1,
            "doc": "a.md",
            "line_start": 1,
            "line_end": 1,
            "quote": "Pets stay.",
            "support": support,
        }
        texts = {"question": f"Who stays {number}?", "answer": "Pets stay.", "marked": "Pets stay. [1]"}
        return {"arm": arm, "seed": 0, "id": f"q{number}", **texts, "citations": [cited]}

    rows = [row("rag", 0, "beside"), row("rag", 1, "supported"), {**row("rag", 2, "partly"), "refused": True}]
    (run.path / "trial" / "answers.jsonl").write_text(
        "".join(json.dumps(one) + "\n" for one in rows), "utf-8"
    )
    data = written(run, PLAN)
    counts = {arm["arm"]: arm["beside"] for arm in data["arms"]}
    assert counts == {"rag": {"n": 1, "of": 2}, "prompting": {"n": 0, "of": 0}}
    page = (run.path / "report.html").read_text("utf-8")
    assert page.count('<span class="tag warn">seems not to be what was asked</span>') == 1
    assert page.count("The passage says this, but it seems not to be what was asked.") == 1
    assert page.count("The passage supports a part of the sentence only.") == 1


def test_refusal_by_signals_of_the_search_is_shown(run: RunFolder, root: Path) -> None:
    fitted = json.loads((root / "tests/versions/0.2.0/run/refusal.json").read_text("utf-8"))
    write_json(run.path / "refusal.json", fitted)
    data = written(run, PLAN)
    page = (run.path / "report.html").read_text("utf-8")
    part = page[page.index("When it refuses") :]
    assert "Gate: fitted; a question is refused by signals of the search" in part
    assert data["drift"] is None


def test_risk_of_a_threshold_is_among_the_answered() -> None:
    assert risk_coverage([(1.0, 1.0)], 20, 10) == []
    all_answered, some, chosen = (
        risk_coverage([shares], 20, 10)[0] for shares in ((0.0, 0.0), (1.0, 0.5), (0.5, 0.25))
    )
    assert (all_answered.coverage, all_answered.risk.hits, all_answered.risk.n) == (1.0, 10, 30)
    assert (some.coverage, some.risk.hits, some.risk.low) == (pytest.approx(1 / 3), 0, 0.0)
    assert (chosen.coverage, chosen.risk.rate) == (pytest.approx(2 / 3), 0.25)
    assert chosen.risk.low < 0.25 < chosen.risk.high
    curve = risk_coverage([(0.0, 0.0), (1.0, 0.5), (1.0, 1.0)], 20, 10)
    assert curve == [some, all_answered]


def test_page_draws_cost_lines_of_measured_arms(run: RunFolder) -> None:
    profile = Profile.of({"model_params_b": 8, "labelled_examples": 500, "calls_per_month": 40_000})
    crossing = break_even(
        profile, {name: method.estimate(profile) for name, method in METHOD_BY_NAME.items()}
    )
    assert crossing is not None
    plan = PLAN.model_copy(update={"predicted": {**PLAN.predicted, "break_even": crossing}})
    write_report(run, plan)
    page = (run.path / "report.html").read_text("utf-8")
    chart = page[page.index("What it would cost") : page.index('id="guards"')]
    assert "USD a month" in chart
    assert ">yours: 40,000 a month</text>" in chart
    assert re.findall(r'<text class="t\d"[^>]*>([^<]*)<', chart) == ["rag", "prompting"]
    assert re.findall(r'scope="row">([^<]*)<', chart)[:1] == ["prompting and rag"]
    assert "prompting is cheaper at any number of calls" in chart
    assert "qlora" not in chart.split("<ul>")[0].replace(str(crossing["text"]), "")


def test_page_without_prices_has_no_cost_chart(run: RunFolder) -> None:
    own = {"model_params_b": 8, "labelled_examples": 500, "gpu_kind": "cuda", "gpu_memory_gib": 24}
    profile = Profile.of(own)
    even = break_even(profile, {name: method.estimate(profile) for name, method in METHOD_BY_NAME.items()})
    assert even is not None
    assert even["hosted_equivalent"]
    plan = PLAN.model_copy(update={"predicted": {**PLAN.predicted, "break_even": even}})
    write_report(run, plan)
    page = (run.path / "report.html").read_text("utf-8")
    assert "0 USD: your own machine" in page
    assert "What it would cost" not in page
    assert "no price of an hour" not in page


def test_page_is_deterministic(run: RunFolder) -> None:
    write_report(run, PLAN)
    first = (run.path / "report.html").read_bytes()
    write_report(run, PLAN)
    assert (run.path / "report.html").read_bytes() == first


def test_report_records_data_and_environment(run: RunFolder, tmp_path: Path) -> None:
    questions = tmp_path / "questions.jsonl"
    questions.write_text("{}\n", "utf-8")
    plan = PLAN.model_copy(update={"data": PLAN.data.model_copy(update={"questions": questions})})
    data = written(run, plan)
    assert data["data"]["plan"] == plan.digest()
    assert data["data"]["split"] == "abc"
    assert data["data"]["files"] == {
        "questions": {"name": "questions.jsonl", "sha256": sha256(b"{}\n").hexdigest()}
    }
    assert data["environment"]["packages"]["torch"]
    assert data["environment"]["cores"] >= 1
    run.write({"event": ENVIRONMENT_EVENT, "python": "3.99", "packages": {}})
    assert written(run, plan)["environment"]["python"] == "3.99"


def test_markdown_is_short_and_escaped(run: RunFolder) -> None:
    stale = {"arm": "rag", "n": 4, "new_before": 0, "new_after": 3, "old_before": 2, "old_after": 0}
    keep_staleness(run.path, {"text": "", "arms": [stale]})
    data = written(run, PLAN)
    markdown = (run.path / "report.md").read_text("utf-8")
    assert markdown.startswith(f"## tunewise: desk\n\nRun of {data['environment']['date']}.\n\n**Use rag.")
    assert "\n\n**CONFIRMED** (measured). rag scored 0.73" in markdown
    assert "| **rag** | – | 0.73 (0.72–0.74) | 0.70 | 1.00 | 200 (in batches) |" in markdown
    assert "| prompting | – | +0.60 (+0.60 to +0.60) | \\<.001 |" in markdown
    assert "rag new fact 0 → 3, old 2 → 0 of 4" in markdown
    assert len(markdown.splitlines()) < 40
    assert "report.md" in json.loads((run.path / "manifest.json").read_text("utf-8"))["files"]
    with_warning = report_markdown(report_from({**data, "warnings": ["a <b> | `c`\n# d"], "name": "x\n## y"}))
    assert "> - a \\<b\\> \\| \\`c\\` \\# d\n" in with_warning
    assert "## tunewise: x \\#\\# y\n" in with_warning


def row_of(arm: str, **more: Any) -> dict[str, Any]:
    return {"arm": arm, "warned": True, "text": f"{arm} | refuses less: 0.92 → 0.40\n- of *12*", **more}


ROWS = {"arm": "hybrid", "rows": 9, "of": 9, "by_document": 0, "unknown_documents": []}
WARNED: dict[str, dict[str, Any]] = {
    "none": {},
    "withheld": {"leakage": {"withheld": True}},
    "left out": {"leakage": {"left_out": 3}},
    "not as planned": {"training_rows": [{**ROWS, "planned": False, "text": "1 of 9"}]},
    "without passages": {"training_rows": [{**ROWS, "planned": True, "text": "2 of 9", "with_passage": 2}]},
    "forgetting": {"forgetting": {"arms": [row_of("hybrid")]}},
    "refusal drift": {"refusal_drift": [row_of("lora"), row_of("hybrid")]},
}
"""Results of the guards that give each kind of warning."""


@pytest.mark.parametrize("kind", [*WARNED, "four bits"])
def test_markdown_renders_on_github_with_every_kind_of_warning(run: RunFolder, kind: str) -> None:
    data = written(run, PLAN)
    warnings = (
        [QUANTIZED_ANSWERS]
        if kind == "four bits"
        else guard_warnings(report_from({"guards": WARNED[kind]}).guards)
    )
    assert bool(warnings) == (kind != "none")
    html = cmarkgfm.github_flavored_markdown_to_html(
        report_markdown(report_from({**data, "warnings": warnings}))
    )
    assert html.count("<table>") == 2, html
    quotes = re.findall(r"<blockquote>(.*?)</blockquote>", html, re.S)
    assert len(quotes) == bool(warnings)
    assert not [quote for quote in quotes if "combined" in quote or "<table" in quote]
    assert sum(quote.count("<li>") for quote in quotes) == len(warnings)
    assert "|---" not in html
    assert '<th>arm</th>\n<th align="right">right (95 %)</th>' in html


def test_markdown_begins_with_the_task_and_the_conclusion(run: RunFolder) -> None:
    answers = {"goal": RecordedAnswer(value="answer <guests>", source="asked")}
    data = written(run, PLAN.model_copy(update={"answers": answers}))
    data["verdict"] |= {"use": "rag", "conclusion": ["Use rag.", "It answers 28 of 40 right."]}
    data["arms"][0]["right"] = {"n": 28, "of": 40, "low": 0.55, "high": 0.81}
    report = report_from(data)
    lines = report_markdown(report).splitlines()
    assert lines[2].startswith(
        "Task: answer \\<guests\\>. The advice used 1 answer of a person and 0 that were counted"
    )
    assert lines[4:7] == ["**Use rag.**", "", "It answers 28 of 40 right."]
    assert "| **rag** | 28 of 40 (55–81\u00a0%) |" in report_markdown(report)
    html = Report(run.path, report)._repr_html_()
    assert "Use rag. It answers 28 of 40 right." in html
    assert html.index("28 of 40</td>") < html.index("0.73</td>")


def test_report_says_how_answers_were_timed(run: RunFolder) -> None:
    assert "; a question asked alone takes longer" in report_markdown(write_report(run, PLAN))
    for done, asked in ((5, 0), (37, 32), (40, 3)):
        run.write({"event": "answers.batch", "arm": "rag", "done": done, "total": 40, "batch": asked})
    run.finish("evaluate:rag", {}, {"arm": "rag", "busy": 0.4, "seconds_alone": [8.0, 7.5, 9.0]})
    run.write({"event": "answers.batch", "arm": "prompting", "done": 1, "total": 40, "batch": 1})
    data = written(run, PLAN)
    assert data["measured"]["answering"] == {"rag": {"busy": 0.4}}
    markdown = report_markdown(read_report(run.path))
    assert "| 8,000 | 200 (batch of 32) |" in markdown
    assert "200 (alone)" in markdown
    assert "the median of 3 questions asked one at a time" in markdown
    assert "needed that other programs took): rag (40%)" in markdown
    page = (run.path / "report.html").read_text("utf-8")
    assert 'seconds an answer</dt><dd>8.0 <small>alone</small><small class="under">0.20 batch of 32' in page


@pytest.mark.parametrize("width", [38, 60, 80])
def test_terminal_report_fits_the_terminal(run: RunFolder, width: int) -> None:
    """Every line of task, conclusion, tables, verdict and warnings ends between words."""
    data = written(run, PLAN)
    data["warnings"] = ["hybrid has forgotten: its loss on neutral prose rose from 3.77 to 3.91 " * 3]
    data["task"] = {"goal": "answer guests of a harbour with sources, " * 3, "answers": {"asked": 9}}
    screen = io.StringIO()
    show_report(report_from(data), Console(file=screen, width=width, force_terminal=True, color_system=None))
    lines = screen.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert lines[0].startswith("Task: answer guests")
    assert data["verdict"]["text"] in " ".join(screen.getvalue().split())


def test_report_of_run_without_scores_is_rejected(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", PLAN)
    with pytest.raises(BadInput, match="no scores yet"):
        write_report(folder, PLAN)
    with pytest.raises(BadInput, match="no report yet"):
        read_report(folder.path)
    with pytest.raises(BadInput, match="not a run folder"):
        read_report(tmp_path)
