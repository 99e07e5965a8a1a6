"""The page at / in a real browser: asked, streamed, side by side, with passages that open, and nothing from elsewhere."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from runners.serving.http.app import index_page

HERON = "How many berths has the Heron Pier?"
NASTY = "<img src=x onerror=window.ran=1><script>window.ran=2</script> berths of the Heron Pier"


def wait(browser: Any, code: str) -> Any:
    """Wait until an expression of the page is true."""
    for _ in range(2400):
        if found := browser.js(code):
            return found
        time.sleep(0.05)
    raise AssertionError(f"never true: {code}\n{browser.js('document.body.innerText')}")


def ask(browser: Any, question: str, left: str, right: str = "") -> None:
    """Fill the form in and send it; wait for every column to be done."""
    wait(browser, "document.querySelectorAll('#left option').length > 4")
    for field, value in (("question", question), ("left", left), ("right", right)):
        browser.js(f"document.getElementById('{field}').value = {json.dumps(value)}; 0")
    browser.js("document.getElementById('ask').requestSubmit()")
    columns = 2 if right else 1
    wait(
        browser,
        f"document.querySelectorAll('.columns:nth-of-type(1) .column[data-done]').length == {columns}",
    )


@pytest.fixture
def opened(browser: Any, served: Any) -> Any:
    """The page, open."""
    browser.open(f"{served.url}/")
    return browser


def test_two_arms_answer_side_by_side_and_nothing_comes_from_elsewhere(
    opened: Any, served: Any, tmp_path: Path
) -> None:
    ask(opened, HERON, "lora", "rag")
    heads = opened.js("[...document.querySelectorAll('.column h2')].map(e => e.textContent)")
    assert heads == ["lora", "rag"]
    with served.client() as http:
        for place, arm in enumerate(heads):
            body = {"model": arm, "messages": [{"role": "user", "content": HERON}]}
            expected = http.post("/v1/chat/completions", json=body).json()["choices"][0]["message"]["content"]
            assert opened.js(f"document.querySelectorAll('.said')[{place}].textContent") == expected
    asked = {
        e["params"]["request"]["url"] for e in opened.events if e.get("method") == "Network.requestWillBeSent"
    }
    assert {url for url in asked if not url.startswith((f"{served.url}/", "data:"))} == set()
    assert f"{served.url}/v1/chat/completions" in asked
    assert not [e for e in opened.events if e.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown")]
    opened.shoot(tmp_path / "ask.png")
    assert (tmp_path / "ask.png").stat().st_size > 10_000


def test_what_is_said_is_text_and_the_policy_holds(opened: Any) -> None:
    ask(opened, NASTY, "rag", "model")
    assert opened.js("window.ran") is None
    assert opened.js("document.querySelectorAll('main img, main script').length") == 0
    opened.js(
        "(() => { const s = document.createElement('script'); s.textContent = 'window.ran = 9'; document.body.append(s) })()"
    )
    assert opened.js("window.ran") is None


def test_a_refusal_says_so_and_a_passage_opens_with_what_stands_around_it(opened: Any, served: Any) -> None:
    ask(opened, "Who owns the moon?", "rag")
    assert "the documents do not hold an answer" in opened.js("document.querySelector('.column').innerText")
    with served.client() as http:
        found = http.post("/v1/search", json={"query": HERON, "k": 1}).json()
    hit = found["hits"][0]
    place = [hit["doc"], hit["char_start"], hit["char_end"], found["generation"], "quote"]
    opened.js(f"open(...{json.dumps(place)}); 0")
    wait(opened, "document.getElementById('passage').open")
    assert opened.js("document.getElementById('span').textContent") == hit["text"]
    assert "# Heron Pier" in opened.js("document.getElementById('before').textContent")
    opened.js("document.querySelector('#passage button').click()")
    assert opened.js("document.getElementById('passage').open") is False
    place[3] = 99
    opened.js(f"open(...{json.dumps(place)}); 0")
    wait(opened, "document.getElementById('after').textContent.includes('updated')")
    assert opened.js("document.getElementById('span').textContent") == "quote"


def test_a_citation_is_a_button_that_opens_its_passage(opened: Any, served: Any) -> None:
    wait(opened, "document.querySelectorAll('#left option').length > 4")
    with served.client() as http:
        found = http.post("/v1/search", json={"query": HERON, "k": 1}).json()
    hit = found["hits"][0]
    cited = {
        "n": 1,
        "doc": hit["doc"],
        "page": None,
        "line_start": 3,
        "line_end": 3,
        "char_start": hit["char_start"],
        "char_end": hit["char_end"],
        "quote": hit["text"],
        "supported": True,
        "expired": False,
    }
    ours = {"searched": {"generation": found["generation"]}, "citations": [cited], "seconds": 0.1}
    told = json.dumps(ours)
    opened.js(
        "{ const column = document.createElement('section'), said = document.createElement('div');"
        " column.className = 'column'; said.className = 'said'; column.append(said);"
        " document.getElementById('answers').append(column);"
        f" marked(said, 'It has 27. [1] Aye [2]', {told}); below(column, {told}); }}"
    )
    assert opened.js("document.querySelectorAll('.cite').length") == 1
    opened.js("document.querySelector('.cite').click()")
    wait(opened, "document.getElementById('span').textContent.length > 5")
    assert opened.js("document.getElementById('span').textContent") == hit["text"]


@pytest.mark.parametrize("width", [380, 1280])
def test_no_width_scrolls_sideways(browser: Any, served: Any, tmp_path: Path, width: int) -> None:
    for scheme in ("light", "dark"):
        browser.open(f"{served.url}/", width, scheme)
        ask(browser, HERON, "hybrid", "prompting")
        assert browser.js("document.documentElement.scrollWidth") <= width
        browser.shoot(tmp_path / f"ask-{width}-{scheme}.png")
    unnamed = "[...document.querySelectorAll('textarea, select')].filter(f => !f.labels.length).length"
    assert browser.js(unnamed) == 0


def test_the_page_names_its_own_style_and_script_and_nothing_else() -> None:
    text, headers = index_page()
    policy = headers["Content-Security-Policy"]
    assert policy.count("'sha256-") == 2
    assert "unsafe" not in policy
    assert "http" not in text.replace("http-equiv", "")
