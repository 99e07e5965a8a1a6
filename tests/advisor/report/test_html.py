"""report.html in a browser: nothing is loaded or executed from answers; filters, citations, widths, print, accessibility."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from pypdf import PdfReader

from advisor.report.html import render_page
from advisor.verdict.run_records import RunRecords
from runners.data.questions import Question
from runners.plan.schema import parse_plan
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
        "predicted": {
            "strongest_against": {"rule": "RS001", "text": "simple ways come first"},
            "ranked": [
                {
                    "method": "rag",
                    "score": 0.7,
                    "reasons": [{"rule": "KN001", "text": "new facts"}],
                    "estimate": {"memory_gib": {"low": 1.0, "likely": 1.2, "high": 1.5}},
                }
            ],
            "flips": [{"text": "prompting, if task_needs_facts were none"}],
        },
    }
)
NASTY = (
    "<script>window.ran = 1</script></script><img src=x onerror='window.ran = 2'> javascript:window.ran=3 "
    "[x](http://evil.example/a) </dd></details>\u202eabc\u202c\x1b[31m\x00 &lt;b&gt;"
)
COUNT = 12


def cited(n: int) -> dict[str, Any]:
    return {
        "n": 1,
        "doc": "fares.md",
        "title": "Fares",
        "page": None,
        "line_start": 3,
        "line_end": 4,
        "char_start": 0,
        "char_end": 9,
        "quote": f"Pier {n} costs {n} euros. {NASTY if n == 0 else ''}",
        "supported": True,
        "date": "2026-01-02",
    }


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = RunFolder.create(
        tmp_path_factory.mktemp("page") / "a-run-with-quite-a-long-name-for-its-folder", PLAN
    )
    folder.write({"event": "run.start", "split": "abc", "overlap": 0})
    folder.write({"event": "step.start", "step": "index", "number": 1, "total": 3})
    folder.finish("index", {}, {})
    for seed in (0, 1):
        training = {"arm": "lora", "seed": seed, "nth": seed, "seeds": 2}
        for step in (1, 2, 3, 3, 4, 5, 6, 7, 8):  # the third was taken again, after a kill
            folder.write({"event": "train.step", "step": step, "loss": 3 / step + seed, **training})
        folder.write({"event": "train.eval", "step": 4, "loss": 1.1, "best": 1.1, **training})
    ids = tuple(f"q{n}" for n in range(COUNT))
    arms, rows = [], []
    for arm in ("prompting", "rag"):
        right = tuple(float(arm == "rag" and n != 5) for n in range(COUNT))
        scores = tuple(
            {"style": 1.0, "fact_recall": value, "refusal": 1.0, "right": value} for value in right
        )
        costs = (0.2,) * COUNT, (50,) * COUNT, (20,) * COUNT
        arms.append(ArmScores(arm, ids, scores, right, *costs, seeds=((0, 0.5), (1, 0.62))))
        for n, value in enumerate(right):
            answer = NASTY if n == 0 else f"Pier {n} costs {n if value else 99} euros and a lantern."
            question = f"What does pier {n} cost? {NASTY if n == 0 else ''}"
            row = {
                "arm": arm,
                "seed": 0,
                "id": ids[n],
                "question": question,
                "answer": answer,
                "marked": f"{answer} [1]",
            }
            rows.append({**row, "citations": [cited(n)] if arm == "rag" else []})
    write_scores(arms, folder.path / "trial" / "scores.json")
    (folder.path / "trial" / "answers.jsonl").write_text(
        "".join(json.dumps(value) + "\n" for value in rows), "utf-8"
    )
    stale = {
        "text": "4 questions.",
        "arms": [{"arm": "rag", "n": 4, "new_before": 0, "new_after": 3, "old_before": 3, "old_after": 0}],
    }
    questions = [Question(i, "?", (f"{n} euros", NASTY)) for n, i in enumerate(ids)]
    keep_staleness(folder.path, stale)
    data = written(folder, PLAN, questions)
    changed = {"before": 0.5, "after": 0.9, "difference": 0.4, "low": 0.1, "high": 0.6, "p": 0.01, "n": 10}
    data["guards"] |= {
        "forgetting": {
            "arms": [
                {
                    "arm": "lora",
                    "loss_before": 3.0,
                    "loss_after": 3.4,
                    "loss_interval": changed,
                    "followed_before": 0.5,
                    "followed_after": 0.4,
                    "n": 40,
                    "warned": True,
                    "text": NASTY,
                }
            ]
        },
        "refusal_drift": [
            {
                "arm": "lora",
                "against": "prompting",
                "unanswerable": changed,
                "answerable": None,
                "warned": False,
                "text": "",
            }
        ],
    }
    data["warnings"] = [f"lora has forgotten {NASTY}"]
    data["measured"]["training"] = {
        "rag": [
            {
                "seed": 0,
                "peak_gib": 4.0,
                "held_gib": 2.4,
                "own_gib": 1.4,
                "expected_gib": 1.25,
                "method": "lora",
            }
        ]
    }
    (folder.path / "report.html").write_text(
        render_page(report_from(data), RunRecords.read(folder, PLAN, questions)), "utf-8"
    )
    return folder.path / "report.html"


def shown(browser: Any) -> list[str]:
    return browser.js(
        "[...document.querySelectorAll('.question')].filter(q => q.offsetHeight).map(q => q.id)"
    )


def test_page_loads_nothing_and_runs_no_answer_text(browser: Any, page: Path) -> None:
    browser.open(page.as_uri())
    requests = [
        e["params"]["request"]["url"]
        for e in browser.events
        if e.get("method") == "Network.requestWillBeSent"
    ]
    assert requests == [page.as_uri()]
    assert not [e for e in browser.events if e.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown")]
    assert browser.js("window.ran") is None
    for text in (
        "clear change",
        "Read with care",
        "measured 1.40 GiB",
        "simple ways come first",
        "lora seed 1 validation",
        "Those of rag (seeds 0, 1) differ by 0.12.",
    ):
        assert browser.js(f"document.body.textContent.includes({json.dumps(text)})"), text
    assert browser.js("document.querySelectorAll('script').length") == 1
    assert browser.js("document.querySelectorAll('img, a[href^=javascript], iframe, link').length") == 0
    assert len(shown(browser)) == COUNT
    # The policy refuses a script that is not the page's own, even one put in by hand.
    browser.js(
        "(() => { const s = document.createElement('script'); s.textContent = 'window.ran = 9'; document.body.append(s) })()"
    )
    assert browser.js("window.ran") is None


def test_page_begins_with_right_answers_and_examples(browser: Any, page: Path) -> None:
    browser.open(page.as_uri())
    tiles = browser.js("[...document.querySelectorAll('.figures dt, .figures dd')].map(e => e.textContent)")
    assert tiles[0] == "right answers of rag"
    assert tiles[1].startswith("11 of 12 ")
    examples = browser.js(
        "[...document.querySelectorAll('.examples > div')].map(d => d.querySelectorAll('.example').length)"
    )
    assert examples == [3, 1]
    assert browser.js("[...document.querySelectorAll('#arms caption')][0].textContent").startswith(
        "right answers of 12"
    )
    assert browser.js("document.querySelector('#questions details[open]').parentElement.id") == "q-1"
    letters = browser.js("[...document.querySelectorAll('#q-2 .strip i')].map(i => [i.textContent, i.title])")
    assert letters == [["R", "rag: right, 1.00"], ["P", "prompting: wrong, 0.00"]]


def test_narrow_page_shows_every_column(browser: Any, page: Path) -> None:
    """At 380 pixels the tables of arms are stacked: no cell lies outside, and each has its title."""
    browser.open(page.as_uri(), 380)
    browser.js("document.querySelectorAll('details').forEach(d => { d.open = true })")
    cells = "[...document.querySelectorAll('table.stack td')]"
    assert browser.js(f"{cells}.length") >= 8
    assert browser.js(f"{cells}.filter(c => c.getBoundingClientRect().right > innerWidth).length") == 0
    assert browser.js(f"{cells}.filter(c => !c.dataset.title).length") == 0


def test_printed_pages_are_numbered(browser: Any, page: Path) -> None:
    browser.open(page.as_uri())
    printed = browser.call("Page.printToPDF", preferCSSPageSize=True)
    pages = PdfReader(io.BytesIO(base64.b64decode(printed["data"]))).pages
    for number, text in enumerate((sheet.extract_text() for sheet in pages), 1):
        assert re.search(rf"{number}\s*of\s*{len(pages)}", text), text


def test_loss_chart_has_a_line_for_each_seed(browser: Any, page: Path) -> None:
    browser.open(page.as_uri())
    points = browser.js(
        "[...document.querySelectorAll('#cost polyline')].map(l => l.getAttribute('points').split(' ')"
        ".map(p => +p.split(',')[0]))"
    )
    trained = [line for line in points if len(line) == 8]
    assert len(trained) == 2
    assert all(line == sorted(set(line)) for line in trained)


def test_question_filter(browser: Any, page: Path) -> None:
    browser.open(page.as_uri())
    fill = (
        "(name, value) => {{ const f = document.getElementById('filter').elements[name]; f.value = value; }}"
    )
    assert browser.js("document.getElementById('told').textContent") == f"{COUNT} of {COUNT} questions"

    def choose(**fields: str) -> list[str]:
        sets = "".join(f"set({json.dumps(k)}, {json.dumps(v)});" for k, v in fields.items())
        browser.js(
            f"{{ const set = {fill.replace('{{', '{').replace('}}', '}')}; {sets} "
            "document.getElementById('filter').dispatchEvent(new Event('input')) }"
        )
        return shown(browser)

    assert choose(text="pier 7 COST") == ["q-8"]
    assert choose(text="", arm="rag", show="wrong") == ["q-6"]
    assert len(choose(arm="prompting")) == COUNT
    assert choose(text="nowhere") == []
    assert browser.js("document.getElementById('none').offsetHeight") > 0
    assert len(choose(text="", arm="", show="all")) == COUNT
    browser.js("document.querySelector('[name=apart]').click()")
    assert "q-6" not in shown(browser)
    assert len(shown(browser)) == COUNT - 1


def test_filter_is_read_from_the_address(browser: Any, page: Path) -> None:
    browser.open("about:blank")
    browser.open(f"{page.as_uri()}#filter:text=pier+1&arm=rag&show=right")
    assert shown(browser) == ["q-2", "q-11", "q-12"]


def test_citation_opens_its_passage(browser: Any, page: Path) -> None:
    browser.open(page.as_uri())
    browser.js("document.querySelectorAll('.question details').forEach(d => { d.open = true })")
    browser.js("document.querySelector('#q-4 button.cite').click()")
    popover = browser.js("document.querySelector(':popover-open').textContent")
    assert "Pier 3 costs 3 euros." in popover
    assert "fares.md" in popover
    assert "lines 3–4" in popover
    assert "2026-01-02" in popover


@pytest.mark.parametrize("width", [380, 820, 1280])
def test_page_fits_every_width(browser: Any, page: Path, tmp_path: Path, width: int) -> None:
    for scheme in ("light", "dark"):
        browser.open(page.as_uri(), width, scheme)
        browser.js("document.querySelectorAll('details').forEach(d => { d.open = true })")
        assert browser.js("document.documentElement.scrollWidth") <= width
        browser.shoot(tmp_path / f"report-{width}-{scheme}.png")
        assert (tmp_path / f"report-{width}-{scheme}.png").stat().st_size > 20_000
    dark = browser.js("getComputedStyle(document.body).backgroundColor")
    assert sum(map(int, dark[4:-1].split(","))) < 120


def test_page_without_scripts_and_in_print(browser: Any, page: Path) -> None:
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    browser.open(page.as_uri())
    browser.call("Emulation.setScriptExecutionDisabled", value=False)
    assert len(shown(browser)) == COUNT
    assert browser.js("document.getElementById('filter').offsetHeight") == 0
    browser.open(page.as_uri())
    browser.call("Emulation.setEmulatedMedia", media="print", features=[])
    assert browser.js("document.getElementById('filter').offsetHeight") == 0
    assert browser.js("document.querySelector('nav').offsetHeight") == 0
    assert browser.js("document.querySelector('.paper').offsetHeight") > 0


def test_every_element_has_an_accessible_name(browser: Any, page: Path) -> None:
    browser.open(page.as_uri())
    unnamed = (
        "[...document.querySelectorAll('svg')].filter(s => !s.parentElement.closest('svg')"
        " && s.getAttribute('aria-hidden') !== 'true' && !s.getAttribute('aria-label')).length"
    )
    assert browser.js(unnamed) == 0
    assert browser.js("[...document.querySelectorAll('th')].filter(t => !t.scope).length") == 0
    assert (
        browser.js(
            "[...document.querySelectorAll('#filter input, #filter select')].filter(f => !f.labels.length).length"
        )
        == 0
    )
    ids = browser.js("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))
