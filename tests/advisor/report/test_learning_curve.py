"""The page of several arms on one axis, in a browser: told apart without colour, readable in both themes and narrow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from advisor.report.learning_curve import arms_page, arms_section

ARMS = ("few-shot", "classifier", "nearest-reply", "lora", "hybrid", "full", "naive <stack>")
SIZES = (25, 100, 400)


def curve_of_arms() -> dict[str, Any]:
    """Return what ``curve --json`` prints of seven arms."""

    def point(number: int, at: int) -> dict[str, Any]:
        score = 0.3 + 0.05 * number + 0.1 * at
        return {
            "n": SIZES[at],
            "score": score,
            "low": score - 0.1,
            "high": score + 0.1,
            "right": 60.0,
            "of": 100,
        }

    return {
        "name": "desk",
        "sizes": list(SIZES),
        "seeds": [0],
        "questions": {"n": 100, "part": "dev"},
        "arms": [
            {"arm": arm, "points": [point(number, at) for at in range(len(SIZES))], "folder": f"c/{arm}"}
            for number, arm in enumerate(ARMS)
        ],
        "crossings": {
            "leaders": [{"n": n, "arm": ARMS[-1] if n == 400 else None} for n in SIZES],
            "sentences": ["lora scored highest with 400 rows."],
        },
        "warnings": ["router is not measured: why"],
        "folder": "c",
        "text": "lora scored highest with 400 rows.",
    }


@pytest.fixture
def page(tmp_path: Path) -> Path:
    file = tmp_path / "curve.html"
    file.write_text(arms_page(curve_of_arms()), "utf-8")
    return file


def test_page_of_several_arms(browser: Any, page: Path, tmp_path: Path) -> None:
    for width in (380, 1280):
        for scheme in ("light", "dark"):
            browser.open(page.as_uri(), width, scheme)
            assert browser.js("document.documentElement.scrollWidth") <= width
            browser.shoot(tmp_path / f"curve-{width}-{scheme}.png")
    assert not [e for e in browser.events if e.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown")]
    legend = browser.js("[...document.querySelectorAll('.legend li')].map(l => l.textContent.trim())")
    assert legend == list(ARMS)
    styles = browser.js(
        "[...document.querySelectorAll('.legend li')].map(l => [getComputedStyle(l.querySelector('line'))"
        ".strokeDasharray, l.querySelector('path').getAttribute('d')].join())"
    )
    assert len(set(styles)) == len(ARMS)  # without colour
    drawn = "[...document.querySelectorAll('.area line.error, .area polyline, .area path')]"
    assert browser.js(f"{drawn}.length") == len(ARMS) * (2 * len(SIZES) + 1)
    ground = browser.js("getComputedStyle(document.body).backgroundColor")
    assert ground not in browser.js(f"{drawn}.map(e => getComputedStyle(e).stroke)")
    cells = browser.js("[...document.querySelectorAll('tbody tr')].map(r => r.cells.length)")
    assert cells == [1 + len(ARMS)] * len(SIZES)
    assert (
        browser.js("document.querySelector('tbody tr:last-child td:last-child .n').textContent") == "0.800*"
    )


def test_links_are_of_the_page_only() -> None:
    """The report may be opened without the folder of its curves."""
    data = curve_of_arms()
    assert '<a href="naive%20%3Cstack%3E/curve.html">naive &lt;stack&gt;</a>' in arms_page(data)
    assert "<a " not in arms_section(data)
