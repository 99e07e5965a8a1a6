"""The page at / in a real browser: answers side by side, cited passages, and no requests to other hosts."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from runners.serving.http.app import index_page
from tests.support.limits import HANG_S

HERON = "How many berths has the Heron Pier?"
NASTY = "<img src=x onerror=window.ran=1><script>window.ran=2</script> berths of the Heron Pier"


def wait(browser: Any, code: str) -> Any:
    """Wait until an expression of the page is true."""
    until = time.monotonic() + HANG_S
    while time.monotonic() < until:
        if value := browser.js(code):
            return value
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
def page(browser: Any, served: Any) -> Any:
    """A browser with the page open."""
    browser.open(f"{served.url}/")
    return browser


def test_two_arms_answer_side_by_side_without_external_requests(
    page: Any, served: Any, tmp_path: Path
) -> None:
    ask(page, HERON, "lora", "rag")
    headings = page.js("[...document.querySelectorAll('.column h2')].map(e => e.textContent)")
    assert headings == ["lora", "rag"]
    with served.client() as http:
        for index, arm in enumerate(headings):
            body = {"model": arm, "messages": [{"role": "user", "content": HERON}]}
            expected = http.post("/v1/chat/completions", json=body).json()["choices"][0]["message"]["content"]
            assert page.js(f"document.querySelectorAll('.said')[{index}].textContent") == expected
    requested = {
        e["params"]["request"]["url"] for e in page.events if e.get("method") == "Network.requestWillBeSent"
    }
    assert {url for url in requested if not url.startswith((f"{served.url}/", "data:"))} == set()
    assert f"{served.url}/v1/chat/completions" in requested
    assert not [e for e in page.events if e.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown")]
    page.shoot(tmp_path / "ask.png")
    assert (tmp_path / "ask.png").stat().st_size > 10_000


def test_answers_are_shown_as_text_and_scripts_are_blocked(page: Any) -> None:
    ask(page, NASTY, "rag", "model")
    assert page.js("window.ran") is None
    assert page.js("document.querySelectorAll('main img, main script').length") == 0
    page.js(
        "(() => { const s = document.createElement('script'); s.textContent = 'window.ran = 9'; document.body.append(s) })()"
    )
    assert page.js("window.ran") is None


def test_refusal_is_marked_and_passage_opens_with_its_context(page: Any, served: Any) -> None:
    ask(page, "Who owns the moon?", "rag")
    assert "the documents have no answer" in page.js("document.querySelector('.column').innerText")
    with served.client() as http:
        results = http.post("/v1/search", json={"query": HERON, "k": 1}).json()
    hit = results["hits"][0]
    span = [hit["doc"], hit["char_start"], hit["char_end"], results["generation"], "quote"]
    page.js(f"open(...{json.dumps(span)}); 0")
    wait(page, "document.getElementById('passage').open")
    assert page.js("document.getElementById('span').textContent") == hit["text"]
    assert "# Heron Pier" in page.js("document.getElementById('before').textContent")
    page.js("document.querySelector('#passage button').click()")
    assert page.js("document.getElementById('passage').open") is False
    span[3] = 99
    page.js(f"open(...{json.dumps(span)}); 0")
    wait(page, "document.getElementById('after').textContent.includes('updated')")
    assert page.js("document.getElementById('span').textContent") == "quote"


def test_citation_button_opens_its_passage(page: Any, served: Any) -> None:
    wait(page, "document.querySelectorAll('#left option').length > 4")
    with served.client() as http:
        results = http.post("/v1/search", json={"query": HERON, "k": 1}).json()
    hit = results["hits"][0]
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
    extra = {"searched": {"generation": results["generation"]}, "citations": [cited], "seconds": 0.1}
    extra_json = json.dumps(extra)
    page.js(
        "{ const column = document.createElement('section'), said = document.createElement('div');"
        " column.className = 'column'; said.className = 'said'; column.append(said);"
        " document.getElementById('answers').append(column);"
        f" showCitations(said, 'It has 27. [1] Aye [2]', {extra_json}); showDetails(column, {extra_json}); }}"
    )
    assert page.js("document.querySelectorAll('.cite').length") == 1
    beside = {**extra, "beside": True, "citations": [{**cited, "supported": False, "support": "beside"}]}
    page.js(
        "{ const column = document.createElement('section'), said = document.createElement('div');"
        " said.className = 'said'; said.textContent = 'Aye'; column.append(said); column.id = 'beside';"
        f" document.getElementById('answers').append(column); showDetails(column, {json.dumps(beside)}); }}"
    )
    shown = page.js("document.getElementById('beside').textContent")
    assert "says this, but it seems not to be what was asked: “" in shown
    assert "what it cites seems not to be what was asked · 0.1 s" in shown
    assert page.js("document.querySelectorAll('#beside li.doubt').length") == 1
    page.js("document.querySelector('.cite').click()")
    wait(page, "document.getElementById('span').textContent.length > 5")
    assert page.js("document.getElementById('span').textContent") == hit["text"]


@pytest.mark.parametrize("width", [380, 1280])
def test_page_fits_every_width_and_labels_its_fields(
    browser: Any, served: Any, tmp_path: Path, width: int
) -> None:
    for scheme in ("light", "dark"):
        browser.open(f"{served.url}/", width, scheme)
        ask(browser, HERON, "hybrid", "prompting")
        assert browser.js("document.documentElement.scrollWidth") <= width
        browser.shoot(tmp_path / f"ask-{width}-{scheme}.png")
    unnamed = "[...document.querySelectorAll('textarea, select')].filter(f => !f.labels.length).length"
    assert browser.js(unnamed) == 0


def test_content_security_policy_allows_only_own_style_and_script() -> None:
    text, headers = index_page("desk")
    policy = headers["Content-Security-Policy"]
    assert policy.count("'sha256-") == 2
    assert "unsafe" not in policy
    assert "http" not in text.replace("http-equiv", "")


def test_page_names_its_run_and_escapes_it() -> None:
    text, headers = index_page("<b>Desk</b> & Co", "answers 'guests'")
    assert "<h1>&lt;b&gt;Desk&lt;/b&gt; &amp; Co</h1>" in text
    assert "answers &#x27;guests&#x27;" in text
    assert headers == index_page("another")[1]
